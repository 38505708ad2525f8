"""nginx-example/fleet-demo.sh, as anybody would run it."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tools import ROOT

DEMO = ROOT / "nginx-example" / "fleet-demo.sh"


def left() -> set[Path]:
    return set(Path("/tmp").glob("mtls-sidecar-fleet-demo.*"))


def test_it_checks_itself_and_leaves_nothing() -> None:
    """Publish, revoke everywhere, kill the server, go on: each line is as it says."""
    before = left()
    done = subprocess.run(
        ["sh", DEMO, "--check"], capture_output=True, text=True, timeout=300, check=False
    )
    print(done.stdout, done.stderr)
    assert done.returncode == 0
    assert done.stdout.endswith("all as expected\n")
    assert done.stdout.count("\nok   ") + done.stdout.startswith("ok   ") == 8
    assert left() <= before


def test_an_unknown_argument_is_refused() -> None:
    """With its name, and exit code 2."""
    done = subprocess.run(["sh", DEMO, "--chekc"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "--chekc" in done.stderr

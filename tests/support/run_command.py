"""Run `mtls-sidecar` beside a policy, as an operator types it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from daemon import ROOT


def command(place: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command in a directory that holds policy.yaml."""
    return subprocess.run(
        [sys.executable, "-m", "sidecar", *arguments, "--policy", "policy.yaml"],
        cwd=place,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )

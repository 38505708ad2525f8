"""`replay`: lines of the decision log a minute, of 200 clients at 4 locations."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from daemon import Daemon, question
from pki import CA

LINES = 1_000_000
CLIENTS, LOCATIONS = 200, 4
HERE = Path(__file__).resolve().parent


def log_of(directory: Path, staff: CA) -> list[str]:
    """The lines of every client at every location, as a daemon writes them, without the time."""
    names = ", ".join(f"client-{n}" for n in range(0, CLIENTS, 2))
    policy = "version: 1\ntrust: {staff: {ca: ca.crt}}\nlocations:\n" + "".join(
        f"  - {{name: l{n}, allow: [{{cn: [{names}]}}]}}\n" for n in range(LOCATIONS)
    )
    settings = f"decision_log_file: {directory / 'd.log'}\nlimits: {{logged_denials: 100000}}\n"
    certs = directory / "certs"
    certs.mkdir()
    with Daemon(directory, policy, settings, ca_crt=staff.pem) as daemon, daemon.client() as client:
        for n in range(CLIENTS):
            leaf = staff.issue(f"client-{n}")
            (certs / f"{n}.crt").write_bytes(leaf.pem)
            for location in range(LOCATIONS):
                headers = {"X-Request-ID": f"{n * LOCATIONS + location:032x}"}
                client.send(question(f"l{location}", leaf, headers))
                assert client.receive() is not None
    lines = (directory / "d.log").read_text().splitlines(keepends=True)
    return [line for line in lines if re.match(r"\S+ ", line)]


def main() -> None:
    """Measure and append to the results."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        lines, begin = log_of(directory, CA("Staff")), datetime.now(UTC)
        assert len(lines) >= CLIENTS * LOCATIONS // 2
        with (directory / "long.log").open("w") as log:
            for n in range(LINES):
                at = begin + timedelta(milliseconds=7 * n)
                stamp = f"{at:%Y-%m-%dT%H:%M:%S}.{at.microsecond // 1000:03}Z"
                log.write(f"{stamp} {lines[n % len(lines)].partition(' ')[2]}")
        command = [sys.executable, "-m", "sidecar", "replay", "long.log", "--certs", "certs"]
        start = time.monotonic()
        done = subprocess.run(
            [*command, "--policy", "policy.yaml"],
            cwd=directory,
            capture_output=True,
            text=True,
            check=False,
        )
        took = time.monotonic() - start
    assert done.returncode == 0, done.stdout[:1000] + done.stderr
    told = done.stdout.splitlines()[-1]
    text = (
        f"\n## replay\n\n{LINES:,} lines of {CLIENTS} clients at {LOCATIONS} locations: {took:.1f} s, "
        f"{LINES / took * 60 / 1e6:.1f} million lines a minute ({told}).\n"
    )
    print(text)
    with (HERE / "results.md").open("a") as file:
        file.write(text)


if __name__ == "__main__":
    main()

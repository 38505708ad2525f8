"""Run `mtls-sidecar` beside a policy, as an operator types it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from daemon import ROOT


def command(
    place: Path,
    *arguments: str,
    stderr: int = subprocess.PIPE,
    env: Mapping[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run a command in a directory that holds policy.yaml."""
    return subprocess.run(
        [sys.executable, "-m", "sidecar", *arguments, "--policy", "policy.yaml"],
        cwd=place,
        stdout=subprocess.PIPE,
        stderr=stderr,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT), **(env or {})},
    )

"""Run `mtls-sidecar` beside a policy, as an operator types it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

from forked import mtls_sidecar


def command(
    place: Path,
    *arguments: str,
    stderr: int | None = None,
    env: Mapping[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run a command in a directory that holds policy.yaml."""
    env = {**os.environ, **(env or {})}
    return mtls_sidecar(*arguments, "--policy", "policy.yaml", cwd=place, env=env, stderr=stderr)

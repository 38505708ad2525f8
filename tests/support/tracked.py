"""The files of this project, as git knows them."""

from __future__ import annotations

import subprocess
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@cache
def tracked() -> list[Path]:
    """The files in git, or without git all that an archive brought."""
    git = ["git", "-c", f"safe.directory={ROOT}", "ls-files", "-z"]
    try:
        done = subprocess.run(git, cwd=ROOT, capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout, or no git")
    names = done.stdout.decode().split("\0")
    return [path for name in names if name and (path := ROOT / name).is_file()]

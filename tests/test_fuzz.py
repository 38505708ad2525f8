"""The fuzz targets, briefly: a second each with a seed that is printed where it finds something."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest

FUZZ = Path(__file__).parent / "fuzz" / "fuzz.py"
TARGETS = ["wire", "certificate", "policy", "crl", "denylist"]


@pytest.mark.parametrize("target", TARGETS)
def test_hostile_bytes_are_answered_or_refused(target: str) -> None:
    """No mutated input raises anything but the refusal that its reader promises."""
    seed = str(random.randrange(2**32))
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", FUZZ, target, "1.5", seed],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]

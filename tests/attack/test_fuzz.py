"""The fuzz targets, briefly, with a seed that is printed where something is found."""

from __future__ import annotations

import importlib.util
import random
import re
import subprocess
import sys
from pathlib import Path

import pytest
from locks import LOCKS, locked
from packaging.markers import Marker

FUZZ = Path(__file__).parent / "fuzz" / "fuzz.py"
TARGETS = ["wire", "certificate", "policy", "crl", "denylist", "ocsp", "uri"]
INPUTS = "4000x"

# Runs fuzz.py as a Python that has no atheris would.
BARE = """
import runpy, sys
sys.modules["atheris"] = None
sys.argv.pop(0)
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def said(where: Path, *command: str | Path) -> str:
    """What fuzzing 4,000 inputs prints; it must end well."""
    python = [sys.executable, "-W", "ignore::DeprecationWarning"]
    seed = str(random.randrange(1, 2**32))
    done = subprocess.run(
        [*python, *command, INPUTS, seed], cwd=where, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stderr


@pytest.mark.parametrize("target", TARGETS)
def test_hostile_bytes_are_answered_or_refused(target: str, tmp_path: Path) -> None:
    """No mutated input raises anything but the refusal that its reader promises."""
    printed = said(tmp_path, FUZZ, target)
    if importlib.util.find_spec("atheris") is None:
        assert printed.startswith("by chance")
        return
    assert printed.startswith("by coverage")
    # The places reached in instrumented code; uninstrumented there would be a handful.
    assert max(map(int, re.findall(r" cov: (\d+)", printed))) > 50


def test_without_atheris_chance_decides(tmp_path: Path) -> None:
    """A Python that atheris has no wheel for mutates at random, and says so."""
    printed = said(tmp_path, "-c", BARE, FUZZ, "wire")
    assert printed.startswith("by chance")
    assert "4000 inputs" in printed


def test_atheris_is_here_where_it_has_wheels() -> None:
    """Linux on x86-64 with CPython 3.11 to 3.13 gets it; others are not asked for it."""
    entry = locked(LOCKS["tests"])["atheris"][1]
    marker = Marker(re.sub(r".*?;|\\.*", "", entry.splitlines()[0]))
    assert marker.evaluate() == (importlib.util.find_spec("atheris") is not None)
    for other in (
        {"python_full_version": "3.14.0", "python_version": "3.14"},
        {"platform_machine": "aarch64"},
        {"sys_platform": "darwin"},
        {"platform_python_implementation": "PyPy"},
    ):
        assert not marker.evaluate(other)

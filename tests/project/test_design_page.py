"""docs/design.md names each module of `doctor`, and none that isn't there."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_map_of_doctor_is_whole() -> None:
    """Each module has its place in the table."""
    page = (ROOT / "docs" / "design.md").read_text()
    table = page.partition("## The modules of `doctor`")[2].partition("\n## ")[0]
    rows = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    named = [name for row in rows for name in re.findall(r"`(\w+)`", row)]
    there = {path.stem for path in (ROOT / "sidecar/commands/doctor").glob("*.py")}
    assert sorted(named) == sorted(there - {"__init__"})

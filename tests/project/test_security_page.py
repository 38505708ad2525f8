"""docs/security.md names a test for what it says, and no finding or test that isn't there."""

from __future__ import annotations

import re
from pathlib import Path

from sidecar.commands.doctor.findings import FINDING_KINDS

TESTS = Path(__file__).parents[1]
PAGE = (TESTS.parent / "docs" / "security.md").read_text()
NAMED = re.compile(r"`((?:attack|browser|conformance|nginx|process|project|systemd|unit)/[^`]+)`")


def section(title: str) -> str:
    return re.split(rf"(?m)^## {re.escape(title)}$", PAGE)[1].split("\n## ")[0]


def rows(text: str) -> list[list[str]]:
    """The rows of its tables, without headings."""
    lines = [line for line in text.splitlines() if line[:1] == "|"]
    headings = {at for i, line in enumerate(lines) if line[:5] == "| ---" for at in (i - 1, i)}
    return [line.strip("| ").split(" | ") for i, line in enumerate(lines) if i not in headings]


def test_every_test_that_is_named_is_there() -> None:
    """Renaming a test doesn't leave a claim without one."""
    named = NAMED.findall(PAGE)
    assert len(named) > 100
    assert [each for each in named if not (TESTS / each).exists()] == []


def test_every_attack_names_its_test() -> None:
    """The last cell of each row has a test file."""
    attacks = rows(section("Attacks, what happens, and the test that shows it"))
    assert len(attacks) > 80
    assert [cells[0] for cells in attacks if not NAMED.search(cells[-1])] == []


def test_every_finding_is_listed_as_it_is() -> None:
    """Each kind of doctor's findings, and its severity."""
    listed = {
        name: cells[1]
        for cells in rows(section("Is nginx's own configuration right?"))
        for name in re.findall(r"`([a-z0-9-]+)`", cells[0])
    }
    assert listed == {name: str(kind.severity) for name, kind in FINDING_KINDS.items()}

"""docs/operations.md tells of each line that a process logs what it means."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LEVELS = {"info", "warning", "error", "exception", "critical"}
PLACEHOLDER = re.compile(r"%[-.\d]*[sdf]")


def calls(tree: ast.AST) -> Iterator[ast.Call]:
    """Every call of a method."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args:
            yield node


def logged(path: Path) -> Iterator[str]:
    """The texts that a module logs; `…` stands for what is filled in."""
    text = path.read_text()
    if "log." not in text and ".report(" not in text:  # most modules: parsing takes long
        return
    for call in calls(ast.parse(text)):
        assert isinstance(call.func, ast.Attribute)
        first = call.args[0]
        if call.func.attr in LEVELS and ast.unparse(call.func.value) == "log":
            if isinstance(first, ast.Constant):
                yield PLACEHOLDER.sub("…", str(first.value))
        elif call.func.attr == "report":  # a condition's name
            yield (
                "".join(
                    str(part.value) if isinstance(part, ast.Constant) else "…"
                    for part in (first.values if isinstance(first, ast.JoinedStr) else [first])
                )
                + ":"
            )


def lines() -> list[str]:
    """All of them that say more than what is filled in."""
    found = {text for path in (ROOT / "sidecar").rglob("*.py") for text in logged(path)}
    return sorted(text for text in found if re.search(r"[a-z]{2}", text))


def cells() -> list[str]:
    """What stands in the first column of a table of the page, without backticks."""
    text = (ROOT / "docs/operations.md").read_text()
    return [each.replace("`", "") for each in re.findall(r"(?m)^\| (.*?) \|", text)]


def is_told(text: str, told: list[str]) -> bool:
    """Whether a cell has the text, something else in place of what is filled in."""
    begins = re.sub("(: …+)+$", "", text.replace("`", "").partition(":\n")[0])
    pattern = re.compile(".+".join(map(re.escape, re.split("…+", begins))))
    return any(pattern.search(each) for each in told)


@pytest.mark.parametrize("text", lines())
def test_each_line_of_the_log_is_in_operations(text: str) -> None:
    """Whatever the daemon, the fetcher, enrolment and the fleet's processes log by themselves."""
    assert is_told(text, cells())


def test_the_lines_are_found() -> None:
    """In calls of the log, and as names of conditions; what isn't told is missed."""
    found = lines()
    assert "a reload failed" in found
    assert "trust …:" in found
    assert "mtls-sidecar … serving …, policy …" in found
    assert not is_told("a line that no process logs", cells())
    assert not is_told("a reload failed", ["a reload"])

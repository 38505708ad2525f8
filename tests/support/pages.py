"""The project's documents taken apart: fenced blocks, tables, headings and links."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

_FENCE = re.compile(
    r"^(?P<indent> *)```(?P<info>[^\n`]*)\n(?P<text>.*?)^(?P=indent)```$", re.MULTILINE | re.DOTALL
)
_CODE = re.compile(r"(`+)(.+?)\1")


@dataclass(frozen=True)
class Block:
    """One fenced block: its page, the line of its opening fence, its language and its text."""

    page: Path
    line: int
    language: str
    title: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


@dataclass(frozen=True)
class Row:
    """One row of a table: its cells by the text of their column's heading."""

    page: Path
    line: int
    cells: dict[str, str]

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def pages() -> list[Path]:
    """Every document of the project."""
    folders = (ROOT, ROOT / "docs", ROOT / "nginx-example")
    return sorted(page for folder in folders for page in folder.glob("*.md"))


def blocks(page: Path) -> Iterator[Block]:
    """The fenced blocks of a page, in order."""
    text = page.read_text()
    for found in _FENCE.finditer(text):
        language, _, more = found["info"].partition(" ")
        title = re.search(r'title="([^"]*)"', more)
        body = re.sub(rf"(?m)^{found['indent']}", "", found["text"])
        line = text.count("\n", 0, found.start()) + 1
        yield Block(page, line, language, title[1] if title else "", body)


def prose(page: Path) -> str:
    """A page without its fenced blocks; every line keeps its number."""
    return _FENCE.sub(lambda found: "\n" * found[0].count("\n"), page.read_text())


def tables(page: Path) -> Iterator[list[Row]]:
    """The tables of a page, each as its rows."""
    rows: list[Row] = []
    heading: list[str] = []
    for number, line in enumerate([*prose(page).split("\n"), ""], 1):
        if not line.startswith("|"):
            if rows:
                yield rows
            rows, heading = [], []
        elif not heading:
            heading = _cells(line)
        elif not re.fullmatch(r"[|: -]+", line):
            cells = _cells(line)
            assert len(cells) == len(heading), f"{page}:{number}: {len(cells)} cells"
            rows.append(Row(page, number, dict(zip(heading, cells, strict=True))))


def _cells(line: str) -> list[str]:
    parts = re.split(r"(?<!\\)\|", line.strip().removeprefix("|").removesuffix("|"))
    return [part.strip().replace(r"\|", "|") for part in parts]


def code(cell: str) -> str:
    """The text of a cell that is one code span; any other cell as it is."""
    found = _CODE.fullmatch(cell)
    return found[2].strip() if found else cell


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub and the site make them."""
    found: set[str] = set()
    for heading in re.findall(r"(?m)^#+ +(.+?) *$", prose(page)):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        slug = re.sub(r"[^\w\- ]", "", plain.lower()).strip().replace(" ", "-")
        while slug in found:
            slug += "-1"
        found.add(slug)
    return found


def links(page: Path) -> Iterator[tuple[int, str]]:
    """The targets of a page's links, each with its line."""
    for number, line in enumerate(prose(page).split("\n"), 1):
        for target in re.findall(r"\]\(([^)\s]+)\)", _CODE.sub("", line)):
            yield number, target

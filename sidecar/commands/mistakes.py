"""Print mistakes for people: each with its line of the file, and a caret under its column."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from typing import TextIO

from sidecar.core.config.crl_place import SECRET
from sidecar.core.errors import Diagnostic, printable
from sidecar.runtime.files import MAX_POLICY, read_file

_SHOWN = 100
"""Most characters of a line that are shown."""

_RED, _CYAN, _BOLD, _PLAIN = "\x1b[31m", "\x1b[36m", "\x1b[1m", "\x1b[0m"


def show(mistakes: Iterable[Diagnostic], stream: TextIO, *, word: str = "") -> None:
    """Print them; `word` stands before each, as `warning`."""
    colour = coloured(stream, os.environ)
    lines = cache(_lines)
    for mistake in mistakes:
        print(_told(mistake, word, colour), file=stream)
        if mistake.line:
            for each in _pointed(mistake, lines(mistake.file), colour):
                print(each, file=stream)


def coloured(stream: TextIO, environment: Mapping[str, str]) -> bool:
    """Whether to write in colour: to a terminal, unless NO_COLOR is set (no-color.org)."""
    wanted = not environment.get("NO_COLOR") and environment.get("TERM", "dumb") != "dumb"
    return wanted and stream.isatty()


def _told(mistake: Diagnostic, word: str, colour: bool) -> str:
    before = f"{word}: " if word else ""
    if not colour:
        return f"{before}{mistake}"
    place = f"{mistake.file}:{mistake.line}:{mistake.column}" if mistake.line else mistake.file
    hint = f"; {_CYAN}{printable(mistake.hint)}{_PLAIN}" if mistake.hint else ""
    where = f"{_BOLD}{printable(place)}{_PLAIN}"
    return f"{before}{where}: {_RED}{printable(mistake.message)}{_PLAIN}{hint}"


def _lines(file: str) -> list[str]:
    """The lines of a file; none where it can't be read now."""
    try:
        return read_file(file, MAX_POLICY).decode("utf-8", "replace").split("\n")
    except (OSError, ValueError):
        return []


def _hidden(found: re.Match[str]) -> str:
    return "*" * (len(found[0]) - 1) + "@"


def _pointed(mistake: Diagnostic, lines: list[str], colour: bool) -> Iterator[str]:
    """The line, cut around the column, and the caret below it."""
    if mistake.line > len(lines) or not mistake.column:
        return
    line = SECRET.sub(_hidden, lines[mistake.line - 1].rstrip("\r").removeprefix("\ufeff"))
    at = min(mistake.column - 1, len(line))
    start = max(0, at - _SHOWN * 3 // 4)
    before = printable(line[start:at].replace("\t", " "))
    behind = printable(line[at : start + _SHOWN].replace("\t", " "))
    caret = f"{_RED}^{_PLAIN}" if colour else "^"
    margin = f"{mistake.line:>5} | "
    yield f"{margin}{before}{behind}"
    yield f"{' ' * (len(margin) - 2)}| {' ' * len(before)}{caret}"

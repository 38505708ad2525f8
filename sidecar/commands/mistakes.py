"""Print mistakes for people: each with its line of the file, and a caret under its column."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import TextIO

from sidecar.core.config.crl_place import SECRET
from sidecar.core.errors import Diagnostic, printable
from sidecar.runtime.files import MAX_POLICY, everyone_may_read, read_file

from .revoke.denylist_file import named_by

_SHOWN = 100
"""Most characters of a line that are shown."""

_RED, _CYAN, _BOLD, _PLAIN = "\x1b[31m", "\x1b[36m", "\x1b[1m", "\x1b[0m"


def show(
    mistakes: Iterable[Diagnostic], stream: TextIO, *, word: str = "", named_in: str = ""
) -> None:
    """Print them; `word` stands before each, as `warning`.

    `named_in` is the policy that names the other files.
    """
    colour = coloured(stream, os.environ)
    lines = cache(lambda file: _lines(file) if _may_show(file, named_in) else [])
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


def _may_show(file: str, named_in: str) -> bool:
    """Return whether a line of a file tells nobody what root alone may read.

    Whoever has had a say in which file it is, by a policy or a link, may be who sees the output.
    """
    try:
        others = named_by(Path(file), Path(named_in or file))
        return others <= {os.stat(file).st_uid} or everyone_may_read(file)
    except OSError:
        return False


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

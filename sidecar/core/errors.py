"""What is wrong with a file: where, what, and what to write instead.

One `Diagnostic` is one mistake.  Mistakes are collected, not thrown one by one: a reader of a
file gathers every diagnostic it can and raises them together as a `PolicyError`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class Diagnostic:
    """One mistake in one file.  `line` and `column` count from 1; 0 means the file as a whole."""

    file: str
    line: int
    column: int
    message: str
    hint: str = ""

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}:{self.column}" if self.line else self.file
        return printable(f"{place}: {self.message}" + (f"; {self.hint}" if self.hint else ""))


_BREAKING = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
"""Characters that end a line, move a terminal's cursor or turn the direction of writing."""


def printable(text: str) -> str:
    """The text on one line, harmless to whoever reads it: a name in it may be an attacker's."""
    return _BREAKING.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def brief(error: BaseException) -> str:
    """What an error of somebody else's code says, on one line, or at least its name."""
    return printable(" ".join(str(error).split())[:200]) or type(error).__name__


class PolicyError(Exception):
    """A policy, settings or data file can't be used.  Carries every diagnostic, in file order."""

    def __init__(self, diagnostics: Sequence[Diagnostic]) -> None:
        self.diagnostics = tuple(sorted(set(diagnostics)))
        super().__init__("\n".join(map(str, self.diagnostics)))


class MalformedCertificate(ValueError):
    """The bytes are not one readable X.509 certificate, or its names carry control characters."""

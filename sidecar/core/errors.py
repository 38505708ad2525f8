"""What is wrong with a file: where, what, and what to write instead.

One `Diagnostic` is one mistake.  Mistakes are collected, not thrown one by one: a reader of a
file gathers every diagnostic it can and raises them together as a `PolicyError`.
"""

from __future__ import annotations

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


def printable(text: str) -> str:
    """Escape every character that could end a line, move the cursor or turn the text direction.

    A name in the text may be an attacker's.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in text)


def brief(error: BaseException) -> str:
    """Shorten the message of a library's error to one line; use the class name if it is empty."""
    return printable(" ".join(str(error).split())[:200]) or type(error).__name__


class PolicyError(Exception):
    """A policy, settings or data file can't be used.  Carries every diagnostic, in file order."""

    def __init__(self, diagnostics: Sequence[Diagnostic]) -> None:
        self.diagnostics = tuple(sorted(set(diagnostics)))
        super().__init__("\n".join(map(str, self.diagnostics)))


class MalformedCertificate(ValueError):
    """The bytes are not one readable X.509 certificate, or its names carry control characters."""

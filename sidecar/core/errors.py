"""Report mistakes in a file: the place, the mistake, and what to write instead.

One `Diagnostic` is one mistake.  A reader of a file collects every diagnostic that it can, and
raises them together as one `PolicyError`.
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
    """Escape every character that could end a line, move the cursor or change the text direction.

    The text may contain a name that an attacker has chosen.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in text)


def error_text(error: BaseException) -> str:
    """Tell an error in words: `FILE: what is wrong`, or a message and what to write instead.

    Python's own text of an OSError has its number, and that of two arguments is a tuple.
    """
    if isinstance(error, OSError) and error.strerror:
        # A file that is written stands under a temporary name first; the second is its own.
        name = error.filename if error.filename2 is None else error.filename2
        return f"{name}: {error.strerror}" if name is not None else error.strerror
    if isinstance(error, ValueError) and not isinstance(error, UnicodeError):
        return "; ".join(map(str, error.args))
    return str(error)


def brief(error: BaseException) -> str:
    """Shorten the message of a library's error to one line; use the class name if it is empty."""
    return printable(" ".join(error_text(error).split())[:200]) or type(error).__name__


class PolicyError(Exception):
    """The file can't be used.  `diagnostics` holds every mistake, in file order.

    `file` is the one that names the other files with mistakes, if it is known.
    """

    file = ""

    def __init__(self, diagnostics: Sequence[Diagnostic]) -> None:
        self.diagnostics = tuple(sorted(set(diagnostics)))
        super().__init__("\n".join(map(str, self.diagnostics)))


class MalformedCertificate(ValueError):
    """The bytes are not one readable X.509 certificate, or its names carry control characters."""

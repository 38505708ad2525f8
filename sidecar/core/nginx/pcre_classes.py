"""The bytes of PCRE2's classes in the C locale, without UTF and UCP: how nginx uses PCRE."""

from __future__ import annotations

import string
from collections.abc import Iterable

ALL = frozenset(range(256))


def _of(text: str) -> frozenset[int]:
    return frozenset(text.encode())


UPPER, LOWER = _of(string.ascii_uppercase), _of(string.ascii_lowercase)
DIGIT = _of(string.digits)
ALPHA = UPPER | LOWER
WORD = ALPHA | DIGIT | _of("_")
SPACE = _of(" \t\n\v\f\r")
NOT_NEWLINE = ALL - _of("\n")

POSIX: dict[str, frozenset[int]] = {
    "alnum": ALPHA | DIGIT,
    "alpha": ALPHA,
    "ascii": frozenset(range(0x80)),
    "blank": _of(" \t"),
    "cntrl": frozenset([*range(0x20), 0x7F]),
    "digit": DIGIT,
    "graph": frozenset(range(0x21, 0x7F)),
    "lower": LOWER,
    "print": frozenset(range(0x20, 0x7F)),
    "punct": _of(string.punctuation),
    "space": SPACE,
    "upper": UPPER,
    "word": WORD,
    "xdigit": _of(string.hexdigits),
}

ESCAPES: dict[str, frozenset[int]] = {
    "d": DIGIT,
    "D": ALL - DIGIT,
    "w": WORD,
    "W": ALL - WORD,
    "s": SPACE,
    "S": ALL - SPACE,
}
"""Escapes that stand for a class, inside brackets and outside."""

CONTROLS = {"a": 0x07, "e": 0x1B, "f": 0x0C, "n": 0x0A, "r": 0x0D, "t": 0x09}
"""Escapes that stand for one control character, inside brackets and outside."""


def either_case(members: Iterable[int]) -> frozenset[int]:
    """Add the other case of each ASCII letter; bytes above 0x7f have no case."""
    found = set(members)
    return frozenset(found | {each ^ 0x20 for each in found & ALPHA})


def posix(name: str, *, ignore_case: bool) -> frozenset[int] | None:
    """Return the bytes of `[:name:]`; if case is ignored, `upper` and `lower` mean `alpha`."""
    return POSIX.get("alpha" if ignore_case and name in ("upper", "lower") else name)

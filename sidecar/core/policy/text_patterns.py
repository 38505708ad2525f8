"""Compile a pattern of a text, and prepare values for its comparison."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, NamedTuple

from .matching import PatternError, Predicate, compile_regex, glob


@dataclass(frozen=True, slots=True)
class Pattern:
    """One pattern.  It matches a value whose key is in `exact`, or with a text that `test` accepts.

    `refusing` is the pattern for refusing rules, if they compare differently.  `warnings` are
    reasons why the pattern may never match: each is a message and what to write instead.
    """

    text: str
    exact: tuple[Hashable, ...] = ()
    test: Predicate | None = None
    refusing: Pattern | None = None
    warnings: tuple[tuple[str, str], ...] = ()

    def on(self, refusing: bool) -> Pattern:
        """Return the pattern for refusing or for granting rules."""
        return self.refusing or self if refusing else self


class ComparedValue(NamedTuple):
    """A value prepared for comparison: keys for exact patterns, texts for other patterns."""

    keys: tuple[Hashable, ...]
    texts: tuple[Any, ...]


Reader = Callable[[Any], ComparedValue]


@dataclass(frozen=True, slots=True)
class KeyComparison:
    """The comparison for one rule key: how to parse patterns, and values for each side."""

    parse: Callable[[str], Pattern]
    grants: Reader
    refuses: Reader

    def reader(self, refusing: bool) -> Reader:
        """Return the function that prepares values for refusing or for granting rules."""
        return self.refuses if refusing else self.grants


def as_is(value: Any) -> ComparedValue:
    """Compare a value as it is."""
    return ComparedValue((value,), (value,))


def either(*tests: Predicate | None) -> Predicate:
    """Return whether one of several tests accepts a value."""
    return lambda value: any(test(value) for test in tests if test is not None)


_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")


def checked(text: str) -> str:
    """Return a pattern that has a text.  Raises `PatternError`."""
    if not text:
        raise PatternError("the pattern is empty", "write the value to match, or remove the key")
    if _CONTROL.search(text):
        raise PatternError(
            f"{text!r} has a control character, and certificates with one are refused", "remove it"
        )
    return text


def nfc(text: str) -> str:
    """Normalize text to Unicode's NFC, in which `é` has one spelling."""
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def text_warnings(text: str) -> tuple[tuple[str, str], ...]:
    """Return why a pattern of a text may never match."""
    found = []
    if text.startswith("~ "):
        found.append(("the blank after ~ is part of the expression", "remove it, or write ~[ ]"))
    elif not text.startswith("~") and text != text.strip(" "):
        found.append((f"{text!r} begins or ends with a blank", "remove it unless names have it"))
    if nfc(text) != text:
        found.append(
            (f"{text!r} isn't in Unicode's NFC, as most names are", f"write {nfc(text)!r}")
        )
    return tuple(found)


def compile_text(text: str) -> Pattern:
    """Compile a pattern of a text; refusing rules compare in NFC."""
    pattern = compared(checked(text), str)
    if text.isascii() or text.startswith("~"):
        return pattern
    return Pattern(
        text, pattern.exact, pattern.test, refusing=compared(text, nfc), warnings=pattern.warnings
    )


def compared(text: str, fold: Callable[[str], str], *, ignore_case: bool = False) -> Pattern:
    """Compile an exact text, a glob or a regular expression over values folded by `fold`."""
    warnings = text_warnings(text)
    if text.startswith("~"):
        return Pattern(
            text, test=compile_regex(text[1:], ignore_case=ignore_case), warnings=warnings
        )
    if "*" in text:
        return Pattern(text, test=glob(fold(text)), warnings=warnings)
    return Pattern(text, exact=(fold(text),), warnings=warnings)


def text_refused(value: str) -> ComparedValue:
    """Prepare a text for refusing rules."""
    if value.isascii():
        return ComparedValue((value,), (value,))
    folded = nfc(value)
    return ComparedValue((folded,), (folded,) if folded == value else (folded, value))

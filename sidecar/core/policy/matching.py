"""Compile regular expressions and globs to predicates that take linear time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import re2

Predicate = Callable[[Any], bool]


class PatternError(ValueError):
    """A pattern is invalid.  `args`: the mistake, and what to write instead."""


def _options(*, case_sensitive: bool) -> re2.Options:
    options = re2.Options()
    options.log_errors = False
    options.case_sensitive = case_sensitive
    return options


_AS_WRITTEN, _ANY_CASE = _options(case_sensitive=True), _options(case_sensitive=False)


def compile_regex(source: str, *, ignore_case: bool = False) -> Predicate:
    """Compile a predicate that is true if the whole value matches.  Raises `PatternError`."""
    if not source:
        raise PatternError("an empty regular expression", "write the expression after ~")
    try:
        compiled = re2.compile(source, _ANY_CASE if ignore_case else _AS_WRITTEN)
    except re2.error as error:
        why = error.args[0]
        why = why.decode("utf-8", "replace") if isinstance(why, bytes) else str(why)
        raise PatternError(
            f"bad regular expression: {why}",
            "write RE2 syntax (no look-around, no back-references)",
        ) from None
    return lambda value: compiled.fullmatch(value) is not None


def glob(source: str) -> Predicate:
    """Compile a predicate for text in which each `*` matches any number of characters."""
    if "*" not in source:
        return lambda value: bool(value == source)
    head, *middle, tail = source.split("*")

    def matches(value: str) -> bool:
        end = len(value) - len(tail)
        if end < len(head) or not (value.startswith(head) and value.endswith(tail)):
            return False
        at = len(head)
        for part in middle:
            at = value.find(part, at, end)
            if at < 0:
                return False
            at += len(part)
        return True

    return matches

"""Types of command-line arguments: each refuses what is out of range, and says what to write."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def parsed_by(parse: Callable[[str], T]) -> Callable[[str], T]:
    """A type of argument from a parser whose `ValueError` says what to write instead."""

    def parsed(text: str) -> T:
        try:
            return parse(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError("; ".join(map(str, error.args))) from None

    return parsed


def percentage(text: str) -> float:
    """Read a number from 0 to 100.  `nan` would pass each comparison with a limit."""
    return _number(text, 0, 100, "a percentage; write a number from 0 to 100")


def seconds(text: str) -> float:
    """Read a number of seconds, up to a year."""
    return _number(text, 0, 366 * 86400, "a number of seconds; write 60")


def sequence_number(text: str) -> int:
    """Read the number of an entry of the fleet's log."""
    if not (text.isascii() and text.isdecimal() and len(text) < 19):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not an entry's number; `mtls-sidecar fleet log` prints them"
        )
    return int(text)


def _number(text: str, least: float, most: float, expected: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not least <= value <= most:
        raise argparse.ArgumentTypeError(f"{text!r} is not {expected}")
    return value

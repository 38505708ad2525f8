"""Count what an action does, in place of the seconds that it takes."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any


def calls(action: Callable[[], object]) -> int:
    """How many functions an action calls, those written in C too."""
    count = 0

    def note(_: object, event: str, __: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(note)
    try:
        action()
    finally:
        sys.setprofile(None)
    return count


def lines(action: Callable[[], object]) -> int:
    """How many lines of Python an action runs, for loops that call nothing."""
    count = 0

    def note(_: FrameType, event: str, __: Any) -> Any:
        nonlocal count
        count += event == "line"
        return note

    before = sys.gettrace()
    sys.settrace(note)
    try:
        action()
    finally:
        sys.settrace(before)
    return count


def growth(make: Callable[[int], Callable[[], object]], size: int) -> float:
    """How many times as many calls the step from 2 to 4 times a size costs as that from 1 to 2.

    It is 2 where cost is linear, 4 where it is square.  `make` prepares an action for a size.
    """
    make(1)()  # what is read once for all
    one, two, four = (calls(make(size << doubled)) for doubled in range(3))
    return (four - two) / max(1, two - one)

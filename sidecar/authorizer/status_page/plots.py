"""Bars of the last hour, as numbers for inline SVG."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

HEIGHT = 40.0
"""Units of the drawing's height; a minute is one unit wide."""

LEAST = 1.5
"""Height of the smallest bar: one denial among thousands must be seen."""


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar: its left edge, top and height."""

    x: float
    y: float
    height: float


@dataclass(frozen=True, slots=True)
class Plot:
    """Bars of as many minutes; `peak` is the largest number, `total` their sum."""

    bars: tuple[Bar, ...]
    width: int
    peak: int
    total: int


def plot(numbers: Sequence[int], peak: int = 0) -> Plot:
    """The bars of some numbers, the last at the right; `peak` gives the scale, if larger."""
    top = max([peak, *numbers])
    bars = []
    for x, number in enumerate(numbers):
        if number > 0:
            height = max(LEAST, round(HEIGHT * number / top, 2))
            bars.append(Bar(x + 0.1, round(HEIGHT - height, 2), height))
    return Plot(tuple(bars), len(numbers), max(numbers, default=0), sum(numbers))

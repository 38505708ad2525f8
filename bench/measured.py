"""What was measured of a program: its rounds, its CPU time, and how a row shows them."""

from __future__ import annotations

import os
import statistics
from dataclasses import dataclass, field
from pathlib import Path

TICK = os.sysconf("SC_CLK_TCK")


@dataclass
class Measured:
    """One peer's rounds."""

    rate: list[float] = field(default_factory=list)
    p50: list[float] = field(default_factory=list)
    p99: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    own: list[float] = field(default_factory=list)
    rss: float = 0.0


def ticks(pids: list[int]) -> float:
    """CPU seconds that processes and their children have used."""
    total = 0.0
    for pid in pids:
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        total += (int(fields[11]) + int(fields[12])) / TICK
    return total


def family(pid: int) -> list[int]:
    children = Path(f"/proc/{pid}/task/{pid}/children")
    try:
        below = [int(child) for child in children.read_text().split()]
    except OSError:
        below = []
    return [pid, *(p for child in below for p in family(child))]


def spread(values: list[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f}-{max(values):.2f})"


def empty_logs(directory: Path) -> None:
    """Empty what was logged below a directory, so that nobody pays for another's writeback."""
    for path in directory.rglob("*"):
        if path.suffix in (".log", ".access") and path.is_file():
            os.truncate(path, 0)

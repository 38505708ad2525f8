"""Where the bench's programs are."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BENCH = ROOT / ".tools" / "bench"


class Skip(Exception):
    """The peer can't be had here; the argument says why."""

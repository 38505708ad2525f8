"""Follow the servers' log with one that was verified here, and notice that theirs is another."""

from __future__ import annotations

from sidecar.core.fleet.entry import Refused, parse_line

from .ledger import Ledger
from .nats_client import MOST_ENTRIES, Bus


async def catch_up(bus: Bus, ledger: Ledger) -> None:
    """Take what the servers have behind our last entry, a part at a time.

    Servers that answer without an end, with what is not to be taken, are asked no further.  Raises
    `Unreachable`, OSError.
    """
    while True:
        before = ledger.chain.sequence
        lines = await bus.entries(before + 1)
        ledger.take(lines)
        if len(lines) < MOST_ENTRIES or ledger.chain.sequence < before + len(lines):
            return


async def has_last(bus: Bus, ledger: Ledger) -> bool:
    """Whether the servers hold our last entry.  Raises `Unreachable`.

    A server of a cluster can be a moment behind: ask again before it is taken for set back.
    """
    chain = ledger.chain
    if not chain.sequence:
        return True
    line = await bus.entry(chain.sequence)
    try:
        return line is not None and parse_line(line).entry.hash == chain.hash
    except Refused:
        return False

"""The fleet's revocations, as the daemon keeps them: for commands that ask what it would decide."""

from __future__ import annotations

from pathlib import Path

from sidecar.core.config.fleet_settings import FleetSettings
from sidecar.core.fleet.chain import Chain
from sidecar.core.fleet.entry import Refused, parse_line
from sidecar.core.revocation.denylist import Denylist

from .fleet_log import LogReader
from .fleet_places import FleetPlaces, log_name


def fleet_denylists(fleet: FleetSettings, state_dir: Path) -> tuple[Denylist, ...]:
    """What the daemon's own log revokes.  Raises OSError where that can't be read."""
    chain = Chain(fleet.name, fleet.keys, fleet.epoch)
    replay(chain, FleetPlaces(state_dir).daemon / log_name(fleet.epoch))
    return (chain.denylist,)


def replay(chain: Chain, path: Path) -> str:
    """Take again what a log of our own holds, as far as it fits; why it ends before its end.

    Raises OSError.
    """
    for line in LogReader(path).new_lines():
        before = chain.sequence
        try:
            chain.accept(parse_line(line))
        except Refused as error:
            if chain.sequence == before:
                return error.detail
    return ""

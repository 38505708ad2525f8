"""Revocations that the daemon took once and can't verify now: what revokes is kept.

After an epoch begins anew, or keys are pinned that never signed the log in hand, its entries can't
be verified any more.  The daemon verified them when it wrote them into its own log; their
revocations count until a release of the present log is there.
"""

from __future__ import annotations

import logging
import math
import re
from pathlib import Path

from sidecar.core.config.fleet_settings import FleetSettings
from sidecar.core.fleet.bodies import Revocation, Undo, parse_body
from sidecar.core.fleet.entry import Refused, parse_line
from sidecar.core.revocation.denylist import Denylist, DenylistEntry, of_entries
from sidecar.runtime.fleet_log import LogReader
from sidecar.runtime.fleet_places import log_name

log = logging.getLogger("mtls-sidecar")


def put_aside(path: Path) -> Path:
    """Rename a log that can't be verified any more; its new name.  Raises OSError."""
    number = 1
    while (aside := path.with_name(f"{path.name}.old.{number}")).exists():
        number += 1
    path.rename(aside)
    return aside


def kept_revocations(own: Path, fleet: FleetSettings) -> Denylist | None:
    """Return what the daemon's logs of earlier epochs and keys revoke; None for nothing."""
    found: list[DenylistEntry] = []
    for path in sorted(own.glob("log.*")):
        epoch = re.fullmatch(r"log\.([0-9]{1,7})(\.old\.[0-9]+)?", path.name)
        if epoch is None or int(epoch[1]) > fleet.epoch or path.name == log_name(fleet.epoch):
            continue
        entries = _revocations(path)
        if entries:
            log.warning(
                "%s: %d revocations are kept that can't be verified now", path, len(entries)
            )
        found += entries
    return of_entries(f"fleet {fleet.name}, earlier", found) if found else None


def _revocations(path: Path) -> list[DenylistEntry]:
    found: dict[int, DenylistEntry] = {}
    for line in LogReader(path).new_lines():
        try:
            entry = parse_line(line).entry
            said = parse_body(entry)
        except Refused:
            continue
        if isinstance(said, Revocation):
            until = math.inf if said.not_after is None else float(said.not_after)
            found[said.sequence] = DenylistEntry(
                (said.kind, int(said.value, 16)), until, said.comment, path.name, said.sequence
            )
        elif isinstance(said, Undo):
            found.pop(said.sequence, None)
    return list(found.values())

"""Tell somebody of certificates that end soon, by a command of their own; never twice.

A notice is noted before the command runs and confirmed after it.  Where the process is cut off in
between, it may or may not have been given, and is not given again.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import dataclass

from sidecar.runtime.external_command import CommandFailed, run_command

from . import clients
from .clients import IssuedCertificate
from .durations import rfc3339
from .settings import NotifySettings
from .store import Store

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Notice:
    """One thing to tell: a certificate, and how long before its end it is told."""

    certificate: IssuedCertificate
    before: int

    def as_json(self, now: float) -> str:
        """What the command reads from stdin."""
        found = self.certificate
        return json.dumps(
            {
                "name": found.name,
                "device": found.device,
                "serial": found.serial,
                "sha256": found.sha256,
                "not_after": rfc3339(found.not_after),
                "days_left": int((found.not_after - now) // 86400),
                "before_seconds": self.before,
            }
        )


def due(store: Store, before: tuple[int, ...], now: float) -> list[Notice]:
    """List what is to be told now: of each certificate the shortest time that has come.

    A certificate that was renewed, or whose device has a later one, needs no notice.
    """
    with store.reading() as connection:
        every = clients.all_of(connection)
        told = {
            (row["sha256"], row["before"]) for row in connection.execute("SELECT * FROM notices")
        }
    latest: dict[tuple[str, str], float] = {}
    for each in every:
        if each.holds_at(now):
            key = (each.name, each.device)
            latest[key] = max(latest.get(key, 0.0), each.not_after)
    found = []
    for each in every:
        if not each.holds_at(now) or each.not_after < latest[each.name, each.device]:
            continue
        reached = [span for span in before if now >= each.not_after - span]
        if reached and not any(
            (each.sha256, span) in told for span in before if span <= min(reached)
        ):
            found.append(Notice(each, min(reached)))
    return found


def give_notices(
    store: Store,
    settings: NotifySettings,
    clock: Callable[[], float],
    stopped: Callable[[], bool] = lambda: False,
) -> int:
    """Give every notice that is due; how many were given.  Raises `StoreError`."""
    given = 0
    for notice in due(store, settings.before, clock()):
        if stopped():
            break
        given += _give(store, settings, notice, clock())
    return given


def _give(store: Store, settings: NotifySettings, notice: Notice, now: float) -> bool:
    key = (notice.certificate.sha256, notice.before)
    with store.changing() as connection:
        values = (*key, "started", now)
        done = connection.execute("INSERT OR IGNORE INTO notices VALUES (?, ?, ?, ?)", values)
        if not done.rowcount:
            return False  # another process gives it
    why = _run(settings, notice.as_json(now))
    with store.changing() as connection:
        if why:
            connection.execute("DELETE FROM notices WHERE sha256 = ? AND before = ?", key)
        else:
            connection.execute(
                "UPDATE notices SET state = 'given' WHERE sha256 = ? AND before = ?", key
            )
    found = notice.certificate
    if why:
        log.error("no notice for %s/%s, it is tried again: %s", found.name, found.device, why)
    else:
        log.info("notice given: %s/%s ends %s", found.name, found.device, rfc3339(found.not_after))
    return not why


def _run(settings: NotifySettings, text: str) -> str:
    """Run the command; why it failed, or nothing."""
    try:
        done = run_command(settings.command, text.encode(), settings.timeout)
    except CommandFailed as error:
        return f"the command {error}"
    return f"the command failed ({done.code}): {done.said}" if done.code else ""

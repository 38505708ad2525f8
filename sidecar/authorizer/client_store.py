"""Keep the clients that were seen in one file of the state directory: STATE_DIR/clients.jsonl.

A decision only notes in memory that it was made.  Every few seconds a thread takes these notes
over and appends what is new to the file, which it writes anew once half of it is superseded.
Only certificates that passed verification are noted, so that a stranger's never displace any.
Nothing here keeps the daemon from starting or a decision from being made.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

from sidecar.core.decision import ISSUED, Decision
from sidecar.core.seen_clients import SeenClient, SeenClients, Visit, line
from sidecar.runtime.files import FileVersion, file_version, read_file, rename_broken, write_file
from sidecar.runtime.seen_clients_file import MAX_SIZE, seen_clients_path

log = logging.getLogger("mtls-sidecar")

SAVE_SECONDS = 5.0
"""How long a new client, or a new decision about one, waits to be written."""

MOMENT_SECONDS = 60.0
"""How long it waits to be written that a client was seen again."""

RETRY_SECONDS = 60.0
"""How long to wait after the file couldn't be written."""

MAX_NOTES = 10_000
"""Most notes that wait; further clients are noted when they come again."""

SPARE = 1 << 20
"""Bytes by which the file may exceed twice what it must hold."""

Notes = dict[tuple[str, str], tuple[Decision, float]]
"""The last decision by certificate and location, and when it was made: a client that asks in many
ways takes the place of no other one."""


class ClientStore:
    """The clients seen.  `most` bounds their number: 0 keeps none, and removes the file."""

    def __init__(self, state_dir: Path, most: int, clock: Callable[[], float] = time.time) -> None:
        self.path = seen_clients_path(state_dir)
        self._most, self._clock = most, clock
        self._notes: Notes = {}
        self._one_at_a_time = threading.Lock()
        self._clients = SeenClients(most)
        self._unwritten: dict[str, set[str] | None] = {}  # the locations; None: the whole client
        self._file: FileVersion | None = None  # as we left it
        self._must_rewrite = False
        self._size = self._needed = 0
        self._next_moments = 0.0
        self._retry = 0.0
        self._told = ""

    def clients(self) -> list[SeenClient]:
        """Every client that was taken over, in no order; for other threads, too."""
        return list(self._clients.by_sha256.values())

    # -- in the event loop

    def note(self, decision: Decision, now: float) -> None:
        """Note one decision about a certificate that passed verification now or before."""
        cert = decision.subject
        if cert is None or not self._most:
            return
        if decision.reason not in ISSUED and cert.sha256 not in self._clients.by_sha256:
            return
        notes, key = self._notes, (cert.sha256, decision.location)
        if len(notes) < MAX_NOTES or key in notes:
            notes[key] = decision, now

    async def keep(self, settle: Callable[[], object]) -> None:
        """Take over and write what was noted, until cancelled; `settle` is called before it."""
        while True:
            settle()
            await asyncio.to_thread(self.take_over, self._taken(), at_the_end=False)
            await asyncio.sleep(SAVE_SECONDS)

    def save(self) -> None:
        """Take over and write everything, at the end."""
        self._retry = 0.0
        self.take_over(self._taken(), at_the_end=True)

    def _taken(self) -> Notes:
        notes, self._notes = self._notes, {}
        return notes

    # -- in a thread

    def take_over(self, notes: Notes, *, at_the_end: bool) -> None:
        """Add notes to the clients, and write what is due.  Never raises."""
        with self._one_at_a_time:
            self._take_over(notes, at_the_end)

    def _take_over(self, notes: Notes, at_the_end: bool) -> None:
        try:
            if not self._most:
                self.path.unlink(missing_ok=True)
                return
            if not self._must_rewrite and (self._file is None or self._is_replaced()):
                self._read()
            is_news = self._add(notes)
            now = time.monotonic()
            is_due = is_news or self._must_rewrite or at_the_end or now >= self._next_moments
            if now >= self._retry and is_due and (self._unwritten or self._must_rewrite):
                self._write()
                self._next_moments = now + MOMENT_SECONDS
            self._told = ""
        except Exception as error:  # whatever it is, decisions go on
            self._must_rewrite = True
            self._retry = time.monotonic() + RETRY_SECONDS
            if str(error) != self._told:
                self._told = str(error)
                traceback = not isinstance(error, OSError)
                told = "the clients seen aren't kept across restarts: %s"
                log.warning(told, error, exc_info=traceback)

    def _is_replaced(self) -> bool:
        """Return whether somebody has removed or replaced the file: then what is there counts."""
        found = file_version(self.path)
        ours = self._file
        return found is None or ours is None or (found.inode, found.size) != (ours.inode, ours.size)

    def _read(self) -> None:
        """Forget, and take what is in the file.  What can't be used is set aside."""
        self._clients, self._unwritten = SeenClients(self._most), {}
        self._must_rewrite = True
        try:
            broken = self._clients.read(read_file(self.path, MAX_SIZE).splitlines())
        except (FileNotFoundError, NotADirectoryError):
            return
        except OSError as error:
            log.error("%s: %s; it is set aside", self.path, error.strerror or error)
            rename_broken(self.path)
            return
        if broken:  # the last line of a process that was killed, most often
            log.warning("%s: %d of its lines are broken and left out", self.path, broken)

    def _add(self, notes: Notes) -> bool:
        """Return whether one of them tells more than a later moment."""
        is_news = False
        known = self._clients.by_sha256
        for decision, at in notes.values():
            cert = decision.subject
            if cert is None:
                continue
            is_new = cert.sha256 not in known
            visit = Visit(at, decision.verdict, str(decision.reason), decision.rule)
            is_news |= self._clients.note(cert, decision.location, visit)
            if cert.sha256 not in known:
                continue
            waiting = self._unwritten.setdefault(cert.sha256, None if is_new else set())
            if waiting is not None:
                waiting.add(decision.location)
        if self._clients.evict(self._clock()):
            self._must_rewrite = True
        return is_news

    def _write(self) -> None:
        """Append what is new, or write the whole file anew.  Raises OSError."""
        known = self._clients.by_sha256
        new = b"".join(
            line(known[sha256], locations)
            for sha256, locations in self._unwritten.items()
            if sha256 in known
        )
        if self._must_rewrite or self._size + len(new) > 2 * self._needed + SPARE:
            write_file(self.path, self._clients.lines())
            self._file = file_version(self.path)
            self._size = self._needed = self._file.size if self._file else 0
        else:
            self._append(new)
            self._size += len(new)
            self._needed += sum(len(line(known[s])) for s, at in self._unwritten.items() if not at)
            self._file = file_version(self.path)
        self._must_rewrite = False
        self._unwritten.clear()

    def _append(self, data: bytes) -> None:
        handle = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW)
        with open(handle, "wb", buffering=0) as file:
            view = memoryview(data)
            while view:
                view = view[file.write(view) :]

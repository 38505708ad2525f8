"""Read each file in its own thread, so that a slow, large or invalid one delays no other.

Files of CRLs, of which there may be many that take long, are read in a few threads (`lanes`).

Files are watched by `stat` (device, inode, size, times, symlinks followed) a few times a second.
This detects a save in place, a rename, a replaced symlink, and changes on a network file system.
"""

from __future__ import annotations

import errno
import math
import threading
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sidecar.runtime.files import FileVersion, may_pass

from .file_versions import FileVersions
from .lanes import CrlReaders

SETTLE_SECONDS = 0.05
"""Seconds that a changed file must stay unchanged before it is read."""

LONGEST_SETTLING = 1.0
"""Seconds after which a file that changes all the time is read nevertheless."""

PATIENCE = 0.2
"""Seconds that one reload waits for files that are being read."""

START_PATIENCE = 45.0
"""The same at the start, less than systemd's timeout of 90 s; then kept copies are used."""

FETCHED_PATIENCE = 10.0
"""The same at the start for the fetcher's files, so that time is left for their kept copies."""

COPY_PATIENCE = 15.0
"""The same at the start for kept copies: a trust whose copy takes longer denies until then."""

RETRY_SECONDS = (1.0, 300.0)
"""First and longest pause, in seconds, before an unreadable file is read again."""

LARGE = 1024 * 1024
"""Maximum octets of a file that is retried at short intervals."""

RETRY_SMALL = (0.2, 5.0)
"""First and longest pause, in seconds, for files up to `LARGE`."""

Key = tuple[Hashable, ...]


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of reading one version of a file: a value or an exception.

    `again`: the moment (monotonic) of the next attempt after an error that may be temporary, or
    None.  `restless`: the file was written all the time, so the value may be incomplete.
    """

    version: FileVersion | None
    value: Any = None
    error: BaseException | None = None
    again: float | None = None
    restless: bool = False


@dataclass(slots=True)
class _Job:
    """One reading in progress.

    `is_news`: it counts in `take_fresh`.  `late`: a reload continued without waiting for it.
    """

    is_news: bool
    finished: threading.Event = field(default_factory=threading.Event)
    late: bool = False


class Readings:
    """Read files in threads, and cache each outcome until the file changes."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.file_versions = FileVersions()
        self._done: dict[Key, Outcome] = {}
        self._running: dict[Key, _Job] = {}
        self._tries: dict[Key, int] = {}
        self._seen: dict[Key, tuple[Path, FileVersion | None]] = {}
        self._glimpsed: dict[Path, FileVersion | None] = {}
        self._restless: dict[Key, float] = {}
        self._since: dict[Key, tuple[FileVersion | None, float]] = {}
        self._begun = 0.0
        self._wakes = False
        self._patient = True
        self.waited: set[Path] = set()
        self.fresh = 0

    @property
    def pending(self) -> bool:
        """Whether the last reload went on without what one of its files holds now."""
        return bool(self.waited)

    def begin(self, *, patient: bool) -> None:
        """Begin a reload.  With `patient`, wait longer for each file, but not forever.

        The files of the last reload are looked at all at once: a policy may name hundreds.
        """
        with self._lock:
            before = [path for path, _ in self._seen.values()]
            self._seen, self.waited, self._wakes = {}, set(), False
        self._glimpsed = self.file_versions.at_all(before)
        self._patient = patient
        self._begun = time.monotonic()

    def end(self) -> None:
        """End a reload: discard the outcomes of files that it did not ask for."""
        with self._lock:
            self._done = {k: v for k, v in self._done.items() if k in self._seen}
            self._tries = {k: n for k, n in self._tries.items() if k in self._seen}
            self._since = {k: v for k, v in self._since.items() if k in self._seen}
            seen = [path for path, _ in self._seen.values()]
        self.file_versions.keep(seen)

    def ask(
        self,
        key: Key,
        path: Path,
        read: Callable[[], Any],
        *,
        is_news: bool = True,
        is_fetched: bool = False,
        is_whole: bool = False,
        readers: CrlReaders | None = None,
        owner: Hashable = "",
    ) -> Outcome | None:
        """Return the outcome of reading a file, or None while it isn't known yet.

        The same key must always mean the same file, read in the same way.  Without `is_news`, it
        is not told that the file was read.  `is_fetched`: it is the fetcher's, who could keep a
        start waiting.  One that `is_whole` is only ever replaced by another file, so it needn't
        settle.  With `readers` it waits for one of their threads, and for those of the same owner.
        """
        longest = self._longest(is_fetched=is_fetched, is_whole=is_whole)
        until = self._begun + longest
        now = self.version_of(path)
        with self._lock:
            self._seen[key] = path, now
            done = self._done.get(key)
            if done is not None and done.version == now and not _is_due(done):
                return done
        now = self.file_versions.at(path)
        settles = self._patient and not is_whole
        while settles and self._is_restless(key, now) and time.monotonic() < until:
            # not time.sleep, which fails below libfaketime (clock_nanosleep: EINVAL)
            threading.Event().wait(SETTLE_SECONDS)
            now = self.file_versions.at(path)
        with self._lock:
            self._seen[key] = path, now
            if not is_whole and self._is_restless(key, now):
                self.waited.add(path)
                return None
            job = self._running.get(key)
            if job is None:
                restless = not is_whole and self._is_young(key, now)
                job = self._start(key, now, read, is_news, restless, readers, owner)
        if not job.finished.wait(max(0.0, until - time.monotonic())):
            with self._lock:
                job.late = not job.finished.is_set()
                self.waited.add(path)
                if job.late:
                    gives_up = self._patient and not is_whole
                    return Outcome(now, None, _too_slow(path, longest)) if gives_up else None
        with self._lock:
            outcome = self._done.get(key)
            if outcome is not None and outcome.version != now:  # it has changed meanwhile
                self.waited.add(path)
            return outcome

    def _longest(self, *, is_fetched: bool, is_whole: bool) -> float:
        """Return how many seconds after the beginning of a reload a file is waited for."""
        if not self._patient:
            return PATIENCE
        if is_whole:
            return COPY_PATIENCE
        return FETCHED_PATIENCE if is_fetched else START_PATIENCE

    def version_of(self, path: Path) -> FileVersion | None:
        """Return the version of a file when this reload began; if that is unknown, the current."""
        if path in self._glimpsed:
            return self._glimpsed[path]
        return self.file_versions.at(path)

    def _is_restless(self, key: Key, now: FileVersion | None) -> bool:
        """Return whether to wait because a file was just written, but not for too long."""
        if not self._is_young(key, now):
            self._restless.pop(key, None)
            return False
        since = self._restless.setdefault(key, time.monotonic())
        return time.monotonic() - since < LONGEST_SETTLING

    def _is_young(self, key: Key, now: FileVersion | None) -> bool:
        """Return whether a file was written within the settling time.

        The time of its last change is by the clock of its file system, which may be another
        machine's and differ: so the moment counts, too, when this version was first seen here.
        """
        last = self._since.get(key)
        if last is None or last[0] != now:
            known = last is not None
            last = self._since[key] = now, time.monotonic() if known else -math.inf
        if now is None:
            return False
        return time.monotonic() - last[1] < SETTLE_SECONDS or _is_young(now)

    def _start(
        self,
        key: Key,
        now: FileVersion | None,
        read: Callable[[], Any],
        is_news: bool,
        restless: bool,
        readers: CrlReaders | None,
        owner: Hashable,
    ) -> _Job:
        job = _Job(is_news)

        def work() -> None:
            try:
                again = time.monotonic() + SETTLE_SECONDS if restless else None
                outcome = Outcome(now, read(), None, again, restless)
            except BaseException as error:  # noqa: BLE001 - any error of a file is an outcome
                outcome = Outcome(now, None, error)
            self._finish(key, job, outcome)

        self._running[key] = job
        try:
            lane = readers.lane(now) if readers is not None else None
            if lane is not None:
                lane.start(owner, work)
            else:
                threading.Thread(target=work, name="reading", daemon=True).start()
        except RuntimeError:  # no more threads: try again later
            error = OSError(errno.EAGAIN, "no thread to read it with")
            self._settle(key, job, Outcome(now, None, error))
        return job

    def _finish(self, key: Key, job: _Job, outcome: Outcome) -> None:
        with self._lock:
            self._settle(key, job, outcome)

    def _settle(self, key: Key, job: _Job, outcome: Outcome) -> None:
        if may_pass(outcome.error):
            tries = self._tries[key] = self._tries.get(key, -1) + 1
            pause = _pause(tries, outcome.version)
            outcome = Outcome(outcome.version, None, outcome.error, time.monotonic() + pause)
        else:
            self._tries.pop(key, None)
        self._done[key] = outcome
        self._running.pop(key, None)
        self.fresh += job.is_news
        self._wakes = self._wakes or job.late
        job.finished.set()

    def take_fresh(self) -> int:
        """Return the number of readings that ended since the last call."""
        with self._lock:
            found, self.fresh = self.fresh, 0
            return found

    def moved(self) -> bool:
        """Return whether a file has changed since it was read, or another attempt is due."""
        with self._lock:
            if self._wakes or any(_is_due(done) for done in self._done.values()):
                return True
            seen = list(self._seen.values())
        now = self.file_versions.at_all(path for path, _ in seen)
        return any(now[path] != found for path, found in seen)


def _too_slow(path: Path, longest: float) -> OSError:
    why = f"it can't be read within {longest:.0f} seconds; is its file system there?"
    return TimeoutError(errno.ETIMEDOUT, why, str(path))


def _is_young(found: FileVersion | None) -> bool:
    """Return whether a file was written within the settling time."""
    if found is None:
        return False
    age = (time.time_ns() - max(found.mtime, found.ctime)) / 1e9
    return 0 <= age < SETTLE_SECONDS


def _is_due(outcome: Outcome) -> bool:
    return outcome.again is not None and time.monotonic() >= outcome.again


def _pause(tries: int, found: FileVersion | None) -> float:
    """Return the seconds until the next attempt: increasing, but always short for a small file."""
    first, longest = RETRY_SECONDS
    if found is None or found.size < LARGE:
        first, longest = RETRY_SMALL
    return min(first * 2.0 ** min(tries, 16), longest)

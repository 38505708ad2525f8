"""Files read on threads of their own: one that is slow, large or broken holds up no other.

Files are watched by looking at them (device, inode, size, times, symlinks followed) a few times
a second: that sees a save in place, a rename, a swapped symlink and a network file system alike.
"""

from __future__ import annotations

import errno
import threading
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sidecar.runtime.files import Signature

from .glances import Glances

SETTLE_SECONDS = 0.05
"""How long a changed file must rest before it is read."""

LONGEST_SETTLING = 1.0
"""Seconds after which a file that never rests is read all the same."""

PATIENCE = 0.2
"""Seconds that one look at all files waits for those that are being read."""

START_PATIENCE = 45.0
"""The same at start, after which what was kept serves: less than systemd's patience, 90 s."""

RETRY_SECONDS = (1.0, 300.0)
"""How soon a file is read again that couldn't be, and the longest wait as it goes on."""

LARGE = 1024 * 1024
"""Files up to this size, in octets, are tried again every few seconds at least."""

RETRY_SMALL = (0.2, 5.0)
"""As `RETRY_SECONDS`, for those."""

_LASTING = (errno.ENOENT, errno.EACCES, errno.EPERM, errno.EISDIR, errno.EINVAL, errno.EFBIG,
            errno.ELOOP, errno.ENOTDIR, errno.ENAMETOOLONG)  # fmt: skip
"""What keeps a file from being read until somebody changes it or its place."""

Key = tuple[Hashable, ...]


@dataclass(frozen=True, slots=True)
class Outcome:
    """How the reading of one version of a file ended: a value, or whatever was raised.

    `again`: the moment (monotonic) at which to try again what may pass by itself; else None.
    `restless`: it was written to all the time, so that what was read may be half of it.
    """

    signature: Signature | None
    value: Any = None
    error: BaseException | None = None
    again: float | None = None
    restless: bool = False


@dataclass(slots=True)
class _Job:
    """One reading under way.  `late`: somebody went on without waiting for it."""

    finished: threading.Event = field(default_factory=threading.Event)
    late: bool = False


class Readings:
    """The outcome of each reading, until its file changes."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.glances = Glances()
        self._done: dict[Key, Outcome] = {}
        self._running: dict[Key, _Job] = {}
        self._tries: dict[Key, int] = {}
        self._seen: dict[Key, tuple[Path, Signature | None]] = {}
        self._restless: dict[Key, float] = {}
        self._until = 0.0
        self._wakes = False
        self._patient = True
        self.pending = False
        self.fresh = 0

    def begin(self, *, patient: bool) -> None:
        """Begin a look at all files.  With `patient` each is waited for, not for ever."""
        with self._lock:
            self._seen, self.pending, self._wakes = {}, False, False
        self._patient = patient
        self._until = time.monotonic() + (START_PATIENCE if patient else PATIENCE)

    def end(self) -> None:
        """Forget files that nobody asked about in this look."""
        with self._lock:
            self._done = {k: v for k, v in self._done.items() if k in self._seen}
            self._tries = {k: n for k, n in self._tries.items() if k in self._seen}
            seen = [path for path, _ in self._seen.values()]
        self.glances.keep(seen)

    def ask(self, key: Key, path: Path, read: Callable[[], Any]) -> Outcome | None:
        """What reading a file gives, or None while that isn't known yet.

        The same key always means the same file read in the same way.
        """
        now = self.glances.at(path)
        with self._lock:
            self._seen[key] = path, now
            done = self._done.get(key)
            if done is not None and done.signature == now and not _is_due(done):
                return done
        while self._patient and self._is_restless(key, now):
            time.sleep(SETTLE_SECONDS)
            now = self.glances.at(path)
        with self._lock:
            self._seen[key] = path, now
            if self._is_restless(key, now):
                self.pending = True
                return None
            job = self._running.get(key)
            if job is None:
                job = self._start(key, now, read)
        if not job.finished.wait(max(0.0, self._until - time.monotonic())):
            with self._lock:
                job.late = not job.finished.is_set()
                self.pending = True
                if job.late:
                    return Outcome(now, None, _too_slow(path)) if self._patient else None
        with self._lock:
            outcome = self._done.get(key)
            if outcome is not None and outcome.signature != now:  # it changed meanwhile
                self.pending = True
            return outcome

    def _is_restless(self, key: Key, now: Signature | None) -> bool:
        """Whether a file was written to within the settling time, and not for too long."""
        if not _is_young(now):
            self._restless.pop(key, None)
            return False
        since = self._restless.setdefault(key, time.monotonic())
        return time.monotonic() - since < LONGEST_SETTLING

    def _start(self, key: Key, now: Signature | None, read: Callable[[], Any]) -> _Job:
        job = _Job()

        restless = _is_young(now)

        def work() -> None:
            try:
                again = time.monotonic() + SETTLE_SECONDS if restless else None
                outcome = Outcome(now, read(), None, again, restless)
            except BaseException as error:  # noqa: BLE001 - whatever one file raises, it is told
                outcome = Outcome(now, None, error)
            self._finish(key, job, outcome)

        self._running[key] = job
        try:
            threading.Thread(target=work, name="reading", daemon=True).start()
        except RuntimeError:  # no more threads: try again later
            error = OSError(errno.EAGAIN, "no thread to read it with")
            self._settle(key, job, Outcome(now, None, error))
        return job

    def _finish(self, key: Key, job: _Job, outcome: Outcome) -> None:
        with self._lock:
            self._settle(key, job, outcome)

    def _settle(self, key: Key, job: _Job, outcome: Outcome) -> None:
        if _may_pass(outcome.error):
            tries = self._tries[key] = self._tries.get(key, -1) + 1
            pause = _pause(tries, outcome.signature)
            outcome = Outcome(outcome.signature, None, outcome.error, time.monotonic() + pause)
        else:
            self._tries.pop(key, None)
        self._done[key] = outcome
        self._running.pop(key, None)
        self.fresh += 1
        self._wakes = self._wakes or job.late
        job.finished.set()

    def take_fresh(self) -> int:
        """How many readings ended since this was asked last."""
        with self._lock:
            found, self.fresh = self.fresh, 0
            return found

    def moved(self) -> bool:
        """Whether a file looks otherwise than when it was seen, or is to be read again."""
        with self._lock:
            if self._wakes or any(_is_due(done) for done in self._done.values()):
                return True
            seen = list(self._seen.values())
        now = self.glances.at_all(path for path, _ in seen)
        return any(now[path] != found for path, found in seen)


def _too_slow(path: Path) -> OSError:
    why = f"it can't be read within {START_PATIENCE:.0f} seconds; is its file system there?"
    return TimeoutError(errno.ETIMEDOUT, why, str(path))


def _is_young(found: Signature | None) -> bool:
    """Whether a file was written to within the settling time."""
    if found is None:
        return False
    age = (time.time_ns() - max(found.mtime, found.ctime)) / 1e9
    return 0 <= age < SETTLE_SECONDS


def _is_due(outcome: Outcome) -> bool:
    return outcome.again is not None and time.monotonic() >= outcome.again


def _may_pass(error: BaseException | None) -> bool:
    if isinstance(error, OSError):
        return error.errno not in _LASTING
    return isinstance(error, MemoryError)


def _pause(tries: int, found: Signature | None) -> float:
    """Seconds until the next try: longer each time, but for a small file never long."""
    first, longest = RETRY_SECONDS
    if found is None or found.size < LARGE:
        first, longest = RETRY_SMALL
    return min(first * 2.0 ** min(tries, 16), longest)

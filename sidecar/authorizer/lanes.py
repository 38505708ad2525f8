"""Run what would take a thread each in a few threads, so that many files leave some for others.

The fetcher chooses how many files it writes, and how large they are.  A file of CRLs that waits for
a worker process would hold its thread meanwhile, and the service may have 64 in all.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable

from sidecar.runtime.crl_worker import HERE, CrlWorkers
from sidecar.runtime.files import FileVersion

SMALL, LARGE = (2, 1), (6, 2)
"""Maximum number of threads for files of up to `HERE` octets and for larger ones, and of those for
the files of one owner.  Small files are parsed in this process, beside the decisions."""

Work = Callable[[], None]


class Lane:
    """A queue with up to `at_once` threads, of which one owner has up to `by_owner`."""

    def __init__(self, at_once: int, by_owner: int) -> None:
        self._at_once, self._by_owner = at_once, by_owner
        self._lock = threading.Lock()
        self._queue: list[tuple[Hashable, Work]] = []
        self._owners: list[Hashable] = []  # of what is being worked off
        self._threads = 0

    def start(self, owner: Hashable, work: Work) -> None:
        """Call `work`, which raises nothing, in a thread when it is its turn.

        Raises RuntimeError if there is no thread for it, and it is not in the queue then.
        """
        with self._lock:
            self._queue.append((owner, work))
            if self._threads == self._at_once:
                return
            try:
                threading.Thread(target=self._work_off, name="reading", daemon=True).start()
            except RuntimeError:
                if not self._threads:
                    self._queue.pop()
                    raise
            else:
                self._threads += 1

    def _work_off(self) -> None:
        while (taken := self._take()) is not None:
            owner, work = taken
            try:
                work()
            finally:
                with self._lock:
                    self._owners.remove(owner)

    def _take(self) -> tuple[Hashable, Work] | None:
        """Take the first whose owner may have one more thread; None ends this thread."""
        with self._lock:
            for number, (owner, _) in enumerate(self._queue):
                if self._owners.count(owner) < self._by_owner:
                    self._owners.append(owner)
                    return self._queue.pop(number)
            self._threads -= 1
            return None


class CrlReaders(CrlWorkers):
    """Worker processes, and the threads that wait for them or parse small files themselves.

    Files that the administrator wrote may lie on a file system that hangs: then a small one has a
    thread of its own (`are_own`), so that it delays no other.
    """

    def __init__(self, *, are_own: bool = False) -> None:
        super().__init__()
        self._small = None if are_own else Lane(*SMALL)
        self._large = Lane(*LARGE)

    def lane(self, version: FileVersion | None) -> Lane | None:
        """Return the lane for a version of a file, or None where it needs none.

        It may be exchanged for a larger one before it is read, which then takes a small one's
        thread: the others of this kind wait, and none of another.
        """
        return self._small if version is None or version.size <= HERE else self._large

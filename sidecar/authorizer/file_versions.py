"""Looking at files, of which any may hang: one on a dead network file system holds up no other.

`stat` of such a file may not return for hours, and nothing ends it.  So files are looked at on a
thread; where it gets stuck another goes on behind it, and the file counts as it was seen last
until the first thread returns.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from pathlib import Path

from sidecar.runtime.files import Signature, signature

PATIENCE = 0.1
"""Seconds that one look may take before the others go on without it."""


class Glances:
    """How files look, or last looked."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._stuck: set[Path] = set()
        self._known: dict[Path, Signature | None] = {}

    def at(self, path: Path) -> Signature | None:
        """The signature of one file."""
        return self.at_all([path])[path]

    def at_all(self, paths: Iterable[Path]) -> dict[Path, Signature | None]:
        """The signatures of files; None of those that can't be looked at, or not yet."""
        wanted = list(dict.fromkeys(paths))
        with self._lock:
            left = [path for path in wanted if path not in self._stuck]
        while left:
            left = self._walk(left)
        with self._lock:
            return {path: self._known.get(path) for path in wanted}

    def keep(self, paths: Iterable[Path]) -> None:
        """Forget all other files."""
        wanted = set(paths)
        with self._lock:
            self._known = {path: found for path, found in self._known.items() if path in wanted}

    def _walk(self, paths: list[Path]) -> list[Path]:
        """Look at files in turn; those behind the one where it got stuck are left."""
        walk = _Walk(self, paths)
        try:
            threading.Thread(target=walk.run, name="glance", daemon=True).start()
        except RuntimeError:  # no more threads: then at the risk of waiting
            walk.run()
        at = 0
        while not walk.finished.wait(PATIENCE):
            with self._lock:
                if walk.at == at and not walk.finished.is_set():
                    walk.is_left = True
                    self._stuck.add(paths[at])
                    return paths[at + 1 :]
                at = walk.at
        return []

    def take(self, walk: _Walk, path: Path, found: Signature | None) -> bool:
        """Note how a file looks; whether the walk is to go on."""
        with self._lock:
            self._known[path] = found
            walk.at += 1
            if walk.is_left:
                self._stuck.discard(path)
            return not walk.is_left


class _Walk:
    """One thread's way along some files.  `is_left`: another has taken over."""

    def __init__(self, glances: Glances, paths: list[Path]) -> None:
        self._glances, self._paths = glances, paths
        self.finished = threading.Event()
        self.at = 0
        self.is_left = False

    def run(self) -> None:
        """Look at each file, unless another has taken over."""
        for path in self._paths:
            if not self._glances.take(self, path, signature(path)):
                return
        self.finished.set()

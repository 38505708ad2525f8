"""Determine the versions of files, even if one hangs, as on a dead network file system.

`stat` of such a file may not return for hours, and can't be interrupted.  So a thread runs `stat`;
if it hangs, another thread continues with the next file, and the hanging file keeps its last known
version until the first thread returns.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from pathlib import Path

from sidecar.runtime.files import FileVersion, file_version

PATIENCE = 0.1
"""Seconds that one `stat` may take before another thread continues with the next file."""


class FileVersions:
    """The current or last known versions of files."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._stuck: set[Path] = set()
        self._known: dict[Path, FileVersion | None] = {}

    def at(self, path: Path) -> FileVersion | None:
        """Return the version of one file."""
        return self.at_all([path])[path]

    def at_all(self, paths: Iterable[Path]) -> dict[Path, FileVersion | None]:
        """Return the versions of files; None for a file whose `stat` fails or has not returned."""
        wanted = list(dict.fromkeys(paths))
        with self._lock:
            left = [path for path in wanted if path not in self._stuck]
        while left:
            left = self._walk(left)
        with self._lock:
            return {path: self._known.get(path) for path in wanted}

    def keep(self, paths: Iterable[Path]) -> None:
        """Discard the versions of all other files."""
        wanted = set(paths)
        with self._lock:
            self._known = {path: found for path, found in self._known.items() if path in wanted}

    def _walk(self, paths: list[Path]) -> list[Path]:
        """Run `stat` on files in turn; return the files after one that hangs."""
        walk = _Walk(self, paths)
        try:
            threading.Thread(target=walk.run, name="glance", daemon=True).start()
        except RuntimeError:  # no thread available: continue here, at the risk of hanging
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

    def take(self, walk: _Walk, path: Path, found: FileVersion | None) -> bool:
        """Record the version of a file; return whether the walk must continue."""
        with self._lock:
            self._known[path] = found
            walk.at += 1
            if walk.is_left:
                self._stuck.discard(path)
            return not walk.is_left


class _Walk:
    """The `stat` calls of one thread.  `is_left`: another thread has taken over."""

    def __init__(self, file_versions: FileVersions, paths: list[Path]) -> None:
        self._versions, self._paths = file_versions, paths
        self.finished = threading.Event()
        self.at = 0
        self.is_left = False

    def run(self) -> None:
        """Run `stat` on each file until another thread has taken over."""
        for path in self._paths:
            if not self._versions.take(self, path, file_version(path)):
                return
        self.finished.set()

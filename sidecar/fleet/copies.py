"""The publisher's copies of what it published last, for servers that lose it."""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from sidecar.core.fleet.manifest import File
from sidecar.runtime.files import read_file, write_file

MOST = 500
"""How many files are kept, the newest."""


@dataclass(frozen=True, slots=True)
class Copies:
    """Files under their SHA-256."""

    directory: Path

    def keep(self, files: Iterable[bytes]) -> None:
        """Keep these; older ones beyond the bound are removed.  Raises OSError."""
        for data in files:
            path = self.directory / hashlib.sha256(data).hexdigest()
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            if path.exists():
                path.touch()
            else:
                write_file(path, data)
        with contextlib.suppress(OSError):
            found = [p for p in self.directory.iterdir() if re.fullmatch("[0-9a-f]{64}", p.name)]
            for path in sorted(found, key=lambda p: p.stat().st_mtime, reverse=True)[MOST:]:
                path.unlink()

    def get(self, file: File) -> bytes | None:
        """A file, if it is here and sound."""
        with contextlib.suppress(OSError):
            data = read_file(self.directory / file.sha256, file.size)
            return data if file.matches(data) else None
        return None

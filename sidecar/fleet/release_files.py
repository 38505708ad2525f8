"""A release's files on a node: fetched by content hash, verified, put into place whole."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import AsyncIterable, AsyncIterator, Callable
from pathlib import Path

from sidecar.core.fleet.bodies import Release
from sidecar.core.fleet.entry import Refused
from sidecar.core.fleet.manifest import File
from sidecar.runtime.files import read_file
from sidecar.runtime.release_directory import ReleaseDirectory, new_part

Fetch = Callable[[File], AsyncIterable[bytes]]
"""The octets of a file, unverified, in parts."""


async def bring(directory: Path, release: Release, fetch: Fetch) -> None:
    """Fetch what isn't here, verify all of it, and put it into place.

    A file is never in memory as a whole.  Raises `Missing`, `Refused` and OSError.
    """
    with ReleaseDirectory(directory).writing(release.directory) as aside:
        for file in release.files:
            data = _here(directory, file)
            parts = fetch(file) if data is None else _alone(data)
            if await _write(aside, file, parts) != file.sha256:
                raise Refused("file", f"{file.name} is not what release {release.sequence} says")


async def _write(directory: Path, file: File, parts: AsyncIterable[bytes]) -> str:
    """Write one file; the SHA-256 of what was written."""
    digest = hashlib.sha256()
    with new_part(directory, file.name) as out:
        async for part in parts:
            digest.update(part)
            out.write(part)
    return digest.hexdigest()


async def _alone(data: bytes) -> AsyncIterator[bytes]:
    yield data


def _here(directory: Path, file: File) -> bytes | None:
    """The file out of the release in place, if it is the same there."""
    with contextlib.suppress(OSError):
        data = read_file(directory / "current" / file.name, file.size)
        return data if file.matches(data) else None
    return None

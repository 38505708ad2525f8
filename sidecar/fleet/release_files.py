"""A release's files on a node: fetched by content hash, verified, put into place whole."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable
from pathlib import Path

from sidecar.core.fleet.bodies import Release
from sidecar.core.fleet.entry import Refused
from sidecar.core.fleet.manifest import File
from sidecar.runtime.files import read_file
from sidecar.runtime.release_directory import ReleaseDirectory, write_part

Fetch = Callable[[str, int], Awaitable[bytes | None]]
"""The octets of a file by its SHA-256 and size, unverified; None where they aren't there."""


class Missing(Exception):
    """A file of the release is not there, or not wholly."""


async def bring(directory: Path, release: Release, fetch: Fetch) -> None:
    """Fetch what isn't here, verify all of it, and put it into place.

    Raises `Missing`, `Refused` and OSError.
    """
    with ReleaseDirectory(directory).writing(release.directory) as aside:
        for file in release.files:
            data = _here(directory, file)
            if data is None:
                data = await fetch(file.sha256, file.size)
            if data is None:
                raise Missing(f"{file.name} of release {release.sequence} is not there")
            if not file.matches(data):
                raise Refused("file", f"{file.name} is not what release {release.sequence} says")
            write_part(aside, file.name, data)


def _here(directory: Path, file: File) -> bytes | None:
    """The file out of the release in place, if it is the same there."""
    with contextlib.suppress(OSError):
        data = read_file(directory / "current" / file.name, file.size)
        return data if file.matches(data) else None
    return None

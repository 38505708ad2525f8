"""Copies of the files in force, for a start at which one of them is broken.

`STATE_DIR/last-good/` holds each file under its SHA-256, and a manifest that says what each was
the last good one of.  The copies are read only where the present file can't be used; they are
then parsed and verified like any other file.  A newer version of which only a part counts, such as
a CRL that goes backwards, is kept beside the last good one (`beside`).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import re
import time
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from sidecar.runtime.files import MAX_CRL, read_file, replacing, set_aside, write_file

log = logging.getLogger("mtls-sidecar")

MOST_OCTETS = 16 * 1024 * 1024
GRACE = 600.0
"""Seconds for which a copy that the manifest doesn't name is kept: another instance's may."""

_CHUNK = 1024 * 1024
_COPY = re.compile(r"[0-9a-f]{64}|\.[0-9a-f]{64}\..*")
"""The names of copies, and of those that are being written."""


@dataclass(frozen=True, slots=True)
class InForce:
    """One file in force: where it is, and the SHA-256 of its octets, in hexadecimal.

    `octets` stand for a file some of which can't be read: what is in force of it.
    """

    path: Path
    digest: str
    octets: bytes | None = field(default=None, repr=False)


def beside(key: tuple[Hashable, ...]) -> tuple[Hashable, ...]:
    """The name of a newer version of a file, of which something counts but not the whole."""
    return (*key, "beside")


class LastGood:
    """The copies.  Nothing here raises: what can't be kept is told, and the daemon goes on."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._manifest = directory / "manifest.json"
        self._names = self._load()
        self._told = ""

    def _load(self) -> dict[str, str]:
        try:
            found = json.loads(read_file(self._manifest, MOST_OCTETS))
            if not all(re.fullmatch("[0-9a-f]{64}", f"{digest}") for digest in found.values()):
                raise ValueError("not a manifest")
        except (FileNotFoundError, NotADirectoryError):
            return {}
        except Exception as error:  # noqa: BLE001 - whatever stands there is set aside
            log.error("%s is set aside: %s", self._manifest, error)
            set_aside(self._manifest)
            return {}
        return {str(key): str(digest) for key, digest in found.items()}

    def copy_of(self, *key: Hashable) -> tuple[Path, str] | None:
        """Where the last good file of this name is, and its SHA-256; None without one."""
        digest = self._names.get(_name(key))
        return (self._directory / digest, digest) if digest else None

    def save(
        self, files: Mapping[tuple[Hashable, ...], InForce], named: Iterable[tuple[Hashable, ...]]
    ) -> None:
        """Keep these, of all that the policy names; what it doesn't name any more is forgotten.

        A file that isn't in force, or has changed meanwhile, stays as it was last kept.
        """
        try:
            self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            names = {n: self._names[n] for n in map(_name, named) if n in self._names}
            for key, file in files.items():
                name = _name(key)
                if self._has(file.digest) or self._copy(file):
                    names[name] = file.digest
            if names != self._names:
                write_file(self._manifest, json.dumps(names).encode())
                self._names = names
                self._clean()
            self._told = ""
        except OSError as error:
            if str(error) != self._told:
                log.warning("the files in force aren't kept for the next start: %s", error)
                self._told = str(error)

    def _has(self, digest: str) -> bool:
        return digest in self._names.values() and (self._directory / digest).is_file()

    def _copy(self, file: InForce) -> bool:
        """Copy a file if it still is what it was.  Raises OSError for the directory's faults."""
        try:
            with replacing(self._directory / file.digest) as target:
                _copy_octets(file, target)
        except _ChangedError:
            return False
        return True

    def _clean(self) -> None:
        """Remove copies that nothing names any more."""
        wanted = {*self._load().values(), *self._names.values()}
        for path in self._directory.iterdir():
            old = _COPY.fullmatch(path.name) and path.name not in wanted
            with contextlib.suppress(OSError):
                if old and time.time() - path.stat().st_mtime > GRACE:
                    path.unlink()


class _ChangedError(Exception):
    """The file can't be read any more, or is not what was in force."""


def _copy_octets(file: InForce, target: BinaryIO) -> None:
    """Copy a file's octets.  Raises `_ChangedError`, and OSError where they can't be written."""
    if file.octets is not None:
        target.write(file.octets)
        return
    try:
        source = os.open(file.path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    except OSError:
        raise _ChangedError from None
    digest, total = hashlib.sha256(), 0
    with open(source, "rb", buffering=0) as found:
        while data := found.read(_CHUNK):
            total += len(data)
            if total > MAX_CRL:
                raise _ChangedError
            digest.update(data)
            target.write(data)
    if digest.hexdigest() != file.digest:
        raise _ChangedError


def _name(key: tuple[Hashable, ...]) -> str:
    """A name that tells no password of an address."""
    return hashlib.sha256("\n".join(map(str, key)).encode()).hexdigest()

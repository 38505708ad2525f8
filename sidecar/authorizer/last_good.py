"""Keep copies of the files in force, for a start at which one of them is invalid.

`STATE_DIR/last-good/` holds each file under its SHA-256, and a manifest that maps each policy file
to its copy.  A copy is read only if the current file can't be used, or has changed; it is then
parsed and verified like any other file.  A newer version that is only partly in force, such as an
older CRL, is kept beside the last good one (`beside`); so are earlier versions of which something
is still in force (`earlier`).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import math
import re
import threading
import time
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

from sidecar.runtime.crl_worker import Octets
from sidecar.runtime.files import (
    MAX_CRL,
    FileVersion,
    alone,
    file_version,
    may_pass,
    open_regular,
    read_file,
    rename_broken,
    replacing,
    write_file,
)

log = logging.getLogger("mtls-sidecar")

MOST_OCTETS = 16 * 1024 * 1024
GRACE = 600.0
"""Seconds for which an unnamed copy is kept: another instance's manifest may name it."""

MAX_LEFT = 2 * MAX_CRL
"""Maximum octets of unnamed copies: whoever writes a CRL's file can make many of a signed one."""

RESTORE_SECONDS = 30.0
"""Minimum seconds between two writings of what another instance has written over."""

CRL_KINDS = ("crl", "revoking", "former", "removed")
"""The first words of the keys of CRLs.

The manifest lists their copies by SHA-256 too, so that they can be found when the policy names
another place or trust.
"""

_CHUNK = 1024 * 1024
_COPY = re.compile(r"[0-9a-f]{64}|\.[0-9a-f]{64}\..*")
"""The names of copies, and of those that are being written."""


@dataclass(frozen=True, slots=True)
class InForce:
    """One file in force: its path and the SHA-256 of its octets, in hexadecimal.

    `octets` are these, or else they are read from the file.  `substitute` gives octets that say the
    same, for a file that has changed before it could be copied.
    """

    path: Path
    digest: str
    octets: Octets | None = field(default=None, repr=False, compare=False)
    substitute: Callable[[], Octets] | None = field(default=None, repr=False, compare=False)


def beside(key: tuple[Hashable, ...]) -> tuple[Hashable, ...]:
    """Return the key of a newer version of a file that is only partly in force."""
    return (*key, "beside")


def earlier(key: tuple[Hashable, ...], number: int) -> tuple[Hashable, ...]:
    """Return the key of an earlier version of a file, of which something is still in force."""
    return (*key, "earlier", number)


MAX_HELD = 4
"""Maximum number of `held` versions of one file."""


def held(key: tuple[Hashable, ...], number: int) -> tuple[Hashable, ...]:
    """Return the key of a version of which a part is in force, while none is as a whole."""
    return (*key, "held", number)


class LastGood:
    """The copies.  Failures to keep a copy are logged; nothing here raises."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.manifest = directory / "manifest.json"
        self._names: dict[str, str] = {}
        self._written: dict[str, str] = {}
        self._own: dict[str, str] = {}
        self._restored_at = -math.inf
        self._version: FileVersion | None = None
        self._is_read = self.is_behind = False
        self.read()
        self._told = ""
        self._one_at_a_time = threading.Lock()
        self._taking_over = threading.Lock()
        self._spare: dict[str, Octets] = {}
        self._spare_lock = threading.Lock()

    def lend(self, digest: str, octets: Octets) -> None:
        """Hold a large file's octets until it is copied: it may be gone, or locked, by then.

        Its SHA-256 is `digest`.  Beyond `MAX_CRL` octets in all, the oldest go.
        """
        if self._has(digest):
            return
        with self._spare_lock:
            self._spare[digest] = octets
            while len(self._spare) > 1 and sum(map(len, self._spare.values())) > MAX_CRL:
                del self._spare[next(iter(self._spare))]

    def _take_back(self, copied: Iterable[str]) -> None:
        """Give up the octets of files that are copied."""
        with self._spare_lock:
            for digest in copied:
                self._spare.pop(digest, None)

    def lacks(self, files: Mapping[tuple[Hashable, ...], InForce]) -> bool:
        """Return whether one of these files has no copy yet."""
        return any(self._names.get(_name(key)) != file.digest for key, file in files.items())

    def read(self) -> BaseException | None:
        """Read the manifest, unless that is done; return an error that may pass."""
        if self._is_read:
            return None
        version = file_version(self.manifest)
        try:
            self._names = self._written = self._load()
        except (OSError, MemoryError) as error:
            return error
        self._is_read, self._version = True, version
        return None

    def look_again(self) -> None:
        """Take over what another instance has copied since the manifest was read or written.

        It may have read a version of a file that this one never saw.  A manifest that can't be used
        changes nothing.
        """
        before, version = self._version, file_version(self.manifest)
        if not self._is_read or version is None or version == before:
            return
        found = None
        with contextlib.suppress(Exception):
            found = self._parsed()
        with self._taking_over:
            if self._version != before:  # it was written meanwhile, and is looked at again
                return
            if found is not None:
                self._written, self._names = found, {**self._names, **found}
            self._version = version

    def _load(self) -> dict[str, str]:
        """Read the manifest.  Raises OSError and MemoryError that may pass."""
        try:
            return self._parsed()
        except (FileNotFoundError, NotADirectoryError):
            return {}
        except Exception as error:  # any invalid content is renamed to .broken
            if may_pass(error):
                raise
            log.error("%s is set aside: %s", self.manifest, error)
            rename_broken(self.manifest)
            return {}

    def _parsed(self) -> dict[str, str]:
        """Parse the manifest.  Raises OSError, MemoryError, ValueError and others for any file."""
        found = json.loads(read_file(self.manifest, MOST_OCTETS))
        if not all(re.fullmatch("[0-9a-f]{64}", f"{digest}") for digest in found.values()):
            raise ValueError("not a manifest")
        return {str(key): str(digest) for key, digest in found.items()}

    def copy_of(self, *key: Hashable) -> tuple[Path, str] | None:
        """Return the path and SHA-256 of the last good copy of this key, or None."""
        digest = self._names.get(_name(key))
        return (self._directory / digest, digest) if digest else None

    def path_of(self, digest: str) -> Path:
        """Return the path of the copy with this SHA-256."""
        return self._directory / digest

    def size_of(self, digest: str) -> int:
        """Return the octets of the copy with this SHA-256; 0 if there is none."""
        version = file_version(self.path_of(digest))
        return 0 if version is None else version.size

    def unnamed(self, named: Iterable[tuple[Hashable, ...]]) -> list[str]:
        """Return the SHA-256 of each copy of a CRL that has a key which is none of these.

        It may have one of these, too: two places can have the same CRL.
        """
        known = {_name(key) for key in named}
        return sorted(
            {
                digest
                for name, digest in self._names.items()
                if name not in known and name != _crl_name(digest)
                if _crl_name(digest) in self._names
            }
        )

    def save(
        self,
        files: Mapping[tuple[Hashable, ...], InForce],
        named: Iterable[tuple[Hashable, ...]] | None,
    ) -> bool:
        """Copy the files in force; `named` are all keys that the policy names, others are removed.

        None removes none: which of them are needed isn't known while some are still to be read.
        If a file isn't in force, or has changed meanwhile, its last copy is kept, also another
        instance's.  Returns whether everything could be written; if not, it is to be tried again,
        after `look_again` where it `is_behind`: another instance has written meanwhile, and what it
        has in force isn't dropped by one that doesn't know it.
        """
        with self._one_at_a_time:
            self.is_behind = self._is_read and self._has_moved()
            keys = None if named is None else [*named]
            return self._is_read and not self.is_behind and self._save(files, keys)

    def _has_moved(self) -> bool:
        """Return whether another instance has written the manifest since it was looked at."""
        version = file_version(self.manifest)
        return version is not None and version != self._version

    def _save(
        self,
        files: Mapping[tuple[Hashable, ...], InForce],
        keys: list[tuple[Hashable, ...]] | None,
    ) -> bool:
        try:
            self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            with self._taking_over:
                version, known = self._version, self._names
            own = {n: d for n, d in known.items() if n != _crl_name(d)}
            names = own if keys is None else {n: own[n] for n in map(_name, keys) if n in own}
            failure = self._copy_all(files, names)
            crls = {_name(key) for key in (*(keys or ()), *files) if key[0] in CRL_KINDS}
            listed = (d for n, d in names.items() if n in crls or _crl_name(d) in known)
            names |= {_crl_name(digest): digest for digest in listed}
            is_new = names != self._written
            with alone(self.manifest) if is_new else contextlib.nullcontext():
                if not self._put(names, version):
                    return False
            self._take_back(names.values())
        except (OSError, MemoryError) as error:
            failure = error
        if failure is not None and str(failure) != self._told:
            log.warning("the files in force aren't kept for the next start: %s", failure)
        self._told = "" if failure is None else str(failure)
        return failure is None

    def _put(self, names: dict[str, str], version: FileVersion | None) -> bool:
        """Write a manifest that was made by this version of it; return whether it could be."""
        if self._version != version or self._has_moved():
            self.is_behind = True
            return False
        if names != self._written:
            if names == self._own and not self._may_restore():
                return False
            write_file(self.manifest, json.dumps(names).encode())
            version = file_version(self.manifest)
            self._own = names
        with self._taking_over:
            is_new = names != self._written
            self._version, self._written, self._names = version, names, names
        if is_new:
            self._clean()
        return True

    def _may_restore(self) -> bool:
        """Return whether to write again what was written over.

        Instances of different policies would write in turns without end.
        """
        now = time.monotonic()
        if now - self._restored_at < RESTORE_SECONDS:
            return False
        self._restored_at = now
        return True

    def _copy_all(
        self, files: Mapping[tuple[Hashable, ...], InForce], names: dict[str, str]
    ) -> BaseException | None:
        """Copy what has no copy yet, and note it in `names`; return an error, if there is one."""
        failure: BaseException | None = None
        for key, each in files.items():
            spare = self._spare.get(each.digest)
            file = each if spare is None else replace(each, octets=spare)
            try:
                copied = self._has(file.digest) or self._copy(file)
                digest = file.digest if copied else self._substitute(file)
            except (OSError, MemoryError) as error:
                failure, digest = error, ""
            if digest:
                names[_name(key)] = digest
        return failure

    def _substitute(self, file: InForce) -> str:
        """Write octets that say what a file said that has changed since; return their SHA-256."""
        if file.substitute is None:
            return ""
        octets = file.substitute()
        digest = hashlib.sha256(octets).hexdigest()
        self._copy(InForce(file.path, digest, octets))
        return digest

    def _has(self, digest: str) -> bool:
        return digest in self._names.values() and (self._directory / digest).is_file()

    def _copy(self, file: InForce) -> bool:
        """Copy a file if it is unchanged.  Raises OSError for faults of the copies' directory."""
        try:
            with replacing(self._directory / file.digest) as target:
                _copy_octets(file, target)
        except _ChangedError:
            return False
        return True

    def _clean(self) -> None:
        """Remove copies that the manifest no longer names: old ones, and what is too much."""
        wanted = {*self._load().values(), *self._names.values()}
        found = []
        for path in self._directory.iterdir():
            if _COPY.fullmatch(path.name) and path.name not in wanted:
                with contextlib.suppress(OSError):
                    found.append((path.stat(), path))
        octets = 0
        for status, path in sorted(found, key=lambda each: each[0].st_mtime, reverse=True):
            octets += status.st_size
            if octets > MAX_LEFT or time.time() - status.st_mtime > GRACE:
                with contextlib.suppress(OSError):
                    path.unlink()


class _ChangedError(Exception):
    """The file can't be read any more, or has changed since it came into force."""


def _copy_octets(file: InForce, target: BinaryIO) -> None:
    """Copy a file's octets.  Raises `_ChangedError`, and OSError if they can't be written."""

    if file.octets is not None:
        target.write(file.octets)
        return
    digest, total = hashlib.sha256(), 0
    for data in _octets_of(file):
        total += len(data)
        if total > MAX_CRL:
            raise _ChangedError
        digest.update(data)
        target.write(data)
    if digest.hexdigest() != file.digest:
        raise _ChangedError


def _octets_of(file: InForce) -> Iterator[bytes]:
    """Yield a file's octets.  Raises `_ChangedError`, and OSError if they may be there later.

    EAGAIN is of a lease (fcntl(2), F_SETLEASE), which its owner may hold for as long as he likes.
    """
    try:
        with open(open_regular(file.path), "rb", buffering=0) as found:
            while data := found.read(_CHUNK):
                yield data
    except OSError as error:
        is_leased = isinstance(error, BlockingIOError)
        if may_pass(error) and not is_leased and file.substitute is None:
            raise
        raise _ChangedError from None


def _crl_name(digest: str) -> str:
    return f"crl {digest}"


@lru_cache(maxsize=65536)
def _name(key: tuple[Hashable, ...]) -> str:
    """Return the manifest's name of a key; it contains no password of an address."""
    return hashlib.sha256("\n".join(map(str, key)).encode()).hexdigest()

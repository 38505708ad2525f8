"""The policy in force: read, watched, built aside, swapped at once.

Start-up is the first reload.  A reload that finds a mistake changes nothing of the policy; but
data files that are sound still take effect under the old policy, so that a denylist's new line
isn't held up by a typo somewhere else.  Each file that is broken stays as it last was.

Files are watched by looking at them (device, inode, size, times, symlinks followed) a few times
a second: that sees a save in place, a rename, a swapped symlink and a network file system alike.
"""

from __future__ import annotations

import asyncio
import errno
import json
import logging
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from sidecar.core.errors import Diagnostic, PolicyError
from sidecar.core.policy.compile import Policy, compile_policy
from sidecar.core.policy.spec import is_address, shown
from sidecar.core.revocation.crl.index import (
    Crl,
    CrlError,
    Watermark,
    goes_back,
    read_crl,
    scope_key,
    watermark,
)
from sidecar.core.revocation.denylist import Denylist, parse_denylist
from sidecar.core.x509.bundle import Bundle, read_bundle
from sidecar.runtime.crl_worker import read_crl_aside
from sidecar.runtime.files import MAX_POLICY, Signature, crl_place, read_file, signature

log = logging.getLogger("mtls-sidecar")

POLL_SECONDS = 0.2
"""How often files are looked at."""

SETTLE_SECONDS = 0.05
"""How long a changed file must rest before it is read."""

LARGE_CRL = 1024 * 1024
"""CRLs from this size on, in bytes, are read in a process of their own, while we serve."""

RETRY_SECONDS = (1.0, 300.0)
"""How soon a file is read again that couldn't be, and the longest wait as it goes on."""

_LASTING = (errno.ENOENT, errno.EACCES, errno.EPERM, errno.EISDIR, errno.EINVAL, errno.EFBIG)
"""What keeps a file from being read until somebody changes it or its place."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Reload:
    """How a reload ended.  `policy` is what is in force now; `diagnostics` what was refused."""

    policy: Policy
    diagnostics: tuple[Diagnostic, ...]
    at: float
    backwards: int = 0

    @property
    def ok(self) -> bool:
        """Whether everything was taken."""
        return not self.diagnostics


@dataclass(slots=True)
class WatchedSources:
    """A policy's files, each read again only when it changed; the last good version is kept.

    `unread` says that a file couldn't be read for a reason that may pass, so that its being
    unchanged means nothing.
    """

    base: Path
    state_dir: Path
    trusted_only: bool
    marks: Watermarks
    seen: dict[Path, Signature | None] = field(default_factory=dict)
    forgiving: bool = False
    serving: bool = False
    unread: bool = False
    backwards: int = 0
    _good: dict[tuple[object, ...], tuple[Signature | None, object]] = field(default_factory=dict)

    def begin(self) -> None:
        """Begin a reload: strict, nothing seen yet."""
        self.seen.clear()
        self.forgiving = self.unread = False
        self.backwards = 0

    def certificates(self, path: str) -> Bundle:
        """The certificates of a file.  Raises OSError, ValueError."""
        return self._keep(
            ("pem", path), self.base / path, lambda found: read_bundle(self._read(found))
        )

    def denylist(self, path: str) -> Denylist:
        """A denylist.  Raises OSError, PolicyError."""
        place = self.base / path
        return self._keep(
            ("deny", path), place, lambda found: parse_denylist(self._read(found), str(found))
        )

    def crl(self, place: str, trust: str, authorities: tuple[bytes, ...]) -> Crl | None:
        """A CRL; None where nothing was fetched yet, or nothing acceptable ever was.

        Raises OSError, CrlError.
        """
        path = crl_place(self.base, self.state_dir, trust, place)
        key = ("crl", trust, place, authorities)
        source = shown(place)
        try:
            return self._keep(key, path, lambda found: self._read_crl(found, source, authorities))
        except FileNotFoundError as error:
            if not is_address(place):
                raise
            if key in self._good:
                why = "what was fetched is gone; restart mtls-sidecar-fetch"
                raise FileNotFoundError(errno.ENOENT, why, error.filename) from None
            return None
        except GoesBackwards:
            if self.forgiving:
                return None
            raise

    def _read_crl(self, path: Path, place: str, authorities: tuple[bytes, ...]) -> Crl:
        found = signature(path)
        if self.serving and found is not None and found.size >= LARGE_CRL:
            crl = read_crl_aside(path, place, authorities, trusted_only=self.trusted_only)
        else:
            crl = read_crl(self._read(path), place, authorities)
        why = self.marks.refuses(crl)
        if why:
            self.backwards += 1
            raise GoesBackwards(f"refused: {why}", "put the newest CRL there")
        self.marks.note(crl)
        return crl

    def _read(self, path: Path) -> bytes:
        return read_file(path, trusted_only=self.trusted_only)

    def _keep(self, key: tuple[object, ...], path: Path, read: Callable[[Path], T]) -> T:
        now = signature(path)
        self.seen[path] = now
        known = self._good.get(key)
        if known is not None and now is not None and known[0] == now:
            return known[1]  # type: ignore[return-value]  # a key's value has one type
        try:
            value = read(path)
        except (OSError, ValueError, PolicyError) as error:
            self.note(error)
            if self.forgiving and known is not None:
                return known[1]  # type: ignore[return-value]  # a key's value has one type
            raise
        self._good[key] = (now, value)
        return value

    def note(self, error: Exception) -> None:
        """Remember that a file is to be read again, where the reason may pass by itself."""
        if isinstance(error, OSError) and error.errno not in _LASTING:
            self.unread = True


class GoesBackwards(CrlError):
    """A CRL older than one that was accepted before."""


class Watermarks:
    """The newest CRL accepted for each issuer and scope, kept across restarts."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._marks: dict[str, Watermark] = {}
        self._dirty = False
        if path is not None:
            try:
                found = json.loads(path.read_bytes())
                self._marks = {k: Watermark(n, float(t)) for k, (n, t) in found.items()}
            except FileNotFoundError:
                pass
            except (OSError, ValueError, TypeError, AttributeError) as error:
                raise OSError(f"{path}: {error}; remove it to begin anew") from error

    def refuses(self, crl: Crl) -> str | None:
        """Why a CRL is older than what was accepted, or None."""
        return goes_back(self._marks.get(scope_key(crl)), crl)

    def note(self, crl: Crl) -> None:
        """Remember a CRL as accepted."""
        mark = watermark(crl)
        if self._marks.get(scope_key(crl)) != mark:
            self._marks[scope_key(crl)] = mark
            self._dirty = True

    def save(self) -> None:
        """Write what changed, atomically.  Raises OSError."""
        if not self._dirty or self._path is None:
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        found = {key: (mark.number, mark.this_update) for key, mark in self._marks.items()}
        with tempfile.NamedTemporaryFile("w", dir=self._path.parent, delete=False) as file:
            json.dump(found, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(file.name, self._path)
        self._dirty = False


class Store:
    """Holds the policy in force.  `changed` is told how each reload ended, in the loop's thread."""

    def __init__(
        self,
        path: Path,
        state_dir: Path,
        *,
        trusted_only: bool,
        changed: Callable[[Reload], None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.path = path
        self._changed = changed
        self._clock = clock
        self.current: Policy | None = None
        self._good = b""
        self._trusted_only = trusted_only
        marks = Watermarks(state_dir / "crl-watermarks.json")
        self._marks = marks
        self._sources = WatchedSources(path.parent, state_dir, trusted_only, marks)
        self._lock = asyncio.Lock()
        self._wait, self._again_at = RETRY_SECONDS[0], 0.0

    def load(self) -> Reload:
        """Read and build everything; blocking.  Raises `PolicyError` where nothing is in force."""
        sources = self._sources
        sources.begin()
        sources.seen[self.path] = signature(self.path)
        sources.serving = self.current is not None
        problems: tuple[Diagnostic, ...] = ()
        try:
            data = self._read()
            self.current = compile_policy(data, str(self.path), sources)
            self._good = data
        except PolicyError as error:
            problems = error.diagnostics
            self.current = self._second_best(error)
        self._save_marks()
        return Reload(self.current, problems, self._clock(), sources.backwards)

    def _second_best(self, error: PolicyError) -> Policy:
        """The last good policy with those of its files that are sound.

        At start there is none, and only a CRL that goes backwards is set aside.
        """
        if self.current is None and not self._sources.backwards:
            raise error
        self._sources.forgiving = True
        data = self._good or self._read()
        try:
            policy = compile_policy(data, str(self.path), self._sources)
        except PolicyError:
            if self.current is None:
                raise
            return self.current
        self._good = data
        return policy

    def _read(self) -> bytes:
        try:
            return read_file(self.path, MAX_POLICY, trusted_only=self._trusted_only)
        except OSError as error:
            self._sources.note(error)
            why = error.strerror or str(error)
            raise PolicyError([Diagnostic(str(self.path), 0, 0, f"can't be read: {why}")]) from None

    def _save_marks(self) -> None:
        try:
            self._marks.save()
        except OSError as error:
            log.warning("CRL numbers aren't remembered across restarts: %s", error)

    async def reload(self) -> None:
        """Load aside, then tell; one at a time.  Whatever goes wrong leaves what is in force."""
        async with self._lock:
            try:
                result = await asyncio.to_thread(self.load)
            except Exception as error:
                log.exception("a reload failed")
                if self.current is None:
                    raise
                self._sources.unread = True
                why = f"it can't be used: {type(error).__name__}, see the log"
                problem = Diagnostic(str(self.path), 0, 0, why)
                result = Reload(self.current, (problem,), self._clock())
            self._plan_again()
            self._changed(result)

    def _plan_again(self) -> None:
        """Set when to look again at what couldn't be read: later each time."""
        first, longest = RETRY_SECONDS
        self._again_at = time.monotonic() + self._wait
        self._wait = min(2 * self._wait, longest) if self._sources.unread else first

    async def watch(self) -> None:
        """Reload whenever a file changes; until cancelled."""
        while True:
            await asyncio.sleep(POLL_SECONDS)
            if await asyncio.to_thread(self._moved):
                for _ in range(20):  # at most a second: a file that is always written to is read
                    await asyncio.sleep(SETTLE_SECONDS)
                    if not await asyncio.to_thread(self._restless):
                        break
                await self.reload()

    def _moved(self) -> bool:
        """Whether any file looks otherwise than when it was read, or is to be read again."""
        if self._sources.unread and time.monotonic() >= self._again_at:
            return True
        return any(signature(path) != seen for path, seen in list(self._sources.seen.items()))

    def _restless(self) -> bool:
        """Whether a changed file was written to within the settling time."""
        now = time.time_ns()
        for path, seen in list(self._sources.seen.items()):
            found = signature(path)
            if found is not None and found != seen:
                age = (now - max(found.mtime, found.ctime)) / 1e9
                if 0 <= age < SETTLE_SECONDS:
                    return True
        return False

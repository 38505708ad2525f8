"""Download one CRL, verify it, replace the old one, and schedule the next download.

A downloaded CRL replaces the old file only if an authority of the trust signed it and if it is not
older, nor lists fewer without being newer.  So the file in the state directory is always a complete
CRL that was valid once.  A CRL that is refused though an authority of the trust signed it is put
beside that file: there it revokes what it lists, and never says good, until a newer one of its
issuer and scope is accepted.  An older one that is given again, by a stale mirror or on the way of
plain http, doesn't take its place.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import logging
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import aiohttp

from sidecar.core.config.crl_place import shown
from sidecar.core.errors import brief, printable
from sidecar.core.revocation.crl.index import Crl, CrlError, CrlFile, read_crls, supersedes
from sidecar.core.revocation.crl.succession import OMITS, Effort, is_past, omitted, replaces
from sidecar.runtime.crl_worker import CrlWorkers
from sidecar.runtime.files import (
    MAX_CRL,
    crl_state_path,
    may_pass,
    read_file,
    rename_broken,
    revoking_path,
    write_file,
)

from .http_client import Failure, Fetched, FetchError, HttpLimits, fetch, max_age
from .metrics import FetchMetrics
from .plan import CrlSource

log = logging.getLogger(__name__)

INTERVAL = 3600.0
"""Seconds between two downloads if the server sends no max-age."""

SHORTEST, LONGEST = 60.0, 86400.0
"""Bounds of the interval that a server's max-age can set, in seconds."""

FIRST_RETRY, LAST_RETRY = 30.0, 3600.0
"""After a failure: the first pause, doubled each time, and the longest, in seconds."""

LOOK_EVERY = 5.0
"""Seconds between two looks at the clock while waiting."""

AHEAD = 0.1
"""Last part of a CRL's lifetime, before nextUpdate, in which a new one is requested."""

LARGE_CRL = 1024 * 1024
"""Minimum size of a CRL, in bytes, for parsing in a worker process: OCSP answers must not wait."""

TOLERANCE = 300.0
"""Seconds by which the clock of a CRL's signer may be ahead."""

PUBLIC = 0o644
"""File mode of downloads: CRLs are public, and `serve` may run as another user."""

MAX_REFUSED, MAX_JOINED = 16, 16 * 1024 * 1024
"""Maximum number and octets of refused CRLs beside the current one; beyond, the last one stays."""

MAX_META = 65536
SUCCESSES = frozenset({"updated", "unchanged", "not_modified"})


@dataclass(frozen=True, slots=True)
class Verdict:
    """The verdict about a CRL's bytes: `result` is `updated`, `invalid`, `backwards` or `stale`.

    Times are seconds since the epoch; `next_update` is 0 where there is none.  `revokes`: an
    authority of the trust signed at least one CRL in it.
    """

    result: str
    detail: str = ""
    this_update: float = 0.0
    next_update: float = 0.0
    revokes: bool = False

    @property
    def replaces(self) -> bool:
        """Whether the CRL may replace the current one."""
        return self.result in ("updated", "stale")


WHOLE_EVERY = 86400.0
"""Seconds for which the validators of an answer count.

Whoever gave one answer, on the way of plain http, chose them: an old CRL with `ETag: *`, or with
that of the newer one, would be "not modified" for as long as they are given back.
"""


@dataclass(frozen=True, slots=True)
class Validators:
    """The server's validators for a conditional request, and the SHA-256 of their CRL.

    `at`: when the answer came that had them.
    """

    sha256: str = ""
    etag: str = ""
    last_modified: str = ""
    at: float = 0.0

    def headers(self) -> dict[str, str]:
        """Return the headers of a conditional request (RFC 9110, 13.1)."""
        found = {"If-None-Match": self.etag, "If-Modified-Since": self.last_modified}
        return {name: value for name, value in found.items() if value}


def judge(downloaded: CrlFile, held: CrlFile | None, now: float) -> Verdict:
    """Decide whether a download may replace the CRLs that are in place.

    A CRL after its nextUpdate is `stale`: the server has no newer one, but it can't say good.
    """
    new, mistakes = downloaded
    if mistakes:
        return Verdict("invalid", str(mistakes[0])[:500], revokes=bool(new))
    unusable = [crl.unusable for crl in new if crl.unusable]
    if unusable:
        return Verdict("invalid", unusable[0], revokes=True)
    # A current CRL of other authorities, or from the future, doesn't make a new one older.
    old = () if held is None else held.crls
    in_force = [c for c in old if not c.unusable and c.this_update <= now + TOLERANCE]
    current = [crl for crl in new if not is_past(crl, new, now + TOLERANCE)]
    if not all(supersedes(one, other) for one in current for other in in_force):
        return Verdict("backwards", "older than the current CRL", revokes=True)
    if omitted(new, in_force):
        return Verdict("backwards", OMITS, revokes=True)
    next_update = min(crl.next_update or 0.0 for crl in current)
    stale = bool(next_update) and next_update <= now
    this_update = max(crl.this_update for crl in new)
    return Verdict("stale" if stale else "updated", "", this_update, next_update)


def _write(path: Path, data: bytes) -> None:
    """Write a file that `serve` can read; replace even a directory there.  Raises OSError."""
    if path.is_dir() and not path.is_symlink():
        rename_broken(path)
    write_file(path, data, PUBLIC)


class CrlJob:
    """Keep one CRL of one trust up to date.

    `turn` is for the large downloads of a trust from one server: one after the other, since each is
    held in memory until it is verified, and a server that the policy names often could make them
    use up what there is for all trusts.  A slow server holds up no other one.
    """

    def __init__(
        self,
        source: CrlSource,
        state_dir: Path,
        session: aiohttp.ClientSession,
        metrics: FetchMetrics,
        *,
        limits: HttpLimits | None = None,
        clock: Callable[[], float] = time.time,
        workers: CrlWorkers | None = None,
        turn: asyncio.Lock | None = None,
    ) -> None:
        self.source = source
        self._turn = turn or asyncio.Lock()
        self._workers = workers or CrlWorkers()
        self.path = crl_state_path(state_dir, source.trust, source.url)
        self._session = session
        self._metrics = metrics
        self._limits = limits or HttpLimits()
        self._clock = clock
        self._failures = 0
        self._standing: Verdict | None = None
        self._known = False

    async def run(self) -> None:
        """Download the CRL again and again, until cancelled."""
        while True:
            await self._rest(await self.step())

    async def _rest(self, seconds: float) -> None:
        """Wait, by whichever clock is ahead.

        While a machine is suspended the monotonic clock stands still, and the CRL may end.
        """
        passed = asyncio.get_running_loop().time
        end, due = passed() + seconds, self._clock() + seconds
        while (left := min(end - passed(), due - self._clock())) > 0.0:
            await asyncio.sleep(min(left, LOOK_EVERY))

    async def step(self) -> float:
        """Download once; return the seconds to wait.  Raises only on cancellation."""
        try:
            result, delay = await self.download()
        except Exception as error:  # a bug here must not stop later downloads
            log.exception("trust %s: a download failed", self.source.trust)
            self._count("error", brief(error))
            result, delay = "error", 0.0
        if result in SUCCESSES:
            self._failures = 0
            return delay
        self._failures += 1
        return self._pause(delay)

    async def download(self) -> tuple[str, float]:
        """Download once; return the result (a metric label) and the seconds to wait."""
        delay = 0.0
        try:
            async with AsyncExitStack() as stack:
                answer = await self._get(lambda: stack.enter_async_context(self._turn))
                result, detail = await self._take(answer)
            if result in SUCCESSES:
                delay = self._delay(max_age(answer.headers))
        except FetchError as error:
            result, detail, delay = error.failure.value, str(error), error.retry_after or 0.0
        except OSError as error:
            result, detail = "write_error", f"{self.path}: {error.strerror or error}"
        self._count(result, detail)
        return result, min(delay, LONGEST)

    async def _get(self, turn: Callable[[], Awaitable[None]]) -> Fetched:
        held = await asyncio.to_thread(_read, self.path)
        if not self._known:
            await self._recognize(held)
        now, standing, headers = self._clock(), self._standing, {}
        if standing is not None and not 0.0 < standing.next_update <= now:
            validators = await asyncio.to_thread(_load_validators, self._meta, held)
            if 0.0 <= now - validators.at < WHOLE_EVERY:
                headers = validators.headers()
        url = self.source.url
        answer = await fetch(self._session, url, self._limits, headers=headers, turn=turn)
        if answer.status == 304 and not headers:
            why = "HTTP status 304 to a request without a condition"
            raise FetchError(Failure.STATUS, why)
        return answer

    async def _recognize(self, held: bytes | None) -> None:
        """Check the CRL that was in place before this process started, and count it."""
        if held is not None:
            verdict = await self._judge(held, None)
            self._standing = verdict if verdict.replaces else None
        self._known = True

    async def _judge(self, data: bytes, held: bytes | None) -> Verdict:
        try:
            new = await self._read_crls(data)
            old = None if held is None else await self._read_crls(held)
        except (OSError, CrlError) as error:
            return Verdict("invalid", f"could not be verified: {brief(error)}")
        return await asyncio.to_thread(judge, new, old, self._clock())

    async def _read_crls(self, data: bytes) -> CrlFile:
        """Parse and verify a file; a large one in a worker process.  Raises OSError, CrlError."""
        source = self.source
        parse = self._workers.read_data if len(data) >= LARGE_CRL else read_crls
        return await asyncio.to_thread(parse, data, source.url, source.authorities)

    async def _take(self, answer: Fetched) -> tuple[str, str]:
        """Verify a download and put it in place.  Raises `OSError`."""
        if answer.status == 304 and self._standing is not None:
            await self._revoke_no_longer(await asyncio.to_thread(_read, self.path))
            return self._unless_stale("not_modified", self._standing)
        held = await asyncio.to_thread(_read, self.path)
        verdict = await self._judge(answer.body, None if answer.body == held else held)
        if not verdict.replaces:
            if verdict.revokes:
                await self._revoke_too(answer.body, held)
            return verdict.result, verdict.detail
        if answer.body != held:
            await asyncio.to_thread(_write, self.path, answer.body)
        await self._revoke_no_longer(answer.body)
        self._standing = verdict
        await asyncio.to_thread(self._save_validators, answer)
        self._metrics.size.labels(*self._labels).set(len(answer.body))
        return self._unless_stale("unchanged" if answer.body == held else "updated", verdict)

    async def _revoke_no_longer(self, held: bytes | None) -> None:
        """Remove what was refused before, if what is in place replaces it."""
        refused = await self._parsed(await asyncio.to_thread(_read, revoking_path(self.path)))
        if not refused or not _left(refused, await self._in_force(held)):
            await asyncio.to_thread(self._revoke_by, None)

    async def _revoke_too(self, refused: bytes, held: bytes | None) -> None:
        """Put beside the CRL in place what was refused now, with what still revokes there."""
        before = await asyncio.to_thread(_read, revoking_path(self.path))
        old, new = await self._parsed(before), await self._parsed(refused)
        current = await self._in_force(held)
        if before is not None and _left(old, [*current, *new]):
            if not _left(new, [*current, *old]):
                return
            if len(old) + len(new) <= MAX_REFUSED and len(before) + len(refused) <= MAX_JOINED:
                refused = _as_pem(before) + _as_pem(refused)
        await asyncio.to_thread(self._revoke_by, refused)

    async def _in_force(self, held: bytes | None) -> list[Crl]:
        """Return the CRLs in place that are not from the future."""
        latest = self._clock() + TOLERANCE
        return [crl for crl in await self._parsed(held) if crl.this_update <= latest]

    async def _parsed(self, data: bytes | None) -> Sequence[Crl]:
        """Return the valid CRLs of a file.  Raises OSError if they can't be verified for now."""
        if data is None:
            return ()
        try:
            return (await self._read_crls(data)).crls
        except CrlError:
            return ()

    def _revoke_by(self, refused: bytes | None) -> None:
        """Put beside the CRL in place what was refused, or take it away.  Raises OSError."""
        path = revoking_path(self.path)
        if refused is None:
            try:
                path.unlink(missing_ok=True)
            except OSError:  # a directory, say
                rename_broken(path)
        elif _read(path) != refused:
            _write(path, refused)

    def _unless_stale(self, result: str, verdict: Verdict) -> tuple[str, str]:
        if 0.0 < verdict.next_update <= self._clock():
            return "stale", "the address has no CRL newer than its nextUpdate"
        return result, ""

    @property
    def _meta(self) -> Path:
        return self.path.with_suffix(".json")

    @property
    def _labels(self) -> tuple[str, str]:
        return self.source.trust, shown(self.source.url)

    def _save_validators(self, answer: Fetched) -> None:
        found = Validators(
            hashlib.sha256(answer.body).hexdigest(),
            answer.headers.get("etag", "")[:1024],
            answer.headers.get("last-modified", "")[:128],
            self._clock(),
        )
        _write(self._meta, json.dumps(asdict(found)).encode())

    def _count(self, result: str, detail: str) -> None:
        trust, url = self._labels
        self._metrics.fetches.labels(trust, result).inc()
        if self._standing is not None:
            self._metrics.next_update.labels(trust, url).set(self._standing.next_update)
        if result in SUCCESSES:
            self._metrics.last_success.labels(trust, url).set(self._clock())
            log.info("trust %s: CRL from %s: %s", trust, url, result)
        else:
            log.warning("trust %s: CRL from %s: %s: %s", trust, url, result, printable(detail))

    # -- when again ----------------------------------------------------------------------------

    def _delay(self, fresh_for: float | None) -> float:
        """Return the seconds to wait: by max-age, but in time before nextUpdate; with jitter."""
        interval = min(max(fresh_for or INTERVAL, SHORTEST), LONGEST)
        delay = interval * _between(0.9, 1.0)
        standing = self._standing
        if standing is not None and standing.next_update:
            life = standing.next_update - standing.this_update
            ahead = standing.next_update - life * AHEAD * _between(0.5, 1.0) - self._clock()
            # in the last tenth of its lifetime: often, to find a new CRL soon after it appears
            delay = min(delay, max(ahead, min(SHORTEST, life * AHEAD / 4), 5.0))
        return delay

    def _pause(self, asked: float) -> float:
        """Return the seconds to wait after a failure: our own, or the server's (Retry-After).

        The pause is never longer than `LAST_RETRY`, and a CRL that is still valid gets several
        attempts before it ends.
        """
        ours = min(FIRST_RETRY * 2.0 ** min(self._failures - 1, 20), LAST_RETRY)
        pause = max(ours * _between(0.5, 1), min(asked, LAST_RETRY))
        left = self._standing.next_update - self._clock() if self._standing else 0.0
        return min(pause, max(left / 4, FIRST_RETRY)) if left > 0 else pause


def _left(old: Sequence[Crl], new: Sequence[Crl]) -> list[Crl]:
    """Return the CRLs that none of the new ones replaces."""
    effort = Effort()
    return [crl for crl in old if not any(replaces(each, crl, effort=effort) for each in new)]


def _as_pem(data: bytes) -> bytes:
    """Return a file of CRLs as PEM."""
    if not data.startswith(b"\x30"):
        return data + b"\n"
    text = base64.encodebytes(data)
    return b"-----BEGIN X509 CRL-----\n" + text + b"-----END X509 CRL-----\n"


def _between(low: float, high: float) -> float:
    return random.uniform(low, high)


def _read(path: Path, limit: int = MAX_CRL) -> bytes | None:
    """Read a file of the state directory; rename one that can't be used to NAME.broken.

    Raises OSError if it can't be read for now: it may be sound.
    """
    try:
        return read_file(path, limit)
    except FileNotFoundError:
        return None
    except OSError as error:
        if may_pass(error):
            raise
        log.warning("%s is set aside: %s", path, error.strerror or error)
        rename_broken(path)
        return None


def _load_validators(path: Path, held: bytes | None) -> Validators:
    """Load the validators that were stored for exactly these bytes; none if in doubt."""
    try:
        stored: dict[str, Any] = json.loads(_read(path, MAX_META) or b"{}")
        at = float(stored.pop("at", 0.0))
        found = Validators(**{name: str(value) for name, value in stored.items()}, at=at)
    except (OSError, ValueError, TypeError, AttributeError):
        return Validators()
    same = held is not None and found.sha256 == hashlib.sha256(held).hexdigest()
    printable = all(v.isprintable() and v.isascii() for v in (found.etag, found.last_modified))
    return found if same and printable else Validators()

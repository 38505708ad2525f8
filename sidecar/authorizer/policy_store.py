"""Hold the policy in force: read it, watch its files, build a new one aside and swap it atomically.

The start is the first reload.  The policy's text and each file that it names are separate sources:
in force are the last good text and, for each trust, the last good certificates and CRLs, and always
every denylist line and every CRL entry that can be parsed.  At the start, the copy that an earlier
process kept in the state directory replaces an invalid file.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import operator
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from sidecar.core.errors import Diagnostic, PolicyError, brief
from sidecar.core.policy.compile import Draft, compile_draft
from sidecar.core.policy.model import Policy, Trust
from sidecar.core.policy.spec import is_meant_as_policy
from sidecar.core.policy_tests import run_cases
from sidecar.core.revocation.denylist import Denylist
from sidecar.runtime.files import MAX_POLICY, crl_state_path, read_file

from .fleet_follower import FleetFollower, no_release
from .lanes import CrlReaders
from .last_good import MAX_HELD, InForce, LastGood, beside, held
from .readings import SETTLE_SECONDS, Readings
from .trust_files import Resolved, TrustFiles
from .trust_sources import FileReading, Key, TrustSources
from .watermarks import Watermarks

log = logging.getLogger("mtls-sidecar")

POLL_SECONDS = 0.2
"""Seconds between two checks of the files."""

FAILED_SECONDS = 1.0
"""Seconds until the next attempt after a reload that failed with an internal error."""

ASKED_PATIENCE = 2.0
"""Seconds that a reload which was asked for waits until every changed file has been read."""

KEEPING_BEFORE_SECONDS = 0.3
"""How long a reload waits for copies to be written before it puts new files into force."""

KEEPING_SECONDS = 1.0
"""How long the confirmation of a revocation waits for a copy to be written."""

KEEP_AGAIN_SECONDS = 5.0
"""Seconds until copies that couldn't be written are tried again."""

CLOCK_STEP = 1.0
"""Seconds by which the clock must have gone back since the last reload for another one."""

POLICY: Key = ("policy",)


@dataclass(frozen=True, slots=True)
class Reload:
    """The result of a reload: the `policy` now in force, and `diagnostics` of refused parts."""

    policy: Policy
    diagnostics: tuple[Diagnostic, ...]
    at: float
    backwards: int = 0

    @property
    def ok(self) -> bool:
        """Whether everything was accepted; otherwise something older than the files is in force."""
        return not self.diagnostics


class Store:
    """Hold the policy in force.  `changed` is called after each reload, in the loop's thread."""

    def __init__(
        self,
        path: Path,
        state_dir: Path,
        *,
        trusted_only: bool,
        changed: Callable[[Reload], None],
        clock: Callable[[], float] = time.time,
        fleet: FleetFollower | None = None,
    ) -> None:
        self.path = path
        self.fleet = fleet
        self.current: Policy | None = None
        self._changed = changed
        self._clock = clock
        self._trusted_only = trusted_only
        self._readings = Readings()
        self._last_good = LastGood(state_dir / "last-good")
        self._marks = Watermarks(state_dir / "crl-watermarks.json")
        self._workers = CrlReaders(are_own=True)
        self._sources = TrustSources(
            path.parent,
            state_dir,
            trusted_only,
            self._marks,
            self._readings,
            self._last_good,
            self._workers,
            clock,
        )
        self._files = TrustFiles(self._sources)
        self._fetched = crl_state_path(state_dir, "", "").parent
        self._draft: Draft | None = None
        self._digest = ""
        self._shared: Key = (*POLICY, os.path.abspath(path))
        self._had: set[str] = set()
        self._tested: set[str] = set()
        self._told: tuple[Policy | None, tuple[Diagnostic, ...]] = None, ()
        self._backwards: set[Key] = set()
        self._turns_at = float("inf")
        self._looked_at = float("-inf")
        self._failed = False
        self._unfinished = self._is_unread = False
        self._lock = threading.Lock()
        self._asking = asyncio.Lock()
        self._closing = threading.Event()
        self._broken: Exception | None = None
        self._keeping: asyncio.Task[None] | None = None
        self._keeping_before: threading.Thread | None = None
        self._keep_again = 0.0
        self._unkept: tuple[dict[Key, InForce], list[Key] | None] | None = None

    def load(self) -> Reload:
        """Check every file and put every usable part into force; blocking.

        Only while no policy is in force, all files are waited for.  Raises `PolicyError` if no
        policy can be put into force then.
        """
        starts = self.current is None
        if starts:
            self._read_state()
        if self.fleet is not None:
            self.fleet.look()
        self._readings.begin(patient=starts)
        if not starts:
            self._sources.look_at_others()
        problems: list[Diagnostic] = []
        self._unfinished = False
        self._looked_at = self._clock()
        for draft, digest in self._drafts(problems):
            resolved = self._files.resolve(draft)
            trusts = {n: r.trust for n, r in resolved.items() if r.trust is not None}
            told = [problem for each in resolved.values() for problem in each.problems]
            if len(trusts) == len(resolved):
                refused = self._put(draft, digest, resolved)
                problems += refused or told
                if not refused:
                    break
            if any(each.pending for each in resolved.values()):
                self._unfinished = True
            else:
                problems += told
        self._readings.end()
        if starts:
            self._readings.take_fresh()  # the start is logged separately; later reloads are not
        if self.current is None:
            raise PolicyError(problems or [self._mistake("it can't be used")])
        if self.fleet is not None:
            aside = self._fetched, self._last_good.manifest.parent
            unread = [path for path in self._readings.waited if path.parent not in aside]
            settled = not self._unfinished and not unread
            self.fleet.confirm(self._digest, self.current.denylists, settled=settled)
        found = tuple(sorted({*problems, *self._still_told()}))
        if starts:
            self._told = self.current, found
        return Reload(self.current, found, self._clock(), self._new_backs())

    @property
    def is_reading(self) -> bool:
        """Whether the last load went on without a file that is still being read."""
        return self._readings.pending

    @property
    def _is_settled(self) -> bool:
        """Whether the last reload has read every file."""
        return not self._unfinished and not self._readings.pending

    def _still_told(self) -> list[Diagnostic]:
        """Return the mistakes told of files that are being read again: nobody knows better yet."""
        waited = {str(path) for path in self._readings.waited}
        return [each for each in self._told[1] if each.file in waited]

    def _read_state(self) -> None:
        """Read what earlier processes kept.  Raises `PolicyError` if it can't be read for now."""
        found = {
            self._marks.path: self._marks.read(),
            self._last_good.manifest: self._last_good.read(),
        }
        unread = [unread_mistake(path, error) for path, error in found.items() if path and error]
        self._is_unread = bool(unread)
        if unread:
            raise PolicyError(unread)

    def _put(
        self, draft: Draft, digest: str, resolved: dict[str, Resolved]
    ) -> Sequence[Diagnostic]:
        """Put a policy into force or return the reasons; an internal error is one of them."""
        trusts = {name: each.trust for name, each in resolved.items() if each.trust is not None}
        try:
            failures = self._failing_tests(draft, digest, trusts)
            if not failures:
                self._put_into_force(draft, digest, resolved)
            return failures
        except Exception as error:  # noqa: BLE001 - it is told
            return self._mistakes(error)

    def _failing_tests(
        self, draft: Draft, digest: str, trusts: dict[str, Trust]
    ) -> list[Diagnostic]:
        """Return the failures of the policy's own tests; they run once for each new text.

        A policy that was in force before has passed them, and only its files have changed.
        """
        if not draft.policy.tests or digest == self._digest or digest in self._tested:
            return []
        copy = self._last_good.copy_of(*POLICY)
        if copy is not None and copy[1] == digest:
            return []

        def read(certificate: str) -> bytes:
            return read_file(self.path.parent / certificate, MAX_POLICY)

        policy, now = draft.bind(trusts), self._clock()
        outcome = run_cases(policy, policy.tests, str(self.path), now, read)
        if not outcome.failed:
            self._tested = {digest}
        return [failure.diagnostic() for failure in outcome.failed]

    def _drafts(self, problems: list[Diagnostic]) -> Iterator[tuple[Draft, str]]:
        """Yield the policies to try: the current file, then the one that is or was in force."""
        outcome = self._readings.ask(POLICY, self.path, lambda: self._read(self.path))
        if outcome is not None and outcome.error is not None:
            problems += self._mistakes(outcome.error)
            if self._draft is not None:
                yield from self._copies(self._shared)
        elif outcome is not None and outcome.value.value is not self._draft:
            yield outcome.value
        if self._draft is not None:
            yield self._draft, self._digest
        else:
            yield from self._copies(POLICY)

    def _copies(self, name: Key) -> Iterator[tuple[Draft, str]]:
        """Yield the policy kept under a name, unless it was in force here before.

        Another instance may have had one in force that this one never saw, while it hung.
        """
        copy = self._last_good.copy_of(*name)
        if copy is None or copy[1] in self._had:
            return
        path, digest = copy
        key = ("kept", *POLICY, digest)
        kept = self._readings.ask(key, path, lambda: self._read(path), is_whole=True)
        if kept is not None and kept.error is None and kept.value.digest == digest:
            yield kept.value

    def _read(self, path: Path) -> FileReading:
        data = read_file(path, MAX_POLICY, trusted_only=self._trusted_only)
        try:
            draft = compile_draft(data, str(self.path))
        except PolicyError:
            if is_meant_as_policy(data):
                raise
            # Its mistakes quote it, and every local user may read them in /readyz.
            message = "it is no policy: it has no line `version: 1`"
            raise PolicyError([self._mistake(message, "run mtls-sidecar check")]) from None
        return FileReading(draft, hashlib.sha256(data).hexdigest())

    def _mistakes(self, error: BaseException) -> tuple[Diagnostic, ...]:
        if isinstance(error, PolicyError):
            return error.diagnostics
        if isinstance(error, FileNotFoundError) and self.fleet is not None:
            return (no_release(self.fleet.fleet, self.path),)
        if isinstance(error, OSError):
            return (self._mistake(f"can't be read: {error.strerror or error}"),)
        log.error("the policy can't be used", exc_info=error)
        return (self._mistake(f"it can't be used: {type(error).__name__}: {brief(error)}"),)

    def _mistake(self, message: str, hint: str = "") -> Diagnostic:
        return Diagnostic(str(self.path), 0, 0, message, hint)

    def _put_into_force(self, draft: Draft, digest: str, resolved: dict[str, Resolved]) -> None:
        """Put a policy into force, and keep copies of its files for the next start before."""
        trusts = {name: each.trust for name, each in resolved.items() if each.trust is not None}
        denylists = self.fleet.denylists if self.fleet is not None else ()
        policy = self.current
        if policy is None or not self._is_same(draft, trusts, denylists):
            warnings = [warning for each in resolved.values() for warning in each.warnings]
            dated = [warning for each in resolved.values() for warning in each.dated]
            policy = draft.bind(trusts, warnings, dated, denylists)
        kept = self._to_keep(draft, digest, resolved)
        self._keep_before(*kept)
        self.current = policy
        self._draft, self._digest = draft, digest
        self._had.add(digest)
        self._files.commit(resolved)
        self._turns_at = min((t for r in resolved.values() for t in r.ahead), default=float("inf"))
        self._unkept, self._keep_again = kept, 0.0

    def _to_keep(
        self, draft: Draft, digest: str, resolved: dict[str, Resolved]
    ) -> tuple[dict[Key, InForce], list[Key] | None]:
        """Return the files in force, and the keys of all whose copies are to stay; None: of any."""
        files = {key: file for each in resolved.values() for key, file in each.files.items()}
        # The copy of a refused download is removed as soon as the fetcher removes its file.
        named = [
            POLICY,
            self._shared,
            *(k for k in _named(draft) if k[0] != "revoking" or k in files),
        ]
        partly = [key for key in named if key not in files]
        named += [beside(key) for key in partly]
        named += [held(key, n) for key in partly if key[0] == "crl" for n in range(MAX_HELD)]
        policy = InForce(self.path, digest)
        waits = any(each.waits for each in resolved.values())
        return {POLICY: policy, self._shared: policy, **files}, None if waits else named

    def _keep_before(self, files: dict[Key, InForce], named: list[Key] | None) -> None:
        """Write copies of files that are new, before they come into force.

        So whoever was seen denied stays so, whatever becomes of file and process.  A disk that is
        slow or hangs delays nothing by more than `KEEPING_BEFORE_SECONDS`.
        """
        is_writing = self._keeping_before is not None and self._keeping_before.is_alive()
        if is_writing or not self._last_good.lacks(files):
            return
        save = threading.Thread(
            target=self._last_good.save, args=(files, named), name="keeping", daemon=True
        )
        with contextlib.suppress(RuntimeError):  # no more threads: it is written after
            save.start()
            self._keeping_before = save
            save.join(KEEPING_BEFORE_SECONDS)

    def _is_same(
        self, draft: Draft, trusts: dict[str, Trust], denylists: tuple[Denylist, ...]
    ) -> bool:
        """Return whether what is in force is made of just these."""
        current = self.current
        return (
            current is not None
            and draft is self._draft
            and all(current.trusts[name] is trust for name, trust in trusts.items())
            and len(current.denylists) == len(denylists)
            and all(map(operator.is_, current.denylists, denylists))
        )

    def _new_backs(self) -> int:
        """Return the number of newly refused CRLs that are older than the accepted ones."""
        found = self._sources.backwards
        new = found - self._backwards
        self._backwards = set(found)
        return len(new)

    async def reload(self, *, asked: bool = True) -> None:
        """Reload and report the result; one reload at a time.  An error changes nothing.

        Unless `asked`, a reload that read nothing and changed nothing is not reported.
        """
        async with self._asking:  # so that at most one thread waits for the other reload
            await asyncio.to_thread(self._reload, asyncio.get_running_loop(), asked)

    def _reload(self, loop: asyncio.AbstractEventLoop, asked: bool) -> None:
        """Do as `reload`, and let the loop report the result in its next turn; blocking."""
        with self._lock:
            self._failed = False
            try:
                result = self._loaded(asked)
            except Exception as error:
                self._failed = True
                log.exception("a reload failed")
                if self.current is None:
                    raise
                why = f"it can't be used: {type(error).__name__}, see the log"
                result = Reload(self.current, (self._mistake(why),), self._clock())
            now = result.policy, result.diagnostics
            # A policy whose files are still being read is not reported yet: the next reload puts it
            # into force.
            news = self._is_settled and self._readings.take_fresh() > 0
            if asked or news or now != self._told:
                self._told = now
                with contextlib.suppress(RuntimeError):  # the loop has ended
                    # While the lock is held: an older policy is never reported after a newer one.
                    loop.call_soon_threadsafe(self._report, result)

    def _report(self, result: Reload) -> None:
        try:
            self._changed(result)
        except Exception as error:  # noqa: BLE001 - `watch` raises it
            self._broken = error

    def _loaded(self, asked: bool) -> Reload:
        """Load; if asked, until every file was read, so that the result is about what is saved.

        A file that hangs is not waited for longer than `ASKED_PATIENCE`.
        """
        end = time.monotonic() + ASKED_PATIENCE
        result = self.load()
        while asked and not self._is_settled and time.monotonic() < end:
            threading.Event().wait(SETTLE_SECONDS)
            backwards = result.backwards
            result = self.load()
            result = replace(result, backwards=backwards + result.backwards)
        return result

    # -- state kept for the next process

    def _keep_soon(self) -> None:
        """Write copies and watermarks in a thread, so that no reload waits for a disk."""
        is_idle = self._keeping is None or self._keeping.done()
        if self._unkept is not None and is_idle and time.monotonic() >= self._keep_again:
            self._keeping = asyncio.create_task(asyncio.to_thread(self.keep))

    async def kept(self) -> bool:
        """Wait until what is in force was kept, but not for a disk that hangs; return whether."""
        for _ in range(3):  # what is being written may be older than what is in force
            if self._unkept is not None and self._last_good.is_behind:
                await self.reload(asked=False)  # another instance has written meanwhile
            self._keep_soon()
            if self._keeping is None or self._keeping.done():
                break
            await asyncio.wait([self._keeping], timeout=KEEPING_SECONDS)
        done = self._keeping is None or self._keeping.done()
        return done and self._unkept is None

    def keep(self) -> None:
        """Write copies of the files in force, and the watermarks; blocking."""
        unkept, self._unkept = self._unkept, None
        # before the watermarks, which would refuse an older copy
        if unkept is not None and not self._last_good.save(*unkept):
            if not self._last_good.is_behind:
                self._keep_again = time.monotonic() + KEEP_AGAIN_SECONDS
            self._unkept = self._unkept or unkept
        try:
            self._marks.save()
        except OSError as error:
            log.warning("CRL numbers aren't remembered across restarts: %s", error)

    # -- watching

    async def watch(self) -> None:
        """Reload whenever a file changes; until cancelled.

        A thread looks and reads by itself, so that the result needs a single turn of the loop: one
        may be long while many requests come at once.
        """
        loop = asyncio.get_running_loop()
        is_watching = False
        try:
            while self._broken is None:
                self._keep_soon()
                is_watching = is_watching or self._start_watching(loop)
                await asyncio.sleep(POLL_SECONDS if is_watching else FAILED_SECONDS)
            raise self._broken
        finally:
            self._closing.set()

    def _start_watching(self, loop: asyncio.AbstractEventLoop) -> bool:
        watcher = threading.Thread(
            target=self._watch_files, args=(loop,), name="watching", daemon=True
        )
        try:
            watcher.start()
        except RuntimeError as error:  # no more threads: it is tried again
            log.error("files can't be checked for changes now: %s", error)
            return False
        return True

    def _watch_files(self, loop: asyncio.AbstractEventLoop) -> None:
        """Look for changes and reload, until closed; blocking."""
        try:
            while not self._closing.wait(self._pause()):
                if self._readings.pending or self._failed or self.moved():
                    self._reload(loop, asked=False)
        except Exception as error:  # noqa: BLE001 - `watch` raises it
            self._broken = error

    def _pause(self) -> float:
        if self._failed:
            return FAILED_SECONDS
        return SETTLE_SECONDS if self._readings.pending else POLL_SECONDS

    def moved(self) -> bool:
        """Return whether a file has changed since it was read, or another attempt is due.

        So it is when a CRL from the future becomes current, or a clock goes back to before one.
        """
        if (
            self._is_unread
            or self._last_good.is_behind
            or (self.fleet is not None and self.fleet.moved())
        ):
            return True
        now = self._clock()
        is_turned = now >= self._turns_at or now < self._looked_at - CLOCK_STEP
        return is_turned or self._readings.moved()

    async def close(self) -> None:
        """Stop background work."""
        self._workers.close()
        self._sources.fetched.close()
        self._sources.copies.close()
        if self.fleet is not None:
            self.fleet.close()
        if self._keeping is not None:
            await asyncio.wait([self._keeping], timeout=5)


def unread_mistake(path: Path, error: BaseException) -> Diagnostic:
    """Describe a file of the state directory that can't be read for now."""
    why = getattr(error, "strerror", None) or brief(error) or type(error).__name__
    message = f"can't be read now: {why}; it says what was revoked, so nothing is served without it"
    return Diagnostic(str(path), 0, 0, message, "it is read again and again; see to the disk")


def _named(draft: Draft) -> Iterator[Key]:
    """Yield the keys of all files that the trusts of a policy need."""
    for name, trust in draft.spec.trust.items():
        yield from (("ca", place.text) for place in (*trust.ca, *trust.intermediates))
        yield from (("denylist", place.text) for place in trust.denylist)
        yield from (("crl", name, place.text) for place in trust.crl)
        yield from (("revoking", name, place.text) for place in trust.crl)

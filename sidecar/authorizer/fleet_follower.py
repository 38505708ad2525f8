"""What the fleet says, as far as the daemon itself has verified it.

The node agent is another user's process, and its files are hostile until checked: every entry of
its log is verified here with the pinned keys, and kept in a log of the daemon's own, so that
nothing that was taken is forgotten when the agent's files go back or go away.  A release is copied
into the daemon's own directory only after every file was found to be what the signed entry says,
and its policy to compile; then a link is swapped.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from sidecar.core.config.fleet_settings import FleetSettings
from sidecar.core.errors import Diagnostic, PolicyError, brief, printable
from sidecar.core.fleet.bodies import Release
from sidecar.core.fleet.chain import Chain
from sidecar.core.fleet.entry import MAX_LINE, Refused, parse_line
from sidecar.core.fleet.freshness import Freshness
from sidecar.core.fleet.manifest import POLICY
from sidecar.core.revocation.denylist import Denylist
from sidecar.runtime.files import FileVersion, file_version, read_file
from sidecar.runtime.fleet_log import LogReader, LogWriter
from sidecar.runtime.fleet_places import HEAD, FleetPlaces, log_name
from sidecar.runtime.fleet_state import replay
from sidecar.runtime.release_directory import ReleaseDirectory, make_directory

from .fleet_importing import Importing
from .fleet_memory import kept_revocations, put_aside
from .fleet_release import import_release

log = logging.getLogger("mtls-sidecar")

LOG_SECONDS = 0.2
"""How long one look reads the log: a long one holds up no denylist beside it."""

RETRY_SECONDS = (0.5, 60.0)
"""How soon a release that was refused is tried again, and the longest wait."""


class FleetFollower:
    """Follows the agent's files.  `look` blocks, and never raises for what they hold."""

    def __init__(
        self,
        fleet: FleetSettings,
        node: str,
        state_dir: Path,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.fleet, self.node = fleet, node
        self.places = FleetPlaces(state_dir)
        self.chain = Chain(fleet.name, fleet.keys, fleet.epoch)
        self.refused: Counter[str] = Counter()
        self._problems: dict[str, str] = {}
        self._clock, self._monotonic = clock, monotonic
        self._state_dir = state_dir
        self._own: LogWriter | None = None
        self._unwritten: list[bytes] = []
        self._kept: Denylist | None = None
        self._reader = LogReader(self.places.agent / log_name(fleet.epoch))
        self._stopped_at: FileVersion | None = None
        self._seen: dict[Path, FileVersion | None] = {}
        self._head_seen = 0.0
        self._head_refused = b""
        self.sequence = 0
        """The last entry that is in force here with all that came before it."""
        self._missing = 0  # the first release of those that are not in force
        self._in_place = self._confirmed = ""
        self._more = False
        self._importing = Importing()
        self._failed = ("", 0, 0.0)  # the release that was refused, how often, when to try again
        self._started = False

    # -- what follows from it

    @property
    def denylists(self) -> tuple[Denylist, ...]:
        """The revocations of the log, and those of an earlier log while they still count."""
        kept = () if self._kept is None or self.chain.releases else (self._kept,)
        return (self.chain.denylist, *kept)

    @property
    def due(self) -> Release | None:
        """The release that this node should have in force."""
        return self.chain.release_for(self.node, self.fleet.labels)

    def confirm(self, policy: str, denylists: Sequence[Denylist], *, settled: bool) -> None:
        """Note what the daemon decides with now: the policy's SHA-256, and these denylists.

        `settled`: every file of the policy was read.
        """
        due, last = self.due, self.chain.sequence
        if due is not None and settled and due.directory == self._in_place:
            files = {file.name: file.sha256 for file in due.files}
            if files[POLICY] == policy:
                self._confirmed = due.directory
        if due is not None and due.directory != self._confirmed:
            self._missing = self._missing or due.sequence
            last = min(last, self._missing - 1)
        else:
            self._missing = 0
        if self.chain.not_understood:
            last = min(last, self.chain.not_understood - 1)
        if list(map(id, denylists)) == list(map(id, self.denylists)):
            self.sequence = last

    @property
    def problem(self) -> str:
        """What is wrong now, or nothing."""
        return "; ".join(self._problems.values())

    @property
    def head_age(self) -> float | None:
        """Seconds since the fleet was last known to be as it is here; None without a head.

        A clock that is off, here or at the keeper's, makes it no younger than it was seen.
        """
        head = self.chain.head
        if head is None:
            return None
        return max(self._clock() - head.issued, self._monotonic() - self._head_seen, 0.0)

    def freshness(self) -> Freshness:
        """Until when, by this machine's clock, the last head counts."""
        age = self.head_age
        left = -1.0 if age is None else self.fleet.stale_after - age
        return Freshness(self._clock() + left, self.fleet.stale == "deny")

    # -- looking

    def moved(self) -> bool:
        """Whether one of the agent's files looks otherwise, or a release is to be tried again."""
        looks = {path: file_version(path) for path in self._watched()}
        if self._more or self._importing.is_ready() or self._is_due_again():
            return True
        return looks != self._seen

    def look(self) -> None:
        """Take what is new and holds; count what is refused."""
        if not self._started and not self._begin():
            return
        self._seen = {path: file_version(path) for path in self._watched()}
        steps = {"log": self._read_log, "head": self._read_head, "release": self._take_release}
        for name, step in steps.items():
            try:
                step()
            except OSError as error:
                self._tell(name, f"{error.filename or self.places.agent}: {error.strerror}")
            except Exception as error:
                log.exception("the fleet's files can't be used")
                self._tell(name, brief(error))

    def _begin(self) -> bool:
        """Take again what an earlier process took; nothing else is looked at before."""
        try:
            self._remember()
            self._started = True
            self._tell("own files", "")
        except OSError as error:
            self._tell("own files", f"{error.filename}: {error.strerror}")
        return self._started

    def _watched(self) -> Sequence[Path]:
        agent, due = self.places.agent, self.due
        found = [agent / log_name(self.fleet.epoch), agent / HEAD]
        if due is not None and due.directory != self._in_place:
            found.append(agent / "releases" / due.directory)
        return found

    def _refuse(self, what: str, error: Refused) -> None:
        self.refused[error.why] += 1
        self._tell(what, f"{error.why}: {error.detail}")

    def _tell(self, what: str, problem: str) -> None:
        """Note what is wrong with the log, the head or the release; nothing where it is mended."""
        if problem and problem != self._problems.get(what):
            log.error("fleet %s: %s", self.fleet.name, printable(problem))
        if problem:
            self._problems[what] = problem
        else:
            self._problems.pop(what, None)

    # -- the log

    def _remember(self) -> None:
        """Take again what an earlier process took."""
        own = self.places.daemon
        make_directory(own)
        path = own / log_name(self.fleet.epoch)
        self._in_place = ReleaseDirectory(own).current()
        if why := replay(self.chain, path):
            aside = put_aside(path)
            self._tell("own log", f"{aside} does not fit the pinned keys: {why}")
            self.chain = Chain(self.fleet.name, self.fleet.keys, self.fleet.epoch)
        self._kept = kept_revocations(own, self.fleet)

    def _read_log(self) -> None:
        path = self._seen_log()
        if path is not None and path == self._stopped_at:
            return
        end = self._monotonic() + LOG_SECONDS
        self._more = False
        taken: list[bytes] = []
        last, refused = 0, self.refused.total()
        self._stopped_at = None
        for line in self._reader.new_lines():
            if self._monotonic() > end:
                self._reader.offset -= len(line) + 1
                self._more = True
                break
            before = self.chain.sequence
            try:
                signed = parse_line(line)
                last = signed.entry.sequence
                if self.chain.accept(signed):
                    taken.append(line)
            except Refused as error:
                self._refuse("log", error)
                if self.chain.sequence > before:  # passed over
                    taken.append(line)
                    continue
                self._stopped_at = path
                self._reader.offset = 0
                break
        if taken and refused == self.refused.total() and not self.chain.not_understood:
            self._tell("log", "")
        is_whole = not self._more and self._stopped_at is None
        if 0 < last < self.chain.sequence and is_whole:
            self._refuse("log", Refused("rollback", f"the agent's log ends at {last}"))
        self._keep(taken)

    def _seen_log(self) -> FileVersion | None:
        return self._seen.get(self.places.agent / log_name(self.fleet.epoch))

    def _keep(self, lines: list[bytes]) -> None:
        """Write to the daemon's own log; what can't be written is tried again."""
        self._unwritten += lines
        if not self._unwritten:
            return
        if self._own is None:
            self._own = LogWriter(self.places.daemon / log_name(self.fleet.epoch))
        self._own.append(self._unwritten)
        self._unwritten = []

    def _read_head(self) -> None:
        try:
            line = read_file(self.places.agent / HEAD, MAX_LINE)
        except FileNotFoundError:
            return
        if line == self._head_refused:
            return
        try:
            if self.chain.take_head(parse_line(line.rstrip(b"\n"))):
                self._head_seen = self._monotonic()
                self._tell("head", "")
        except Refused as error:
            if error.why != "gap":  # the log is still to come
                self._head_refused = line
                self._refuse("head", error)

    # -- releases

    def _is_due_again(self) -> bool:
        due = self.due
        name, _, again = self._failed
        return due is not None and due.directory == name and self._monotonic() >= again

    def _take_release(self) -> None:
        """Take over what was imported, and begin to import what is due.

        That runs on a thread of its own: a large release holds up no revocation.
        """
        if self._importing.is_ready():
            self._taken(*self._importing.result())
        due = self.due
        if due is None or due.directory == self._in_place:
            self._tell("release", "")
            return
        name, _, again = self._failed
        if self._importing.is_running or (name == due.directory and self._monotonic() < again):
            return
        source = self.places.agent / "releases" / due.directory
        if not source.is_dir():  # the agent is fetching it
            return
        now = self._clock()
        self._importing.start(due, lambda: self._import(source, due, now))

    def _import(self, source: Path, due: Release, now: float) -> None:
        if due.not_after is not None and now >= due.not_after:
            raise Refused("ended", f"release {due.sequence} has ended")
        import_release(source, self.places.daemon, due, self._state_dir, now)

    def _taken(self, release: Release, error: Exception | None) -> None:
        if error is None:
            self._in_place = release.directory
            self._failed = ("", 0, 0.0)
            self._tell("release", "")
            return
        name, tries, _ = self._failed
        tries = tries + 1 if name == release.directory else 0
        first, longest = RETRY_SECONDS
        pause = min(first * 2.0 ** min(tries, 16), longest)
        self._failed = (release.directory, tries, self._monotonic() + pause)
        self._refuse("release", _refusal(release, error))

    @property
    def is_busy(self) -> bool:
        """Whether there is more to look at soon."""
        return self._more or self._importing.is_running

    def close(self) -> None:
        """Close the daemon's own log."""
        if self._own is not None:
            with contextlib.suppress(OSError):
                self._own.close()
            self._own = None


def _refusal(release: Release, error: Exception) -> Refused:
    if isinstance(error, Refused):
        return error
    if isinstance(error, PolicyError):
        return Refused("policy", f"release {release.sequence}: {error.diagnostics[0]}")
    if isinstance(error, OSError):
        return Refused("disk", f"release {release.sequence}: {error.strerror or error}")
    log.error("release %d can't be imported", release.sequence, exc_info=error)
    return Refused("policy", f"release {release.sequence}: {type(error).__name__}, see the log")


def no_release(fleet: FleetSettings, path: Path) -> Diagnostic:
    """What to say while no release has arrived."""
    return Diagnostic(
        str(path),
        0,
        0,
        f"no release of fleet {fleet.name!r} has arrived yet",
        "is mtls-sidecar-fleet.service running, and was one published?",
    )

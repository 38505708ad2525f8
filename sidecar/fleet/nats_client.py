"""One connection to the fleet's NATS servers, and the few things asked of them.

Only this module and `streams` import the NATS client.  Nothing that comes from here is trusted.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import ssl
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sidecar.core.config.fleet_settings import FleetSettings, FleetTls
from sidecar.core.errors import brief

from .connection_errors import in_words, tls_context
from .subjects import CHUNK, Subjects, chunks

if TYPE_CHECKING:
    from nats.aio.client import Client

log = logging.getLogger("mtls-sidecar")

INSTALL = "pip install 'nginx-mtls-sidecar[fleet]'"
TIMEOUT = 5.0
"""Seconds that the servers have for an answer."""

MOST_TOLD = 50
"""Different problems of one outage that are kept, not to be logged again."""

AT_ONCE = 64
"""Questions under way at a time."""

MOST_ENTRIES = 1024
"""About how many entries are read before those are taken."""

TAKEN = (10071, 10077)
"""JetStream's errors for a subject that has its message: `wrong last sequence`, `maximum messages
per subject exceeded`."""


class NotInstalled(ValueError):
    """The extra is missing."""


class Unreachable(ValueError):
    """No server answers, or it refuses."""


class NotAllowed(Unreachable):
    """The servers give this certificate no right to what was tried: no wait mends that."""


class SetBack(Unreachable):
    """The servers have an older log than the one that was verified: no wait mends that."""


class Taken(Exception):
    """Another publisher was first with an entry of this number."""


def _is_told(record: logging.LogRecord) -> bool:
    """Whether a line of asyncio's is worth telling: not that of each TLS connection's end, which
    is the NATS client's and means nothing."""
    return "eof_received() has no effect" not in str(record.msg)


def require_nats() -> None:
    """Raise `NotInstalled`, with what to install, where the NATS client is missing."""
    try:
        import nats  # noqa: F401 - whether it is there is the question
    except ImportError:
        raise NotInstalled("this needs the NATS client", f"install it: {INSTALL}") from None


@dataclass(slots=True)
class Bus:
    """A connection, and the subjects of one fleet."""

    client: Client
    subjects: Subjects
    refused: Callable[[], str] = str
    """What the servers gave no right to, if anything."""

    # -- reading

    async def entries(self, first: int) -> list[bytes]:
        """Entries as they are stored, from a number on, as far as they follow each other.

        At most `MOST_ENTRIES`: whoever takes them knows whether to ask for more.
        """
        found: list[bytes] = []
        many = 1
        while len(found) < MOST_ENTRIES:
            asked = range(first, first + many)
            answers = await asyncio.gather(*(self.entry(number) for number in asked))
            for answer in answers:
                if answer is None:
                    return found
                found.append(answer)
            first, many = first + many, min(many * 4, AT_ONCE)
        return found

    async def entry(self, number: int) -> bytes | None:
        """One entry as it is stored; None where there is none."""
        return await self._get(self.subjects.log_stream, self.subjects.put(number))

    async def head(self) -> bytes | None:
        """The last head."""
        return await self._get(self.subjects.data_stream, self.subjects.head)

    async def chunk(self, sha256: str, number: int, timeout: float = TIMEOUT) -> bytes | None:
        """A part of a file, unverified; None where it is not there.  Raises `Unreachable`."""
        subject = self.subjects.blob(sha256, number)
        return await self._get(self.subjects.data_stream, subject, timeout)

    async def blob(self, sha256: str, size: int) -> bytes | None:
        """A file, unverified; None where some of it is missing.  Raises `Unreachable`."""
        parts: list[bytes] = []
        for first in range(0, chunks(size), 8):
            asked = range(first, min(first + 8, chunks(size)))
            found = await asyncio.gather(*(self.chunk(sha256, number) for number in asked))
            parts += [part for part in found if part is not None]
            if None in found or sum(map(len, parts)) > size:
                return None
        return b"".join(parts)

    async def reports(self) -> dict[str, tuple[bytes, float]]:
        """The last report of each node, and when the server stored it (seconds since the epoch)."""
        from nats.errors import Error
        from nats.js.errors import NotFoundError

        stream = self.client.jetstream(timeout=TIMEOUT)
        prefix = self.subjects.report("")
        try:
            info = await stream.stream_info(self.subjects.data_stream, subjects_filter=f"{prefix}>")
        except NotFoundError:
            return {}
        except (Error, OSError, TimeoutError) as error:
            raise Unreachable(f"the reports can't be listed: {brief(error)}") from None
        names = list(info.state.subjects or {})
        found: dict[str, tuple[bytes, float]] = {}
        for at in range(0, len(names), AT_ONCE):
            asked = names[at : at + AT_ONCE]
            answers = await asyncio.gather(
                *(self._message(self.subjects.data_stream, name) for name in asked)
            )
            for name, message in zip(asked, answers, strict=True):
                if message is not None:
                    at_server = message.time.timestamp() if message.time else 0.0
                    found[name.removeprefix(prefix)] = bytes(message.data or b""), at_server
        return found

    async def _get(self, stream: str, subject: str, timeout: float = TIMEOUT) -> bytes | None:
        """What a subject holds; None where that is nothing.  Raises `Unreachable`."""
        message = await self._message(stream, subject, timeout)
        return None if message is None else bytes(message.data or b"")

    async def _message(self, stream: str, subject: str, timeout: float = TIMEOUT) -> Any:
        """The last message of a subject; None where there is none.  Raises `Unreachable`."""
        from nats.errors import Error, NoRespondersError
        from nats.js.errors import NotFoundError

        context = self.client.jetstream(timeout=timeout)
        try:
            message = await context.get_last_msg(stream, subject, direct=True)
        except (NotFoundError, NoRespondersError):
            return None
        except (Error, OSError, TimeoutError) as error:
            raise Unreachable(f"{subject}: {brief(error)}") from None
        return message

    # -- writing

    async def put(self, sequence: int, line: bytes) -> None:
        """Publish an entry.  Raises `Taken`, `Unreachable`."""
        from nats.errors import Error
        from nats.js.errors import APIError

        subject = self.subjects.put(sequence)
        headers = {"Nats-Expected-Last-Subject-Sequence": "0"}
        try:
            context = self.client.jetstream(timeout=TIMEOUT)
            await context.publish(subject, line, headers=headers, stream=self.subjects.log_stream)
        except APIError as error:
            if error.err_code in TAKEN:
                raise Taken(f"entry {sequence} is another publisher's") from None
            raise Unreachable(f"{subject}: {brief(error)}") from None
        except (Error, OSError, TimeoutError) as error:
            raise Unreachable(f"{subject}: {brief(error)}") from None

    async def prove_majority(self) -> None:
        """Have something stored, which takes most of the servers.

        What one server holds may be old, if it is cut off from the others.  Raises `Unreachable`.
        """
        await self.put_data(self.subjects.alive, b"")

    async def put_data(self, subject: str, data: bytes) -> None:
        """Publish a head, a report or a chunk, and wait until it is stored.

        Raises `Unreachable`.
        """
        from nats.errors import Error

        try:
            context = self.client.jetstream(timeout=TIMEOUT)
            await context.publish(subject, data, stream=self.subjects.data_stream)
        except (Error, OSError, TimeoutError) as error:
            raise Unreachable(f"{subject}: {brief(error)}") from None

    async def put_blob(self, sha256: str, data: bytes) -> None:
        """Publish a file.  Raises `Unreachable`."""
        for number in range(chunks(len(data))):
            part = data[number * CHUNK : (number + 1) * CHUNK]
            await self.put_data(self.subjects.blob(sha256, number), part)

    async def drop_data(self, subject: str) -> None:
        """Remove what a subject of the data stream holds.  Raises `Unreachable`."""
        from nats.errors import Error

        try:
            context = self.client.jetstream(timeout=TIMEOUT)
            await context.purge_stream(self.subjects.data_stream, subject=subject)
        except (Error, OSError, TimeoutError) as error:
            raise Unreachable(f"{subject}: {brief(error)}") from None

    async def subscribe(self, subject: str, take: Callable[[str, bytes], None]) -> None:
        """Have every message of a subject handed over, with its own subject.

        The servers let a certificate write to its subjects alone; of what a message says of its
        sender they know nothing.  Raises `Unreachable`.
        """
        from nats.errors import Error

        async def callback(message: Any) -> None:
            take(str(message.subject), bytes(message.data))

        try:
            await self.client.subscribe(subject, cb=callback)
        except (Error, OSError) as error:
            raise Unreachable(f"{subject}: {brief(error)}") from None


def tls_of(fleet: FleetSettings) -> ssl.SSLContext | None:
    """The TLS context for the servers; None for `nats://`.  Raises OSError, ValueError."""
    if not any(server.startswith("tls://") for server in fleet.servers):
        return None
    return tls_context(fleet.tls)


@contextlib.asynccontextmanager
async def connected(
    fleet: FleetSettings, name: str, *, patient: bool = False, again: Callable[[], object] = int
) -> AsyncIterator[Bus]:
    """A connection.  Raises `Unreachable` unless `patient`: then it is tried for ever.

    `again` is called after each time that a lost connection was made again.
    """
    require_nats()
    logging.getLogger("asyncio").addFilter(_is_told)
    if not fleet.servers:
        raise ValueError("fleet names no servers", "add servers: [tls://nats.example.com:4222]")
    import nats

    problems = _Problems(fleet.tls, logged=patient)
    closing = False

    async def reconnected() -> None:
        problems.over()
        again()

    async def lost() -> None:
        if not closing:
            problems.tell("the connection to the NATS servers is lost")

    options: dict[str, Any] = {
        "servers": random.sample(fleet.servers, len(fleet.servers)),
        "name": name,
        "inbox_prefix": f"_INBOX_{name}".encode(),
        "connect_timeout": 5 if patient else 3,
        "reconnect_time_wait": 0.5,
        "max_reconnect_attempts": -1 if patient else 1,
        "allow_reconnect": patient,
        "ping_interval": 5,
        "max_outstanding_pings": 2,
        "error_cb": problems.note,
        "reconnected_cb": reconnected,
        "disconnected_cb": lost if patient else None,
    }
    context = tls_of(fleet)
    if context is not None:
        options["tls"] = context
    client = await _connect(nats, options, problems, patient=patient)
    try:
        yield Bus(client, Subjects(fleet.name, fleet.epoch), lambda: problems.refused)
    except Unreachable as error:
        raise allowed(error, problems.refused) from None
    finally:
        closing = True
        with contextlib.suppress(Exception):
            await asyncio.wait_for(client.close(), TIMEOUT)


def allowed(error: Unreachable, refused: str) -> Unreachable:
    """The error itself, or, where the servers refused something, that: they only don't answer."""
    if not refused or isinstance(error, NotAllowed):
        return error
    return NotAllowed(
        f"the NATS servers refuse this: {refused}",
        "does nats.conf give this certificate the role that it needs?",
    )


async def _connect(
    nats: Any, options: dict[str, Any], problems: _Problems, *, patient: bool
) -> Any:
    pause = 0.5
    servers = options["servers"]
    while True:
        failed = []
        # One by one: for a list that is all refused, the client would never come to an end.  In
        # another order each time: who tries again finds past one that is cut off from the others.
        each = random.sample(servers, len(servers))
        for tried in [servers] if patient else [[server] for server in each]:
            problems.last = ""
            try:
                return await nats.connect(**{**options, "servers": tried})
            except Exception as error:  # noqa: BLE001 - whatever the client raises
                failed.append(f"{', '.join(tried)}: {problems.last or problems.words(error)}")
        if not patient:
            raise Unreachable(f"no NATS server can be used: {'; '.join(failed)}")
        problems.tell(f"no NATS server can be used: {'; '.join(failed)}")
        await asyncio.sleep(pause)
        pause = min(pause * 2, 5.0)


class _Problems:
    """What the client tells in its callbacks, logged once for each that is new."""

    def __init__(self, tls: FleetTls, *, logged: bool) -> None:
        self.last = self.refused = ""
        self._tls = tls
        self._told: set[str] = set()
        self._logged = logged

    async def note(self, error: Exception) -> None:
        """Keep what went wrong last."""
        if type(error).__name__ == "NoServersError":
            return  # it only ends what was told before
        self.last = self.words(error)
        if "permissions violation" in self.last:
            self.refused = self.last
        self.tell(self.last)

    def words(self, error: BaseException) -> str:
        return in_words(error, self._tls)

    def tell(self, problem: str) -> None:
        """Log a problem, unless it was told since all was well: servers may fail in turn."""
        if self._logged and problem not in self._told:
            log.warning("%s", problem)
            self._told = {*(self._told if len(self._told) < MOST_TOLD else ()), problem}

    def over(self) -> None:
        """Note that all is well."""
        self.last = ""
        self._told.clear()
        log.info("the connection to the NATS servers is there again")

"""Answer the daemon's OCSP questions on a unix socket, one certificate at a time.

A question is `{"trust", "cert", "issuer", "nonce"}` (`nonce` is optional).  An answer is
`{"response"}` with DER that `verify_response` accepts as good or revoked, or `{"error", "kind"}`.
The service asks only the responder that the policy names for that trust, and only about a
certificate that an authority of that trust signed.  It caches nothing.

The daemon's whole group may open the socket: its user, root, and those of other services.  Each of
them has connections, questions and exchanges of its own (`peer_shares`), and what another one holds
takes nothing of them.  So has each trust: a responder that hangs holds up no other one.

A connection holds a question and an answer at most, of `fetch_protocol.MAX_MESSAGE` octets each:
128 MiB for all those of a user.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Mapping
from enum import StrEnum

import aiohttp

from sidecar.core.revocation.ocsp.response import MAX_RESPONSE, build_request, verify_response
from sidecar.core.revocation.status import RevocationStatus
from sidecar.core.x509.certificate import ClientCert, from_der
from sidecar.core.x509.keys import public_key
from sidecar.core.x509.signature import is_signed_by
from sidecar.runtime import fetch_protocol
from sidecar.runtime.peer_credentials import peer_credentials

from .http_client import Failure, FetchError, HttpLimits, fetch
from .metrics import FetchMetrics
from .peer_shares import TURNS, Share, Shares
from .plan import FetchPlan, Responder, fingerprint

log = logging.getLogger(__name__)

OCSP_LIMITS = HttpLimits(size=MAX_RESPONSE, total=8.0, silence=8.0, connect=4.0)
MAX_QUESTIONS = 32
"""Maximum number of one user's questions about one trust at the same time; further ones get the
error `busy`."""

MAX_CONNECTIONS = 128
"""Maximum number of one user's connections at the same time; further ones are closed unread."""

MAX_USERS = 8
"""Maximum number of users that are connected at the same time; a further one's are closed."""

OUTBOUND = 4 * MAX_USERS * TURNS
"""Maximum number of connections to responders at the same time, of all users and trusts."""

READ_SECONDS = 5.0
"""Seconds that a peer has to send its question, and to read the answer."""

Message = Mapping[str, str]


class ErrorKind(StrEnum):
    """The kind of an error, for the daemon; also a metric label."""

    REFUSED = "refused"  # the question itself is invalid
    BUSY = "busy"
    UNREACHABLE = "unreachable"  # the responder is down; applies to other certificates too
    NO_ANSWER = "no_answer"  # the responder's answer was not accepted


class OcspService:
    """Answer the daemon's questions, one at a time on each connection."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        plan: Callable[[], FetchPlan],
        metrics: FetchMetrics,
        clock: Callable[[], float] = time.time,
        limits: HttpLimits = OCSP_LIMITS,
    ) -> None:
        self._session = session
        self._plan = plan
        self._metrics = metrics
        self._clock = clock
        self._limits = limits
        self._shares = Shares(MAX_USERS)

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection until the peer closes it, sends an error or is too slow."""
        user = peer_credentials(writer.get_extra_info("socket")).uid
        with self._shares.connected(user, MAX_CONNECTIONS) as share, contextlib.closing(writer):
            if share is not None:
                await self._serve(share, reader, writer)

    async def _serve(
        self, share: Share, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        try:
            while True:
                async with asyncio.timeout(READ_SECONDS):
                    question = await fetch_protocol.read(reader)
                if question is None:
                    return
                writer.write(fetch_protocol.encode(await self.answer(question, share)))
                async with asyncio.timeout(READ_SECONDS):
                    await writer.drain()
        except (fetch_protocol.MessageError, TimeoutError, ConnectionError) as error:
            log.debug("question dropped: %s", error)
        except asyncio.CancelledError:  # at shutdown; asyncio.streams would log a traceback
            pass

    async def answer(self, question: Message, share: Share) -> Message:
        """Answer one question of a user.  Raises only on cancellation."""
        trust = question.get("trust", "")
        responder = self._plan().responders.get(trust)
        if responder is None:
            return _error(ErrorKind.REFUSED, "the policy names no responder for this trust")
        if share.questions[trust] >= MAX_QUESTIONS:
            return self._counted(trust, _error(ErrorKind.BUSY, "too many questions at once"))
        share.questions[trust] += 1
        try:
            return self._counted(trust, await self._ask(responder, question, share))
        finally:
            share.questions[trust] -= 1

    def _counted(self, trust: str, answer: Message) -> Message:
        self._metrics.ocsp.labels(trust, answer.get("kind", "answered")).inc()
        return answer

    async def _ask(self, responder: Responder, question: Message, share: Share) -> Message:
        try:
            cert, issuer = _certificates(responder, question)
            nonce = fetch_protocol.unpack(question, "nonce") or None
            request = build_request(cert, issuer, nonce)
        except ValueError as error:
            return _error(ErrorKind.REFUSED, str(error))
        start = time.monotonic()
        try:
            async with asyncio.timeout(self._limits.total), share.turns[responder.trust]:
                der = await self._exchange(responder.url, request)
        except TimeoutError:
            why = f"no complete answer in {self._limits.total:g} s"
            return _error(ErrorKind.UNREACHABLE, why)
        except FetchError as error:
            down = error.failure in (Failure.NETWORK, Failure.TIMEOUT)
            return _error(ErrorKind.UNREACHABLE if down else ErrorKind.NO_ANSWER, str(error))
        finally:
            took = time.monotonic() - start
            self._metrics.ocsp_seconds.labels(responder.trust).observe(took)
        seen = verify_response(der, cert, issuer, self._clock(), responder.tolerance, nonce)
        if seen.status is RevocationStatus.UNKNOWN:
            return _error(ErrorKind.NO_ANSWER, seen.detail)
        return {"response": fetch_protocol.pack(der)}

    async def _exchange(self, url: str, request: bytes) -> bytes:
        """POST a request to the responder (RFC 6960, appendix A.1)."""
        headers = {
            "Content-Type": "application/ocsp-request",
            "Accept": "application/ocsp-response",
        }
        answer = await fetch(self._session, url, self._limits, headers=headers, body=request)
        return answer.body


def _error(kind: ErrorKind, detail: str) -> Message:
    return {"error": detail[:500], "kind": kind.value}


def _certificates(responder: Responder, question: Message) -> tuple[ClientCert, ClientCert]:
    """Parse the certificate and its issuer, an authority of the trust.  Raises `ValueError`."""
    issuer = responder.issuers.get(fingerprint(fetch_protocol.unpack(question, "issuer")))
    if issuer is None:
        raise ValueError("the issuer is not an authority of this trust")
    cert = from_der(fetch_protocol.unpack(question, "cert"))
    if not is_signed_by(public_key(issuer.spki), cert.signed, cert.algorithm, cert):
        raise ValueError("the certificate is not signed by this issuer")
    return cert, issuer

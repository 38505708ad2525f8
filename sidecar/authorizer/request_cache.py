"""Cache answers by the bytes of the request, so that a repeated request is not parsed.

For one client at one location, nginx sends the same bytes each time, except for the values of
`X-Request-ID` and, if the request names its location, of `X-Original-URI`.  Such a decision
depends on neither.  So the key of a parsed request is all its other bytes.  A hit requires that
both values consist of characters that the parser accepts unchanged; otherwise the request is
parsed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from sidecar.core.decision import Decision
from sidecar.core.request import AuthzRequest

from .two_generation_cache import TwoGenerationCache

_BY_NAME, _BY_URI = b"GET /authz/", b"GET /authz "
_URI, _ID = b"\r\nX-Original-URI: ", b"\r\nX-Request-ID: "
_ID_LENGTH = 32
"""Length of nginx's `$request_id` (ngx_http_variable_request_id: 16 bytes in hexadecimal)."""
_BLANK, _SLASH = b" /"
_AFTER_PREFIX = len(_BY_URI) - 1
"""The offset of the byte that is a slash if the request names its location, and a blank if not."""

BYTES = 8192
"""Maximum cached bytes per entry of `limits.cache_entries`."""

MAX_REQUEST = 32 * 1024
"""Maximum length of a cached request, in bytes.

The kernel delivers up to about 36 KB of a unix socket in one read, so that bytes after such a
request are read with it.  A longer request may arrive in several reads, and must be parsed.
"""

MAX_ANSWER = 16 * 1024
"""Maximum length of a cached answer, in bytes."""

SECONDS = 3600.0
"""Maximum lifetime of an entry in seconds: then the client is counted as seen again."""

RequestKey = tuple[bytes, bytes, bytes]
"""The constant parts of a request: before the URI, between URI and id, and after the id.

If the sidecar chooses the location, the URI is a constant part too, and the first part is empty.
"""


@dataclass(slots=True)
class RenderedDecision:
    """A decision and its answer: `head` ends before the blank line and has no `Connection`.

    The decision was made at `since` and could change at `expires`; it is valid only between these
    moments, also if a clock goes back.  `note` caches the decision log's text for requests with
    this decision.  `label`, `granted` and, in monitor mode, `shadow` (the enforcing decision) are
    for the counters.
    """

    decision: Decision
    head: bytes
    since: float
    expires: float
    note: str = ""
    label: tuple[str, str, str] = field(init=False)
    granted: bool = field(init=False)
    shadow: tuple[str, str, str] | None = field(init=False)

    @property
    def policy(self) -> str:
        """The hash of the policy in the answer; "" if it has none."""
        return self.head.partition(b"\r\nX-Auth-Policy: ")[2].partition(b"\r")[0].decode("latin-1")

    def __post_init__(self) -> None:
        decision = self.decision
        self.label = (decision.location, decision.verdict, decision.reason)
        self.granted = decision.granted
        verdict = "allow" if decision.granted else "deny"
        shadow = (decision.location, verdict, str(decision.reason))
        self.shadow = shadow if decision.monitored else None


@dataclass(slots=True)
class CachedAnswer:
    """A cached answer, its request, and its period of validity.

    `request` holds no certificate and, if the URI may vary, no URI.  `log_line` caches the
    constant part of the decision log's line.  `uncounted` is the number of hits that the counters
    have not been told of yet.
    """

    request: AuthzRequest
    answered: RenderedDecision
    answer: bytes
    since: float
    expires: float
    log_line: bytes | None = None
    uncounted: int = 0


CacheHit = tuple[CachedAnswer, bytes | None, bytes, float, float]
"""A cached answer, URI (None: the same) and id of the request, and times of request and answer."""


def is_whole(data: bytes) -> bool:
    """Return whether the bytes are exactly one request that begins as nginx begins it."""
    return data.startswith((_BY_NAME, _BY_URI)) and data.find(b"\r\n\r\n") == len(data) - 4


class RequestCache:
    """Cache answers by request.  `entries` limits the memory; `clock` returns epoch seconds."""

    def __init__(self, entries: int, clock: Callable[[], float]) -> None:
        self._known: TwoGenerationCache[RequestKey, CachedAnswer] = TwoGenerationCache(
            entries * BYTES, _weigh
        )
        self.clock = clock
        self._last: tuple[bytes, RequestKey] = (b"", (b"", b"", b""))

    def find(self, data: bytes, now: float) -> tuple[CachedAnswer, bytes | None, bytes] | None:
        """Return the cached answer for a request, its URI (None: the same) and its id.

        `now` is a value of `clock`.
        """
        # `rpartition` is faster, because fewer bytes follow the two headers than precede them.  It
        # need not be checked that the data is a request: `put` did, and all other bytes are equal.
        start, found, rest = data.rpartition(_ID)
        if not found:
            return None
        request_id, before = rest[:_ID_LENGTH], b""
        uri: bytes | None = None
        if data[_AFTER_PREFIX] == _SLASH:
            before, _, start = start.rpartition(_URI)
            uri, _, start = start.partition(b"\r")
            if _BLANK in uri or not (uri.isascii() and uri.decode().isprintable()):
                return None
        if not request_id.isalnum():
            return None
        key = before, start, rest[_ID_LENGTH:]
        cached = self._known.tenured.get(key) or self._known.get(key)
        if cached is None or not cached.since <= now < cached.expires:
            self._last = (data, key)  # for `put`
            return None
        return cached, uri, request_id

    def put(self, data: bytes, request: AuthzRequest, answered: RenderedDecision) -> None:
        """Cache the answer of a request that the parser accepted; `data` holds all its bytes.

        `find` must have been called for it immediately before, otherwise nothing is cached.
        """
        now = self.clock()
        expires = min(answered.expires, now + SECONDS)
        last, key = self._last
        if data is not last or answered.decision.cache_seconds:
            return
        if not answered.since <= now < expires or len(data) > MAX_REQUEST:
            return
        # The id has at most this length, and the key is of the request's own kind.
        if is_whole(data) and key[2].startswith(b"\r\n") and len(answered.head) <= MAX_ANSWER:
            uri = request.uri if request.location is None else b""
            request = request._replace(cert=b"", uri=uri)  # the key contains them
            answer = answered.head + b"\r\n"
            self._known.put(key, CachedAnswer(request, answered, answer, answered.since, expires))

    def clear(self) -> None:
        """Empty the cache."""
        self._known.clear()


def _weigh(key: RequestKey, cached: CachedAnswer) -> int:
    """Estimate the bytes of a cached request: twice its own bytes, and its answer."""
    return 2 * sum(map(len, key)) + 2 * len(cached.answer) + 1000

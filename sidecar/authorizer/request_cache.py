"""Cache answers by the bytes of the request, so that a repeated request is not parsed.

For one client at one location, nginx sends the same bytes each time, except for the values of
`X-Request-ID` and, if the location is asked for by name, of `X-Original-URI`.  Such a decision
depends on neither.  So the key of a parsed request is all of its other bytes.  A hit requires that
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
"""Of nginx's `$request_id` (ngx_http_variable_request_id: 16 bytes in hexadecimal)."""
_BLANK, _SLASH = b" /"
_AFTER_PREFIX = len(_BY_URI) - 1
"""Where a request that names its location goes on with a slash, and one by URI with a blank."""

BYTES = 8192
"""Bytes remembered for each entry of `limits.cache_entries`."""

MAX_REQUEST = 32 * 1024
"""Longest request that is known again, in bytes.

The kernel hands a unix socket's peer up to about 36 KB in one piece, so that bytes behind such a
request are seen with it.  Longer ones may come in pieces: the parser looks for more each time.
"""

MAX_ANSWER = 16 * 1024
"""Longest answer that is remembered with its request, in bytes."""

SECONDS = 3600.0
"""Maximum lifetime of an entry in seconds: then the client is counted as seen again."""

RequestKey = tuple[bytes, bytes, bytes]
"""What of a request is the same each time: before the URI, between it and the id, and behind.

Where the sidecar chooses the location, the URI is none of what may differ, and the first is empty.
"""


@dataclass(slots=True)
class RenderedDecision:
    """A decision and its answer: `head` ends before the blank line and has no `Connection`.

    It was made at `since` and could turn at `expires`; it holds only between these moments, so
    that a clock that goes back forgets.  `note` is for the decision log: what it says of every
    request so decided.  `label`, `granted` and, in monitor mode, `shadow` (what enforcing would
    decide) are at hand for counting.
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
        """The hash of the policy that the answer names; empty where it names none."""
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
    """A cached answer, the request that it answers, and the period in which it is valid.

    `request` holds no certificate and, where the URI may vary, no URI.  `log_line` caches the
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
"""One asked for again: its URI (None: the same) and id, when it came and when it was answered."""


def is_whole(data: bytes) -> bool:
    """Whether the bytes are exactly one request that begins as nginx begins it."""
    return data.startswith((_BY_NAME, _BY_URI)) and data.find(b"\r\n\r\n") == len(data) - 4


class RequestCache:
    """Answers by request.  `entries` limits the memory; `clock` gives epoch seconds."""

    def __init__(self, entries: int, clock: Callable[[], float]) -> None:
        self._known: TwoGenerationCache[RequestKey, CachedAnswer] = TwoGenerationCache(
            entries * BYTES, _weigh
        )
        self.clock = clock
        self._last: tuple[bytes, RequestKey] = (b"", (b"", b"", b""))

    def find(self, data: bytes, now: float) -> tuple[CachedAnswer, bytes | None, bytes] | None:
        """The answer, the URI (None: the same) and the id of a request that was asked before.

        `now` as `clock` gives it.
        """
        # By `rpartition`, as there is less behind the two than before them.  That data is a
        # request at all needn't be looked at: `put` does, and a frame has all other bytes.
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
            self._last = (data, key)  # `put` will ask for it
            return None
        return cached, uri, request_id

    def put(self, data: bytes, request: AuthzRequest, answered: RenderedDecision) -> None:
        """Know this request again: the parser has read it, and these are all the bytes it had.

        `find` was asked for it before, or else it isn't remembered.
        """
        now = self.clock()
        expires = min(answered.expires, now + SECONDS)
        last, key = self._last
        if data is not last or answered.decision.cache_seconds:
            return
        if not answered.since <= now < expires or len(data) > MAX_REQUEST:
            return
        # The id is no longer than that, and the frame is one of its own kind of request.
        if is_whole(data) and key[2].startswith(b"\r\n") and len(answered.head) <= MAX_ANSWER:
            uri = request.uri if request.location is None else b""
            request = request._replace(cert=b"", uri=uri)  # its frame has them
            answer = answered.head + b"\r\n"
            self._known.put(key, CachedAnswer(request, answered, answer, answered.since, expires))

    def clear(self) -> None:
        """Empty the cache."""
        self._known.clear()


def _weigh(key: RequestKey, cached: CachedAnswer) -> int:
    """About how many bytes a remembered request takes: twice what stands in it, and its answer."""
    return 2 * sum(map(len, key)) + 2 * len(cached.answer) + 1000

"""Requests that were asked before, word for word but for id and URI: known again without parsing.

nginx asks the same thing over and over: for one client at one location every byte is the same,
save the value of `X-Request-ID` and, where the location is asked for by its name, that of
`X-Original-URI`.  Neither has a part in such a decision.  So a request that the parser has read
once, alone and whole, is known again by all its other bytes, its `Frame`.  The two values are
held to characters that the parser would take as they stand; whatever else comes, the parser reads.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ..core.decision import Decision
from ..core.wire import AuthzRequest

BY_NAME = b"GET /authz/"
URI = b"\r\nX-Original-URI: "
REQUEST_ID = b"\r\nX-Request-ID: "
ID_LENGTH = 32
"""`$request_id`: 16 random bytes in hexadecimal (ngx_http_variable_request_id)."""

PLAIN = bytes(range(0x21, 0x7F))
"""What a URI may have: characters that end no line and that no parser trims."""

Frame = tuple[bytes, bytes, bytes]


@dataclass(slots=True)
class Answered:
    """A decision and its answer: `head` ends before the blank line and has no `Connection`.

    `note` is for the decision log: what it says of every request so decided.  `label`, `granted`
    and, in monitor mode, `shadow` (what enforcing would decide) are at hand for counting.
    """

    decision: Decision
    head: bytes
    expires: float
    note: str = ""
    label: tuple[str, str, str] = field(init=False)
    granted: bool = field(init=False)
    shadow: tuple[str, str, str] | None = field(init=False)

    def __post_init__(self) -> None:
        decision = self.decision
        self.label = (decision.location, decision.verdict, decision.reason)
        self.granted = decision.granted
        verdict = "allow" if decision.granted else "deny"
        shadow = (decision.location, verdict, str(decision.reason))
        self.shadow = shadow if decision.monitored else None


@dataclass(slots=True)
class Repeat:
    """What is the same each time: what was asked, the whole answer, and until when it holds.

    `written` is the decision log's: what it writes of each, but for what differs.
    """

    request: AuthzRequest
    answered: Answered
    answer: bytes
    expires: float
    written: tuple[str, str, str] | None = None


def take_apart(data: bytes) -> tuple[Frame, str, str] | None:
    """A request's frame, its URI (where that may differ, else empty) and its id.

    None where they don't stand as nginx writes them in the order of the snippets.
    """
    head, uri, rest = b"", b"", data
    if data.startswith(BY_NAME):
        head, _, rest = data.partition(URI)
        uri, _, rest = rest.partition(b"\r\n")
    middle, _, rest = rest.partition(REQUEST_ID)
    request_id = rest[:ID_LENGTH]
    if request_id.isalnum() and not uri.translate(None, PLAIN):
        return (head, middle, rest[ID_LENGTH:]), uri.decode("ascii"), request_id.decode("ascii")
    return None


def is_whole(data: bytes) -> bool:
    """Whether bytes that the parser found to be a request are that one request and no more."""
    return data.startswith(b"GET ") and data.find(b"\r\n\r\n") == len(data) - 4


def weigh(frame: Frame) -> int:
    """About how many bytes a remembered request takes."""
    return sum(map(len, frame)) + 1000

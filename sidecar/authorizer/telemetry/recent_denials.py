"""The last denials, for the status page: alike ones are one, with the ids of the last requests.

Denials of certificates that a trust issued are kept by certificate.  All others are kept by reason
and location only, apart from the first: strangers can be denied as often as they like, and never
displace a client that is known.  Decisions note them, so it is a few look-ups.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import dataclass, field

from sidecar.authorizer.request_cache import CacheHit, RenderedDecision
from sidecar.core.decision import ISSUED, Decision
from sidecar.core.request import AuthzRequest
from sidecar.core.x509.certificate import ClientCert

MAX_KNOWN = 200
"""Most denials kept of certificates that a trust issued."""

MAX_STRANGERS = 50
"""Most denials kept of all others."""

MAX_IDS = 20
"""Most requests whose ids are kept of one denial."""

MAX_DER = 16 * 1024
"""Longest certificate, in bytes, that is kept for an explanation."""

MAX_TEXT = 512
"""Most characters kept of what a client chose."""


@dataclass(slots=True)
class Denial:
    """Denials for one reason: the last of them, and how many there were.

    `subject` and `sha256` are of its certificate, `request` is what was asked, without the
    certificate where that came from a stranger; `ids` has the last requests' ids and moments.
    """

    decision: Decision
    request: AuthzRequest
    policy: str
    subject: str = ""
    sha256: str = ""
    first: float = 0.0
    last: float = 0.0
    count: int = 0
    ids: deque[tuple[bytes, float]] = field(default_factory=lambda: deque(maxlen=MAX_IDS))

    @property
    def requests(self) -> list[tuple[str, float]]:
        """The ids and moments of the last requests, the latest first."""
        return [(each.decode("latin-1"), at) for each, at in reversed(list(self.ids))]

    @property
    def can_be_explained(self) -> bool:
        """Whether all is kept that the decision was made of."""
        return self.request.subject is not None or not self.request.cert


class RecentDenials:
    """The denials, the latest last."""

    def __init__(self) -> None:
        self._known: OrderedDict[tuple[str, ...], Denial] = OrderedDict()
        self._strangers: OrderedDict[tuple[str, ...], Denial] = OrderedDict()

    def note(self, answered: RenderedDecision, request: AuthzRequest | None, at: float) -> None:
        """Note a decision that the policy does not grant, and keep its request."""
        if request is not None:
            denial = self._counted(answered, request.request_id.encode(), at)
            _fill(denial, answered, request, request.uri)

    def note_cached(self, hits: list[CacheHit]) -> None:
        """Note some that were answered from the cache: their requests are like the one before."""
        last, denial = None, None
        for cached, uri, request_id, _, end in hits:
            if denial is None or cached is not last:
                last, denial = cached, self._counted(cached.answered, request_id, end)
                if denial.count == 1:
                    wanted = cached.request.uri if uri is None else uri
                    _fill(denial, cached.answered, cached.request, wanted)
            else:
                denial.count += 1
                denial.last = end
                denial.ids.append((request_id, end))

    def denials(self) -> list[Denial]:
        """All that are kept, the latest first; for any thread."""
        found = [*self._known.values(), *self._strangers.values()]
        return sorted(found, key=lambda each: -each.last)

    def _counted(self, answered: RenderedDecision, request_id: bytes, at: float) -> Denial:
        decision = answered.decision
        subject = decision.subject
        is_known = subject is not None and decision.reason in ISSUED
        kept, most = (self._known, MAX_KNOWN) if is_known else (self._strangers, MAX_STRANGERS)
        who = subject.sha256 if is_known and subject is not None else ""
        key = (who, decision.location, decision.reason, decision.rule, answered.label[1])
        denial = kept.get(key)
        if denial is None:
            if len(kept) >= most:
                kept.popitem(last=False)
            denial = kept[key] = Denial(decision._replace(subject=None), _NOTHING, "", first=at)
        else:
            kept.move_to_end(key)
        denial.count += 1
        denial.last = at
        denial.ids.append((request_id[:128], at))
        return denial


_NOTHING = AuthzRequest(None)


def _fill(denial: Denial, answered: RenderedDecision, request: AuthzRequest, uri: bytes) -> None:
    """Take over from the last decision what is to be shown of it."""
    decision = answered.decision
    subject = decision.subject
    denial.policy = answered.policy
    denial.subject = subject.dn[:MAX_TEXT] if subject is not None else ""
    denial.sha256 = subject.sha256 if subject is not None else ""
    denial.request = _small(request, uri, subject if decision.reason in ISSUED else None)
    denial.decision = decision._replace(
        subject=denial.request.subject, detail=decision.detail[:MAX_TEXT]
    )


def _small(request: AuthzRequest, uri: bytes, subject: ClientCert | None) -> AuthzRequest:
    """What is kept of a request."""
    if subject is not None and len(subject.der) > MAX_DER:
        subject = None
    return request._replace(
        cert=b"given" if request.cert or subject is not None else b"",
        subject=subject,
        uri=_without_query(uri)[:MAX_TEXT],
        host=request.host[:MAX_TEXT],
        verify=request.verify[:MAX_TEXT],
        server_name=request.server_name[:MAX_TEXT],
        other_origin=request.other_origin[:MAX_TEXT],
        method=request.method[:64],
    )


def _without_query(uri: bytes) -> bytes:
    """Hide the query: it may hold a token, and every user of the host may read the status page."""
    path, sign, _ = uri.partition(b"?")
    return path + (b"?..." if sign else b"")

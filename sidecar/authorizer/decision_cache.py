"""Decide parsed requests and cache the decisions; the only module that writes cache entries.

A cached decision belongs to one policy and to the parts of the request that it depends on.  It
expires at the first moment at which the decision could change.  A new policy gets a new `Engine`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from hashlib import sha256

from sidecar.core.answer import render
from sidecar.core.decision import ISSUED, Decision, Reason
from sidecar.core.evaluate import OcspQuestion, evaluate
from sidecar.core.fleet.freshness import ALWAYS, Freshness
from sidecar.core.policy.model import Location, Policy
from sidecar.core.request import AuthzRequest
from sidecar.core.revocation.ocsp.response import OcspAnswer, OcspKey
from sidecar.core.x509.certificate import ClientCert

from .request_cache import RenderedDecision, RequestCache
from .two_generation_cache import TwoGenerationCache

DecisionKey = tuple[Location, ClientCert | None, *tuple[str, ...]]

RefusalKey = tuple[bytes, DecisionKey]
"""The SHA-256 of an unknown client's certificate header, and the rest of the request."""

_OF_STRANGERS = frozenset(
    {
        Reason.MALFORMED_CERTIFICATE,
        Reason.EXPIRED,
        Reason.NOT_YET_VALID,
        Reason.UNTRUSTED_ISSUER,
    }
)
"""Refusals of a certificate itself; they are cached because an attacker can make them expensive."""

BYTES = 32 * 1024
"""Maximum cached bytes per entry of `limits.cache_entries`, including certificates."""

OCSP_SECONDS = 30.0
"""Maximum seconds that a decision based on OCSP is cached, so that its answer stays in use."""


class Engine:
    """Decide by one policy, and cache the decisions.

    `clock` returns seconds since the epoch.  `answers` are the known OCSP answers.
    """

    def __init__(
        self,
        policy: Policy,
        *,
        entries: int,
        answers: Mapping[OcspKey, OcspAnswer],
        clock: Callable[[], float] = time.time,
        freshness: Freshness = ALWAYS,
    ) -> None:
        self.policy = policy
        self.freshness = freshness
        self._answers = answers
        self._clock = clock
        # Together with the bytes of `RequestCache`, this is approximately `BYTES`.
        self._certs: TwoGenerationCache[bytes, ClientCert] = TwoGenerationCache(
            entries * 7168, _weigh_cert
        )
        self._decisions: TwoGenerationCache[DecisionKey, RenderedDecision] = TwoGenerationCache(
            entries * 16384, _weigh_decision
        )
        self._refusals: TwoGenerationCache[RefusalKey, RenderedDecision] = TwoGenerationCache(
            entries * 2048, _weigh_refusal
        )
        self._chosen: TwoGenerationCache[bytes, str] = TwoGenerationCache(
            entries * 1024, _weigh_place
        )
        self.request_cache = RequestCache(entries, clock)

    def decide(
        self, request: AuthzRequest, questions: list[OcspQuestion] | None = None
    ) -> RenderedDecision:
        """Return the cached or a new decision about a request.

        Missing OCSP answers are added to `questions`.
        """
        now = self._clock()
        location = self.policy.locate(request.location, request.host, request.uri, self._choose)
        if location is None:
            return self._answer(request, now, questions)
        subject = self._certs.get(request.cert) if request.cert else None
        refused = b""
        if subject is not None or not request.cert:
            known = self._decisions.get(_key(location, request, subject))
        else:
            refused = sha256(request.cert).digest()
            known = self._refusals.get((refused, _key(location, request, None)))
        if known is not None and known.since <= now < known.expires:
            if not known.decision.cache_seconds:
                return known
            head = render(known.decision, self.policy.hash, now)
            return RenderedDecision(known.decision, head, known.since, known.expires, known.note)
        asked = request
        if request.location is None or subject is not None:
            asked = request._replace(location=location.name, subject=subject)
        answered = self._answer(asked, now, questions)
        if location.uses_ocsp:
            answered.expires = min(answered.expires, now + OCSP_SECONDS)
        if subject is not None or _may_be_remembered(request, answered):
            # A decision may end before the certificate is parsed, but it still concerns that one.
            subject = subject or answered.decision.subject
            self._remember_decision(location, request, subject, answered, now)
        elif refused and answered.decision.reason in _OF_STRANGERS:
            self._refusals.put((refused, _key(location, request, None)), _outlined(answered))
        return answered

    def _remember_decision(
        self,
        location: Location,
        request: AuthzRequest,
        subject: ClientCert | None,
        answered: RenderedDecision,
        now: float,
    ) -> None:
        if subject is not None:
            self._certs.put(request.cert, subject)
        if now < answered.expires:
            self._decisions.put(_key(location, request, subject), answered)

    def remember(self, data: bytes, request: AuthzRequest, answered: RenderedDecision) -> None:
        """Cache the answer by the bytes of the whole request, if it may be cached."""
        if _may_be_remembered(request, answered):
            self.request_cache.put(data, request, answered)

    def forget(self) -> None:
        """Discard all cached decisions, for example after a new OCSP answer."""
        self._decisions.clear()
        self.request_cache.clear()

    def location(self, decision: Decision) -> Location | None:
        """Return the location that a decision is about."""
        return self.policy.locations.get(decision.location)

    def _choose(self, host: str, uri: bytes) -> str | None:
        """Choose the location as the policy does, and cache the choice."""
        key = b"%b\n%b" % (host.encode("latin-1"), uri)
        name = self._chosen.get(key)
        if name is None:
            name = self.policy.chooser.choose(host, uri)
            if name is not None:
                self._chosen.put(key, name)
        return name

    def _answer(
        self, request: AuthzRequest, now: float, questions: list[OcspQuestion] | None
    ) -> RenderedDecision:
        decision = evaluate(
            self.policy,
            request,
            now,
            self._answers,
            questions=questions,
            freshness=self.freshness,
        )
        return RenderedDecision(
            decision, render(decision, self.policy.hash, now), now, decision.expires
        )


def _may_be_remembered(request: AuthzRequest, answered: RenderedDecision) -> bool:
    """Return whether to cache an answer: no for unknown issuers, which anybody can imitate."""
    return not request.cert or answered.decision.reason in ISSUED


def _cert_bytes(cert: ClientCert | None) -> int:
    """Estimate the bytes of a parsed certificate."""
    return 0 if cert is None else 3 * len(cert.der) + 2000


def _weigh_cert(header: bytes, cert: ClientCert) -> int:
    return len(header) + _cert_bytes(cert)


def _weigh_decision(key: DecisionKey, answered: RenderedDecision) -> int:
    """Estimate the bytes of a cached decision; a shared certificate counts each time."""
    decision = answered.decision
    texts = sum(map(len, key[2:])) + len(answered.head) + len(decision.detail)
    return 1500 + texts + _cert_bytes(decision.subject)


def _outlined(answered: RenderedDecision) -> RenderedDecision:
    """Remove the certificate's octets from a refusal: an attacker's certificate can be large."""
    decision = answered.decision
    if decision.subject is None:
        return answered
    outline = decision.subject.outline()
    decision = decision._replace(subject=outline, detail=decision.detail[:500])
    return RenderedDecision(
        decision, answered.head, answered.since, answered.expires, answered.note
    )


def _weigh_refusal(key: RefusalKey, answered: RenderedDecision) -> int:
    return _weigh_decision(key[1], answered)


def _weigh_place(place: bytes, _: str) -> int:
    return len(place) + 200


def _key(location: Location, request: AuthzRequest, subject: ClientCert | None) -> DecisionKey:
    """Return the parts of a request that a decision at this location can depend on."""
    if not (location.uses_host or location.uses_method or location.uses_client_ip):
        return (location, subject, request.verify, request.other_origin)
    return (
        location,
        subject,
        request.verify,
        request.other_origin,
        request.host if location.uses_host else "",
        request.server_name if location.uses_host else "",
        request.method if location.uses_method else "",
        request.client_ip if location.uses_client_ip else "",
    )

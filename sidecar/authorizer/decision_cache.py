"""Decide parsed requests and cache the decisions; the only module that writes cache entries.

A cached decision belongs to one policy and to those parts of the request that it depends on.  It
expires at the first moment at which it could become another one.  A new policy gets a new `Engine`.
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
"""The SHA-256 of a stranger's certificate, as it came, and the rest of the request."""

_OF_STRANGERS = frozenset(
    {
        Reason.MALFORMED_CERTIFICATE,
        Reason.EXPIRED,
        Reason.NOT_YET_VALID,
        Reason.UNTRUSTED_ISSUER,
    }
)
"""Refusals of a certificate itself; they are cached because they can be made expensive."""

BYTES = 32 * 1024
"""Bytes remembered at most for each entry of `limits.cache_entries`, certificates included."""

OCSP_SECONDS = 30.0
"""Longest a decision that OCSP had a part in is remembered, so that its answer counts as used."""


class Engine:
    """One policy in force, and what was decided under it.

    `clock` gives seconds since the epoch.  `answers` are the OCSP answers at hand.
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
        # With those of `RequestCache` these are the `BYTES`, but for a few.
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
        """The decision about a request, remembered or new.

        OCSP answers that were wanting are put into `questions`.
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
            # A decision may end before the certificate is read; it is about that one all the same.
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
        """Forget every decision, as after a new OCSP answer."""
        self._decisions.clear()
        self.request_cache.clear()

    def location(self, decision: Decision) -> Location | None:
        """The location that a decision is about."""
        return self.policy.locations.get(decision.location)

    def _choose(self, host: str, uri: bytes) -> str | None:
        """Choose as the policy does, and cache the choice."""
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
    """Refuse certificates that no trust issued: anybody can make many large ones."""
    return not request.cert or answered.decision.reason in ISSUED


def _cert_bytes(cert: ClientCert | None) -> int:
    """About how many bytes a certificate takes that was read."""
    return 0 if cert is None else 3 * len(cert.der) + 2000


def _weigh_cert(header: bytes, cert: ClientCert) -> int:
    return len(header) + _cert_bytes(cert)


def _weigh_decision(key: DecisionKey, answered: RenderedDecision) -> int:
    """As if nothing else kept the certificate: a bound, not a sum."""
    decision = answered.decision
    texts = sum(map(len, key[2:])) + len(answered.head) + len(decision.detail)
    return 1500 + texts + _cert_bytes(decision.subject)


def _outlined(answered: RenderedDecision) -> RenderedDecision:
    """A refusal, remembered without the certificate's octets: strangers' are as large as can be."""
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
    """All of a request that a decision at this location can depend on."""
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

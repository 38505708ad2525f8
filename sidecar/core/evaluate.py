"""Decide one request: policy, request and time → `Decision`.

`STEPS` is the order of the checks.  Each step either passes the request to the next step or ends
the decision.  The daemon and all commands decide by calling `evaluate`; nothing else decides.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import pairwise
from typing import NamedTuple

from sidecar.core.fleet.freshness import ALWAYS, Freshness
from sidecar.core.nginx.locations import normalize_host
from sidecar.core.policy.model import Location, Policy, Trust
from sidecar.core.policy.rules import Facts
from sidecar.core.request import Assumed, AuthzRequest
from sidecar.core.revocation.crl.index import crl_facts
from sidecar.core.revocation.denied import denied, denied_above
from sidecar.core.revocation.denylist import Denylist
from sidecar.core.revocation.ocsp.response import OcspAnswer, OcspKey, ocsp_key
from sidecar.core.revocation.status import Answer, RevocationStatus
from sidecar.core.x509.certificate import ClientCert, from_header
from sidecar.core.x509.path_building import Path
from sidecar.core.x509.service_identity import fold_dns, san_matches_host
from sidecar.core.x509.validity import is_valid

from .decision import GRANTS, Decision, Reason, Step
from .errors import MalformedCertificate


@dataclass(frozen=True, slots=True)
class OcspQuestion:
    """A missing OCSP answer that the decision needs: about `cert`, issued by `issuer`.

    `not_by`: the fingerprint of a responder whose good answer is held, but doesn't count, as its
    certificate is revoked.
    """

    key: OcspKey
    trust: str
    cert: ClientCert
    issuer: ClientCert
    not_by: str = ""


class Passed(NamedTuple):
    """The request passes the step; `saw` is what the step observed."""

    saw: str


class Ended(NamedTuple):
    """The step ends the decision."""

    reason: Reason
    saw: str
    rule: str = ""
    roles: tuple[str, ...] = ()


_UNTRACED = Passed("")
"""The result of a passed step when no trace is wanted."""


@dataclass(slots=True)
class _Evaluation:
    """The state of one evaluation.  A step may rely on what earlier steps have stored here."""

    policy: Policy
    request: AuthzRequest
    now: float
    answers: Mapping[OcspKey, OcspAnswer]
    tracing: bool = False
    freshness: Freshness = ALWAYS
    location: Location | None = None
    cert: ClientCert | None = None
    paths: list[tuple[Trust, Path]] = field(default_factory=list)
    questions: list[OcspQuestion] = field(default_factory=list)
    expires: float = math.inf

    def until(self, moment: float) -> None:
        """Limit `expires` to a moment at which the decision could change."""
        if moment > self.now:
            self.expires = min(self.expires, moment)

    @property
    def here(self) -> Location:
        """The location chosen by the first step."""
        assert self.location is not None
        return self.location

    @property
    def subject(self) -> ClientCert:
        """The certificate read by the fifth step."""
        assert self.cert is not None
        return self.cert


def _choose_location(evaluation: _Evaluation) -> Passed | Ended:
    request, policy = evaluation.request, evaluation.policy
    name = request.location
    evaluation.location = policy.locate(name, request.host, request.uri)
    if evaluation.location is not None:
        return Passed(evaluation.location.name)
    if name is None:
        return Ended(Reason.UNKNOWN_LOCATION, "no location for this host and URI")
    return Ended(Reason.UNKNOWN_LOCATION, f"the policy has no location {name[:64]!r}")


def _check_public(evaluation: _Evaluation) -> Passed | Ended:
    if evaluation.here.public:
        return Ended(Reason.PUBLIC, "allow: public", rule="public")
    if evaluation.request.method in evaluation.here.public_methods:
        return Ended(Reason.PUBLIC, f"{evaluation.request.method} is public", rule="public_methods")
    return Passed("a certificate is needed")


def _require_certificate(evaluation: _Evaluation) -> Passed | Ended:
    if not evaluation.request.cert:
        return _go_without(evaluation) or Ended(
            Reason.NO_CERTIFICATE, "no certificate was presented"
        )
    return Passed(f"{len(evaluation.request.cert)} bytes") if evaluation.tracing else _UNTRACED


def _go_without(evaluation: _Evaluation) -> Ended | None:
    """Apply `without_certificate`, unless the origin or a `deny` rule refuses the request."""
    here = evaluation.here
    if not len(here.without_cert):
        return None
    evaluation.until(here.without_cert.next_moment(evaluation.now))
    evaluation.until(here.deny_request.next_moment(evaluation.now))
    facts = Facts(None, evaluation.request, evaluation.now)
    exempt = here.without_cert.match(facts)
    if exempt is None:
        return None
    origin = _check_origin(evaluation)
    if isinstance(origin, Ended):
        return origin
    denied = here.deny_request.match(facts)
    if denied is not None:
        return Ended(Reason.DENIED_BY_RULE, f"{denied.rule} matches", rule=denied.rule)
    return Ended(Reason.EXEMPT, f"{exempt.rule} matches", rule=exempt.rule)


def _check_verify(evaluation: _Evaluation) -> Passed | Ended:
    verify = evaluation.request.verify
    if verify == "SUCCESS":
        return Passed("SUCCESS")
    # An error of nginx (FAILED:…) may be ignored only where the sidecar verifies the whole chain.
    if verify.startswith("FAILED") and any(t.sidecar_verifies for t in evaluation.here.trusts):
        return Passed(f"{verify[:200]}; this location verifies the chain itself")
    return Ended(Reason.VERIFY_FAILED, f"SSL-Client-Verify is {verify[:200]!r}, not 'SUCCESS'")


def _read_certificate(evaluation: _Evaluation) -> Passed | Ended:
    try:
        evaluation.cert = evaluation.request.subject or from_header(evaluation.request.cert)
    except MalformedCertificate as error:
        return Ended(Reason.MALFORMED_CERTIFICATE, str(error))
    if not evaluation.tracing:
        return _UNTRACED
    return Passed(f"{evaluation.cert.dn or '(empty subject)'}, serial {evaluation.cert.serial_hex}")


def _check_validity(evaluation: _Evaluation) -> Passed | Ended:
    cert = evaluation.subject
    evaluation.until(cert.not_before)
    evaluation.until(cert.not_after + 1)
    if evaluation.now < cert.not_before:
        return Ended(Reason.NOT_YET_VALID, f"valid from {_utc(cert.not_before)}")
    if not is_valid(cert, evaluation.now):
        return Ended(Reason.EXPIRED, f"ended {_utc(cert.not_after)}")
    if not evaluation.tracing:
        return _UNTRACED
    return Passed(f"until {_utc(cert.not_after)}")


def _check_issuer(evaluation: _Evaluation) -> Passed | Ended:
    if not evaluation.policy.trusts:
        return Passed("the policy names no trust: nginx's own list of CAs decides")
    assumed = evaluation.request.assumed
    if assumed is not None and assumed.trust is not None:
        return _assume_issuer(evaluation, assumed.trust)
    success = evaluation.request.verify == "SUCCESS"
    for trust in evaluation.here.trusts:
        evaluation.until(trust.anchors.next_change(evaluation.now))
        if success or trust.sidecar_verifies:
            path = trust.path(evaluation.subject, evaluation.now)
            if path is not None:
                evaluation.paths.append((trust, path))
    if not evaluation.paths:
        names = ", ".join(trust.name for trust in evaluation.here.trusts)
        issuer = evaluation.subject.issuer_dn
        saw = f"{issuer} leads to no trust anchor of: {names}"
        if not success:
            saw = f"no valid chain leads from {issuer} to a trust anchor of: {names}"
        return Ended(Reason.UNTRUSTED_ISSUER, saw)
    return Passed(", ".join(trust.name for trust, _ in evaluation.paths))


def _assume_issuer(evaluation: _Evaluation, name: str) -> Passed | Ended:
    """Assume that a trust of this location issued a certificate that a test describes."""
    success = evaluation.request.verify == "SUCCESS"
    names = [t.name for t in evaluation.here.trusts if success or t.sidecar_verifies]
    if name and name not in names:
        saw = f"issued under {name!r}, and the location's trusts are: {', '.join(names)}"
        return Ended(Reason.UNTRUSTED_ISSUER, saw)
    return Passed(f"taken to be issued under {name or 'any of: ' + ', '.join(names)}")


def _check_revocation(evaluation: _Evaluation) -> Passed | Ended:
    assumed = evaluation.request.assumed
    if assumed is not None:
        return _ask_denylists(evaluation, assumed)
    found = denied(evaluation.policy.denylists, evaluation.subject, evaluation.now)
    if found is not None:
        return _revoked(evaluation, found)
    saw = []
    for trust, path in evaluation.paths:
        lists = _denylists(evaluation, trust)
        above = trust.anchors.above(evaluation.subject, path)
        found = denied_above(lists, above, evaluation.now)
        if found is not None:
            return _revoked(evaluation, found)
        for cert, issuer in _certificates_to_check(evaluation.subject, path, trust):
            answer = _revocation_of(evaluation, trust, cert, issuer)
            evaluation.until(answer.until)
            if answer.status is RevocationStatus.REVOKED:
                return _revoked(evaluation, answer)
            must_know = trust.revocation == "required" or trust.unread
            if answer.status is RevocationStatus.UNKNOWN and must_know:
                return Ended(Reason.REVOCATION_UNKNOWN, f"{answer.source}: {answer.detail}")
            if evaluation.tracing:
                saw.append(f"{answer.source}: {answer.status.value} {answer.detail}".rstrip())
        if trust.chain_all and trust.crls is not None and trust.revocation != "off":
            for cert, issuer in trust.anchors.beyond(path or (evaluation.subject,)):
                answer = trust.crls.status(crl_facts(cert), issuer, evaluation.now)
                evaluation.until(answer.until)
                if answer.status is RevocationStatus.REVOKED:
                    return _revoked(evaluation, answer)
    found = _revoked_elsewhere(evaluation)
    if found is not None:
        return _revoked(evaluation, found)
    return _check_freshness(evaluation) or Passed("; ".join(saw) or "nothing to ask")


def _revoked_elsewhere(evaluation: _Evaluation) -> Answer | None:
    """Return REVOKED if a trust says so that has the issuer, and no valid path to it now.

    Its own root may have ended, while that of another trust has certified the same issuer.
    """
    with_path = {id(trust) for trust, _ in evaluation.paths}
    for trust in evaluation.here.trusts:
        if id(trust) in with_path:
            continue
        for other, path in evaluation.paths:
            if not _knows_issuer(trust, evaluation.subject, path):
                continue
            lists, now = trust.denylists, evaluation.now
            above = (other if path else trust).anchors.above(evaluation.subject, path)
            found = denied(lists, evaluation.subject, now) or denied_above(lists, above, now)
            found = found or _known_revoked(evaluation, trust, path)
            if found is not None:
                return found
    return None


def _knows_issuer(trust: Trust, leaf: ClientCert, path: Path) -> bool:
    """Return whether a trust has the issuer of a leaf, which may be an anchor of another trust."""
    if path:
        return trust.anchors.knows(path[0])
    return next(trust.anchors.beyond((leaf,)), None) is not None


def _known_revoked(evaluation: _Evaluation, trust: Trust, path: Path) -> Answer | None:
    """Return REVOKED if the CRLs or an OCSP answer of a trust say so; nobody is asked."""
    if trust.revocation == "off":
        return None
    for cert, issuer in _certificates_to_check(evaluation.subject, path, trust):
        crl = _crl_answer(evaluation, trust, cert, issuer)
        if crl is not None and crl.status is RevocationStatus.REVOKED:
            return crl
        key = ocsp_key(cert, issuer, trust.clock_tolerance, trust.ocsp)
        ocsp = evaluation.answers.get(key) if trust.ocsp else None
        if ocsp is not None and ocsp.status is RevocationStatus.REVOKED:
            return Answer(RevocationStatus.REVOKED, "ocsp", ocsp.detail)
    return None


def _revoked(evaluation: _Evaluation, answer: Answer) -> Ended:
    evaluation.until(answer.until)
    return Ended(Reason.REVOKED, f"{answer.source}: {answer.detail}")


def _check_freshness(evaluation: _Evaluation) -> Ended | None:
    """Refuse what might be revoked by now, where the fleet's last head is too old to tell."""
    fresh, said = evaluation.freshness, evaluation.here.stale
    if not (said == "deny" or (fresh.denies and not said)):
        return None
    evaluation.until(fresh.until)
    if evaluation.now < fresh.until:
        return None
    saw = "fleet: the last head is older than stale_after, so newer revocations may be missing"
    return Ended(Reason.REVOCATION_UNKNOWN, saw)


def _ask_denylists(evaluation: _Evaluation, assumed: Assumed) -> Passed | Ended:
    """Ask the denylists alone about a certificate that was described, where they are wanted."""
    if not assumed.denylists:
        return Passed("not asked in a test")
    for trust in evaluation.here.trusts:
        if assumed.trust in ("", trust.name):
            lists = _denylists(evaluation, trust)
            found = denied(lists, evaluation.subject, evaluation.now)
            if found is not None:
                return _revoked(evaluation, found)
    return Passed("on no denylist; nothing else is asked about a certificate that is described")


def _check_names(evaluation: _Evaluation) -> Passed | Ended:
    here, request, cert = evaluation.here, evaluation.request, evaluation.subject
    if not here.uses_host:
        return Passed("not asked for")
    host = normalize_host(request.host)
    if host is None:
        return Ended(Reason.HOST_MISMATCH, f"{request.host[:200]!r} is not a host")
    if here.san_matches_host and not _san_matches(cert, host):
        names = ", ".join((*cert.dns, *cert.ip)[:10]) or "no DNS or IP name"
        return Ended(Reason.HOST_MISMATCH, f"{names} doesn't cover {host!r}")
    if here.sni_matches_host and fold_dns(request.server_name).removesuffix(".") != host:
        return Ended(
            Reason.SNI_MISMATCH,
            f"the connection is for {request.server_name[:200]!r}, not {host!r}",
        )
    return Passed(f"{host} is covered")


def _san_matches(cert: ClientCert, host: str) -> bool:
    """Return whether the certificate's names cover the host; unreadable names cover none."""
    if not cert.unreadable.isdisjoint(("dns", "ip")):
        return False
    return san_matches_host(cert.dns, cert.ip, host)


def _check_origin(evaluation: _Evaluation) -> Passed | Ended:
    """Refuse a request that a page of another site made with its visitor's certificate."""
    if not evaluation.here.same_origin:
        return Passed("not asked for")
    origin = evaluation.request.other_origin
    if origin:
        saw = f"a page of another site made the request ({origin})"
        return Ended(Reason.DENIED_BY_RULE, saw, rule="same_origin")
    return Passed("not of another site's page")


def _check_deny_rules(evaluation: _Evaluation) -> Passed | Ended:
    rules = evaluation.here.deny
    if not len(rules):
        return Passed("no rules")
    evaluation.until(rules.next_moment(evaluation.now))
    found = rules.match(Facts(evaluation.subject, evaluation.request, evaluation.now))
    if found is not None:
        return Ended(Reason.DENIED_BY_RULE, f"{found.rule} matches", rule=found.rule)
    return Passed(f"none of {len(rules)} matches")


def _check_allow_rules(evaluation: _Evaluation) -> Ended:
    if evaluation.here.verified:
        return Ended(Reason.ALLOWED, "allow: verified", rule="verified")
    rules = evaluation.here.allow
    evaluation.until(rules.next_moment(evaluation.now))
    found = rules.match(Facts(evaluation.subject, evaluation.request, evaluation.now))
    if found is None:
        return Ended(Reason.NOT_ALLOWED, f"none of {len(rules)} matches")
    return Ended(Reason.ALLOWED, f"{found.rule} matches", rule=found.rule, roles=found.roles)


STEPS = (
    ("location", _choose_location),
    ("public", _check_public),
    ("certificate", _require_certificate),
    ("verify", _check_verify),
    ("readable", _read_certificate),
    ("validity", _check_validity),
    ("issuer", _check_issuer),
    ("revocation", _check_revocation),
    ("names", _check_names),
    ("origin", _check_origin),
    ("deny", _check_deny_rules),
    ("allow", _check_allow_rules),
)
"""The order of a decision.  The last step always ends it."""

NO_ANSWERS: Mapping[OcspKey, OcspAnswer] = {}


def evaluate(
    policy: Policy,
    request: AuthzRequest,
    now: float,
    answers: Mapping[OcspKey, OcspAnswer] = NO_ANSWERS,
    trace: list[Step] | None = None,
    questions: list[OcspQuestion] | None = None,
    freshness: Freshness = ALWAYS,
) -> Decision:
    """Decide one request at `now` (seconds since the epoch).

    `answers` are the OCSP answers at hand; those that were wanting are put into `questions`.
    Each step is put into `trace`, with what it saw.  `freshness` is the fleet's.  Never raises
    for what a request holds.
    """
    evaluation = _Evaluation(policy, request, now, answers, trace is not None, freshness)
    for name, step in STEPS:
        outcome = step(evaluation)
        if trace is not None:
            passed = isinstance(outcome, Passed) or outcome.reason in GRANTS
            trace.append(Step(name, passed, outcome.saw))
        if isinstance(outcome, Ended):
            break
    if questions is not None:
        questions += evaluation.questions
    return _decide(evaluation, outcome)


def _decide(evaluation: _Evaluation, outcome: Passed | Ended) -> Decision:
    assert isinstance(outcome, Ended)
    here = evaluation.location
    if here is None:
        return Decision(outcome.reason, detail=outcome.saw)
    # Don't cache a decision that an OCSP answer still to come could change.
    settled = not evaluation.questions and outcome.reason is not Reason.REVOCATION_UNKNOWN
    return Decision(
        reason=outcome.reason,
        location=here.name,
        rule=outcome.rule,
        roles=outcome.roles,
        subject=evaluation.cert,
        monitored=here.monitor,
        cache_seconds=here.cache_seconds if settled else 0,
        expires=evaluation.now if evaluation.questions else evaluation.expires,
        forward_cert=here.forward_cert,
        detail=outcome.saw,
    )


def refuse(request_detail: str) -> Decision:
    """Make the decision about a malformed request; no policy is evaluated."""
    return Decision(Reason.BAD_REQUEST, detail=request_detail)


# -- revocation, one certificate at a time ------------------------------------------------


def _certificates_to_check(
    leaf: ClientCert, path: Path, trust: Trust
) -> list[tuple[ClientCert, ClientCert]]:
    """Return the certificates whose revocation must be checked, each with its issuer.

    An anchor is not checked, except a leaf that is itself an anchor: by its issuer, if the trust
    has that.
    """
    if not path:
        return [next(trust.anchors.beyond((leaf,)), (leaf, leaf))]
    return list(pairwise((leaf, *path) if trust.chain_all else (leaf, path[0])))


def _revocation_of(
    evaluation: _Evaluation, trust: Trust, cert: ClientCert, issuer: ClientCert
) -> Answer:
    """Ask denylist, CRL and OCSP in this order; the first `revoked` is the answer.

    GOOD needs one source that says GOOD; after UNKNOWN the next source is asked.
    """
    now = evaluation.now
    found = denied(_denylists(evaluation, trust), cert, now)
    if found is not None:
        return found
    if trust.revocation == "off" and not trust.unread:
        return Answer(RevocationStatus.GOOD, "revocation", "not asked for", math.inf)
    crl = _crl_answer(evaluation, trust, cert, issuer)
    if crl is not None and crl.status is RevocationStatus.REVOKED:
        return crl
    if trust.unread:
        detail = f"what was in force before is not read yet: {', '.join(trust.unread)}"
        return Answer(RevocationStatus.UNKNOWN, "revocation", detail)
    if crl is not None:
        evaluation.until(crl.until)  # from then on the CRL may say revoked, whatever OCSP says
    ocsp = _ocsp_answer(evaluation, trust, cert, issuer)
    if crl is not None and ocsp is None:
        return crl
    known = [answer for answer in (ocsp, crl) if answer is not None]
    if not known:
        return Answer(
            RevocationStatus.UNKNOWN, "revocation", "no crl and no ocsp is named", math.inf
        )
    for wanted in (RevocationStatus.REVOKED, RevocationStatus.GOOD):
        for answer in known:
            if answer.status is wanted:
                return answer
    return known[-1]


def _crl_answer(
    evaluation: _Evaluation, trust: Trust, cert: ClientCert, issuer: ClientCert
) -> Answer | None:
    if trust.crls is None:
        return None
    lists = _denylists(evaluation, trust)

    def denies(signer: ClientCert) -> Answer | None:
        above = trust.anchors.above(signer, (signer,))
        return denied_above(lists, (signer, *above), evaluation.now)

    answer = trust.crls.status(crl_facts(cert), issuer, evaluation.now, denies)
    if answer.status is RevocationStatus.UNKNOWN and trust.missing:
        detail = f"{answer.detail}; not fetched yet: {', '.join(trust.missing)}"
        return Answer(answer.status, answer.source, detail, answer.until)
    return answer


def _ocsp_answer(
    evaluation: _Evaluation, trust: Trust, cert: ClientCert, issuer: ClientCert
) -> Answer | None:
    if not trust.ocsp:
        return None
    key = ocsp_key(cert, issuer, trust.clock_tolerance, trust.ocsp)
    answer = evaluation.answers.get(key)
    if (
        answer is not None
        and answer.delegate is not None
        and _responder_revoked(evaluation, answer, trust, issuer)
    ):
        signer = answer.delegate.sha256
        evaluation.questions.append(OcspQuestion(key, trust.name, cert, issuer, not_by=signer))
        return Answer(
            RevocationStatus.UNKNOWN, "ocsp", "the responder's certificate is revoked", math.inf
        )
    if answer is not None and answer.holds(evaluation.now):
        return Answer(answer.status, "ocsp", answer.detail, answer.until)
    evaluation.questions.append(OcspQuestion(key, trust.name, cert, issuer))
    if (
        answer is not None and answer.status is RevocationStatus.REVOKED
    ):  # an expired `revoked` response still revokes, and so does one that is otherwise refused
        ended = " (that answer has expired)" if 0.0 < answer.until <= evaluation.now else ""
        return Answer(RevocationStatus.REVOKED, "ocsp", answer.detail + ended, math.inf)
    return Answer(RevocationStatus.UNKNOWN, "ocsp", "no answer from the responder", math.inf)


def _denylists(evaluation: _Evaluation, trust: Trust) -> tuple[Denylist, ...]:
    """Return the denylists that deny in a trust: its own, and those of the whole policy."""
    return (*evaluation.policy.denylists, *trust.denylists)


def _responder_revoked(
    evaluation: _Evaluation, answer: OcspAnswer, trust: Trust, issuer: ClientCert
) -> bool:
    """Return whether a delegated responder's certificate is revoked (RFC 6960, 4.2.2.2.1).

    Only the loaded denylists and CRLs are checked; no OCSP responder is asked about it.  By
    id-pkix-ocsp-nocheck its issuer waives the CRLs, and nobody's own denylist.
    """
    if answer.delegate is None or answer.status is RevocationStatus.REVOKED:
        return False
    delegate = answer.delegate
    lists = _denylists(evaluation, trust)
    found = denied(lists, delegate, evaluation.now)
    if found is None and not answer.nocheck:
        found = _crl_answer(evaluation, trust, delegate, issuer)
    if found is None:
        return False
    evaluation.until(found.until)
    return found.status is RevocationStatus.REVOKED


def _utc(moment: float) -> str:
    return f"{datetime.fromtimestamp(moment, UTC):%Y-%m-%dT%H:%M:%SZ}"

"""The last denials: alike ones are one, and strangers never displace a client that is known."""

from __future__ import annotations

from dataclasses import replace

from pki import CA

from sidecar.authorizer.request_cache import CachedAnswer, RenderedDecision
from sidecar.authorizer.telemetry.recent_denials import (
    MAX_DER,
    MAX_IDS,
    MAX_KNOWN,
    MAX_STRANGERS,
    MAX_TEXT,
    RecentDenials,
)
from sidecar.core.decision import Decision, Reason
from sidecar.core.request import AuthzRequest
from sidecar.core.x509.certificate import ClientCert, from_der

alice = from_der(CA("Staff").issue("alice").der)


def cert(number: int) -> ClientCert:
    return replace(alice, sha256=f"{number:064x}")


def denied(
    subject: ClientCert | None, reason: Reason = Reason.NOT_ALLOWED, location: str = "site"
) -> RenderedDecision:
    return RenderedDecision(Decision(reason, location, subject=subject), b"", 0.0, 9e9)


def request(number: int, cert: bytes = b"x") -> AuthzRequest:
    return AuthzRequest("site", cert=cert, request_id=f"{number:032x}", uri=b"/a")


def test_alike_denials_are_one_with_the_last_ids() -> None:
    """Counted, with first and last moment, and the ids of the last requests."""
    recent = RecentDenials()
    for number in range(50):
        recent.note(denied(alice), request(number), float(number))
    [denial] = recent.denials()
    assert (denial.count, denial.first, denial.last) == (50, 0.0, 49.0)
    assert [each for each, _ in denial.requests] == [
        f"{n:032x}" for n in range(49, 49 - MAX_IDS, -1)
    ]
    assert denial.can_be_explained


def test_a_denial_out_of_the_cache_is_noted() -> None:
    """With the id and the URI of its own request."""
    recent = RecentDenials()
    cached = CachedAnswer(request(1, b""), denied(None, Reason.NO_CERTIFICATE), b"", 0.0, 9e9)
    recent.note_cached([(cached, b"/other", b"e" * 32, 1.0, 2.0)])
    recent.note_cached([(cached, b"/", b"f" * 32, 1.0, float(n)) for n in (3, 4, 5)])
    [denial] = recent.denials()
    assert denial.request.uri == b"/other"
    assert (denial.count, denial.last) == (4, 5.0)
    assert denial.requests[0] == ("f" * 32, 5.0)
    assert denial.requests[-1] == ("e" * 32, 2.0)


def test_strangers_displace_nobody() -> None:
    """A hundred thousand self-made certificates are one denial, and take no room."""
    recent = RecentDenials()
    recent.note(denied(alice), request(0), 0.0)
    for number in range(100_000):
        recent.note(denied(cert(number), Reason.UNTRUSTED_ISSUER), request(number), 1.0)
    found = recent.denials()
    assert len(found) == 2
    assert found[0].count == 100_000
    assert found[0].request.subject is None
    assert not found[0].can_be_explained
    assert found[1].sha256 == alice.sha256


def test_the_number_kept_is_bounded() -> None:
    """The oldest give way, and the parts that a client chooses are cut."""
    recent = RecentDenials()
    for number in range(MAX_KNOWN + 100):
        recent.note(denied(cert(number)), request(number), float(number))
        where = denied(None, Reason.NO_CERTIFICATE, f"l{number}")
        recent.note(where, request(number, b""), float(number))
    assert len(recent.denials()) == MAX_KNOWN + MAX_STRANGERS
    assert recent.denials()[0].last == MAX_KNOWN + 99
    large = replace(alice, sha256="f" * 64, der=bytes(MAX_DER + 1), dn="x" * 10_000)
    long = request(1)._replace(uri=b"/" * 10_000, host="h" * 10_000)
    recent.note(denied(large), long, 1e6)
    last = recent.denials()[0]
    assert (len(last.request.uri), len(last.request.host), len(last.subject)) == (MAX_TEXT,) * 3
    assert last.request.subject is None

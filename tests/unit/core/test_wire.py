"""What nginx sends, and what it is answered."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pki import CA

from sidecar.core.answer import escape, render, san_list
from sidecar.core.decision import Decision, Reason
from sidecar.core.request import BadRequest, parse_request
from sidecar.core.x509.certificate import from_der

HEADERS = [(b"Host", b"app.example.com"), (b"SSL-Client-Verify", b"NONE")]


def test_the_location_is_named_or_left_open() -> None:
    """/authz/NAME asks about a location; /authz leaves the choice to the sidecar."""
    assert parse_request(b"GET", b"/authz/admin", HEADERS).location == "admin"
    assert parse_request(b"GET", b"/authz", HEADERS).location is None


@pytest.mark.parametrize(
    ("method", "target"),
    [
        (b"POST", b"/authz/admin"),
        (b"GET", b"/"),
        (b"GET", b"/authzx"),
        (b"GET", b"/authz?x"),
        (b"GET", b"/authz/admin?x=1"),
        (b"GET", b"http://x/authz/admin"),
        (b"GET", b"*"),
    ],
)
def test_anything_else_is_a_bad_request(method: bytes, target: bytes) -> None:
    """Another method or another target is malformed."""
    with pytest.raises(BadRequest):
        parse_request(method, target, HEADERS)


@pytest.mark.parametrize(
    "header",
    [
        (b"ssl-client-verify", b"SUCCESS"),
        (b"SSL_Client_Verify", b"SUCCESS"),
        (b"Ssl-Client_Cert", b"x"),
        (b"HOST", b"other"),
        (b"x_real_ip", b"192.0.2.1"),
    ],
)
def test_a_control_header_that_comes_twice_is_never_picked_from(
    header: tuple[bytes, bytes],
) -> None:
    """Repeated, in another case, or in a second spelling: refused."""
    with pytest.raises(BadRequest):
        parse_request(b"GET", b"/authz/a", [*HEADERS, header])


def test_other_headers_are_of_no_concern() -> None:
    """What isn't a control header is ignored, however often it comes."""
    more = [(b"Cookie", b"a"), (b"Cookie", b"b"), (b"X-Client-CN", b"root")]
    assert parse_request(b"GET", b"/authz/a", [*HEADERS, *more]).verify == "NONE"


def test_an_oversized_certificate_header_is_refused() -> None:
    """128 KiB is taken, a byte more isn't."""
    fits = [(b"SSL-Client-Cert", b"x" * 131072)]
    assert len(parse_request(b"GET", b"/authz/a", fits).cert) == 131072
    with pytest.raises(BadRequest, match="too long"):
        parse_request(b"GET", b"/authz/a", [(b"SSL-Client-Cert", b"x" * 131073)])


@pytest.mark.parametrize(
    ("given", "known"),
    [(b"192.0.2.7", "192.0.2.7"), (b"::ffff:10.0.0.1", "10.0.0.1"), (b"unix:", ""), (b"x", "")],
)
def test_client_addresses_have_one_spelling(given: bytes, known: str) -> None:
    """A mapped IPv4 address is that IPv4 address; what is none isn't known."""
    assert parse_request(b"GET", b"/authz/a", [(b"X-Real-IP", given)]).client_ip == known


def test_every_reason_has_its_status() -> None:
    """204 for the grants, 401 without a usable certificate, 400 malformed, else 403."""
    statuses = {reason: Decision(reason).status for reason in Reason}
    assert [r for r, s in statuses.items() if s == 204] == ["allowed", "public", "exempt"]
    assert [r for r, s in statuses.items() if s == 400] == ["bad_request"]
    assert {r for r, s in statuses.items() if s == 401} == {
        "no_certificate",
        "verify_failed",
        "malformed_certificate",
        "expired",
        "not_yet_valid",
    }
    assert set(statuses.values()) == {204, 400, 401, 403}


@given(st.text())
def test_no_text_breaks_out_of_a_header(text: str) -> None:
    """Whatever a name holds, the value is printable ASCII and reads back as it was."""
    from urllib.parse import unquote_to_bytes

    value = escape(text)
    assert all(0x20 <= byte <= 0x7E for byte in value)
    assert value == value.strip()
    assert unquote_to_bytes(value) == text.encode("utf-8", "surrogateescape")


def test_a_comma_in_a_name_does_not_make_two() -> None:
    """Within X-Client-SAN a comma only separates."""
    cert = from_der(CA("x").issue("a", uri=["https://a/,DNS:root"], dns=["b.example"]).der)
    assert san_list(cert) == b"DNS:b.example,URI:https://a/%2CDNS:root"


def headers(decision: Decision) -> dict[str, str]:
    lines = render(decision, "abc", 1000.0).decode().split("\r\n")[1:-1]
    return dict(line.split(": ", 1) for line in lines)


def test_identity_goes_out_only_where_it_is_proven() -> None:
    """A denied or public request carries no X-Client header, even if a certificate was read."""
    cert = from_der(CA("x").issue("alice").der)
    assert headers(Decision(Reason.ALLOWED, subject=cert))["X-Client-CN"] == "alice"
    for reason in (Reason.PUBLIC, Reason.REVOKED, Reason.NOT_ALLOWED):
        assert not [h for h in headers(Decision(reason, subject=cert)) if h.startswith("X-Client")]
    shadow = Decision(Reason.REVOKED, subject=cert, monitored=True)
    assert shadow.status == 204
    assert "X-Client-CN" not in headers(shadow)


def test_of_several_cns_none_is_handed_on() -> None:
    """An application gets no CN where the certificate has two."""
    cert = from_der(CA("x").issue(cns=["alice", "root"]).der)
    assert "X-Client-CN" not in headers(Decision(Reason.ALLOWED, subject=cert))


@pytest.mark.parametrize(
    ("cache", "expires", "expected"),
    [(60, math.inf, "60"), (60, 1010.5, "10"), (60, 990.0, "0")],
)
def test_nginx_remembers_no_longer_than_the_decision_holds(
    cache: int, expires: float, expected: str
) -> None:
    """X-Accel-Expires is cache_seconds, capped by the decision's end."""
    decision = Decision(Reason.ALLOWED, cache_seconds=cache, expires=expires)
    assert headers(decision)["X-Accel-Expires"] == expected
    assert "Cache-Control" not in headers(decision)


def test_without_cache_seconds_nothing_is_stored() -> None:
    """The default is Cache-Control: no-store."""
    assert headers(Decision(Reason.ALLOWED))["Cache-Control"] == "no-store"

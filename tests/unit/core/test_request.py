"""Read the requests of the authorization socket."""

from __future__ import annotations

import pytest

from sidecar.core.request import BadRequest, parse_request

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
    """A control header that is repeated, also in another case or spelling, is refused."""
    with pytest.raises(BadRequest):
        parse_request(b"GET", b"/authz/a", [*HEADERS, header])


def test_other_headers_are_of_no_concern() -> None:
    """Other headers are ignored, also repeated ones."""
    more = [(b"Cookie", b"a"), (b"Cookie", b"b"), (b"X-Client-CN", b"root")]
    assert parse_request(b"GET", b"/authz/a", [*HEADERS, *more]).verify == "NONE"


def test_an_oversized_certificate_header_is_refused() -> None:
    """128 KiB is accepted, one byte more is not."""
    fits = [(b"SSL-Client-Cert", b"x" * 131072)]
    assert len(parse_request(b"GET", b"/authz/a", fits).cert) == 131072
    with pytest.raises(BadRequest, match="too long"):
        parse_request(b"GET", b"/authz/a", [(b"SSL-Client-Cert", b"x" * 131073)])


@pytest.mark.parametrize(
    ("given", "known"),
    [(b"192.0.2.7", "192.0.2.7"), (b"::ffff:10.0.0.1", "10.0.0.1"), (b"unix:", ""), (b"x", "")],
)
def test_client_addresses_have_one_spelling(given: bytes, known: str) -> None:
    """An IPv4-mapped address becomes IPv4; an invalid one is unknown."""
    assert parse_request(b"GET", b"/authz/a", [(b"X-Real-IP", given)]).client_ip == known

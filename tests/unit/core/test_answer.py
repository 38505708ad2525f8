"""Render answers for nginx."""

from __future__ import annotations

import math

import pytest
from der import der_oid, der_rdn, tlv
from hypothesis import given
from hypothesis import strategies as st
from pki import CA

from sidecar.core.answer import escape, render, san_list
from sidecar.core.decision import Decision, Reason
from sidecar.core.x509.certificate import from_der


@given(st.text())
def test_no_text_breaks_out_of_a_header(text: str) -> None:
    """Any text becomes printable ASCII that decodes to the same text."""
    from urllib.parse import unquote_to_bytes

    value = escape(text)
    assert all(0x20 <= byte <= 0x7E for byte in value)
    assert value == value.strip()
    assert unquote_to_bytes(value) == text.encode("utf-8", "surrogateescape")


def test_a_comma_in_a_name_does_not_make_two() -> None:
    """In X-Client-SAN, a comma only separates values."""
    cert = from_der(CA("x").issue("a", uri=["https://a/,DNS:root"], dns=["b.example"]).der)
    assert san_list(cert) == b"DNS:b.example,URI:https://a/%2CDNS:root"


def headers(decision: Decision) -> dict[str, str]:
    lines = render(decision, "abc", 1000.0).decode().split("\r\n")[1:-1]
    return dict(line.split(": ", 1) for line in lines)


def test_identity_goes_out_only_where_it_is_proven() -> None:
    """A denied or public request has no X-Client header, even if a certificate was parsed."""
    cert = from_der(CA("x").issue("alice").der)
    assert headers(Decision(Reason.ALLOWED, subject=cert))["X-Client-CN"] == "alice"
    for reason in (Reason.PUBLIC, Reason.REVOKED, Reason.NOT_ALLOWED):
        assert not [h for h in headers(Decision(reason, subject=cert)) if h.startswith("X-Client")]
    shadow = Decision(Reason.REVOKED, subject=cert, monitored=True)
    assert shadow.status == 204
    assert "X-Client-CN" not in headers(shadow)


def test_of_several_cns_none_is_handed_on() -> None:
    """With two CNs there is no X-Client-CN."""
    cert = from_der(CA("x").issue(cns=["alice", "root"]).der)
    assert "X-Client-CN" not in headers(Decision(Reason.ALLOWED, subject=cert))


def test_of_a_cn_and_one_that_is_no_string_none_is_handed_on() -> None:
    """OpenSSL takes a BIT STRING for a CN; beside it `alice` isn't the name."""
    bits = tlv(0x31, tlv(0x30, der_oid("2.5.4.3"), tlv(3, b"\0root")))
    cert = from_der(CA("x").forge(subject=tlv(0x30, der_rdn("2.5.4.3", b"alice"), bits)).der)
    assert (cert.cn, cert.unreadable) == (("alice",), frozenset({"cn"}))
    assert "X-Client-CN" not in headers(Decision(Reason.ALLOWED, subject=cert))


@pytest.mark.parametrize(
    ("cache", "expires", "expected"),
    [(60, math.inf, "60"), (60, 1010.5, "10"), (60, 990.0, "0")],
)
def test_nginx_remembers_no_longer_than_the_decision_holds(
    cache: int, expires: float, expected: str
) -> None:
    """X-Accel-Expires is cache_seconds, limited by the decision's end."""
    decision = Decision(Reason.ALLOWED, cache_seconds=cache, expires=expires)
    assert headers(decision)["X-Accel-Expires"] == expected
    assert "Cache-Control" not in headers(decision)


def test_without_cache_seconds_nothing_is_stored() -> None:
    """The default is Cache-Control: no-store."""
    assert headers(Decision(Reason.ALLOWED))["Cache-Control"] == "no-store"

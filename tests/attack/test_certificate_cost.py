"""What a stranger's certificate costs: `verify: sidecar` reads it before it knows who issued it."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace

import pytest
from chains import BMP, NOW, ORGANIZATION, Spec, cn, extension, key, name, root, signed
from counted import calls
from der import der_oid, der_rdn, tlv

from sidecar.core.errors import MalformedCertificate
from sidecar.core.x509.certificate import from_der
from sidecar.core.x509.path_building import Anchors

MOST_CALLS = 60_000
"""Calls of functions for one certificate: about 8 ms."""

OCTETS = 65_000
"""As many as fit in nginx's header, or near it."""

SAN, POLICIES = "2.5.29.17", "2.5.29.32"
LIGATURE = "\N{ARABIC LIGATURE SALLALLAHOU ALAYHE WASALLAM}".encode("utf-16-be")
"""NFKC makes 18 letters of it."""

NULL, OID = tlv(0x05), tlv(0x06, b"\x2a")


def filled(one: bytes, octets: int = OCTETS) -> bytes:
    return one * (octets // len(one))


def nested(depth: int) -> bytes:
    return tlv(0x30, nested(depth - 1)) if depth else b""


def numbered(make: Callable[[int], bytes], octets: int = OCTETS) -> bytes:
    """Many values, each another one, so that no cache serves twice."""
    return b"".join(make(number) for number in range(octets // len(make(1000))))


def with_key(parameters: bytes) -> Spec:
    spki = tlv(0x30, tlv(0x30, OID, tlv(0x30, parameters)), tlv(0x03, bytes(33)))
    return Spec(name(cn("alice")), replace(key("ec", 2), spki=spki))


def with_extension(oid: str, contents: bytes) -> Spec:
    return Spec(name(cn("alice")), key("ec", 2), (extension(oid, tlv(0x30, contents)),))


def policy(qualifiers: bytes) -> bytes:
    return tlv(0x30, OID, tlv(0x30, qualifiers))


def directory(number: int) -> bytes:
    return tlv(0xA4, name(cn(f"{number:05}")))


SHAPES: dict[str, Spec] = {
    "key parameters": with_key(filled(NULL)),
    "key parameters, nested": with_key(filled(nested(12))),
    "key parameters, OIDs": with_key(numbered(lambda n: der_oid(f"1.2.{n}"))),
    "x400 address": with_extension(SAN, tlv(0xA3, filled(NULL))),
    "x400 addresses": with_extension(SAN, filled(tlv(0xA3, filled(NULL, 2000)))),
    "EDI party": with_extension(SAN, tlv(0xA5, filled(nested(12)))),
    "other names": with_extension(SAN, filled(tlv(0xA0, OID, tlv(0xA0, NULL)), 36_000)),
    "IPv6 addresses": with_extension(SAN, numbered(lambda n: tlv(0x87, n.to_bytes(16)))),
    "directory names": with_extension(SAN, numbered(directory)),
    "a directory name": with_extension(SAN, filled(tlv(0xA4, name(*[cn("")] * 128)))),
    "DNS names": with_extension(
        SAN, numbered(lambda n: tlv(0x82, f"{n:05}.example.test".encode()))
    ),
    "empty names": with_extension(SAN, filled(tlv(0x82))),
    "qualifiers": with_extension(POLICIES, policy(filled(tlv(0x30, OID, NULL)))),
    "a qualifier": with_extension(POLICIES, policy(tlv(0x30, OID, tlv(0x30, filled(NULL))))),
    "policies": with_extension(POLICIES, filled(tlv(0x30, OID))),
    "usages": with_extension("2.5.29.37", filled(OID)),
    "extensions": Spec(name(cn("alice")), key("ec", 2), (filled(tlv(0x30)),)),
    "attributes": Spec(name(filled(cn(""), 16_000)), key("ec", 2)),
    "attributes of one RDN": Spec(
        name(tlv(0x31, filled(tlv(0x30, OID, tlv(0x13)), 16_000))), key("ec", 2)
    ),
}


def strangers(trusted: Anchors, der: bytes) -> None:
    """Decide about a certificate that nobody here issued."""
    with suppress(MalformedCertificate):
        assert trusted.verified_path(from_der(der), NOW.timestamp()) is None


@pytest.fixture(scope="module")
def trusted() -> Anchors:
    return Anchors([from_der(signed(root()))], [])


@pytest.mark.parametrize("shape", SHAPES)
def test_the_work_is_bounded(trusted: Anchors, shape: str) -> None:
    """Whatever it is filled with, reading a certificate of 64 KB takes a bounded amount of work."""
    der = signed(SHAPES[shape], Spec(name(cn("Nobody"))))
    assert calls(lambda: strangers(trusted, der)) < MOST_CALLS


def long_issuers() -> Iterator[bytes]:
    """Certificates whose issuers have names that are 16 times as long in normalized form."""
    letters = LIGATURE * 8000
    for number in range(100):
        for length in (400, 4000, 16_000):
            text = letters[:length] + chr(0x4E00 + number).encode("utf-16-be")
            issuer = name(der_rdn(ORGANIZATION, text, BMP))
            yield signed(Spec(name(cn("alice")), key("ec", 2)), Spec(issuer))


def test_long_issuers_fill_no_memory(trusted: Anchors) -> None:
    """Names of strangers' issuers, however long in normalized form, are not kept."""
    made = [*long_issuers()]
    tracemalloc.start()
    try:
        for der in made:
            strangers(trusted, der)
        size, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert size < 4 * 2**20

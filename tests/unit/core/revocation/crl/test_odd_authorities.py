"""Use CRLs of authorities, and in forms, that OpenSSL reads but `cryptography` refuses."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import asking
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from der import der_extension, der_int, der_oid, der_rdn, der_time, pem, tlv
from pki import CA, Leaf, spki

from sidecar.core.decision import Reason
from sidecar.core.revocation.crl.fields import take_apart
from sidecar.core.revocation.crl.index import read_crl

KEYS = CA("the key of all authorities here")
ECDSA_SHA256 = tlv(0x30, der_oid("1.2.840.10045.4.3.2"))
START = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=1)
END = START + timedelta(days=30)

CA_TRUE = der_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
DEFAULT_WRITTEN_OUT = tlv(
    0x30, der_oid("2.5.29.19"), tlv(0x01, b"\0"), tlv(0x04, tlv(0x30, tlv(0x01, b"\xff")))
)
BROKEN_POLICY = tlv(0x30, der_oid("2.5.29.32"), tlv(0x04, tlv(0x30, tlv(0x02, b"\1"))))

ODD = {
    "plain": (tlv(0x30, der_rdn("2.5.4.3", b"Staff CA")), [CA_TRUE]),
    "PrintableString with an underscore": (
        tlv(0x30, der_rdn("2.5.4.3", b"Staff_CA", 0x13)), [CA_TRUE]
    ),
    "T61String": (tlv(0x30, der_rdn("2.5.4.3", b"Staff \xfc", 0x14)), [CA_TRUE]),
    "a default written out": (
        tlv(0x30, der_rdn("2.5.4.3", b"Staff CA")), [DEFAULT_WRITTEN_OUT]
    ),
    "policies that can't be read": (
        tlv(0x30, der_rdn("2.5.4.3", b"Staff CA")), [CA_TRUE, BROKEN_POLICY]
    ),
}  # fmt: skip


def certificate(subject: bytes, issuer: bytes, serial: int, extensions: list[bytes]) -> bytes:
    validity = tlv(0x30, der_time(START), der_time(END))
    more = tlv(0xA3, tlv(0x30, *extensions))
    version = tlv(0xA0, der_int(2))
    return KEYS.sign_tbs(
        tlv(
            0x30, version, der_int(serial), ECDSA_SHA256, issuer, validity, subject,
            spki(KEYS.key), more,
        )
    )  # fmt: skip


def crl(issuer: bytes, entries: bytes, extensions: bytes = b"", end: bytes = b"") -> bytes:
    number = tlv(0x30, der_oid("2.5.29.20"), tlv(0x04, der_int(1)))
    return KEYS.sign_tbs(
        tlv(
            0x30, der_int(1), ECDSA_SHA256, issuer, der_time(START), end or der_time(END),
            tlv(0x30, entries), tlv(0xA0, tlv(0x30, number, extensions)),
        )
    )  # fmt: skip


def entry(serial: int, time: bytes = b"", *extensions: bytes) -> bytes:
    more = tlv(0x30, *extensions) if extensions else b""
    return tlv(0x30, der_int(serial), time or der_time(START), more)


def extension(oid: str, value: bytes, *, critical: bool = False) -> bytes:
    return tlv(0x30, der_oid(oid), tlv(0x01, b"\xff") if critical else b"", tlv(0x04, value))


def reason(authority: bytes, issuer: bytes, data: bytes, serial: int) -> Reason:
    """What is decided about a certificate with this serial number under `best_effort`."""
    subject = tlv(0x30, der_rdn("2.5.4.3", b"alice"))
    leaf = Leaf("alice", certificate(subject, issuer, serial, [CA_FALSE]), KEYS.key, KEYS)
    rules = asking.policy(
        """
version: 1
trust: {staff: {ca: ca.crt, crl: [ca.crl], revocation: best_effort}}
locations: [{name: site, allow: verified}]
""",
        ca_crt=pem("CERTIFICATE", authority),
        ca_crl=data,
    )
    return asking.ask(rules, leaf).reason


CA_FALSE = der_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)


@pytest.mark.parametrize("how", ODD)
def test_a_crl_of_an_odd_authority_revokes(how: str) -> None:
    """An unusual encoding of an authority's name or extensions doesn't prevent a revocation."""
    name, extensions = ODD[how]
    authority = certificate(name, name, 1, extensions)
    data = crl(name, entry(7))
    assert reason(authority, name, data, 7) is Reason.REVOKED
    assert reason(authority, name, data, 8) is Reason.ALLOWED
    assert read_crl(data, "crl", [authority]).unusable == ""


UNKNOWN = "1.2.3.4"
POINT = "2.5.29.28"
NAME = ODD["plain"][0]

SPOILT = {
    "an unknown critical extension": (entry(7), extension(UNKNOWN, b"\5\0", critical=True), b""),
    "an extension twice": (entry(7), 2 * extension(UNKNOWN, b"\5\0"), b""),
    "a distribution point that can't be read": (
        entry(7), extension(POINT, b"\x30\3\x9f\1\0", critical=True), b""
    ),
    "an unknown critical extension of the entry": (
        entry(7, b"", extension(UNKNOWN, b"\5\0", critical=True)), b"", b""
    ),
    "an unknown critical extension of another entry": (
        entry(9, b"", extension(UNKNOWN, b"\5\0", critical=True)) + entry(7), b"", b""
    ),
    "a broken extension of another entry": (
        entry(9, b"", b"\x30\1\0") + entry(7), b"", b""
    ),
    "an entry's time without seconds": (entry(7, tlv(0x17, b"2601010000Z")), b"", b""),
    "the day of one of many entries alike": (
        entry(9, tlv(0x17, b"261301000000Z")) + b"".join(map(entry, range(10, 40))) + entry(7),
        b"", b"",
    ),
    "another entry that is none": (tlv(0x30, b"\5\0") + entry(7), b"", b""),
    "a certificateIssuer where there may be none": (
        entry(7, b"", extension("2.5.29.29", tlv(0x30, tlv(0xA4, NAME)), critical=True)), b"", b""
    ),
    "a nextUpdate without seconds": (entry(7), b"", tlv(0x17, b"4601010000Z")),
}  # fmt: skip


@pytest.mark.parametrize("how", SPOILT)
def test_a_crl_that_is_not_understood_revokes_whom_it_lists(how: str) -> None:
    """With a valid signature its entries are revoked, and it never says good."""
    entries, extensions, end = SPOILT[how]
    authority = certificate(NAME, NAME, 1, [CA_TRUE])
    data = crl(NAME, entries, extensions, end)
    assert reason(authority, NAME, data, 7) is Reason.REVOKED
    found = read_crl(data, "crl", [authority])
    assert found.unusable or found.next_update is None
    assert reason(authority, NAME, data, 8) is Reason.ALLOWED  # best_effort


def test_entries_of_an_issuer_that_can_not_be_read_are_nobodys() -> None:
    """Such entries of an indirect CRL never count as the CRL issuer's own."""
    point = extension(POINT, tlv(0x30, tlv(0x84, b"\xff")), critical=True)
    whose = extension("2.5.29.29", tlv(0x30, tlv(0x82, b"x")), critical=True)
    data = crl(NAME, entry(7) + entry(8, b"", whose) + entry(9), point)
    authority = certificate(NAME, NAME, 1, [CA_TRUE])
    assert reason(authority, NAME, data, 7) is Reason.REVOKED
    assert reason(authority, NAME, data, 8) is reason(authority, NAME, data, 9) is Reason.ALLOWED


def test_the_fields_are_those_that_the_library_reads() -> None:
    """For a CRL that `cryptography` reads, all fields are equal."""
    for authority in (KEYS, CA("with rsa", key="rsa")):
        der = authority.crl([1, 2], der=True)
        there, here = x509.load_der_x509_crl(der), take_apart(der)
        assert here.signed == there.tbs_certlist_bytes
        assert here.signature == there.signature
        assert here.issuer == there.issuer.public_bytes()
        assert here.this_update == there.last_update_utc.timestamp()
        assert there.next_update_utc is not None
        assert here.next_update == there.next_update_utc.timestamp()
        assert there.public_bytes(Encoding.DER) == der

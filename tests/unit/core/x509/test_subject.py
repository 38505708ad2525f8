"""Parse names as OpenSSL does."""

from __future__ import annotations

import re

import libcrypto
import pytest
from der import der_oid, tlv
from hypothesis import given, settings
from hypothesis import strategies as st
from lying_der import tree
from pki import CA

from sidecar.core.errors import MalformedCertificate
from sidecar.core.x509 import subject
from sidecar.core.x509.certificate import ClientCert, from_der
from sidecar.core.x509.subject import MAX_ATTRIBUTES, TYPES, read_name

staff = CA("Staff")
KEY = staff.issue("x").private
COMMON, ORGANIZATION = "2.5.4.3", "2.5.4.10"


def attribute(oid: str, tag: int, value: bytes) -> bytes:
    return tlv(0x30, der_oid(oid), tlv(tag, value))


def name(*attributes: bytes) -> bytes:
    return tlv(0x30, *(tlv(0x31, each) for each in attributes))


def read(der: bytes) -> ClientCert | None:
    try:
        return from_der(der)
    except MalformedCertificate:
        return None


def assert_as_openssl(subject_name: bytes) -> None:
    """The same values, the same DN; refused where OpenSSL refuses, or for a control character."""
    der = staff.forge(subject=subject_name).der
    theirs = libcrypto.read(der)
    for _ in range(2):  # new, and known
        ours = read(der)
        if theirs is None:
            assert ours is None, der.hex()
        elif ours is None:
            texts = [text or "" for _, text in theirs.subject]
            in_pieces = any(each in subject_name for each in (b"\x2c", b"\x33"))
            assert in_pieces or any(map(_CONTROL.search, texts)), der.hex()
        else:
            _assert_same(ours, theirs)


_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")


def _assert_same(ours: ClientCert, theirs: libcrypto.Read) -> None:
    flat = [each for rdn in ours.subject.rdns for each in rdn]
    assert len(flat) == len(theirs.subject)
    for mine, (oid, text) in zip(flat, theirs.subject, strict=True):
        assert mine.type == _SHORT.get(oid, oid)
        if mine.value is not None:
            assert mine.value == text
    known = all(each.type in _SHORT.values() for each in flat)
    # OpenSSL leaves a # as it is where it is all of a value; RFC 4514, 2.4, escapes it.
    lone = any(each.value == "#" for each in flat)
    if known and not lone and len(flat) == len(ours.subject.rdns):
        assert ours.dn == theirs.dn.replace("street=", "STREET=")


_SHORT = {
    **{f"2.5.4.{oid[2]}": kind for oid, kind in TYPES.items() if oid[:2] == b"\x55\x04"},
    "0.9.2342.19200300.100.1.25": "DC",
    "0.9.2342.19200300.100.1.1": "UID",
    "1.2.840.113549.1.9.1": "emailAddress",
}
OIDS = [*_SHORT, "2.5.4.97", "1.2.3.4"]
TAGS = [*range(1, 0x1F), 0x2C, 0x30, 0x31, 0x33, 0x80, 0xA0]
VALUES = [b"", b"a", b"a b", b" a", b"a ", b"#a", b"a#", b"a@b", b"a_b", b"a*", b"a&", b"a\0"]
VALUES += [c.encode() for c in 'aé€+,;<>="\\\x85\u2028\u202e'] + [b"caf\xe9", b"\0a", b"\xff"]
VALUES += ["aé".encode("utf-16-be"), "a€".encode("utf-32-be"), b"\xd8\x3d\xde\x00", b"\xd8\x00"]
VALUES += [b"a" * size for size in (4, 8, 16, 110, 116, 117, 118, 127, 128, 300)]


@pytest.mark.parametrize("tag", TAGS)
def test_every_type_of_value_is_read_as_by_openssl(tag: int) -> None:
    """Each type with each value, in a type of attribute that is remembered and one that isn't.

    PrintableString with `_`, `@`, `&` or Latin-1, T61String, BMPString, UniversalString among
    them; surrogates and what no name can hold are refused, as by OpenSSL.
    """
    for value in VALUES:
        for oid in (COMMON, ORGANIZATION, "2.5.4.97"):
            assert_as_openssl(name(attribute(oid, tag, value)))


octets = st.one_of(
    st.text('abc #+,;<>="\\aé€@_*&', max_size=4).map(str.encode),
    st.text("abé€\U0001f600", max_size=4).map(lambda text: text.encode("utf-16-be")),
    st.binary(max_size=6),
)
attributes = st.builds(
    attribute, st.sampled_from(OIDS), st.sampled_from([0x0C, 0x13, 0x14, 0x16, 0x1E]), octets
)


@settings(max_examples=300)
@given(st.lists(st.lists(attributes, min_size=1, max_size=2), max_size=4))
def test_every_name_is_read_as_by_openssl(rdns: list[list[bytes]]) -> None:
    """Several RDNs with one or two attributes are parsed as by OpenSSL."""
    assert_as_openssl(tlv(0x30, *(tlv(0x31, *rdn) for rdn in rdns)))


def test_an_issuer_is_read_as_a_subject() -> None:
    """T61String, as `openssl … string_mask=nombstr` writes it: its CN and DN are there to match."""
    issuer = name(attribute(COMMON, 0x14, b"caf\xe9"), attribute(ORGANIZATION, 0x13, b"a_b@c"))
    cert = from_der(_issued_by(issuer))
    assert (cert.issuer_cn, cert.issuer_dn) == (("café",), "O=a_b@c,CN=café")
    read_back = libcrypto.read(cert.der)
    assert read_back is not None
    assert read_back.issuer_dn == cert.issuer_dn


def test_an_issuer_whose_cn_is_no_string() -> None:
    """Then issuer_cn never grants and always refuses."""
    cert = from_der(_issued_by(name(attribute(COMMON, 0x03, b"\0a"))))
    assert cert.issuer_cn == ()
    assert cert.unreadable == {"issuer_cn"}
    assert cert.issuer_dn == "CN=#03020061"


def _issued_by(issuer: bytes) -> bytes:
    tbs = tree(staff.forge().cert.tbs_certificate_bytes)
    assert isinstance(tbs.contents, list)
    tbs.contents[3].written = issuer
    return staff.sign_tbs(tbs.encode())


@pytest.mark.parametrize(
    "broken",
    [
        tlv(0x30, tlv(0x31)),
        tlv(0x30, tlv(0x30, attribute(COMMON, 0x0C, b"a"))),
        tlv(0x30, tlv(0x31, tlv(0x31, der_oid(COMMON), tlv(0x0C, b"a")))),
        tlv(0x30, tlv(0x31, tlv(0x30, der_oid(COMMON)))),
        tlv(0x30, tlv(0x31, tlv(0x30, der_oid(COMMON), tlv(0x0C, b"a"), tlv(0x0C, b"b")))),
        tlv(0x30, tlv(0x31, tlv(0x30, der_oid(COMMON), b"\x0c\x81\x01a"))),
        tlv(0x30, b"\x31\x81\x0a" + attribute(COMMON, 0x0C, b"a")),
        tlv(0x30, tlv(0x31, tlv(0x30, b"\x06\x03\x55\x04\x83", tlv(0x0C, b"a")))),
        tlv(0x30, tlv(0x31, tlv(0x30, b"\x06\x04\x80\x55\x04\x03", tlv(0x0C, b"a")))),
        tlv(0x30, tlv(0x31, tlv(0x30, b"\x06\x00", tlv(0x0C, b"a")))),
        tlv(0x30, tlv(0x31, attribute(COMMON, 0x0C, b"a")) + b"\0"),
        tlv(0x31, tlv(0x31, attribute(COMMON, 0x0C, b"a"))),
    ],
)
def test_a_name_that_is_not_der_is_malformed(broken: bytes) -> None:
    """A name must be DER to the last octet, at every level."""
    with pytest.raises(MalformedCertificate):
        from_der(staff.forge(subject=broken).der)


def test_names_are_bounded() -> None:
    """The number of attributes and of octets is limited."""
    one = attribute(ORGANIZATION, 0x0C, b"a")
    for most in (name(*[one] * MAX_ATTRIBUTES), tlv(0x30, tlv(0x31, *[one] * MAX_ATTRIBUTES))):
        assert len(read_name(most).o) == MAX_ATTRIBUTES
    more = MAX_ATTRIBUTES + 1
    for beyond in (name(*[one] * more), tlv(0x30, tlv(0x31, *[one] * more))):
        with pytest.raises(ValueError, match="attributes"):
            read_name(beyond)
    with pytest.raises(ValueError, match="octets"):
        read_name(name(attribute(COMMON, 0x0C, b"a" * 20_000)))


def test_what_a_person_is_called_is_not_remembered() -> None:
    """Only shared types such as O and OU are cached, and their number is bounded."""
    subject._SHARED.clear()
    for number in range(1100):
        cert = staff.issue(f"user{number}", o=f"Org {number}", key=KEY).cert
        read_name(cert.subject.public_bytes())
        if number == 500:
            assert len(subject._SHARED) == 501
    assert 0 < len(subject._SHARED) < 1000

"""What is read by the short way is what `cryptography` reads, or left to it.

Subjects, extensions and nginx's spelling of a certificate are read here where they are plain.  Each
test reads the same certificate by both ways.
"""

from __future__ import annotations

from dataclasses import fields
from unittest.mock import patch
from urllib.parse import unquote_to_bytes

import pytest
from cryptography import x509
from cryptography.x509.oid import AuthorityInformationAccessOID, ExtendedKeyUsageOID
from der import der_extension, der_oid, tlv
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pki import CA, CLIENT_AUTH

from sidecar.core.errors import MalformedCertificate
from sidecar.core.x509 import certificate, extensions
from sidecar.core.x509 import subject as subject_reader
from sidecar.core.x509.certificate import ClientCert, from_der, from_header, pem_to_der

pytestmark = pytest.mark.filterwarnings("ignore:Attribute's length:UserWarning")

staff = CA("Staff")
alice = staff.issue(
    "alice",
    o="Example",
    ou=["SRE", "Ops"],
    dns=["a.example", "*.b.example"],
    email=["a@x.example"],
    uri=["spiffe://x/a"],
    ip=["192.0.2.7", "2001:db8::1"],
    policies=["1.2.3.4"],
    extra_extensions=[(x509.SubjectKeyIdentifier(b"k" * 20), False)],
)

Read = dict[str, object] | None


def told(cert: ClientCert) -> Read:
    """All that a certificate was read as, but for the parser's own object."""
    return {f.name: getattr(cert, f.name) for f in fields(cert) if f.name != "x509"}


def read(der: bytes) -> Read:
    try:
        return told(from_der(der))
    except MalformedCertificate:
        return None


def read_long(der: bytes) -> Read:
    """As `read`, everything by `cryptography`."""
    with (
        patch.object(subject_reader, "_plain_subject", lambda _: None),
        patch.object(extensions, "_read_plain", lambda _: None),
    ):
        return read(der)


def assert_alike(der: bytes, *before: bytes) -> None:
    """Read anew, read by what was learnt, and read by `cryptography`: all the same.

    `before` are certificates to learn from first.
    """
    extensions._KNOWN.clear()
    subject_reader._PLAIN.clear()
    for other in before:
        read(other)
    first = read(der)
    assert read(der) == first
    assert first == read_long(der)


# -- subjects

OIDS = [*("2.5.4." + str(n) for n in (3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 17, 42, 97)), "1.2.3.4"]
OIDS += ["0.9.2342.19200300.100.1.25", "0.9.2342.19200300.100.1.1", "1.2.840.113549.1.9.1"]
TAGS = [0x0C, 0x13, 0x16, 0x14, 0x12, 0x1A, 0x1E, 0x1C, 0x03, 0x04]

plain_text = st.text("abcXYZ019 -._'()/:?", min_size=1, max_size=9).map(str.encode)
odd_text = st.text(st.sampled_from('aé€ #+,;<>="\\\0\n\x7f\x85\u2028@_*&'), max_size=4)
octets = st.one_of(
    plain_text,
    odd_text.map(lambda text: text.encode()),
    odd_text.map(lambda text: text.encode("utf-16-be")),
    st.binary(max_size=6),
    st.integers(100, 300).map(lambda size: b"a" * size),
)


VALUES = [
    b"",
    b"a",
    b"a b",
    b" a",
    b"a ",
    b"#a",
    b"a#",
    b"a@b",
    b"a_b",
    b"a*",
    b"a\0",
    b"a\nb",
    b"\x7f",
]
VALUES += [c.encode() for c in 'é€+,;<>="\\\x85\u2028\u202e'] + ["aé".encode("latin-1"), b"\0a"]
VALUES += [b"a" * 4, b"a" * 8, b"a" * 16, b"a" * 32, b"a" * 110, b"a" * 127, b"a" * 128, b"a" * 300]


def attribute(oid: str, tag: int, value: bytes) -> bytes:
    return tlv(0x30, der_oid(oid), tlv(tag, value))


plain_attributes = st.builds(
    attribute, st.sampled_from(OIDS[:-4]), st.sampled_from([0x0C, 0x13]), st.just(b"plain")
)
attributes = st.one_of(
    plain_attributes,
    st.builds(attribute, st.sampled_from(OIDS), st.just(0x0C), octets),
    st.builds(attribute, st.just("2.5.4.3"), st.sampled_from(TAGS), octets),
)
relative_names = st.one_of(
    attributes.map(lambda one: tlv(0x31, one)),
    st.lists(attributes, max_size=2).map(lambda some: tlv(0x31, *sorted(some))),
)
plain_names = st.lists(plain_attributes.map(lambda one: tlv(0x31, one)), max_size=2)


@settings(max_examples=400)
@given(plain_names, relative_names, plain_names)
def test_every_subject_is_read_as_by_cryptography(
    before: list[bytes], name: bytes, behind: list[bytes]
) -> None:
    """Types, encodings, escapes, several values: CN, O, OU and DN are the same by both ways."""
    assert_alike(staff.forge(subject=tlv(0x30, *before, name, *behind)).der)


@pytest.mark.parametrize("tag", TAGS)
def test_every_value_of_a_subject_is_read_as_by_cryptography(tag: int) -> None:
    """Each type of attribute with each kind of value, one by one."""
    for oid in OIDS:
        for value in VALUES:
            name = tlv(0x30, tlv(0x31, attribute(oid, tag, value)))
            assert_alike(staff.forge(subject=name).der)


def test_usual_subjects_go_the_short_way() -> None:
    """Were everything left to cryptography, the tests here would prove nothing."""
    der = alice.cert.subject.public_bytes()
    assert subject_reader._plain_subject(der) == (
        ("alice",),
        ("Example",),
        ("SRE", "Ops"),
        "CN=alice,OU=Ops,OU=SRE,O=Example",
    )


def test_what_a_person_is_called_is_not_remembered() -> None:
    """O and OU are, as they are shared; endless CNs, or endless organizations, take no memory."""
    subject_reader._PLAIN.clear()
    for number in range(1100):
        subject = staff.issue(f"user{number}", o=f"Org {number}", key=alice.private).cert.subject
        assert subject_reader._plain_subject(subject.public_bytes()) is not None
        if number == 500:
            assert len(subject_reader._PLAIN) == 501
    assert 0 < len(subject_reader._PLAIN) < 1000


# -- extensions

USUAL = [
    der_extension(extension, critical)
    for critical in (False, True)
    for extension in (
        x509.BasicConstraints(ca=False, path_length=None),
        x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION, CLIENT_AUTH]),
        x509.SubjectKeyIdentifier(b"k" * 20),
        x509.SubjectKeyIdentifier(b""),
        x509.CertificatePolicies([x509.PolicyInformation(x509.ObjectIdentifier("1.2.3"), None)]),
        x509.SubjectAlternativeName([x509.DNSName("a.example")]),
        x509.SubjectAlternativeName([x509.DNSName("b" * 200)]),
        x509.AuthorityInformationAccess(
            [
                x509.AccessDescription(
                    AuthorityInformationAccessOID.OCSP,
                    x509.UniformResourceIdentifier("http://ocsp.example/"),
                )
            ]
        ),
    )
]
GENERAL_NAMES = [0x82, 0x81, 0x86, 0x87, 0x88, 0xA0, 0xA4, 0xA5, 0x9F]
general_names = st.one_of(
    st.builds(tlv, st.sampled_from(GENERAL_NAMES), octets),
    st.builds(tlv, st.sampled_from(GENERAL_NAMES[:3]), odd_text.map(str.encode)),
    st.builds(tlv, st.just(0x87), st.sampled_from([0, 4, 5, 8, 16, 32]).map(bytes)),
    st.just(tlv(0xA4, staff.subject.public_bytes())),
)
alternative_names = st.lists(st.one_of(general_names, st.just(tlv(0x82, b"a.b"))), max_size=3).map(
    lambda found: tlv(0x30, *found)
)
KEY_IDENTIFIERS = [tlv(0x04, b"key"), tlv(0x04), tlv(0x03, b"key"), tlv(0x04, b"key") + b"y"]
KEY_IDENTIFIERS += [b"\x04\x05key", tlv(0x04, b"k" * 200), b"\x04\x81\x03key", b"\x04", b""]


def extension(oid: str, critical: bytes, value: bytes) -> bytes:
    return tlv(0x30, der_oid(oid), critical, tlv(0x04, value))


criticals = st.sampled_from([b"", tlv(0x01, b"\xff"), tlv(0x01, b"\0"), tlv(0x01)])
others = st.sampled_from(["2.5.29.17", "2.5.29.14", "2.5.29.37", "2.5.29.32", "1.2.3.4"])
values = st.one_of(st.binary(max_size=30), alternative_names, st.sampled_from(KEY_IDENTIFIERS))
own_extensions = st.one_of(
    st.builds(extension, st.just("2.5.29.17"), criticals, alternative_names),
    st.builds(extension, st.just("2.5.29.14"), criticals, st.sampled_from(KEY_IDENTIFIERS)),
    st.builds(extension, others, criticals, values),
)


@settings(max_examples=400)
@given(st.lists(st.sampled_from(USUAL), max_size=2), st.lists(own_extensions, max_size=2))
def test_all_extensions_are_read_as_by_cryptography(usual: list[bytes], own: list[bytes]) -> None:
    """Known and unknown ones, broken ones, several alike: the same names and usages, or refused."""
    found = [*usual, *own]
    each = [staff.forge(extensions=[one]).der for one in found]
    assert_alike(staff.forge(extensions=found).der, *each)


@pytest.mark.parametrize("tag", GENERAL_NAMES)
def test_every_alternative_name_is_read_as_by_cryptography(tag: int) -> None:
    """Each kind of name with each kind of value, one by one."""
    for value in VALUES:
        san = tlv(0x30, tlv(0x82, b"a.b"), tlv(tag, value))
        own = extension("2.5.29.17", b"", san)
        assert_alike(staff.forge(extensions=[own]).der, staff.forge().der)


@pytest.mark.parametrize("value", KEY_IDENTIFIERS)
def test_every_key_identifier_is_read_as_by_cryptography(value: bytes) -> None:
    """Right ones and broken ones, critical or not."""
    for critical in (b"", tlv(0x01, b"\xff")):
        own = extension("2.5.29.14", critical, value)
        assert_alike(staff.forge(extensions=[own]).der, staff.forge().der)


def test_usual_extensions_go_the_short_way() -> None:
    """Once an authority's extensions are known, cryptography isn't asked for the next leaf's."""
    from_der(alice.der)
    other = staff.issue(
        "bob",
        dns=["c.example"],
        policies=["1.2.3.4"],
        extra_extensions=[(x509.SubjectKeyIdentifier(b"l" * 20), False)],
    )
    with patch.object(extensions, "_read_any", side_effect=AssertionError):
        cert = from_der(other.der)
    assert (cert.dns, cert.policy_oid) == (("c.example",), ("1.2.3.4",))
    assert cert.eku == (CLIENT_AUTH.dotted_string,)


def test_endless_extensions_take_no_memory() -> None:
    """Of a certificate's own extensions none is kept, of others a thousand at most."""
    extensions._KNOWN.clear()
    for number in range(1100):
        policy = x509.PolicyInformation(x509.ObjectIdentifier(f"1.2.3.{number}"), None)
        policies = der_extension(x509.CertificatePolicies([policy]))
        own = der_extension(x509.SubjectKeyIdentifier(number.to_bytes(20, "big")))
        from_der(staff.forge(extensions=[policies, own]).der)
        if number == 500:
            assert len(extensions._KNOWN) == 502  # the usage beside
    assert 0 < len(extensions._KNOWN) < 1000


# -- the whole


@given(st.integers(0, len(alice.der) - 1), st.integers(0, 255))
def test_every_changed_octet_is_read_as_by_cryptography(at: int, value: int) -> None:
    """One octet of a certificate with everything in it is another one."""
    assert_alike(alice.der[:at] + bytes([value]) + alice.der[at + 1 :])


@given(st.integers(0, len(alice.der)), st.binary(max_size=3), st.integers(0, 3))
def test_every_cut_is_read_as_by_cryptography(at: int, new: bytes, cut: int) -> None:
    """Octets put in and taken out."""
    assert_alike(alice.der[:at] + new + alice.der[at + cut :])


PIECES = ["%", "%%", "%0", "%0A", "%0a", "%0D", "%20", "%2B", "%2b", "%zz", "=", "%3D", "%3D%3D"]
PIECES += ["\n", "\r", "\t", " ", "+", "A", "AAAA", "\0", "\xff", "-", "%2D", "%\n", "%=", "=\n"]


@given(st.integers(0, len(alice.escaped)), st.sampled_from(PIECES), st.integers(0, 4))
@example(len(alice.escaped) - 33, "%", 0)
@example(len(alice.escaped) - 33, "%%", 0)
def test_every_spelling_is_decoded_as_by_urllib(at: int, piece: str, cut: int) -> None:
    """Stray, broken and doubled escapes, blanks, line ends: what nginx writes is read, and no more.

    A spelling that the short way takes is the same certificate by the long way.
    """
    value = alice.escaped[:at] + piece.encode("latin-1") + alice.escaped[at + cut :]
    short = certificate._as_nginx_writes(value)
    try:
        long = pem_to_der(unquote_to_bytes(value))
    except MalformedCertificate:
        long = None
    assert short in (None, long)


def test_what_nginx_writes_goes_the_short_way() -> None:
    """The value of $ssl_client_escaped_cert."""
    assert certificate._as_nginx_writes(alice.escaped) == alice.der
    assert from_header(alice.escaped).der == alice.der

"""Parse extensions completely and as OpenSSL does, or not at all."""

from __future__ import annotations

import ipaddress
import random

import asking
import libcrypto
import pytest
from cryptography import x509
from cryptography.x509.oid import AuthorityInformationAccessOID, ExtendedKeyUsageOID
from der import der_extension, der_oid, der_rdn, tlv
from hypothesis import given, settings
from hypothesis import strategies as st
from lying_der import lies
from pki import CA, CLIENT_AUTH, Leaf

from sidecar.core.errors import MalformedCertificate
from sidecar.core.x509 import extensions
from sidecar.core.x509.certificate import ClientCert, from_der
from sidecar.core.x509.der import within
from sidecar.core.x509.extensions import MAX_NAMES, read_basic_constraints

SAN, EKU, POLICIES = "2.5.29.17", "2.5.29.37", "2.5.29.32"
NAMES = {"dns", "uri", "ip", "email", "upn"}
UPN = der_oid("1.3.6.1.4.1.311.20.2.3")

staff = CA("Staff")
alice = staff.issue(
    "alice",
    o="Example",
    ou=["SRE", "Ops"],
    dns=["a.example", "*.b.example"],
    email=["a@x.example"],
    uri=["spiffe://x/a"],
    ip=["192.0.2.7", "2001:db8::1"],
    upn=["a@corp"],
    policies=["1.2.3.4"],
    extra_extensions=[(x509.SubjectKeyIdentifier(b"k" * 20), False)],
)


def extension(oid: str, value: bytes, critical: bytes = b"") -> bytes:
    return tlv(0x30, der_oid(oid), critical, tlv(0x04, value))


def with_san(*names: bytes, behind: bytes = b"") -> Leaf:
    return staff.forge(extensions=[extension(SAN, tlv(0x30, *names) + behind)])


def other(oid: str, value: bytes) -> bytes:
    """An otherName."""
    return tlv(0xA0, der_oid(oid), tlv(0xA0, value))


def read(der: bytes) -> ClientCert | None:
    try:
        return from_der(der)
    except MalformedCertificate:
        return None


# -- against OpenSSL


def assert_as_openssl(der: bytes) -> ClientCert | None:
    """Whatever is read here is what OpenSSL reads; what it doesn't read is not read here."""
    ours, theirs = read(der), libcrypto.read(der)
    if ours is None:
        return None
    if theirs is None:
        assert ours.spki != from_der(alice.der).spki, der.hex()  # keys are read by who uses them
        return None
    _assert_names(ours, theirs, der)
    for kind in ("eku", "policy_oid"):
        if kind not in ours.unreadable:
            assert getattr(ours, kind) == getattr(theirs, kind), der.hex()
        else:
            assert getattr(ours, kind) == ()
    return ours


def _assert_names(ours: ClientCert, theirs: libcrypto.Read, der: bytes) -> None:
    # What is within an x400Address or an EDIPartyName is read here only as DER.
    skipped = any(name[0] in (0xA3, 0xA5) for name in _names(ours))
    for kind in NAMES:
        values = getattr(ours, kind)
        if kind in ours.unreadable:
            assert values == ()
        elif theirs.names is None:
            assert skipped, der.hex()
        elif kind == "ip":
            assert tuple(ipaddress.ip_address(v).packed for v in values) == theirs.names["ip"]
        else:
            assert tuple(v.encode() for v in values) == theirs.names[kind], der.hex()


def _names(cert: ClientCert) -> list[bytes]:
    try:
        return within(cert.extension(der_oid(SAN)[2:]) or b"", 0x30)
    except ValueError:
        return []


@pytest.mark.parametrize("seed", range(4))
def test_tags_and_lengths_that_lie_are_read_as_by_openssl_or_not_at_all(seed: int) -> None:
    """Wrong tags and lengths at any level are parsed as by OpenSSL or refused, with and without a
    cache."""
    read_some = 0
    for der in lies(alice.der, random.Random(seed), 1000):
        extensions._KNOWN.clear()
        ours = assert_as_openssl(der)
        again = assert_as_openssl(der)
        assert (ours is None) == (again is None)
        read_some += ours is not None and not ours.unreadable
    assert read_some > 50


octets = st.one_of(
    st.sampled_from(
        [b"a.example", b"a@b.example", b"https://x/", b"caf\xe9", b"", b"\x7f", b"a\0b"]
    ),
    st.binary(max_size=6),
    st.sampled_from([4, 5, 8, 16, 32]).map(bytes),
)
strings = st.builds(
    tlv, st.sampled_from([0x0C, 0x13, 0x14, 0x16, 0x1A, 0x1C, 0x1E, 0x02, 1]), octets
)
other_names = st.builds(
    lambda oid, tag, value, more: tlv(0xA0, oid, tlv(tag, value), more),
    st.sampled_from([UPN, UPN, der_oid("1.2.3.4"), b"\x06\x01\x80"]),
    st.sampled_from([0xA0, 0xA0, 0xA0, 0xA1, 0x80]),
    strings,
    st.sampled_from([b"", b"", b"\x05\0"]),
)
general_names = st.one_of(
    st.builds(tlv, st.sampled_from([0x81, 0x82, 0x86, 0x87, 0x88, 0x9F, 0x84, 0xA2]), octets),
    other_names,
    st.just(tlv(0xA4, staff.subject.public_bytes())),
    strings.map(lambda s: tlv(0xA4, tlv(0x30, tlv(0x31, tlv(0x30, der_oid("2.5.4.3"), s))))),
)
policies = st.builds(
    lambda oid, *more: tlv(0x30, oid, *more),
    st.sampled_from([der_oid("1.2.3"), b"\x06\x02\x80\x01", b"\x06\0", b"\x06\x01\x80", b"\x05\0"]),
    st.sampled_from([b"", tlv(0x30), tlv(0x30, tlv(0x30, der_oid("1.2.9"), b"\x05\0")), b"\x05\0"]),
)
own_extensions = st.one_of(
    st.lists(general_names, max_size=3).map(lambda n: extension(SAN, tlv(0x30, *n))),
    st.lists(policies, max_size=3).map(lambda n: extension(POLICIES, tlv(0x30, *n))),
    st.lists(st.sampled_from([der_oid("1.2.3"), b"\x06\x01\x80", b"\x06\0", b"\x0c\x01a"])).map(
        lambda n: extension(EKU, tlv(0x30, *n))
    ),
    st.binary(max_size=30).map(lambda value: extension(SAN, value)),
    st.binary(max_size=30).map(lambda value: extension(EKU, value)),
)


@settings(max_examples=300)
@given(st.lists(own_extensions, min_size=1, max_size=2))
def test_odd_extensions_are_read_as_by_openssl_or_not_at_all(own: list[bytes]) -> None:
    """Invalid OIDs, other string types, unknown tags and repeated values are parsed as by OpenSSL
    or refused."""
    der = staff.forge(extensions=own).der
    if (found := read(der)) and (theirs := libcrypto.read(der)):
        _assert_names(found, theirs, der)


# -- what OpenSSL reads and cryptography doesn't


@pytest.mark.parametrize("tag", [0x0C, 0x13, 0x14, 0x16, 0x1A])
def test_a_upn_is_read_from_any_string(tag: int) -> None:
    """UTF8String, as Microsoft writes it, and what other authorities write."""
    leaf = with_san(tlv(0xA0, UPN, tlv(0xA0, tlv(tag, b"alice@corp"))))
    assert from_der(leaf.der).upn == ("alice@corp",)


def test_a_upn_is_read_from_a_bmpstring() -> None:
    """Two octets a character."""
    text = tlv(0x1E, "älice@corp".encode("utf-16-be"))
    assert from_der(with_san(tlv(0xA0, UPN, tlv(0xA0, text))).der).upn == ("älice@corp",)


@pytest.mark.parametrize(
    "value",
    [b"\x01\x01\xff", b"\x05\0", der_oid("2.5.4.3"), b"\x02\x01\x05", tlv(0x30), b"\x1e\x01a"],
    ids=["boolean", "null", "oid", "integer", "sequence", "half a character"],
)
def test_a_upn_that_is_no_string_is_read_as_by_openssl_or_not_at_all(value: bytes) -> None:
    """OpenSSL keeps a BOOLEAN as a number where it keeps a pointer to a string."""
    assert_as_openssl(with_san(tlv(0xA0, UPN, tlv(0xA0, value))).der)


@pytest.mark.parametrize(
    "name",
    [
        tlv(0xA3, tlv(0x30)),  # x400Address
        tlv(0xA5, tlv(0xA1, tlv(0x0C, b"party"))),  # ediPartyName
        tlv(0x88, b"\x2a\x03"),  # registeredID
        tlv(0xA0, der_oid("1.2.3"), tlv(0xA0, b"\x05\0")),
        tlv(0xA4, tlv(0x30, der_rdn("2.5.4.3", b"a_b", 0x13))),
    ],
    ids=["x400", "edi", "oid", "other", "directory"],
)
def test_names_that_no_rule_asks_about_are_passed_over(name: bytes) -> None:
    """Names that no rule can ask about don't affect the others."""
    cert = from_der(with_san(name, tlv(0x82, b"a.example")).der)
    assert (cert.dns, cert.unreadable) == (("a.example",), frozenset())


@pytest.mark.parametrize(
    "odd",
    [
        extension("2.5.29.19", tlv(0x30, tlv(1, b"\0"), tlv(2, b"\0"))),
        extension("2.5.29.19", tlv(0x30, tlv(1, b"\0"))),
        extension("2.5.29.19", tlv(0x30), tlv(1, b"\0")),
        extension("2.5.29.19", b"garbage"),
        extension("2.5.29.15", b"\x03\x02\x09\x80"),
        extension("2.5.29.31", b"\x30"),
        extension("1.2.3.4", b"", tlv(1, b"\x01")),
        extension(
            POLICIES,
            tlv(
                0x30,
                tlv(
                    0x30,
                    der_oid("1.2.3"),
                    tlv(0x30, tlv(0x30, der_oid("1.3.6.1.5.5.7.2.2"), tlv(0x30, b"\x1a\1\xe9"))),
                ),
            ),
        ),
    ],
)
def test_what_no_rule_asks_about_is_nobody_s_business(odd: bytes) -> None:
    """Other extensions may have unusual or invalid contents."""
    cert = from_der(staff.forge(extensions=[odd], dns=["a.example"]).der)
    assert (cert.dns, cert.unreadable) == (("a.example",), frozenset())
    assert cert.eku == (CLIENT_AUTH.dotted_string,)


@pytest.mark.parametrize(
    ("value", "read"),
    [
        (tlv(0x30), (False, None)),
        (tlv(0x30, tlv(1, b"\xff")), (True, None)),
        (tlv(0x30, tlv(1, b"\xff"), tlv(2, b"\3")), (True, 3)),
        (tlv(0x30, tlv(1, b"\0"), tlv(2, b"\0")), (False, 0)),
        (tlv(0x30, tlv(2, b"\0")), (False, 0)),
    ],
)
def test_basic_constraints(value: bytes, read: tuple[bool, int | None]) -> None:
    """An explicit default and a path length without cA are accepted."""
    assert read_basic_constraints(value) == read


@pytest.mark.parametrize(
    "value",
    [b"", b"\x30", tlv(0x30) + b"\0", tlv(0x30, b"\1\0"), tlv(0x30, tlv(2, b"\0"), tlv(1, b"\0"))],
)
def test_broken_basic_constraints(value: bytes) -> None:
    """Invalid basicConstraints mean no authority."""
    with pytest.raises(ValueError, match=r"DER|basicConstraints|BOOLEAN"):
        read_basic_constraints(value)


# -- what can't be read


@pytest.mark.parametrize(
    "leaf",
    [
        with_san(tlv(0x82, b"x.partner.test"), behind=tlv(0x82, b"admin.example.com")),
        with_san(tlv(0x82, b"x.partner.test"), b"\x82\x11admin.example.co"),
        with_san(b"\x82\x81\x11admin.example.com"),
        with_san(tlv(0xA2, tlv(0x16, b"admin."), tlv(0x16, b"example.com"))),
        with_san(tlv(0x82, b"admin.example.com"), tlv(0x89, b"")),
        with_san(tlv(0x82, b"admin.example.com"), b"\xbf\x1f\x00"),
        with_san(tlv(0x82, b"admin.example.com"), tlv(0xA4, tlv(0x30, tlv(0x31)))),
        staff.forge(extensions=[extension(SAN, tlv(0x31, tlv(0x82, b"admin.example.com")))]),
        staff.forge(extensions=[extension(SAN, b"\x30\x80" + tlv(0x82, b"a.example") + b"\0\0")]),
    ],
)
def test_a_san_that_is_not_der_to_the_last_octet_has_no_names(leaf: Leaf) -> None:
    """A SAN with trailing octets, wrong lengths or unknown kinds has no names."""
    cert = from_der(leaf.der)
    assert (cert.dns, cert.uri, cert.ip, cert.email, cert.upn) == ((), (), (), (), ())
    assert cert.unreadable == NAMES


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        (tlv(0x87, b"12345"), "ip"),
        (tlv(0x82, b"caf\xe9.example"), "dns"),
        (tlv(0x81, b"caf\xe9@example"), "email"),
        (tlv(0x86, b"https://caf\xe9/"), "uri"),
        (tlv(0xA0, UPN, tlv(0xA0, tlv(0x0C, b"\xff"))), "upn"),
        (tlv(0xA0, UPN, tlv(0xA0, tlv(0x02, b"\1"))), "upn"),
    ],
)
def test_one_odd_name_spoils_its_own_kind(name: bytes, kind: str) -> None:
    """An unreadable name makes its own kind unreadable, and no other."""
    good = [tlv(0x82, b"a.example"), tlv(0x81, b"a@b"), tlv(0x86, b"u:"), tlv(0x87, b"1234")]
    cert = from_der(with_san(*good, name, tlv(0xA0, UPN, tlv(0xA0, tlv(0x0C, b"a")))).der)
    assert cert.unreadable == {kind}
    assert {k for k in NAMES if not getattr(cert, k)} == {kind}


ODD = {
    "dns": with_san(tlv(0x82, b"a.example"), behind=b"\0"),
    "uri": with_san(tlv(0x86, b"u:\xe9")),
    "ip": with_san(tlv(0x87, b"12345")),
    "email": with_san(tlv(0x81, b"a@\xe9")),
    "upn": with_san(tlv(0xA0, UPN, tlv(0xA0, tlv(2, b"\1")))),
    "policy_oid": staff.forge(extensions=[extension(POLICIES, b"\x30\0\0")]),
    "cn": staff.forge(subject=tlv(0x30, der_rdn("2.5.4.3", b"\0a", 0x03))),
    "o": staff.forge(subject=tlv(0x30, der_rdn("2.5.4.10", b"\0a", 0x03))),
    "ou": staff.forge(subject=tlv(0x30, der_rdn("2.5.4.11", b"\0a", 0x03))),
}
PATTERNS = {"dns": "a.example", "ip": "192.0.2.1", "email": "a@b", "policy_oid": "1.2.3"}


@pytest.mark.parametrize("kind", ODD)
@pytest.mark.parametrize("form", ["exact", "other"])
def test_what_can_not_be_read_never_grants_and_always_refuses(kind: str, form: str) -> None:
    """An unreadable value never grants and always refuses, in `allow`, `deny` and `not`."""
    pattern = PATTERNS.get(kind, "x")
    if form == "other":
        others = {"ip": "0.0.0.0/0", "policy_oid": "1.2.4", "dns": '"*.example"'}
        pattern = others.get(kind, '"*"')
    test = f"{{{kind}: {pattern}}}"

    def reason(allow: str, deny: str = "[]") -> str:
        rules = asking.site(f"[{allow}]", f"    deny: {deny}\n")
        return str(asking.ask(rules, ODD[kind]).reason)

    assert reason(test) == "not_allowed"
    assert reason(f"{{eku: clientAuth, not: {test}}}") == "not_allowed"
    assert reason(f"{{any: [{test}]}}") == "not_allowed"
    assert reason("{eku: clientAuth}", f"[{test}]") == "denied_by_rule"
    assert reason("{eku: clientAuth}", f"[{{all: [{test}]}}]") == "denied_by_rule"
    assert reason("{eku: clientAuth}", f"[{{eku: clientAuth, not: {test}}}]") == "denied_by_rule"
    assert reason("{eku: clientAuth}") == "allowed"


def test_usages_that_can_not_be_read() -> None:
    """An unreadable `eku` never grants and always refuses."""
    leaf = Leaf("x", staff.issue("x", eku=[]).der, alice.private, staff)
    broken = extension(EKU, tlv(0x30, der_oid(CLIENT_AUTH.dotted_string)) + b"\0")
    forged = staff.forge("x", extensions=[broken])
    with pytest.raises(MalformedCertificate, match="repeated"):
        from_der(forged.der)
    assert from_der(leaf.der).eku == ()
    odd = from_der(_replaced(staff.forge("x").der))
    assert odd.eku == ()
    assert odd.unreadable == {"eku"}


def _replaced(der: bytes) -> bytes:
    """With clientAuth's OID padded: 2B 06 becomes 80 2B, of the same length."""
    oid = bytes.fromhex("06082b06010505070302")
    assert der.count(oid) == 1
    return der.replace(oid, bytes.fromhex("0608802b010505070302"))


@pytest.mark.parametrize("name", [tlv(0x82, b"a.example\xe9"), tlv(0x87, b"12345")])
def test_a_host_is_not_matched_by_names_of_which_one_can_not_be_read(name: bytes) -> None:
    """With an unreadable SAN, `san_matches_host` denies."""
    rules = asking.site("verified", "    san_matches_host: true\n")
    good = with_san(tlv(0x82, b"a.example"))
    assert asking.ask(rules, good, host="a.example").reason == "allowed"
    odd = with_san(tlv(0x82, b"a.example"), name)
    assert asking.ask(rules, odd, host="a.example").reason == "host_mismatch"


@pytest.mark.parametrize(
    "name",
    [
        tlv(0x82, b"a\0b"),
        tlv(0x82, b"a\0\xe9"),
        tlv(0x86, b"a\r\nb"),
        tlv(0x81, b"\x7f"),
        tlv(0xA0, UPN, tlv(0xA0, tlv(0x0C, b"a\0"))),
        tlv(0xA0, UPN, tlv(0xA0, tlv(0x1E, b"\0\n"))),
        tlv(0xA4, tlv(0x30, der_rdn("2.5.4.3", b"a\0"))),
        other("1.3.6.1.5.5.7.8.5", tlv(0x0C, b"a\0b")),
        other("1.3.6.1.5.5.7.8.7", tlv(0x16, b"_ldap\r\n.example")),
        other("1.3.6.1.5.2.2", tlv(0x30, tlv(0xA0, tlv(0x1B, b"EX\nAMPLE")))),
        other("1.2.3", tlv(0x30, tlv(0x31, tlv(0x1E, b"\0a\0\x85")))),
        tlv(0xA5, tlv(0xA1, tlv(0x0C, b"a\n"))),
        tlv(0xA3, tlv(0x30, tlv(0x61, tlv(0x13, b"D\x1bE")))),
    ],
)
def test_control_characters_are_malformed_in_every_kind_of_name(name: bytes) -> None:
    """Control characters make a certificate malformed in any name, also in unused ones."""
    with pytest.raises(MalformedCertificate, match="control"):
        from_der(with_san(tlv(0x82, b"a.example"), name).der)


@pytest.mark.parametrize(
    "inner",
    [
        tlv(0x04, b"a\0b"),
        tlv(0x03, b"\0\n"),
        tlv(0x0C, b"\xff\n"),
        tlv(0x30, tlv(0x1B, b"EXAMPLE"), tlv(0x02, b"\n")),
    ],
)
def test_other_values_than_strings_may_hold_any_octets(inner: bytes) -> None:
    """OCTET STRINGs, numbers, and what is no string, though it says so."""
    cert = from_der(with_san(tlv(0x82, b"a.example"), other("1.2.3", inner)).der)
    assert cert.dns == ("a.example",)


@pytest.mark.parametrize(
    ("arc", "tag", "is_read"),
    [(1, 0x16, True), (1, 0x0C, False), (2, 0x30, True), (2, 0x16, False)],
)
def test_a_qualifier_is_of_the_type_that_its_oid_says(arc: int, tag: int, is_read: bool) -> None:
    """OpenSSL reads no policy beside one whose CPS is no IA5String, or notice no SEQUENCE."""
    qualifier = tlv(0x30, der_oid(f"1.3.6.1.5.5.7.2.{arc}"), tlv(tag, b""))
    value = tlv(0x30, tlv(0x30, der_oid("1.2.3"), tlv(0x30, qualifier)))
    der = staff.forge(extensions=[extension(POLICIES, value)]).der
    theirs = libcrypto.read(der)
    assert theirs is not None
    assert (theirs.policy_oid == ("1.2.3",)) is is_read
    cert = from_der(der)
    assert (cert.policy_oid, "policy_oid" in cert.unreadable) == (("1.2.3",) * is_read, not is_read)


_ORG, _NUMBERS, _TEXT = tlv(0x0C, b"org"), tlv(0x30, tlv(2, b"\1")), tlv(0x1A, b"text")
_REFERENCE = tlv(0x30, _ORG, _NUMBERS)


@pytest.mark.parametrize(
    ("notice", "is_read"),
    [
        ((_REFERENCE, _TEXT), True),
        ((_REFERENCE,), True),
        ((_TEXT,), True),
        ((_TEXT, _REFERENCE), False),
        ((_TEXT, _TEXT), False),
        ((_REFERENCE, _REFERENCE), False),
        ((_REFERENCE, _TEXT, tlv(0x81, b"")), False),
        ((tlv(0x14, b"text"),), False),
        ((tlv(0x30, _ORG),), False),
        ((tlv(0x30, _NUMBERS, _ORG),), False),
        ((tlv(0x30, _ORG, _NUMBERS, _TEXT),), False),
        ((tlv(0x30, _ORG, tlv(0x30, _TEXT)),), False),
        ((tlv(0x30, tlv(0x13, b"org"), _NUMBERS),), False),
        ((tlv(0x30, _ORG, tlv(0x30)),), True),
    ],
)
def test_a_notice_is_read_as_openssl_reads_it(notice: tuple[bytes, ...], is_read: bool) -> None:
    """OpenSSL reads no policy beside a notice that it can't parse, and none grants."""
    qualifier = tlv(0x30, der_oid("1.3.6.1.5.5.7.2.2"), tlv(0x30, *notice))
    value = tlv(0x30, tlv(0x30, der_oid("1.2.3"), tlv(0x30, qualifier)))
    der = staff.forge(extensions=[extension(POLICIES, value)]).der
    theirs = libcrypto.read(der)
    assert theirs is not None
    assert (theirs.policy_oid == ("1.2.3",)) is is_read
    cert = from_der(der)
    assert (cert.policy_oid, "policy_oid" in cert.unreadable) == (("1.2.3",) * is_read, not is_read)


@pytest.mark.parametrize("tag", [0x10, 0x11])
def test_a_sequence_without_its_bit_is_not_read(tag: int) -> None:
    """OpenSSL refuses it: `TYPE_NOT_CONSTRUCTED`."""
    odd = with_san(tlv(0x82, b"a.example"), other("1.2.3", tlv(tag, b"")))
    assert from_der(odd.der).unreadable >= {"dns", "upn"}
    theirs = libcrypto.read(odd.der)
    assert theirs is not None
    assert theirs.names is None


# -- remembered, bounded

USUAL = [
    der_extension(each, critical)
    for critical in (False, True)
    for each in (
        x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION, CLIENT_AUTH]),
        x509.CertificatePolicies([x509.PolicyInformation(x509.ObjectIdentifier("1.2.3"), None)]),
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


@pytest.mark.parametrize("twice", USUAL)
def test_an_extension_twice_is_malformed_known_or_not(twice: bytes) -> None:
    """RFC 5280, 4.2: a repeated extension is malformed, with equal or different values."""
    oid = within(twice, 0x30)[0]
    other = tlv(0x30, oid, tlv(0x04, b"\x30\0"))
    for pair in ([twice, twice], [twice, other], [other, twice]):
        for _ in range(2):
            with pytest.raises(MalformedCertificate, match="repeated"):
                from_der(staff.forge(extensions=pair).der)


def test_endless_extensions_take_no_memory() -> None:
    """The cache of extensions is bounded."""
    extensions._KNOWN.clear()
    for number in range(1100):
        own = extension(f"1.2.3.{number}", b"")
        from_der(staff.forge(extensions=[own]).der)
    assert 0 < len(extensions._KNOWN) < 1000


def test_alternative_names_are_bounded() -> None:
    """Too many alternative names are refused before they are parsed."""
    most = with_san(*[tlv(0x82, b"a")] * MAX_NAMES)
    assert len(from_der(most.der).dns) == MAX_NAMES
    with pytest.raises(MalformedCertificate, match="more than"):
        from_der(with_san(*[tlv(0x82, b"a")] * (MAX_NAMES + 1)).der)


@pytest.mark.parametrize("oid", [EKU, POLICIES])
def test_usages_and_policies_are_bounded(oid: str) -> None:
    """Too many usages or policies are unreadable."""
    one = der_oid("1.2.3") if oid == EKU else tlv(0x30, der_oid("1.2.3"))
    kind = "eku" if oid == EKU else "policy_oid"
    for times, unreadable in ((128, set()), (129, {kind})):
        value, broken = extensions._read(extension(oid, tlv(0x30, one * times))), unreadable
        assert value.unreadable == broken


def test_extensions_are_bounded() -> None:
    """Too many extensions are refused before they are parsed."""
    own = [extension(f"1.2.3.{number}", b"") for number in range(64)]
    from_der(staff.forge(extensions=own[:63]).der)
    with pytest.raises(MalformedCertificate, match="more than"):
        from_der(staff.forge(extensions=own).der)

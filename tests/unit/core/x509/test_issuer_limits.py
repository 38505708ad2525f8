"""Ask the limits of the path that is found, since nginx may have verified another one."""

from __future__ import annotations

import os
import random

import libcrypto
import pytest
from chains import (
    CLIENT,
    EMAIL,
    IA5,
    NOW,
    ORGANIZATION,
    SERVER,
    Spec,
    basic,
    cn,
    constraints,
    directory,
    dns,
    extended,
    extension,
    ip,
    key,
    mail,
    name,
    other,
    san,
    signed,
    uri,
)
from der import der_oid, der_rdn, tlv

from sidecar.core.x509.certificate import from_der
from sidecar.core.x509.path_building import Anchors

STAFF = Spec(name(cn("Staff")), key("ec", 0), (basic(),))
OTHER = Spec(name(cn("Other")), key("ec", 7), (basic(),))
UPN = "1.3.6.1.4.1.311.20.2.3"


def issuing(*limits: bytes) -> Spec:
    """An authority of one name and key, with these limits."""
    return Spec(name(cn("Issuing")), key("ec", 1), (basic(), *limits))


def client(*names: bytes, subject: bytes = b"") -> bytes:
    more = (san(*names),) if names else ()
    return signed(Spec(subject or name(cn("alice")), key("ec", 2), more), issuing())


def is_found(leaf: bytes, *limits: bytes) -> bool:
    """Whether a path below Staff is found over the authority with these limits."""
    between = signed(issuing(*limits), STAFF)
    trusted = Anchors([from_der(signed(STAFF))], [from_der(between)])
    return trusted.issuing_path(from_der(leaf), NOW.timestamp()) is not None


def openssl(leaf: bytes, *limits: bytes) -> tuple[bool, bool]:
    """Whether OpenSSL accepts it below Other without limits, and below Staff with them."""
    now = NOW.timestamp()
    both = signed(STAFF), signed(OTHER)
    free, limited = signed(issuing(), OTHER), signed(issuing(*limits), STAFF)
    return (
        not libcrypto.verdict(both, [free], leaf, now),
        not libcrypto.verdict(both[:1], [limited], leaf, now),
    )


def of_partner(*names: bytes, subject: bytes = b"") -> tuple[bytes, bytes, bytes]:
    """A certificate, and limits that forbid and permit it."""
    given = client(*names, subject=subject)
    (base,) = names or (tlv(0xA4, subject),)
    return given, constraints(excluded=[base]), constraints([base])


EXAMPLE = name(der_rdn(ORGANIZATION, b"Example"), cn("alice"))
LIMITED = {
    "DNS": of_partner(dns("a.ex.test")),
    "mail": of_partner(mail("a@ex.test")),
    "URI": (
        client(uri("https://ex.test/a")),
        constraints(excluded=[uri("ex.test")]),
        constraints([uri("ex.test")]),
    ),
    "IP": (
        client(ip(10, 0, 0, 1)),
        constraints(excluded=[ip(10, 0, 0, 0, 255, 0, 0, 0)]),
        constraints([ip(10, 0, 0, 0, 255, 0, 0, 0)]),
    ),
    "directory name": (
        client(directory(cn("x"))),
        constraints(excluded=[directory(cn("x"))]),
        constraints([directory(cn("x")), directory(cn("alice"))]),
    ),
    "subject": of_partner(subject=EXAMPLE),
    "CN like a host": (
        client(subject=name(cn("a.ex.test"))),
        constraints(excluded=[dns("ex.test")]),
        constraints([dns("ex.test")]),
    ),
    "mail in the subject": (
        client(subject=name(der_rdn(EMAIL, b"a@ex.test", IA5))),
        constraints(excluded=[mail("ex.test")]),
        constraints([mail("ex.test")]),
    ),
    "usage": (client(), extended(SERVER), extended(SERVER, CLIENT)),
    "no usage at all": (client(), extended(), extended(CLIENT)),
}


@pytest.mark.parametrize("kind", LIMITED)
def test_another_path_than_nginx_s(kind: str) -> None:
    """nginx says SUCCESS by the other root, and over the limited authority nothing is found."""
    leaf, forbids, permits = LIMITED[kind]
    assert openssl(leaf, forbids) == (True, False)
    assert not is_found(leaf, forbids)
    assert openssl(leaf, permits) == (True, True)
    assert is_found(leaf, permits)


def test_a_path_without_limits_is_found() -> None:
    """Of two authorities of one key, the one that may issue the certificate counts."""
    leaf, forbids, _ = LIMITED["DNS"]
    for order in ((forbids,), ()), ((), (forbids,)):
        between = [from_der(signed(issuing(*limits), STAFF)) for limits in order]
        trusted = Anchors([from_der(signed(STAFF))], between)
        found = trusted.issuing_path(from_der(leaf), NOW.timestamp())
        assert found is not None
        assert found[0] is between[order.index(())]


PARTNER = name(der_rdn(ORGANIZATION, b"Partner"))
LONG_ID = tlv(0x88, b"\x2a" + b"\x83\x84\x05" * 25)
UNREADABLE = {
    "a registeredID of 76 octets": san(LONG_ID),
    "a directory name with such a type": san(
        directory(tlv(0x31, tlv(0x30, tlv(6, LONG_ID[2:]), tlv(0x0C, b"x"))))
    ),
    "a padded number": san(other("1.2.3", tlv(0x30, tlv(2, b"\0\0\1")))),
    "a length of two octets": san(other("1.2.3", tlv(0x30, b"\2\x81\1\1"))),
    "half a value": san(other("1.2.3", tlv(0x30, b"\xff"))),
    "octets behind it": extension("2.5.29.17", tlv(0x30, dns("a.test")) + b"\0"),
    "a tag of two octets": san(tlv(0xA3, tlv(0x30, b"\x1f\x81\0\0"))),
}


@pytest.mark.parametrize("odd", UNREADABLE)
def test_a_san_that_cannot_be_read_hides_no_other_name(odd: str) -> None:
    """OpenSSL reads it, or passes over it: the subject and a CN like a host are asked about."""
    for subject, limits in (
        (EXAMPLE, constraints([tlv(0xA4, PARTNER)])),
        (name(cn("a.ex.test")), constraints([dns("partner.test")])),
        (name(der_rdn(EMAIL, b"a@ex.test", IA5)), constraints([mail("partner.test")])),
    ):
        leaf = signed(Spec(subject, key("ec", 2), (UNREADABLE[odd],)), issuing())
        assert openssl(leaf, limits)[0]
        assert not is_found(leaf, limits)


@pytest.mark.parametrize("tag", [7, 8, 9, 11, 13, 14, 15, 29])
def test_an_attribute_of_an_odd_type_hides_no_other_name(tag: int) -> None:
    """OpenSSL takes these types in names."""
    odd = tlv(0x31, tlv(0x30, der_oid("1.2.3.4"), tlv(tag, b"x")))
    leaf = client(subject=name(der_rdn(ORGANIZATION, b"Example"), odd))
    assert openssl(leaf, constraints([tlv(0xA4, PARTNER)])) == (True, False)
    assert not is_found(leaf, constraints([tlv(0xA4, PARTNER)]))
    permits = constraints([tlv(0xA4, name(der_rdn(ORGANIZATION, b"EXAMPLE")))])
    assert openssl(leaf, permits) == (True, True)
    assert is_found(leaf, permits)


MINIMUM = tlv(0xA0, tlv(0x30, dns("ex.test"), tlv(0x80, b"\0")))
EMPTY_CN = name(tlv(0x31, tlv(0x30, der_oid("2.5.4.3"), tlv(3, b"\0b"))), cn("alice"))
UNUSUAL = {
    "quoted, permitted": (client(mail('"a b"@ex.test')), constraints([mail("ex.test")])),
    "quoted, of another host": (client(mail('"a"@other.test')), constraints([mail("ex.test")])),
    "two @": (client(mail("a@ex.test@other.test")), constraints([mail("ex.test")])),
    "no @": (client(mail("other.test")), constraints([mail("ex.test")])),
    "a base with @": (client(mail("a@ex.test")), constraints([mail("@ex.test")])),
    "another host, a base with @": (client(mail("a@x.test")), constraints([mail("@ex.test")])),
    "a URN": (client(uri("urn:example:admin")), constraints([uri("ex.test")])),
    "a URN, excluded": (client(uri("urn:example:admin")), constraints(excluded=[uri("ex.test")])),
    "user in a URI": (client(uri("https://u@ex.test/")), constraints([uri("ex.test")])),
    "no path": (client(uri("https://ex.test?x")), constraints([uri("ex.test")])),
    "a port": (client(uri("https://a.ex.test:8443/a")), constraints([uri(".ex.test")])),
    "a colon in the path": (client(uri("https://ex.test/a:b")), constraints([uri("ex.test")])),
    "no host": (client(uri("file:///ex.test")), constraints([uri("ex.test")])),
    "UPN": (
        client(other(UPN, tlv(0x0C, b"a@x"))),
        constraints([other(UPN, tlv(0x0C, b"@ex"))]),
    ),
    "another otherName": (
        client(other("1.2.3", tlv(0x0C, b"a@x"))),
        constraints([other("1.2.3", tlv(0x0C, b"a@x"))]),
    ),
    "registeredID": (client(tlv(0x88, b"\x2a\3")), constraints([tlv(0x88, b"\x2a\3")])),
    "UPN, another kind constrained": (
        client(other(UPN, tlv(0x0C, b"a@x"))),
        constraints([other("1.2.3", tlv(0x0C, b"@ex"))]),
    ),
    "mail in the subject as UTF8String": (
        client(subject=name(der_rdn(EMAIL, b"a@ex.test"))),
        constraints([mail("ex.test")]),
    ),
    "a CN that is no string": (client(subject=EMPTY_CN), constraints([mail("ex.test")])),
    "dots": (client(subject=name(cn("a..test"))), constraints([dns("ex.test")])),
    "-.": (client(subject=name(cn("a-.b.test"))), constraints([dns("ex.test")])),
    ".-": (client(subject=name(cn("a.-b.test"))), constraints([dns("ex.test")])),
    "minimum 0": (client(dns("ex.test")), extension("2.5.29.30", tlv(0x30, MINIMUM))),
    "minimum 0, outside": (client(dns("x.test")), extension("2.5.29.30", tlv(0x30, MINIMUM))),
    "minimum 1": (
        client(dns("ex.test")),
        extension("2.5.29.30", tlv(0x30, MINIMUM[:-1] + b"\1")),
    ),
    "a base that is no host": (client(dns("x.test")), constraints([dns("*.ex.test")])),
    "a base of another kind that is none": (
        client(dns("x.test")),
        constraints([dns("ex.test"), uri("https://ex.test")]),
    ),
    "address without a mask": (client(dns("a.test")), constraints(excluded=[ip(10, 0, 0, 0)])),
    "an address, no mask": (client(ip(10, 0, 0, 1)), constraints(excluded=[ip(10, 0, 0, 0)])),
    "an address without a mask, behind one that permits": (
        client(ip(10, 0, 0, 1)),
        constraints([ip(*bytes(8)), ip(*bytes(4))]),
    ),
    "an address without a mask, before one that permits": (
        client(ip(10, 0, 0, 1)),
        constraints([ip(*bytes(4)), ip(*bytes(8))]),
    ),
    "broken": (client(dns("a.test")), extension("2.5.29.30", tlv(0x30, tlv(0xA3)))),
}


@pytest.mark.parametrize("kind", UNUSUAL)
def test_unusual_names_and_constraints_are_read_as_openssl_reads_them(kind: str) -> None:
    """Nobody is let in whom OpenSSL refuses below this authority, and nobody else kept out."""
    leaf, limits = UNUSUAL[kind]
    anywhere, here = openssl(leaf, limits)
    assert anywhere
    assert is_found(leaf, limits) is here


@pytest.mark.parametrize(
    ("text", "permitted"),
    [
        ("https://x.test/.ex.test:", ".ex.test"),
        ("https://x.test/?.ex.test:", ".ex.test"),
        ("https://x.test?.ex.test/", ".ex.test"),
        ("https://x.test#.ex.test", ".ex.test"),
        ("https://x.test\\.ex.test/", ".ex.test"),
        ("https://a.ex.test:x@x.test/", ".ex.test"),
        ("https://ex.test/a:b", ""),
        ("https://u@ex.test/", ""),
    ],
)
def test_a_uri_of_another_host_than_openssl_reads_is_not_permitted(
    text: str, permitted: str
) -> None:
    """OpenSSL takes a part of the path, or more, for its host: an authority for `.ex.test` could
    issue what a rule takes for x.test's, or one that must not issue for ex.test what is its."""
    leaf = client(uri(text))
    limits = constraints([uri(permitted)]) if permitted else constraints(excluded=[uri("ex.test")])
    assert openssl(leaf, limits) == (True, True)
    assert not is_found(leaf, limits)
    assert is_found(leaf, constraints([mail("ex.test")]))


@pytest.mark.parametrize("base", ["a.ex.test", ".a.ex.test", "A.EX.test"])
def test_a_wildcard_for_an_excluded_host_is_not_permitted(base: str) -> None:
    """OpenSSL compares it as a name, and `san_matches_host` takes it for that host."""
    wildcard, limits = client(dns("*.ex.test")), constraints(excluded=[dns(base)])
    assert openssl(wildcard, limits) == (True, True)
    assert not is_found(wildcard, limits)
    assert is_found(client(dns("*.x.test")), limits)
    assert is_found(wildcard, constraints([dns("ex.test")], [dns("a.x.test")]))


def test_more_names_than_are_compared_are_not_permitted() -> None:
    """OpenSSL compares a million; here 20,000, and only names with constraints of their kind."""
    limits = constraints([dns(f"p{number}.test") for number in range(20)])
    outside = client(*(dns("admin.ex.test") for _ in range(1200)))
    assert openssl(outside, limits) == (True, False)
    assert not is_found(outside, limits)
    other_kind = client(*(uri("https://ex.test/") for _ in range(1200)))
    assert openssl(other_kind, limits) == (True, True)
    assert is_found(other_kind, limits)


HOSTS = (
    b"ex.test",
    b"a.ex.test",
    b".ex.test",
    b"EX.test",
    b"x.test",
    b"",
    b"*.ex.test",
    b"ex.test.",
)
MAILS = (
    b"a@ex.test",
    b"A@EX.test",
    b"a@x.test",
    b"ex.test",
    b".ex.test",
    b"@ex.test",
    b"a@b@x.test",
)
USUAL_URIS = (
    b"https://ex.test/a",
    b"https://a.ex.test",
    b"https://ex.test:80/",
    b"urn:x:y",
    b"x://",
)
ODD_URIS = (b"https://u@ex.test/", b"https://EX.test/a:b")
URIS = (
    *USUAL_URIS,
    *ODD_URIS,
    b"x:///ex.test",
    b"//ex.test/",
    *HOSTS[:3],
)
ADDRESSES = (bytes((10, 0, 0, 1)), bytes((11, 0, 0, 1)), bytes(16))
NETWORKS = (bytes((10, 0, 0, 0, 255, 0, 0, 0)), bytes(8), bytes(32), bytes(4))
CNS = ("alice", "a.ex.test", "x.test", "a-.b.test")


def any_subject(chance: random.Random) -> bytes:
    kinds = (
        lambda: cn(chance.choice(CNS)),
        lambda: der_rdn(ORGANIZATION, chance.choice((b"Ex", b"ex", b"Ey"))),
        lambda: der_rdn(EMAIL, chance.choice(MAILS[:3]), chance.choice((IA5, IA5, 0x0C))),
    )
    return name(*(chance.choice(kinds)() for _ in range(chance.randrange(4))))


def any_name(chance: random.Random, addresses: tuple[bytes, ...]) -> bytes:
    kinds = (
        lambda: tlv(0x81, chance.choice(MAILS)),
        lambda: tlv(0x82, chance.choice(HOSTS)),
        lambda: tlv(0x86, chance.choice(URIS)),
        lambda: tlv(0x87, chance.choice(addresses)),
        lambda: tlv(0xA4, any_subject(chance)),
        lambda: other(chance.choice((UPN, "1.2.3")), tlv(0x0C, b"a@x")),
    )
    return chance.choice(kinds)()


def test_random_names_and_constraints() -> None:
    """What OpenSSL refuses below this authority is refused, and else only a URI whose host it reads
    otherwise, or a wildcard.

    `MTLS_SIDECAR_SEED` and `MTLS_SIDECAR_DIFFERENTIAL` choose others, and more.
    """
    chance = random.Random(int(os.environ.get("MTLS_SIDECAR_SEED", "11")))
    seen = set()
    for _ in range(int(os.environ.get("MTLS_SIDECAR_DIFFERENTIAL", "1000"))):
        names = [any_name(chance, ADDRESSES) for _ in range(chance.randrange(3))]
        leaf = client(*names, subject=any_subject(chance))
        permitted = [any_name(chance, NETWORKS) for _ in range(chance.randrange(3))]
        excluded = [any_name(chance, NETWORKS) for _ in range(chance.randrange(2))]
        if not permitted and not excluded:
            continue
        limits = constraints(permitted, excluded)
        anywhere, here = openssl(leaf, limits)
        if anywhere:
            found = is_found(leaf, limits)
            odd = (*(tlv(0x86, text) for text in ODD_URIS), dns("*.ex.test"))
            is_odd = not set(names).isdisjoint(odd)
            assert found is here or (is_odd and not found), (names, permitted, excluded, leaf.hex())
            seen.add(here)
    assert seen == {True, False}

"""Ask the limits of the path that is found, since nginx may have verified another one."""

from __future__ import annotations

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
from der import der_rdn, tlv

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


@pytest.mark.parametrize(
    ("leaf", "limits"),
    [
        (client(other(UPN, tlv(0x0C, b"a@x"))), constraints([other(UPN, tlv(0x0C, b"@ex"))])),
        (client(mail('"a b"@ex.test')), constraints([mail("ex.test")])),
        (client(uri("https://u@ex.test/")), constraints([uri("ex.test")])),
        (client(subject=name(cn("a..test"))), constraints([dns("ex.test")])),
        (client(subject=name(cn("a-.b.test"))), constraints([dns("ex.test")])),
        (client(subject=name(cn("a.-b.test"))), constraints([dns("ex.test")])),
        (client(dns("a.test")), constraints(excluded=[ip(10, 0, 0, 0)])),
        (client(dns("a.test")), extension("2.5.29.30", tlv(0x30, tlv(0xA3)))),
    ],
    ids=["UPN", "quoted", "user in a URI", "dots", "-.", ".-", "address without a mask", "broken"],
)
def test_what_is_uncertain_is_nginx_s_to_check(leaf: bytes, limits: bytes) -> None:
    """Names and constraints that aren't compared here don't lock out whom nginx let in."""
    assert is_found(leaf, limits)

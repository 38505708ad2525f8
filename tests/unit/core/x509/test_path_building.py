"""Apply an authority's constraints to the certificates below it."""

from __future__ import annotations

import time
from dataclasses import replace
from ipaddress import ip_address, ip_network
from typing import Any

import chains
import ocsp_pki as pki
import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from sidecar.core.x509 import path_building
from sidecar.core.x509.certificate import ClientCert, from_der
from sidecar.core.x509.path_building import Anchors
from sidecar.core.x509.signature import is_signed_by

DNS, MAIL, URI = x509.DNSName, x509.RFC822Name, x509.UniformResourceIdentifier
UPN = x509.ObjectIdentifier("1.3.6.1.4.1.311.20.2.3")
NAMES = x509.SubjectAlternativeName(
    [
        DNS("a.example.com"),
        MAIL("a@example.com"),
        URI("https://a.example.com/"),
        x509.IPAddress(ip_address("192.0.2.1")),
        x509.OtherName(UPN, b"\x0c\x01a"),
    ]
)


def directory(cn: str) -> x509.DirectoryName:
    return x509.DirectoryName(pki.name(cn))


def only(*names: x509.GeneralName) -> x509.NameConstraints:
    return x509.NameConstraints(names, None)


def no(*names: x509.GeneralName) -> x509.NameConstraints:
    return x509.NameConstraints(None, names)


def is_verified(
    constraint: x509.ExtensionType,
    critical: bool,
    *more: x509.NameAttribute[str],
    names: bool = True,
) -> bool:
    """Whether alice's chain verifies below an authority with that extension."""
    root = pki.issue("root", ca=True)
    sub = pki.issue("sub", root, ca=True, extra=[(constraint, critical)])
    leaf = pki.issue("alice", sub, extra=[(NAMES, False)] if names else [], more=more)
    anchor, between, cert = (from_der(each.der) for each in (root, sub, leaf))
    return Anchors([anchor], [between]).verified_path(cert, time.time()) is not None


@pytest.mark.parametrize("critical", [True, False])
@pytest.mark.parametrize(
    "constraint",
    [
        only(DNS("example.com"), MAIL("example.com")),
        only(x509.IPAddress(ip_network("192.0.2.0/24"))),
        no(DNS("example.org"), MAIL("example.org")),
        no(x509.RegisteredID(x509.ObjectIdentifier("1.2.3"))),
    ],
    ids=str,
)
def test_names_within_the_constraints_verify(
    constraint: x509.NameConstraints, critical: bool
) -> None:
    """Permitted names, and constraints on kinds that the certificate lacks, are accepted."""
    assert is_verified(constraint, critical)


@pytest.mark.parametrize("critical", [True, False])
@pytest.mark.parametrize(
    "constraint",
    [
        only(DNS("example.org")),
        no(DNS("example.com")),
        only(MAIL("example.org")),
        only(URI("example.org")),
        only(x509.IPAddress(ip_network("198.51.100.0/24"))),
        no(x509.OtherName(UPN, b"\x0c\x01a")),
        only(directory("bob")),
        no(directory("alice")),
    ],
    ids=str,
)
def test_names_outside_or_not_comparable_do_not(
    constraint: x509.NameConstraints, critical: bool
) -> None:
    """Other names are refused, whether the constraint is critical or not (RFC 5280, 4.2.1.10)."""
    assert not is_verified(constraint, critical)


@pytest.mark.parametrize(
    ("constraint", "verifies"),
    [
        (no(x509.IPAddress(ip_network("10.0.0.0/8"))), False),
        (only(x509.IPAddress(ip_network("::/0"))), False),
        (only(x509.IPAddress(ip_network("10.0.0.0/8"))), False),
        (no(x509.IPAddress(ip_network("192.0.2.0/24"))), True),
        (only(*(x509.IPAddress(ip_network(each)) for each in ("::/0", "10.0.0.0/8"))), True),
    ],
    ids=str,
)
def test_a_mapped_address_is_the_ipv4_address_to_constraints(
    constraint: x509.NameConstraints, verifies: bool
) -> None:
    """`::ffff:10.0.0.1` needs permission for 10.0.0.1 too, because rules compare it as IPv4."""
    root = pki.issue("root", ca=True)
    sub = pki.issue("sub", root, ca=True, extra=[(constraint, True)])
    mapped = x509.SubjectAlternativeName([x509.IPAddress(ip_address("::ffff:10.0.0.1"))])
    leaf = pki.issue("alice", sub, extra=[(mapped, False)])
    anchor, between, cert = (from_der(each.der) for each in (root, sub, leaf))
    anchors = Anchors([anchor], [between])
    for find in (anchors.verified_path, anchors.issuing_path):
        assert (find(cert, time.time()) is not None) == verifies


@pytest.mark.parametrize(
    ("usages", "verified"),
    [
        ([ExtendedKeyUsageOID.CLIENT_AUTH], True),
        ([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH], True),
        ([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE], False),
        ([ExtendedKeyUsageOID.SERVER_AUTH], False),
        ([ExtendedKeyUsageOID.EMAIL_PROTECTION], False),
    ],
)
def test_an_authority_s_usages_hold_for_what_it_issues(
    usages: list[x509.ObjectIdentifier], verified: bool
) -> None:
    """An authority limited to servers or mail can't issue client certificates, as in OpenSSL."""
    assert is_verified(x509.ExtendedKeyUsage(usages), False) == verified


@pytest.mark.parametrize("critical", [True, False])
def test_policy_constraints_do_not(critical: bool) -> None:
    """An authority that requires policies is refused, because policies are not processed."""
    assert not is_verified(x509.PolicyConstraints(0, None), critical)


@pytest.mark.parametrize("critical", [True, False])
def test_constraints_on_mail_hold_for_the_subject(critical: bool) -> None:
    """An emailAddress in the subject is checked if the SAN has no address."""
    mail = x509.NameAttribute(NameOID.EMAIL_ADDRESS, "a@example.com")
    assert not is_verified(only(MAIL("example.org")), critical, mail, names=False)
    assert is_verified(only(DNS("example.org")), critical, mail, names=False)
    assert is_verified(only(MAIL("example.com")), critical, mail)


# -- what a search may cost


def crossed(count: int) -> tuple[list[ClientCert], ClientCert]:
    """Authorities of which each has a certificate by every other, and a leaf of one of them."""
    specs = [chains.sub(f"CA {each}", key=chains.key("ec", 20 + each)) for each in range(count)]
    certs = [
        from_der(chains.signed(replace(one, serial=other), specs[other]))
        for one in specs
        for other in range(count)
    ]
    return certs, from_der(chains.signed(chains.leaf(), specs[0]))


@pytest.mark.parametrize("way", ["issuing_path", "verified_path"])
def test_authorities_that_all_issued_each_other_cost_no_more(
    way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """64 authorities that issued each other cost at most 32 signature verifications."""
    between, leaf = crossed(8)
    checked: list[object] = []

    def count(*of: Any) -> bool:
        checked.append(of)
        return is_signed_by(*of)

    monkeypatch.setattr(path_building, "is_signed_by", count)
    anchors = Anchors([from_der(chains.signed(chains.root()))], between)
    assert getattr(anchors, way)(leaf, chains.NOW.timestamp()) is None
    assert len(checked) <= path_building.MAX_SIGNATURES


def test_a_stranger_s_certificate_is_not_read_further(monkeypatch: pytest.MonkeyPatch) -> None:
    """A certificate with only the name of a CA costs one signature check, and no extension is
    parsed."""
    anchors = Anchors([from_der(chains.signed(chains.root()))], [])
    stranger = from_der(chains.signed(chains.leaf(), chains.root(key=chains.key("ec", 30))))
    monkeypatch.setattr(path_building, "_profile", None)
    assert anchors.verified_path(stranger, chains.NOW.timestamp()) is None


def test_more_names_than_are_compared_are_refused() -> None:
    """The cost of name constraints is bounded; a certificate over the limit is refused."""
    names = [chains.dns(f"a{each}.ex.test") for each in range(1500)]
    for bases, accepted in ((10, True), (20, False)):
        limit = chains.constraints([chains.dns("ex.test")] * bases)
        given = chains.chain(chains.root("Root", limit), chains.leaf("alice", chains.san(*names)))
        anchors = Anchors([from_der(given.anchors[0])], [])
        path = anchors.verified_path(from_der(given.leaf), chains.NOW.timestamp())
        assert (path is not None) == accepted

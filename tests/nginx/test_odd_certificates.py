"""Certificates that can be read in more than one way, through a real nginx."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from cryptography import x509
from der import der_oid, der_rdn, tlv
from pki import CA, Leaf
from stack import Stack
from tools import NginxBinary

from sidecar.core.x509.der import within

OPTIONAL = "variants/optional-no-ca.conf"
POLICY = """
version: 1
locations:
  - {name: admin, allow: [{dns: admin.example.com}]}
  - {name: site, allow: [{cn: [a_b@c, café, München]}]}
  - {name: partners, allow: [{uri: ["https://*.example.org/*", "sip:*@example.org"]}]}
"""


@pytest.fixture(scope="module")
def stack(nginx_binary: NginxBinary, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The main example, under a policy that asks for names."""
    with Stack(nginx_binary, tmp_path_factory.mktemp("odd"), policy=POLICY) as found:
        yield found


def san(*names: bytes, behind: bytes = b"") -> bytes:
    return tlv(0x30, der_oid("2.5.29.17"), tlv(0x04, tlv(0x30, *names) + behind))


def test_a_constrained_authority_hides_no_name_behind_the_san(stack: Stack) -> None:
    """nginx says SUCCESS, as OpenSSL passes over it; a rule on that name never grants."""
    constraints = x509.NameConstraints([x509.DNSName("partner.test")], None)
    partner = CA("Partner", issuer=stack.people.staff, extra_extensions=[(constraints, True)])
    hidden = tlv(0x82, b"admin.example.com")
    honest = partner.forge("x", extensions=[san(tlv(0x82, b"x.partner.test"))])
    tricky = partner.forge("x", extensions=[san(tlv(0x82, b"x.partner.test"), behind=hidden)])
    bare = partner.forge("x", extensions=[san(hidden)])
    assert stack.get("/admin/", cert=stack.people.staff.issue("x", dns=["admin.example.com"])).app
    for leaf in (honest, tricky):
        assert stack.get("/admin/", cert=leaf).status == 403
    assert stack.get("/admin/", cert=bare).status == 400  # nginx's own answer
    stack.daemon.until(lambda: tricky.sha256 in stack.decision_log)
    line = next(x for x in stack.decision_log.splitlines() if tricky.sha256 in x)
    assert 'verify="SUCCESS"' in line
    assert 'reason="not_allowed"' in line


def test_a_constrained_authority_names_no_host_behind_its_own(stack: Stack) -> None:
    """nginx says SUCCESS: the host that OpenSSL reads is its own; a glob of another host never
    grants."""
    constraints = x509.NameConstraints([x509.UniformResourceIdentifier(".partner.test")], None)
    partner = CA("Partner", issuer=stack.people.staff, extra_extensions=[(constraints, True)])
    own = stack.people.staff.issue("x", uri=["https://a.example.org/x"])
    assert stack.get("/partners/", cert=own).app
    for uri in (
        "https://a.partner.test/.example.org/x",
        "https://a.partner.test/?.example.org/",
        "https://a.partner.test:.example.org/x",
        "sip://a.partner.test/@example.org",
    ):
        leaf = partner.issue("x", uri=[uri])
        assert stack.get("/partners/", cert=leaf).status == 403


@pytest.mark.parametrize(
    ("raw", "tag"),
    [
        (b"a_b@c", 0x13),
        (b"caf\xe9", 0x13),
        (b"caf\xe9", 0x14),
        (b"caf\xe9", 0x16),
        ("München".encode("utf-16-be"), 0x1E),
        ("München".encode("utf-32-be"), 0x1C),
    ],
)
def test_odd_strings_are_read_as_nginx_reads_them(stack: Stack, raw: bytes, tag: int) -> None:
    """PrintableString, T61String, IA5String, BMPString, UniversalString: SUCCESS, and let in."""
    leaf = stack.people.staff.forge(subject=tlv(0x30, der_rdn("2.5.4.3", raw, tag)))
    assert stack.get("/", cert=leaf).app


@pytest.mark.parametrize(
    "odd",
    [
        tlv(0x30, der_oid("2.5.29.19"), tlv(0x04, tlv(0x30, tlv(1, b"\0")))),
        tlv(0x30, der_oid("2.5.29.19"), tlv(1, b"\0"), tlv(0x04, tlv(0x30))),
        san(tlv(0xA5, tlv(0xA1, tlv(0x0C, b"x"))), tlv(0x82, b"a.example")),
        san(tlv(0xA3, tlv(0x30)), tlv(0x82, b"a.example")),
    ],
    ids=["default written out", "critical FALSE", "edi", "x400"],
)
def test_what_no_rule_asks_about_keeps_nobody_out(stack: Stack, odd: bytes) -> None:
    """nginx says SUCCESS to these."""
    assert stack.get("/", cert=stack.people.staff.forge("café", extensions=[odd])).app


def test_a_revoked_holder_alters_the_signature_in_vain(
    nginx_binary: NginxBinary, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """`optional_no_ca`: an unused bit in the signature, for another fingerprint, is malformed."""
    where = tmp_path_factory.mktemp("bits")
    with Stack(nginx_binary, where, sites=[OPTIONAL]) as stack:
        issuing = stack.people.issuing
        leaf = next(x for x in (issuing.issue("dave") for _ in range(99)) if x.der[-1] % 2 == 0)
        altered = _with_an_unused_bit(leaf)
        assert altered.sha256 != leaf.sha256
        assert stack.get("/", cert=leaf).status == 200
        assert stack.get("/", cert=altered).status == 401
        stack.daemon.until(lambda: "malformed_certificate" in stack.decision_log)


def _with_an_unused_bit(leaf: Leaf) -> Leaf:
    signed, algorithm, signature = within(leaf.der, 0x30)
    assert signature[2] == 0
    altered = signature[:2] + b"\1" + signature[3:]
    # Without its issuer: what nginx could verify it would refuse itself.
    return Leaf(leaf.name, tlv(0x30, signed, algorithm, altered), leaf.private)

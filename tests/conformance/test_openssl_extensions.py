"""`verify: sidecar` refuses a chain in which OpenSSL can't read an extension, at any level of it.

OpenSSL marks a certificate as invalid if an extension that it parses isn't DER, or not of the type
that RFC 5280 says; nothing is issued by it, nor to it.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from dataclasses import replace

import libcrypto
import pytest
from chains import (
    BMP,
    CLIENT,
    CN,
    EMAIL,
    NOW,
    ORGANIZATION,
    PRINTABLE,
    SERVER,
    T61,
    UTF8,
    Chain,
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
    leaf,
    mail,
    name,
    other,
    root,
    san,
    sidecar_accepts,
    signed,
    sub,
    uri,
    usage,
)
from der import der_int, der_oid, der_rdn, tlv
from lying_der import Node, lie, tree

BASIC, AKI, CRL_POINTS, LIMITS = "2.5.29.19", "2.5.29.35", "2.5.29.31", "2.5.29.30"
UPN, UNIQUE_ID = "1.3.6.1.4.1.311.20.2.3", "2.5.4.45"
BITS, NUMERIC, UNIVERSAL = 0x03, 0x12, 0x1C


def why_refused(chain: Chain) -> str:
    return libcrypto.verdict(chain.anchors, chain.between, chain.leaf, NOW.timestamp())


# -- one thing wrong


def attribute(oid: bytes, tag: int, value: bytes) -> bytes:
    return tlv(0x31, tlv(0x30, tlv(0x06, oid), tlv(tag, value)))


def point(*parts: bytes) -> bytes:
    return extension(CRL_POINTS, tlv(0x30, tlv(0x30, *parts)))


def issued_by(*names: bytes) -> bytes:
    return extension(AKI, tlv(0x30, tlv(0xA1, *names)))


_FULL_NAME = tlv(0xA0, tlv(0xA0, uri("http://c/")))
_PERMITTED, _EXCLUDED = tlv(0xA0, tlv(0x30, dns("ex.test"))), tlv(0xA1, tlv(0x30, dns("x.test")))

WRONG: dict[str, bytes] = {
    "path length, not minimal": extension(BASIC, tlv(0x30, tlv(1, b"\xff"), tlv(2, b"\0\5")), True),
    "key identifier's serial, not minimal": extension(AKI, tlv(0x30, tlv(0x82, b"\0\1"))),
    "usage, unfinished": extension("2.5.29.37", tlv(0x30, der_oid(CLIENT), tlv(0x06, b"\x2a\x83"))),
    "usage, empty": extension("2.5.29.37", tlv(0x30, der_oid(CLIENT), tlv(0x06))),
    "usage, a leading zero": extension(
        "2.5.29.37", tlv(0x30, der_oid(CLIENT), tlv(0x06, b"\x2a\x80\1"))
    ),
    "registered id, empty": san(tlv(0x88)),
    "other name, two values": san(tlv(0xA0, der_oid(UPN), tlv(0xA0, tlv(UTF8, b"a"), tlv(5)))),
    "other name, no value": san(tlv(0xA0, der_oid(UPN), tlv(0xA0))),
    "other name, no OID": san(tlv(0xA0, tlv(0x06), tlv(0xA0, tlv(5)))),
    "EDI party, none": san(tlv(0xA5)),
    "EDI party, a number": san(tlv(0xA5, tlv(0xA1, der_int(1)))),
    "name, attribute without OID": san(directory(attribute(b"", UTF8, b"x"))),
    "name, attribute's OID unfinished": san(directory(attribute(b"\x55\x84", UTF8, b"x"))),
    "name, unused bits": san(directory(attribute(b"\x55\x04\x2d", BITS, b"\x9b\1"))),
    "name, no bits": san(directory(attribute(b"\x55\x04\x2d", BITS, b""))),
    "name of the issuer's issuer": issued_by(tlv(0xA4, name(attribute(b"", UTF8, b"x")))),
    "point, nothing in it": point(),
    "point, reasons alone": point(tlv(0x81, b"\1\x40")),
    "point, reasons of no bits": point(_FULL_NAME, tlv(0x81)),
    "point, reasons' unused bits": point(_FULL_NAME, tlv(0x81, b"\x09\x40")),
    "point, twice a name": point(_FULL_NAME, _FULL_NAME),
    "point, wrong order": point(tlv(0xA2, directory(cn("x"))), tlv(0x81, b"\1\x40")),
    "point, no issuer": point(tlv(0xA2)),
    "point, relative name without OID": point(
        tlv(0xA0, tlv(0xA1, tlv(0x30, tlv(0x06), tlv(UTF8, b"x"))))
    ),
    "point, relative name of no attribute": point(tlv(0xA0, tlv(0xA1, tlv(UTF8, b"x")))),
    "constraints, twice permitted": extension(LIMITS, tlv(0x30, _PERMITTED, _PERMITTED)),
    "constraints, wrong order": extension(LIMITS, tlv(0x30, _EXCLUDED, _PERMITTED)),
    "constraints, name without OID": constraints(excluded=[directory(attribute(b"", UTF8, b"x"))]),
}
"""An extension that no one can read, of a certificate that is right but for that."""


@pytest.mark.parametrize("what", WRONG)
@pytest.mark.parametrize("place", ["root", "sub", "leaf"])
def test_what_openssl_cannot_read_is_refused(place: str, what: str) -> None:
    """In anchor, intermediate and leaf; and the chain without it is accepted by both."""
    specs = {"root": root(), "sub": sub(), "leaf": leaf()}
    for wrong in (None, WRONG[what]):
        if wrong is not None:
            kept = () if "path length" in what else specs[place].extensions
            specs[place] = replace(specs[place], extensions=(*kept, wrong))
        top, middle, low = specs.values()
        chain = Chain((signed(top),), (signed(middle, top),), signed(low, middle))
        assert sidecar_accepts(chain) == (not why_refused(chain)) == (wrong is None)


@pytest.mark.parametrize("tag", [0x30, BITS])
@pytest.mark.parametrize("limit", ["dns", "ip"])
def test_a_cn_that_is_no_string_below_constraints(tag: int, limit: str) -> None:
    """OpenSSL can't compare it, so nobody gets in by it; beside a DNS name it isn't asked about."""
    base = {"dns": dns("ex.test"), "ip": ip(10, 0, 0, 0, 255, 0, 0, 0)}[limit]
    top, middle = root(), sub("Sub", constraints([base]))
    for more, right in (((), False), ((san(dns("a.ex.test")),), True)):
        low = Spec(name(attribute(b"\x55\4\3", tag, b"\0\1\0")), key("ec", 2), more)
        chain = Chain((signed(top),), (signed(middle, top),), signed(low, middle))
        assert sidecar_accepts(chain) == (not why_refused(chain)) == right


@pytest.mark.parametrize(
    "more",
    [
        extension("2.5.29.37", tlv(0x30, der_oid(CLIENT)) + b"\0"),
        extension("2.5.29.19", tlv(0x30) + b"\0"),
        extension("2.5.29.17", tlv(0x30, dns("a.test")) + b"\0"),
    ],
)
def test_extensions_that_are_not_der_are_refused_here_alone(more: bytes) -> None:
    """OpenSSL leaves out what stands behind a value; as docs/security.md says, it isn't taken
    here."""
    chain = Chain((signed(root()),), (), signed(leaf("alice", more), root()))
    assert not why_refused(chain)
    assert not sidecar_accepts(chain)


# -- chance

_RICH = name(
    der_rdn(ORGANIZATION, b"Ex"),
    der_rdn(UNIQUE_ID, b"\0\1", BITS),
    der_rdn("2.5.4.6", b"DE", PRINTABLE),
    der_rdn("2.5.4.5", b"12", NUMERIC),
    der_rdn("2.5.4.11", b"\0a", BMP),
    der_rdn("2.5.4.11", b"\0\0\0a", UNIVERSAL),
    der_rdn("2.5.4.11", b"a", T61),
    der_rdn(EMAIL, b"a@ex.test", 0x16),
    der_rdn("1.2.3", b"\5\0", 0x30),
)
_ROOT = name(der_rdn(ORGANIZATION, b"Ex"), cn("Root"))


def key_ids(level: int) -> list[bytes]:
    """subjectKeyIdentifier, and authorityKeyIdentifier with all its fields."""
    found = [extension("2.5.29.14", tlv(0x04, bytes([level + 1]) * 20))]
    if level:
        issuer = tlv(0xA1, tlv(0xA4, _ROOT))
        parts = tlv(0x80, bytes([level]) * 20), issuer, tlv(0x82, b"\1")
        found.append(extension(AKI, tlv(0x30, *parts)))
    return found


def everything(level: int, *more: bytes) -> tuple[bytes, ...]:
    """Every extension that OpenSSL parses, and all that can be in it."""
    relative = tlv(0xA0, tlv(0xA1, tlv(0x30, der_oid(CN), tlv(UTF8, b"x"))))
    full = tlv(0xA0, tlv(0xA0, uri("http://c/"), directory(cn("x"))))
    points = (full, tlv(0x81, b"\1\x40"), tlv(0xA2, tlv(0xA4, _RICH))), (relative,)
    return (
        usage(0x84),
        extended(CLIENT, SERVER),
        extension("2.16.840.1.113730.1.1", tlv(BITS, b"\0\x87")),
        extension(CRL_POINTS, tlv(0x30, *(tlv(0x30, *each) for each in points))),
        *key_ids(level),
        *more,
    )


def rich() -> tuple[Spec, Spec, Spec]:
    """Root, intermediate and leaf with all that can be in a certificate."""
    parties = tlv(0xA5, tlv(0xA0, tlv(UTF8, b"y")), tlv(0xA1, tlv(PRINTABLE, b"x")))
    odd = (tlv(0x88, b"\x2a\3"), other(UPN, tlv(UTF8, b"a@ex.test")), tlv(0xA3, tlv(0x30)), parties)
    plain = dns("a.ex.test"), mail("a@ex.test"), uri("http://ex.test/"), ip(10, 0, 0, 1)
    bases = dns("ex.test"), mail("ex.test"), uri("ex.test"), ip(10, 0, 0, 0, 255, 0, 0, 0)
    limits = constraints([*bases, directory()], [dns("b.ex.test"), tlv(0xA4, _RICH)])
    return (
        Spec(_ROOT, key("ec", 0), everything(0, basic(True, 5), san(*plain, *odd))),
        Spec(name(cn("Sub")), key("ec", 1), everything(1, basic(True, 5), limits)),
        Spec(name(cn("a")), key("ec", 2), everything(2, san(*plain, directory(cn("x"))))),
    )


def changed(der: bytes, by: Spec, dice: random.Random) -> bytes:
    """A certificate with one value changed, signed again."""
    outer = tree(der)
    assert isinstance(outer.contents, list)
    to_sign = outer.contents[0]
    _change(dice.choice(list(to_sign.all())[1:]), dice)
    octets, algorithm = to_sign.encode(), by.key.algorithm("sha256")
    return tlv(0x30, octets, algorithm, tlv(0x03, b"\0", by.key.sign(octets, "sha256")))


def _change(node: Node, dice: random.Random) -> None:
    if dice.random() < 0.5:
        lie(node, dice)
        return
    body = node.body()
    edits: list[Callable[[], bytes]] = [
        lambda: b"\0" + body,
        lambda: body[1:],
        lambda: dice.randbytes(1) + body[1:],
        lambda: body + dice.randbytes(1),
        lambda: b"",
    ]
    node.contents = dice.choice(edits)()


def test_random_changes() -> None:
    """Whatever one value is changed to, no chain is accepted that OpenSSL refuses.

    MTLS_SIDECAR_CHAINS=10000 tries as many.
    """
    seed = int(os.environ.get("MTLS_SIDECAR_SEED", "11"))
    count = int(os.environ.get("MTLS_SIDECAR_CHAINS", "1200"))
    print("seed", seed)
    dice = random.Random(seed)
    top, middle, low = rich()
    good = [signed(top), signed(middle, top), signed(low, middle)]
    assert sidecar_accepts(Chain((good[0],), (good[1],), good[2]))
    verdicts = []
    for _ in range(count):
        place, made = dice.randrange(3), list(good)
        made[place] = changed(good[place], (top, top, middle)[place], dice)
        chain = Chain((made[0],), (made[1],), made[2])
        ours, theirs = sidecar_accepts(chain), why_refused(chain)
        assert not (ours and theirs), (theirs, made[place].hex())
        verdicts.append(ours)
    assert count // 10 < sum(verdicts) < count

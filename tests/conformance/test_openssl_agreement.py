"""`verify: sidecar` held against the real `openssl verify -purpose sslclient -auth_level 2`.

That is what nginx asks of a client's chain by Debian's default.  One law: no chain is accepted here
that OpenSSL refuses.  What is refused here though OpenSSL accepts it is listed, with its reason.
"""

from __future__ import annotations

import os
import random
import re
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from chains import (
    ANY,
    BMP,
    CLIENT,
    EMAIL,
    IA5,
    NOW,
    ORGANIZATION,
    PRINTABLE,
    SERVER,
    T61,
    UTF8,
    Chain,
    Spec,
    basic,
    chain,
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
    openssl_accepts,
    other,
    root,
    san,
    sidecar_accepts,
    signed,
    sub,
    uri,
    usage,
    with_anchor,
)
from der import der_int, der_oid, der_rdn, tlv
from pkits import ANCHOR, cert, ends, suite
from pkits import NOW as PKITS_NOW

from sidecar.core.errors import MalformedCertificate
from sidecar.core.x509.certificate import from_der
from sidecar.core.x509.path_building import Anchors

UNKNOWN = "1.3.6.1.4.1.99999.1"
AIA, AKI, SKI = "1.3.6.1.5.5.7.1.1", "2.5.29.35", "2.5.29.14"
UPN, MAILBOX = "1.3.6.1.4.1.311.20.2.3", "1.3.6.1.5.5.7.8.9"
DAY = timedelta(days=1)


def lost(given: Chain) -> bool:
    """Whether no path is found where nginx verified this one (`verify: nginx`)."""
    try:
        trusted = Anchors([*map(from_der, given.anchors)], [*map(from_der, given.between)])
        return trusted.issuing_path(from_der(given.leaf), NOW.timestamp()) is None
    except MalformedCertificate:
        return False


def mailed(address: str, tag: int = IA5) -> bytes:
    return der_rdn(EMAIL, address.encode(), tag)


# -- cases of our own

_AIA = tlv(0x30, tlv(0x30, der_oid("1.3.6.1.5.5.7.48.1"), uri("http://o.test/")))
_CRL_POINTS = tlv(0x30, tlv(0x30, tlv(0xA0, tlv(0xA0, uri("http://c/")))))
_KEY_ID = tlv(0x04, b"\x01" * 20)
_AKI = tlv(0x30, tlv(0x80, b"\x01" * 20))
_ROOT_SKI = extension(SKI, _KEY_ID)


def keys_and_digests() -> dict[str, Chain]:
    found = {}
    for kind in (
        "rsa512 rsa768 rsa1024 rsa2040 rsa2048 secp112r1 secp160r1 prime192v1 secp224r1 secp384r1"
        " secp256k1 brainpoolP256r1 brainpoolP512t1 sect283k1 ed25519 ed448 pss x25519 explicit"
        " dsa1024 dsa2048"
    ).split():
        found[f"leaf key {kind}"] = chain(root(), sub(), leaf(key=key(kind)))
    issuing = (
        "rsa512,rsa1024,rsa2040,rsa2048,prime192v1,secp224r1,secp384r1,secp256k1,brainpoolP256r1,"
        "ed25519,ed448,pss,explicit,dsa1024,dsa2048,rsa by pss,pss sha256,pss by pkcs1,"
        "pss salt 20,pss salt 20 written"
    )
    for kind in issuing.split(","):
        found[f"root key {kind}"] = chain(root(key=key(kind)), sub(), leaf())
        found[f"sub key {kind}"] = chain(root(), sub(key=key(kind)), leaf())
    for digest in ("md5", "sha1", "sha224", "sha512"):
        weak, strong = key("rsa2048"), key("rsa2048", 1)
        top, middle, low = root(key=weak), sub(key=strong), leaf()
        changed = [replace(spec, digest=digest) for spec in (top, middle, low)]
        found[f"root signed with {digest}"] = chain(changed[0], middle, low)
        found[f"sub signed with {digest}"] = chain(top, changed[1], low)
        found[f"leaf signed with {digest}"] = chain(top, middle, changed[2])
    return found


def extensions() -> dict[str, Chain]:
    def at_leaf(*more: bytes) -> Chain:
        return chain(root("Root", _ROOT_SKI), leaf("alice", *more))

    def at_sub(*more: bytes) -> Chain:
        plain = sub()
        return chain(root(), replace(plain, extensions=more), leaf())

    found = {"plain": at_leaf(), "plain with sub": chain(root(), sub(), leaf())}
    odd = {
        "AIA": (AIA, _AIA), "AKI": (AKI, _AKI), "SKI": (SKI, _KEY_ID),
        "unknown": (UNKNOWN, b"\5\0"),
        "RFC 3779": ("1.3.6.1.5.5.7.1.7", tlv(0x30)), "no check": ("1.3.6.1.5.5.7.48.1.5", b"\5\0"),
        "proxy": ("1.3.6.1.5.5.7.1.14", tlv(0x30, tlv(0x30, der_oid("1.3.6.1.5.5.7.21.1")))),
        "policies": ("2.5.29.32", tlv(0x30, tlv(0x30, der_oid("1.2.3")))),
        "policy constraints": ("2.5.29.36", tlv(0x30, tlv(0x80, b"\0"))),
        "inhibit any": ("2.5.29.54", der_int(0)),
        "mappings": ("2.5.29.33", tlv(0x30, tlv(0x30, der_oid("1.2.3"), der_oid("1.2.4")))),
        "issuer names": ("2.5.29.18", tlv(0x30, dns("a.test"))),
        "crl points": ("2.5.29.31", _CRL_POINTS),
        "broken crl points": ("2.5.29.31", tlv(0x30, tlv(0x30, tlv(0xA0, tlv(0xA5, b""))))),
        "netscape client": ("2.16.840.1.113730.1.1", tlv(0x03, b"\7\x80")),
        "netscape server": ("2.16.840.1.113730.1.1", tlv(0x03, b"\6\x40")),
        "broken AKI": (AKI, tlv(0x30, tlv(0x83, b"x"))), "broken SKI": (SKI, b"\x04\x05a"),
        "broken usage": ("2.5.29.15", b"\x03\x01"),
        "broken constraints": ("2.5.29.30", b"\x30\x05"),
        "broken extended": ("2.5.29.37", tlv(0x30, b"\x06")),
        "wrong AKI": (AKI, tlv(0x30, tlv(0x80, b"\x02" * 20))),
        "AKI with serial": (AKI, tlv(0x30, tlv(0xA1, directory(cn("Root"))), tlv(0x82, b"\x01"))),
        "AKI wrong serial": (AKI, tlv(0x30, tlv(0xA1, directory(cn("Root"))), tlv(0x82, b"\x02"))),
        "AKI wrong name": (AKI, tlv(0x30, tlv(0xA1, directory(cn("x"))), tlv(0x82, b"\x01"))),
        "TLS feature": ("1.3.6.1.5.5.7.1.24", tlv(0x30, der_int(5))),
        "private key usage": ("2.5.29.16", tlv(0x30)),
    }  # fmt: skip
    for label, (oid, value) in odd.items():
        for critical in (False, True):
            word = "critical " * critical + label
            found[f"leaf {word}"] = at_leaf(extension(oid, value, critical))
            found[f"sub {word}"] = at_sub(basic(), extension(oid, value, critical))
    for octet in (0x80, 0x08, 0x88, 0x40, 0x20, 0x04, 0x84, 0x00):
        found[f"leaf usage {octet:#x}"] = at_leaf(usage(octet))
        found[f"sub usage {octet:#x}"] = at_sub(basic(), usage(octet))
    for usages in ((CLIENT,), (SERVER,), (ANY,), (SERVER, CLIENT), (ANY, SERVER), ()):
        label = " ".join({CLIENT: "client", SERVER: "server", ANY: "any"}[u] for u in usages)
        for critical in (False, True):
            word = "critical " * critical + label
            found[f"leaf extended {word}"] = at_leaf(extended(*usages, critical=critical))
            limited = extended(*usages, critical=critical)
            found[f"sub extended {word}"] = at_sub(basic(), limited)
            found[f"root extended {word}"] = chain(root("Root", limited), leaf())
    found["twice"] = at_leaf(san(dns("a.test")), san(dns("b.test")))
    found["client as CA"] = at_sub(basic(False))
    found["no basicConstraints"] = at_sub(usage(0x04))
    found["no extension, no CA"] = at_sub()
    found["leaf CA:FALSE"] = at_leaf(basic(False))
    found["leaf CA:FALSE, pathlen 0"] = at_leaf(basic(False, 0))
    found["leaf CA:FALSE, pathlen 1"] = at_leaf(basic(False, 1))
    found["leaf pathlen -1"] = at_leaf(basic(False, -1))
    found["leaf CA:TRUE"] = at_leaf(basic(True))
    for written in (b"\x01", b"\xfd", b"\0"):  # in DER, TRUE is FF alone
        flag = tlv(0x01, written)
        found[f"sub CA:{written.hex()}"] = at_sub(extension("2.5.29.19", tlv(0x30, flag)))
        value = tlv(0x04, b"\5\0")
        found[f"leaf unknown critical {written.hex()}"] = at_leaf(
            tlv(0x30, der_oid(UNKNOWN), flag, value)
        )
    found["sub CA:TRUE not critical"] = at_sub(basic(critical=False))
    found["sub pathlen -1"] = at_sub(basic(True, -1))
    for length in (0, 1, 2):
        top = replace(root(), extensions=(basic(True, length),))
        found[f"path length {length}, none below"] = chain(top, leaf())
        found[f"path length {length}, one below"] = chain(top, sub(), leaf())
        two = sub("Sub 2", key=key("ec", 5))
        found[f"path length {length}, two below"] = chain(top, sub(), two, leaf())
        again = replace(root(key=key("ec", 6)), extensions=(basic(),))
        found[f"path length {length}, self-issued below"] = chain(top, again, leaf())
    return found


def anchors_and_names() -> dict[str, Chain]:
    found = {}
    old = replace(root(), end=NOW - DAY)
    found["expired anchor"] = chain(old, leaf())
    found["anchor not yet valid"] = chain(replace(root(), start=NOW + DAY), leaf())
    found["expired sub"] = chain(root(), replace(sub(), end=NOW - DAY), leaf())
    found["expired leaf"] = chain(root(), replace(leaf(), end=NOW - DAY))
    found["leaf not yet valid"] = chain(root(), replace(leaf(), start=NOW + DAY))
    found["intermediate as anchor"] = chain(root(), sub(), leaf(), anchor=1)
    found["leaf as anchor"] = chain(root(), leaf(), anchor=1)
    found["leaf named like its CA"] = chain(root(), leaf("Root"))
    found["leaf named like its CA, in capitals"] = chain(root(), leaf("ROOT"))
    found["leaf named like its CA, by key identifier"] = chain(
        root("Root", _ROOT_SKI),
        leaf("Root", extension(SKI, tlv(0x04, b"\x02" * 20)), extension(AKI, _AKI)),
    )
    found["leaf named like its CA, between"] = chain(root(), sub(), leaf("Sub"))
    for what, spec in (
        ("plain", leaf()), ("for servers", leaf("alice", extended(SERVER))),
        ("weak", leaf(key=key("rsa1024"))), ("with sha1", leaf(key=key("rsa2048"))),
        ("critical unknown", leaf("alice", extension(UNKNOWN, b"\5\0", True))),
        ("expired", replace(leaf(), end=NOW - DAY)),
    ):  # fmt: skip
        digest = "sha1" if what == "with sha1" else "sha256"
        own = signed(replace(spec, digest=digest))
        found[f"self-signed leaf as anchor, {what}"] = Chain((own,), (), own)
    found["self-signed leaf, unknown"] = with_anchor(chain(leaf()), signed(root()))
    first = replace(root(), version=0, extensions=())
    found["version 1 anchor"] = chain(first, leaf())
    found["version 1 sub"] = chain(root(), replace(sub(), version=0, extensions=()), leaf())
    found["version 1 intermediate as anchor"] = chain(
        root(), replace(sub(), version=0, extensions=()), leaf(), anchor=1
    )
    found["version 1 leaf"] = chain(root(), replace(leaf(), version=0))
    found["wrong key"] = with_anchor(chain(root(), leaf()), signed(root(key=key("ec", 9))))
    found["other name"] = with_anchor(chain(root(), leaf()), signed(root("Other")))
    for label, spelt in {
        "PrintableString": cn("Root CA", PRINTABLE), "T61String": cn("Root CA", T61),
        "BMPString": cn("Root CA".encode("utf-16-be"), BMP), "IA5String": cn("Root CA", IA5),
        "case": cn("rOOT ca"), "blanks": cn(" Root   CA "), "tab": cn("Root\tCA"),
        "NumericString": cn("Root CA", 0x12), "soft hyphen": cn("Root\u00ad CA"),
        "no-break blank": cn("Root\u00a0CA"), "full width": cn("\uff32oot CA"),
        "VisibleString": cn("Root CA", 0x1A),
    }.items():  # fmt: skip
        found[f"issuer by {label}"] = chain(root("Root CA"), replace(leaf(), issuer=name(spelt)))
    for label, one, two in (
        ("umlaut case", "Mü", "MÜ"), ("sharp s", "Straße", "STRASSE"), ("ligature", "ﬁ", "fi"),
        ("umlaut", "Mü", "Mü"), ("decomposed", "é", "e\u0301"),
    ):  # fmt: skip
        found[f"issuer by {label}"] = chain(root(one), replace(leaf(), issuer=name(cn(two))))
    found["issuer by Latin-1 T61String"] = chain(
        root("Mü"), replace(leaf(), issuer=name(cn("Mü".encode("latin-1"), T61)))
    )
    two_rdns = name(cn("Root"), der_rdn(ORGANIZATION, b"x"))
    swapped = name(der_rdn(ORGANIZATION, b"x"), cn("Root"))
    found["issuer in another order"] = chain(
        replace(root(), subject=two_rdns), replace(leaf(), issuer=swapped)
    )
    return found


_BASES = {
    "dns": dns("ex.test"), "dns dot": dns(".ex.test"), "dns empty": dns(""),
    "dns caps": dns("EX.Test"),
    "mail host": mail("ex.test"), "mail dot": mail(".ex.test"), "mail one": mail("a@ex.test"),
    "mail empty": mail(""),
    "uri": uri("ex.test"), "uri dot": uri(".ex.test"), "uri empty": uri(""),
    "ip": ip(10, 0, 0, 0, 255, 0, 0, 0), "ip odd mask": ip(10, 0, 0, 1, 255, 0, 0, 1),
    "ip all": ip(*bytes(8)), "ip short": ip(10, 0, 0, 0),
    "directory": directory(der_rdn(ORGANIZATION, b"Ex")),
    "directory caps": directory(der_rdn(ORGANIZATION, b"EX", PRINTABLE)),
    "directory empty": directory(),
    "directory umlaut": directory(der_rdn(ORGANIZATION, "É".encode())),
    "upn": other(UPN, tlv(0x0C, b"a@ex.test")), "id": tlv(0x88, b"\x2a\x03"),
}  # fmt: skip
_NAMES: dict[str, tuple[bytes, tuple[bytes, ...]]] = {
    "none": (name(cn("alice")), ()),
    "empty subject": (name(), (dns("ex.test"),)),
    "dns": (name(cn("alice")), (dns("ex.test"),)),
    "dns below": (name(cn("alice")), (dns("a.EX.test"),)),
    "dns beside": (name(cn("alice")), (dns("a.ex.test"), dns("evil.test"))),
    "dns glued": (name(cn("alice")), (dns("badex.test"),)),
    "dns wildcard": (name(cn("alice")), (dns("*.test"), dns("*.ex.test"))),
    "dns dot": (name(cn("alice")), (dns("ex.test."), dns(".ex.test"))),
    "cn host": (name(cn("ex.test")), ()),
    "cn other host": (name(cn("evil.test")), ()),
    "cn other host by dns": (name(cn("evil.test")), (dns("ex.test"),)),
    "cn other host by mail": (name(cn("evil.test")), (mail("a@ex.test"),)),
    "cn host and blank": (name(cn("evil.test x")), ()),
    "cn dots": (name(cn("a..b")), ()),
    "mail": (name(cn("alice")), (mail("a@ex.test"),)),
    "mail caps": (name(cn("alice")), (mail("A@EX.test"),)),
    "mail below": (name(cn("alice")), (mail("a@b.ex.test"),)),
    "mail other": (name(cn("alice")), (mail("a@evil.test"),)),
    "mail two at": (name(cn("alice")), (mail("a@evil.test@ex.test"),)),
    "mail none": (name(cn("alice")), (mail("ex.test"),)),
    "mail subject": (name(cn("alice"), mailed("a@ex.test")), ()),
    "mail subject other": (name(cn("alice"), mailed("a@evil.test")), ()),
    "mail subject beside": (name(cn("alice"), mailed("a@evil.test")), (mail("a@ex.test"),)),
    "mail subject utf8": (name(cn("alice"), mailed("a@ex.test", UTF8)), ()),
    "mailbox": (name(cn("alice")), (other(MAILBOX, tlv(0x0C, b"a@evil.test")),)),
    "mailbox in": (name(cn("alice")), (other(MAILBOX, tlv(0x0C, b"a@ex.test")),)),
    "uri": (name(cn("alice")), (uri("https://ex.test/a"),)),
    "uri port": (name(cn("alice")), (uri("https://a.ex.test:8/a"),)),
    "uri other": (name(cn("alice")), (uri("https://evil.test/ex.test"),)),
    "uri user": (name(cn("alice")), (uri("https://ex.test:x@evil.test/"),)),
    "uri query": (name(cn("alice")), (uri("https://evil.test?.ex.test/"),)),
    "urn": (name(cn("alice")), (uri("urn:ex.test"),)),
    "ip": (name(cn("alice")), (ip(10, 1, 2, 3),)),
    "ip other": (name(cn("alice")), (ip(11, 1, 2, 3),)),
    "ip 6": (name(cn("alice")), (ip(*bytes(16)),)),
    "directory": (name(der_rdn(ORGANIZATION, b"Ex"), cn("alice")), ()),
    "directory printable": (name(der_rdn(ORGANIZATION, b"ex ", PRINTABLE), cn("alice")), ()),
    "directory other": (name(der_rdn(ORGANIZATION, b"Other"), cn("alice")), ()),
    "directory umlaut": (name(der_rdn(ORGANIZATION, "é".encode()), cn("alice")), ()),
    "directory san": (
        name(der_rdn(ORGANIZATION, b"Ex"), cn("a")),
        (directory(der_rdn(ORGANIZATION, b"Other")),),
    ),
    "upn": (name(cn("alice")), (other(UPN, tlv(0x0C, b"a@evil.test")),)),
    "id": (name(cn("alice")), (tlv(0x88, b"\x2a\x03"),)),
}  # fmt: skip


def constrained(base: str, names: str, *, permitted: bool, critical: bool = True) -> Chain:
    subject, alternative = _NAMES[names]
    given = constraints(*([_BASES[base]], []) if permitted else ([], [_BASES[base]]), critical)
    low = replace(leaf("x", *([san(*alternative)] if alternative else [])), subject=subject)
    return chain(root(), sub("Sub", given), low)


def _constrained(kinds: str) -> dict[str, Chain]:
    return {
        f"{'only' if permitted else 'not'} {base}: {names}": constrained(
            base, names, permitted=permitted
        )
        for base in _BASES
        if base.split()[0] in kinds.split()
        for names in _NAMES
        for permitted in (True, False)
    }


CASES: dict[str, Callable[[], dict[str, Chain]]] = {
    "keys": keys_and_digests,
    "extensions": extensions,
    "anchors": anchors_and_names,
    "dns": lambda: _constrained("dns"),
    "mail": lambda: _constrained("mail"),
    "uri": lambda: _constrained("uri"),
    "ip": lambda: _constrained("ip"),
    "directory": lambda: _constrained("directory upn id"),
}


LIMITED = ("dns", "mail", "uri", "ip", "directory")
_ASKED_MORE = (bytes(10) + b"\xff\xff", b"https://ex.test:x@", b"https://evil.test?", b"*.ex.test")
"""Names about which more is asked than OpenSSL does: an IPv4-mapped address as IPv4, too; a URI of
which OpenSSL takes something else for the host; a wildcard that could be an excluded host."""


def asks_as_openssl(given: Chain) -> bool:
    """Whether the leaf has none of these names."""
    return not any(each in given.leaf for each in _ASKED_MORE)


# -- what is refused here though OpenSSL accepts it

REFUSED_HERE = {
    r"key rsa2040": "112 bits want 2048; OpenSSL rounds up",
    r"leaf key (brainpoolP512t1|sect283k1)": "a curve that `cryptography` doesn't have",
    r"leaf key x25519": "a key that signs nothing",
    r"key dsa2048": "DSA is refused whatever its size",
    r"RFC 3779|policy constraints|inhibit any|mappings": "not processed, so refused",
    r"CA:FALSE, pathlen 1": "a path length without an authority",
    r"by tab": "a control character in a name",
    r"ip short": "a constraint on addresses without a mask",
    r"dns.*: cn dots": "two dots side by side: taken for a host name",
    r"not dns dot: (empty subject|dns|cn)": "`.ex.test` excluded excludes ex.test as well",
    r"mail two at|mailbox|uri (user|query)$": "not plain, so not compared",
    r"not (mail|uri) empty: ": "nothing excluded excludes all",
    r"not mail one: mail caps": "excluded whatever the case of the local part",
}
"""Cases by regular expression, and why."""

FOUND_BY_SEARCH = "self-issued below"
"""Two authorities of one name and no key identifier: OpenSSL tries the first, here both are."""


@pytest.mark.parametrize("group", CASES)
def test_nothing_is_accepted_that_openssl_refuses(group: str) -> None:
    """Every case gets OpenSSL's verdict, or is refused for a reason that is listed."""
    cases = CASES[group]()
    verdicts = openssl_accepts([*cases.values()])
    too_loose, too_strict = [], []
    for (label, given), theirs in zip(cases.items(), verdicts, strict=True):
        ours = sidecar_accepts(given)
        if ours and not theirs and FOUND_BY_SEARCH not in label:
            too_loose.append(label)
        if theirs and not ours and not any(re.search(each, label) for each in REFUSED_HERE):
            too_strict.append(label)
    assert (too_loose, too_strict) == ([], [])
    if group in LIMITED:
        good = [cases[label] for label, theirs in zip(cases, verdicts, strict=True) if theirs]
        assert not any(lost(given) for given in good if asks_as_openssl(given))
    assert any(verdicts)
    assert not all(verdicts)


def test_two_authorities_of_one_name_are_both_tried() -> None:
    """A CA that changed its key without key identifiers: whichever key signed, the chain holds."""
    old, new = root(), replace(root(), key=key("ec", 6))
    for first, second in ((old, new), (new, old)):
        given = Chain((signed(first), signed(second)), (), signed(leaf(), new))
        assert sidecar_accepts(given)


# -- chance


def mangled(octets: bytes, chance: random.Random) -> bytes:
    """An extension with one octet of its value changed, doubled or lost; lengths may lie."""
    at = chance.randrange(2, len(octets))
    new = chance.choice(
        [b"", bytes([octets[at] ^ 1 << chance.randrange(8)]), octets[at : at + 1] * 2]
    )
    body = octets[2:at] + new + octets[at + 1 :]
    return tlv(0x30, body) if chance.random() < 0.8 else octets[:2] + body


def random_case(chance: random.Random, *, mangle: bool = False) -> Chain:
    """A chain of two or three in which a few things are odd, or broken."""

    def broken(parts: list[bytes]) -> tuple[bytes, ...]:
        if mangle and parts and chance.random() < 0.6:
            at = chance.randrange(len(parts))
            parts[at] = mangled(parts[at], chance)
        return tuple(parts)

    few: list[Callable[[], bytes]] = [
        lambda: usage(chance.choice([0x84, 0x84, 0x84, 0x80, 0x0C, 0x04, 0])),
        lambda: extended(CLIENT, *chance.choices([SERVER, ANY], k=chance.randint(0, 2))),
        lambda: extended(*chance.choices([SERVER, ANY, CLIENT], k=chance.randint(0, 2))),
        lambda: extension(UNKNOWN, b"\5\0", chance.random() < 0.2),
        lambda: extension(SKI, tlv(0x04, bytes([chance.choice([1, 1, 1, 2])]) * 20)),
        lambda: extension(AKI, tlv(0x30, tlv(0x80, bytes([chance.choice([1, 1, 1, 2])]) * 20))),
        lambda: extension("2.5.29.31", _CRL_POINTS),
        lambda: extension("2.5.29.32", tlv(0x30, tlv(0x30, der_oid("1.2.3")))),
        lambda: extension("2.5.29.18", tlv(0x30, dns("a.test"))),
        lambda: extension("2.16.840.1.113730.1.1", tlv(0x03, b"\5\xa0")),
        lambda: extension(AIA, _AIA),
    ]
    limits = [base for base in _BASES if base not in ("ip odd mask", "ip short")]

    def some() -> dict[str, bytes]:
        made = (each() for each in chance.sample(few, chance.choice([0, 0, 1, 2])))
        return {octets[:11].hex(): octets for octets in made}

    def authority(text: str, which: int) -> Spec:
        parts = [basic(chance.random() < 0.95, chance.choice([None, None, 0, 1]))]
        if chance.random() < (0.2 if mangle else 0.5):
            bases = [_BASES[each] for each in chance.choices(limits, k=chance.randint(1, 3))]
            at = chance.randint(0, len(bases))
            parts.append(constraints(bases[:at], bases[at:], chance.random() < 0.5))
        subject = name(cn(text), *([der_rdn(ORGANIZATION, b"Ex")] if chance.random() < 0.5 else []))
        return Spec(subject, key("ec", which), broken([*parts, *some().values()]))

    subject, names = _NAMES[chance.choice(list(_NAMES))]
    more = [san(*names)] if names else []
    low = Spec(subject, key("ec", 2), broken([*more, *some().values()]))
    between = [authority("Sub", 1)] if chance.random() < 0.7 else []
    return chain(authority("Root", 0), *between, low)


@pytest.mark.parametrize("mangle", [False, True], ids=["odd", "broken"])
def test_random_chains(mangle: bool) -> None:
    """The same law for chains by chance; MTLS_SIDECAR_CHAINS=10000 tries as many."""
    seed = int(os.environ.get("MTLS_SIDECAR_SEED", "11"))
    count = int(os.environ.get("MTLS_SIDECAR_CHAINS", "120"))
    print("seed", seed)
    chance = random.Random(seed)
    cases = [random_case(chance, mangle=mangle) for _ in range(count)]
    loose = [
        place
        for place, (given, theirs) in enumerate(zip(cases, openssl_accepts(cases), strict=True))
        if sidecar_accepts(given) and not theirs
    ]
    assert loose == []
    assert not any(
        lost(given)
        for given, theirs in zip(cases, openssl_accepts(cases), strict=True)
        if theirs and asks_as_openssl(given)
    )


# -- NIST PKITS


def test_pkits() -> None:
    """Of NIST's end entities, without revocation and policies, none is accepted that it refuses."""
    whole = suite()
    labels = [*ends("Valid"), *ends("Invalid")]
    given, ours = [], []
    for label in labels:
        try:
            leaf_cert = cert(label)
        except MalformedCertificate:
            continue
        between = tuple(each.der for each in whole.intermediates)
        given.append(Chain((cert(ANCHOR).der,), between, leaf_cert.der))
        ours.append(whole.anchors.verified_path(leaf_cert, PKITS_NOW) is not None)
    theirs = openssl_accepts(given, datetime.fromtimestamp(PKITS_NOW, UTC))
    pairs = list(zip(ours, theirs, strict=True))
    assert (True, False) not in pairs
    assert pairs.count((True, True)) > 60

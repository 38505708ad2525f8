"""Chains of certificates, right and wrong on purpose, and what `openssl verify` says of them.

Certificates are put together octet by octet, so that no library's opinion stands in the way.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import cache, partial
from pathlib import Path

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from der import der_int, der_oid, der_rdn, der_time, pem, tlv
from tools import need, openssl

from sidecar.core.errors import MalformedCertificate
from sidecar.core.x509.certificate import from_der
from sidecar.core.x509.path_building import Anchors

NOW = datetime(2026, 6, 1, tzinfo=UTC)
YEAR = timedelta(days=365)

TRUE = tlv(0x01, b"\xff")
CN, ORGANIZATION, EMAIL = "2.5.4.3", "2.5.4.10", "1.2.840.113549.1.9.1"
UTF8, PRINTABLE, T61, IA5, BMP = 0x0C, 0x13, 0x14, 0x16, 0x1E

_DIGESTS = {
    "md5": ("1.2.840.113549.1.1.4", ""),
    "sha1": ("1.2.840.113549.1.1.5", "1.2.840.10045.4.1"),
    "sha224": ("1.2.840.113549.1.1.14", "1.2.840.10045.4.3.1"),
    "sha256": ("1.2.840.113549.1.1.11", "1.2.840.10045.4.3.2"),
    "sha512": ("1.2.840.113549.1.1.13", "1.2.840.10045.4.3.4"),
}
_SHA256_OID = "2.16.840.1.101.3.4.2.1"
_HASHES = {"sha224": hashes.SHA224(), "sha256": hashes.SHA256(), "sha512": hashes.SHA512()}


# -- keys


@dataclass(frozen=True, eq=False)
class Key:
    """A key pair: its SubjectPublicKeyInfo, and how it signs with a digest."""

    spki: bytes
    sign: Callable[[bytes, str], bytes]
    algorithm: Callable[[str], bytes]


def _rsa_algorithm(digest: str) -> bytes:
    return tlv(0x30, der_oid(_DIGESTS[digest][0]), tlv(0x05))


def _ec_algorithm(digest: str) -> bytes:
    return tlv(0x30, der_oid(_DIGESTS[digest][1]))


def _pss_algorithm(_: str, salt: int = 32) -> bytes:
    sha256 = tlv(0x30, der_oid(_SHA256_OID), tlv(0x05))
    mask = tlv(0x30, der_oid("1.2.840.113549.1.1.8"), sha256)
    parts = tlv(0xA0, sha256), tlv(0xA1, mask), tlv(0xA2, der_int(salt))
    return tlv(0x30, der_oid("1.2.840.113549.1.1.10"), tlv(0x30, *parts))


def _plain(dotted: str) -> Callable[[str], bytes]:
    return lambda _: tlv(0x30, der_oid(dotted))


_RSA = ("-algorithm", "RSA", "-pkeyopt")
_PSS_OPTIONS = ("-sigopt", "rsa_padding_mode:pss", "-sigopt", "rsa_pss_saltlen:32")
_PSS_SALT_20 = (
    "-algorithm", "RSA-PSS", "-pkeyopt", "rsa_keygen_bits:2048",
    "-pkeyopt", "rsa_pss_keygen_md:sha256", "-pkeyopt", "rsa_pss_keygen_mgf1_md:sha256",
    "-pkeyopt", "rsa_pss_keygen_saltlen:20",
)  # fmt: skip
_EC_CURVES = (
    "secp112r1", "secp160r1", "prime192v1", "secp224r1", "secp384r1", "secp256k1",
    "brainpoolP256r1", "brainpoolP512t1", "sect283k1",
)  # fmt: skip
_KINDS: dict[str, tuple[tuple[str, ...], Callable[[str], bytes]]] = {
    "rsa512": ((*_RSA, "rsa_keygen_bits:512"), _rsa_algorithm),
    "rsa768": ((*_RSA, "rsa_keygen_bits:768"), _rsa_algorithm),
    "rsa1024": ((*_RSA, "rsa_keygen_bits:1024"), _rsa_algorithm),
    "rsa2040": ((*_RSA, "rsa_keygen_bits:2040"), _rsa_algorithm),
    "rsa2048": ((*_RSA, "rsa_keygen_bits:2048"), _rsa_algorithm),
    "rsa by pss": ((*_RSA, "rsa_keygen_bits:2048"), _pss_algorithm),
    "pss": (("-algorithm", "RSA-PSS", "-pkeyopt", "rsa_keygen_bits:2048"), _pss_algorithm),
    "pss by pkcs1": (("-algorithm", "RSA-PSS", "-pkeyopt", "rsa_keygen_bits:2048"), _rsa_algorithm),
    "pss sha256": (
        (
            "-algorithm", "RSA-PSS", "-pkeyopt", "rsa_keygen_bits:2048",
            "-pkeyopt", "rsa_pss_keygen_md:sha256", "-pkeyopt", "rsa_pss_keygen_mgf1_md:sha256",
            "-pkeyopt", "rsa_pss_keygen_saltlen:32",
        ),
        _pss_algorithm,
    ),
    "pss salt 20": (_PSS_SALT_20, _pss_algorithm),
    "pss salt 20 written": (_PSS_SALT_20, partial(_pss_algorithm, salt=20)),
    "ed25519": (("-algorithm", "ED25519"), _plain("1.3.101.112")),
    "ed448": (("-algorithm", "ED448"), _plain("1.3.101.113")),
    "x25519": (("-algorithm", "X25519"), _plain("1.3.101.112")),
    "sm2": (("-algorithm", "SM2"), _plain("1.2.156.10197.1.501")),
    "explicit": (
        (
            "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256",
            "-pkeyopt", "ec_param_enc:explicit",
        ),
        _ec_algorithm,
    ),
    **{
        curve: (("-algorithm", "EC", "-pkeyopt", f"ec_paramgen_curve:{curve}"), _ec_algorithm)
        for curve in _EC_CURVES
    },
}  # fmt: skip
KINDS = ("ec", "dsa1024", "dsa2048", *_KINDS)


def new_key(kind: str = "ec") -> Key:
    """A new key; all but P-256 are made by openssl, which signs with them, too."""
    if kind == "ec":
        private = ec.generate_private_key(ec.SECP256R1())
        spki = private.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        return Key(spki, lambda d, h: private.sign(d, ec.ECDSA(_HASHES[h])), _ec_algorithm)
    if kind.startswith("dsa"):
        private_pem = _dsa(kind.removeprefix("dsa"))
        algorithm = _plain("2.16.840.1.101.3.4.3.2")
    else:
        options, algorithm = _KINDS[kind]
        private_pem = _output("genpkey", *options)
    spki = _with_key(private_pem, "pkey", "-pubout", "-outform", "DER", "-in")
    return Key(spki, lambda data, digest: _sign(private_pem, kind, data, digest), algorithm)


@cache
def key(kind: str = "ec", which: int = 0) -> Key:
    """The same key each time for the same `which`."""
    return new_key(kind)


def _dsa(size: str) -> bytes:
    with tempfile.TemporaryDirectory() as place:
        parameters = Path(place, "parameters.pem")
        made = _output("genpkey", "-genparam", "-algorithm", "DSA", "-pkeyopt",
                       f"dsa_paramgen_bits:{size}")  # fmt: skip
        parameters.write_bytes(made)
        return _output("genpkey", "-paramfile", str(parameters))


def _output(*arguments: str) -> bytes:
    done = need(openssl()).run(*arguments, check=True, text=False)
    return done.stdout  # type: ignore[return-value]


def _with_key(private_pem: bytes, *arguments: str) -> bytes:
    with tempfile.TemporaryDirectory() as place:
        Path(place, "key.pem").write_bytes(private_pem)
        return _output(*arguments, str(Path(place, "key.pem")))


def _sign(private_pem: bytes, kind: str, data: bytes, digest: str) -> bytes:
    with tempfile.TemporaryDirectory() as place:
        key_file, data_file = Path(place, "key.pem"), Path(place, "data")
        key_file.write_bytes(private_pem)
        data_file.write_bytes(data)
        if kind in ("ed25519", "ed448"):
            return _output("pkeyutl", "-sign", "-rawin", "-inkey", str(key_file), "-in",
                           str(data_file))  # fmt: skip
        options = _PSS_OPTIONS if "pss" in kind and kind != "pss by pkcs1" else ()
        if kind == "pss salt 20 written":
            options = (*options[:-1], "rsa_pss_saltlen:20")
        if kind == "pss by pkcs1":
            return bytes(256)
        return _output("dgst", f"-{digest}", *options, "-sign", str(key_file), str(data_file))


# -- names and extensions


def name(*rdns: bytes) -> bytes:
    return tlv(0x30, *rdns)


def cn(text: str | bytes, tag: int = UTF8) -> bytes:
    return der_rdn(CN, text.encode() if isinstance(text, str) else text, tag)


def extension(oid: str, value: bytes, critical: bool = False) -> bytes:
    return tlv(0x30, der_oid(oid), TRUE if critical else b"", tlv(0x04, value))


def basic(ca: bool = True, length: int | None = None, critical: bool = True) -> bytes:
    parts = (TRUE if ca else b"", b"" if length is None else der_int(length))
    return extension("2.5.29.19", tlv(0x30, *parts), critical)


def usage(octet: int, critical: bool = True) -> bytes:
    """The keyUsage's first eight bits: 0x80 digitalSignature, 0x08 keyAgreement, 0x04 certSign."""
    return extension("2.5.29.15", tlv(0x03, b"\0", bytes([octet])), critical)


def extended(*usages: str, critical: bool = False) -> bytes:
    return extension("2.5.29.37", tlv(0x30, *map(der_oid, usages)), critical)


CLIENT, SERVER, ANY = "1.3.6.1.5.5.7.3.2", "1.3.6.1.5.5.7.3.1", "2.5.29.37.0"


def dns(text: str) -> bytes:
    return tlv(0x82, text.encode())


def mail(text: str) -> bytes:
    return tlv(0x81, text.encode())


def uri(text: str) -> bytes:
    return tlv(0x86, text.encode())


def ip(*octets: int) -> bytes:
    return tlv(0x87, bytes(octets))


def directory(*rdns: bytes) -> bytes:
    return tlv(0xA4, name(*rdns))


def other(oid: str, value: bytes) -> bytes:
    return tlv(0xA0, der_oid(oid), tlv(0xA0, value))


def san(*names: bytes, critical: bool = False) -> bytes:
    return extension("2.5.29.17", tlv(0x30, *names), critical)


def constraints(
    permitted: Sequence[bytes] = (), excluded: Sequence[bytes] = (), critical: bool = True
) -> bytes:
    parts = [
        tlv(tag, *(tlv(0x30, base) for base in bases))
        for tag, bases in ((0xA0, permitted), (0xA1, excluded))
        if bases
    ]
    return extension("2.5.29.30", tlv(0x30, *parts), critical)


# -- certificates


@dataclass(frozen=True)
class Spec:
    """One certificate of a chain, before it is signed."""

    subject: bytes
    key: Key = field(default_factory=key)
    extensions: tuple[bytes, ...] = ()
    digest: str = "sha256"
    version: int = 2
    serial: int = 1
    start: datetime = NOW - YEAR
    end: datetime = NOW + YEAR
    issuer: bytes | None = None


def root(text: str = "Root", *more: bytes, key: Key | None = None) -> Spec:
    return Spec(name(cn(text)), key or _key(0), (basic(), *more))


def sub(text: str = "Sub", *more: bytes, key: Key | None = None) -> Spec:
    return Spec(name(cn(text)), key or _key(1), (basic(), *more))


def leaf(text: str = "alice", *more: bytes, key: Key | None = None) -> Spec:
    return Spec(name(cn(text)), key or _key(2), more)


def _key(which: int) -> Key:
    return key("ec", which)


def signed(spec: Spec, by: Spec | None = None) -> bytes:
    """The certificate, DER, signed by another's key or its own; the same one each time."""
    by = by or spec
    return _signed(spec, by.key, spec.issuer or by.subject)


@cache
def _signed(spec: Spec, by: Key, issuer: bytes) -> bytes:
    algorithm = by.algorithm(spec.digest)
    tbs = tlv(
        0x30,
        tlv(0xA0, der_int(spec.version)) if spec.version else b"",
        der_int(spec.serial),
        algorithm,
        issuer,
        tlv(0x30, der_time(spec.start), der_time(spec.end)),
        spec.subject,
        spec.key.spki,
        tlv(0xA3, tlv(0x30, *spec.extensions)) if spec.extensions else b"",
    )
    return tlv(0x30, tbs, algorithm, tlv(0x03, b"\0", by.sign(tbs, spec.digest)))


@dataclass(frozen=True)
class Chain:
    """What a verifier is given."""

    anchors: tuple[bytes, ...]
    between: tuple[bytes, ...]
    leaf: bytes


def chain(*specs: Spec, anchor: int = 0) -> Chain:
    """From the root down to the leaf; `anchor` is the place of the one that is trusted."""
    made = [signed(spec, by) for spec, by in zip(specs, (None, *specs[:-1]), strict=True)]
    return Chain((made[anchor],), tuple(made[anchor + 1 : -1]), made[-1])


def with_anchor(base: Chain, *anchors: bytes) -> Chain:
    return replace(base, anchors=anchors)


def sidecar_accepts(chain: Chain, now: float = NOW.timestamp()) -> bool:
    """Whether the sidecar verifies the chain; a certificate that can't be read is refused."""
    try:
        anchors, between = map(from_der, chain.anchors), map(from_der, chain.between)
        return Anchors([*anchors], [*between]).verified_path(from_der(chain.leaf), now) is not None
    except MalformedCertificate:
        return False


def openssl_accepts(chains: Sequence[Chain], now: datetime = NOW) -> list[bool]:
    """Whether `openssl verify` accepts each; those with the same authorities are asked at once."""
    groups: dict[tuple[object, ...], list[int]] = {}
    for place, each in enumerate(chains):
        groups.setdefault((each.anchors, each.between), []).append(place)
    good: set[int] = set()
    for places in groups.values():
        good |= _accepted(chains, places, now)
    return [place in good for place in range(len(chains))]


def _accepted(chains: Sequence[Chain], places: Sequence[int], now: datetime) -> set[int]:
    """Which of the chains at these places, all with the same authorities, are accepted."""
    first = chains[places[0]]
    with tempfile.TemporaryDirectory() as directory:
        files = {"ca": first.anchors, "between": first.between}
        files |= {str(place): (chains[place].leaf,) for place in places}
        for stem, certs in files.items():
            text = b"".join(pem("CERTIFICATE", der) for der in certs)
            Path(directory, stem).write_bytes(text)
        options = ["-partial_chain", "-purpose", "sslclient", "-auth_level", "2"]
        options += ["-attime", str(int(now.timestamp())), "-no-CApath", "-no-CAstore"]
        options += ["-CAfile", "ca", *(["-untrusted", "between"] if first.between else [])]
        done = need(openssl()).run("verify", *options, *map(str, places), cwd=directory)
    return {place for place in places if f"{place}: OK" in done.stdout.splitlines()}

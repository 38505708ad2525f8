"""A test PKI that reads like a sentence.

    staff = CA("Staff")
    alice = staff.issue("alice", dns=["alice.example.com"], ou=["SRE"])
    staff.crl([alice])

Everything is made in memory, EC P-256 unless `key="rsa"`.  What the certificate builder refuses
(control characters, two extensions alike, a serial below one) comes from `CA.forge`, and any other
structure from `CA.sign_tbs`.
"""

from __future__ import annotations

import hashlib
import ipaddress
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Literal
from urllib.parse import quote

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from der import der_extension, der_int, der_oid, der_rdn, der_time, pem, tlv

CLIENT_AUTH = ExtendedKeyUsageOID.CLIENT_AUTH
SERVER_AUTH = ExtendedKeyUsageOID.SERVER_AUTH
OCSP_SIGNING = ExtendedKeyUsageOID.OCSP_SIGNING
UPN = x509.ObjectIdentifier("1.3.6.1.4.1.311.20.2.3")

Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
KeyKind = Literal["ec", "rsa"]
Extension = tuple[x509.ExtensionType, bool]
"""An extension, and whether it is critical."""


def now() -> datetime:
    """The moment, in whole seconds as X.509 has them."""
    return datetime.now(UTC).replace(microsecond=0)


def new_key(kind: KeyKind = "ec") -> Key:
    if kind == "rsa":
        return rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return ec.generate_private_key(ec.SECP256R1())


# -- what was issued


@dataclass(frozen=True, eq=False)
class Leaf:
    """A certificate with its key.  `der` may be one that no library reads."""

    name: str
    der: bytes
    private: Key
    issuer: CA | None = None

    @cached_property
    def cert(self) -> x509.Certificate:
        return x509.load_der_x509_certificate(self.der)

    @property
    def pem(self) -> bytes:
        return pem("CERTIFICATE", self.der)

    @property
    def chain_pem(self) -> bytes:
        """The certificate and the intermediates above it, without the root: what TLS sends."""
        found, above = self.pem, self.issuer
        while above is not None and above.issuer is not None:
            found, above = found + above.pem, above.issuer
        return found

    @property
    def escaped(self) -> bytes:
        """As nginx's $ssl_client_escaped_cert: all but A-Za-z0-9-_.~ as %XX."""
        return quote(self.pem, safe="").encode()

    @property
    def key_pem(self) -> bytes:
        return self.private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())

    @property
    def serial(self) -> int:
        return self.cert.serial_number

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.der).hexdigest()

    @property
    def spki_sha256(self) -> str:
        return hashlib.sha256(spki(self.private)).hexdigest()

    def write(self, directory: Path) -> tuple[Path, Path]:
        """Write NAME.pem (with its intermediates) and NAME.key."""
        return _write(directory, self.name, self.chain_pem, self.key_pem)


# -- who issues


class CA:
    """An authority: a self-signed root, or an intermediate from `intermediate`."""

    def __init__(
        self,
        name: str = "Test CA",
        *,
        key: KeyKind | Key = "ec",
        issuer: CA | None = None,
        not_before: datetime | None = None,
        not_after: datetime | None = None,
        path_length: int | None = None,
        extra_extensions: Iterable[Extension] = (),
        subject: x509.Name | None = None,
    ) -> None:
        self.name, self.issuer = name, issuer
        self.key: Key = new_key(key) if isinstance(key, str) else key
        subject = subject or x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        builder = _builder(subject, issuer.subject if issuer else subject, self.key)
        builder = _validity(builder, not_before, not_after, days=3650)
        for extension, critical in [
            (x509.BasicConstraints(ca=True, path_length=path_length), True),
            (_key_usage(ca=True), True),
            (x509.SubjectKeyIdentifier.from_public_key(self.key.public_key()), False),
            (_issued_by(issuer.key if issuer else self.key), False),
            *extra_extensions,
        ]:
            builder = builder.add_extension(extension, critical)
        self.cert = builder.sign((issuer or self).key, hashes.SHA256())

    @property
    def subject(self) -> x509.Name:
        return self.cert.subject

    @property
    def der(self) -> bytes:
        return self.cert.public_bytes(Encoding.DER)

    @property
    def pem(self) -> bytes:
        return self.cert.public_bytes(Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        return self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())

    @property
    def serial(self) -> int:
        return self.cert.serial_number

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.der).hexdigest()

    def write(self, directory: Path) -> tuple[Path, Path]:
        """Write NAME.pem (this certificate alone) and NAME.key."""
        return _write(directory, self.name, self.pem, self.key_pem)

    def intermediate(self, name: str = "Issuing", *, path_length: int | None = None) -> CA:
        """An authority under this one."""
        return CA(name, issuer=self, path_length=path_length)

    def issue(
        self,
        cn: str = "",
        *,
        cns: Sequence[str] = (),
        o: str | Sequence[str] = (),
        ou: str | Sequence[str] = (),
        dns: Sequence[str] = (),
        uri: Sequence[str] = (),
        email: Sequence[str] = (),
        ip: Sequence[str] = (),
        upn: Sequence[str] = (),
        eku: Sequence[x509.ObjectIdentifier] = (CLIENT_AUTH,),
        policies: Sequence[str] = (),
        serial: int | None = None,
        not_before: datetime | None = None,
        not_after: datetime | None = None,
        key: KeyKind | Key = "ec",
        extra_extensions: Iterable[Extension] = (),
    ) -> Leaf:
        """A client certificate.  `cns` are several CNs, instead of `cn`; without any, none."""
        private = new_key(key) if isinstance(key, str) else key
        commons = list(cns) or ([cn] if cn else [])
        builder = _builder(_name(commons, _many(o), _many(ou)), self.subject, private, serial)
        builder = _validity(builder, not_before, not_after, days=365)
        names = _general_names(dns, uri, email, ip, upn)
        found: list[Extension] = [
            (x509.BasicConstraints(ca=False, path_length=None), True),
            (_key_usage(ca=False), True),
            (_issued_by(self.key), False),
        ]
        if eku:
            found.append((x509.ExtendedKeyUsage(eku), False))
        if names:
            found.append((x509.SubjectAlternativeName(names), not commons))
        if policies:
            found.append((x509.CertificatePolicies([_policy(each) for each in policies]), False))
        for extension, critical in [*found, *extra_extensions]:
            builder = builder.add_extension(extension, critical)
        cert = builder.sign(self.key, hashes.SHA256())
        label = commons[0] if commons else "client"
        return Leaf(label, cert.public_bytes(Encoding.DER), private, self)

    def server(self, *dns: str) -> Leaf:
        """A server's certificate for these names (default localhost) and for 127.0.0.1."""
        names = list(dns) or ["localhost"]
        return self.issue(names[0], dns=names, ip=["127.0.0.1"], eku=[SERVER_AUTH])

    def crl(
        self,
        revoked: Iterable[Leaf | CA | int | x509.RevokedCertificate] = (),
        *,
        this_update: datetime | None = None,
        next_update: datetime | None = None,
        number: int | None = 1,
        der: bool = False,
        delta_base: int | None = None,
        idp: x509.IssuingDistributionPoint | None = None,
        key: CA | Key | None = None,
        extra_extensions: Iterable[Extension] = (),
    ) -> bytes:
        """A CRL, PEM unless `der`, for a day from an hour ago.  `key` signs in our name."""
        start = this_update or now() - timedelta(hours=1)
        builder = x509.CertificateRevocationListBuilder(
            issuer_name=self.subject,
            last_update=start,
            next_update=next_update or max(start, now()) + timedelta(days=1),
        )
        for entry in revoked:
            builder = builder.add_revoked_certificate(_entry(entry, start))
        extensions: list[Extension] = [(_issued_by(self.key), False)]
        if number is not None:
            extensions.append((x509.CRLNumber(number), False))
        if delta_base is not None:
            extensions.append((x509.DeltaCRLIndicator(delta_base), True))
        if idp is not None:
            extensions.append((idp, True))
        for extension, critical in [*extensions, *extra_extensions]:
            builder = builder.add_extension(extension, critical)
        signer = key.key if isinstance(key, CA) else key or self.key
        return builder.sign(signer, hashes.SHA256()).public_bytes(
            Encoding.DER if der else Encoding.PEM
        )

    # -- what the builder refuses

    def sign_tbs(self, tbs: bytes, algorithm: bytes = b"") -> bytes:
        """SEQUENCE {tbs, algorithm, signature}: any certificate or CRL, as DER."""
        signature = _sign(self.key, tbs)
        return tlv(0x30, tbs, algorithm or _algorithm(self.key), tlv(0x03, b"\0", signature))

    def forge(
        self,
        cn: str = "alice",
        *,
        cns: Sequence[str] = (),
        dns: Sequence[str] = (),
        serial: int = 4711,
        subject: bytes | None = None,
        issuer: bytes | None = None,
        algorithm: bytes = b"",
        extensions: Sequence[bytes] = (),
        repeat_extensions: bool = False,
        not_before: datetime | None = None,
        not_after: datetime | None = None,
        usage: x509.ObjectIdentifier = CLIENT_AUTH,
    ) -> Leaf:
        """A signed certificate with these very values, however wrong they are.

        `cn`, `cns` and `dns` may carry any character, `serial` any number.  `subject` and `issuer`
        are Names, `extensions` are Extensions and `algorithm` is the signature's, DER.
        `repeat_extensions` puts the first one in twice.
        """
        private = new_key()
        if subject is None:
            rdns = [der_rdn("2.5.4.3", each.encode()) for each in cns or [cn]]
            subject = tlv(0x30, *rdns)
        found = [der_extension(x509.ExtendedKeyUsage([usage])), *extensions]
        if dns:
            san = tlv(0x30, *(tlv(0x82, each.encode()) for each in dns))
            found.append(tlv(0x30, der_oid("2.5.29.17"), tlv(0x04, san)))
        if repeat_extensions:
            found.insert(1, found[0])
        start = not_before or now() - timedelta(days=1)
        tbs = tlv(
            0x30,
            tlv(0xA0, der_int(2)),
            der_int(serial),
            algorithm or _algorithm(self.key),
            issuer or self.subject.public_bytes(),
            tlv(0x30, der_time(start), der_time(not_after or start + timedelta(days=365))),
            subject,
            spki(private),
            tlv(0xA3, tlv(0x30, *found)),
        )
        return Leaf(cn, self.sign_tbs(tbs, algorithm), private, self)


# -- the parts


def spki(key: Key) -> bytes:
    """The SubjectPublicKeyInfo, DER."""
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _many(values: str | Sequence[str]) -> list[str]:
    return [values] if isinstance(values, str) else list(values)


def _name(cns: Iterable[str], o: Iterable[str], ou: Iterable[str]) -> x509.Name:
    pairs = [(NameOID.ORGANIZATION_NAME, each) for each in o]
    pairs += [(NameOID.ORGANIZATIONAL_UNIT_NAME, each) for each in ou]
    pairs += [(NameOID.COMMON_NAME, each) for each in cns]
    return x509.Name([x509.NameAttribute(oid, value) for oid, value in pairs])


def _general_names(
    dns: Iterable[str],
    uri: Iterable[str],
    email: Iterable[str],
    ip: Iterable[str],
    upn: Iterable[str],
) -> list[x509.GeneralName]:
    names: list[x509.GeneralName] = [x509.DNSName(each) for each in dns]
    names += [x509.UniformResourceIdentifier(each) for each in uri]
    names += [x509.RFC822Name(each) for each in email]
    names += [x509.IPAddress(ipaddress.ip_address(each)) for each in ip]
    names += [x509.OtherName(UPN, tlv(0x0C, each.encode())) for each in upn]
    return names


def _policy(dotted: str) -> x509.PolicyInformation:
    return x509.PolicyInformation(x509.ObjectIdentifier(dotted), None)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: Key, serial: int | None = None
) -> x509.CertificateBuilder:
    return x509.CertificateBuilder(
        subject_name=subject,
        issuer_name=issuer,
        public_key=key.public_key(),
        serial_number=serial if serial is not None else x509.random_serial_number(),
    )


def _validity(
    builder: x509.CertificateBuilder, start: datetime | None, end: datetime | None, days: int
) -> x509.CertificateBuilder:
    end = end or now() + timedelta(days=days)
    start = start or min(now(), end) - timedelta(days=1)
    return builder.not_valid_before(start).not_valid_after(end)


def _key_usage(*, ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=ca,
        crl_sign=ca,
        encipher_only=False,
        decipher_only=False,
    )


def _issued_by(key: Key) -> x509.AuthorityKeyIdentifier:
    return x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key())


def _entry(
    what: Leaf | CA | int | x509.RevokedCertificate, at: datetime
) -> x509.RevokedCertificate:
    if isinstance(what, x509.RevokedCertificate):
        return what
    serial = what if isinstance(what, int) else what.serial
    return x509.RevokedCertificateBuilder(serial_number=serial, revocation_date=at).build()


def _sign(key: Key, data: bytes) -> bytes:
    if isinstance(key, rsa.RSAPrivateKey):
        return key.sign(data, padding.PKCS1v15(), hashes.SHA256())
    return key.sign(data, ec.ECDSA(hashes.SHA256()))


def _algorithm(key: Key) -> bytes:
    """The AlgorithmIdentifier of `_sign`."""
    if isinstance(key, rsa.RSAPrivateKey):
        return tlv(0x30, der_oid("1.2.840.113549.1.1.11"), tlv(0x05))
    return tlv(0x30, der_oid("1.2.840.10045.4.3.2"))


def _write(directory: Path, name: str, cert: bytes, key: bytes) -> tuple[Path, Path]:
    stem = re.sub(r"[^A-Za-z0-9._@-]+", "-", name).strip(".-") or "unnamed"
    paths = directory / f"{stem}.pem", directory / f"{stem}.key"
    directory.mkdir(parents=True, exist_ok=True)
    paths[0].write_bytes(cert)
    paths[1].write_bytes(key)
    paths[1].chmod(0o600)
    return paths

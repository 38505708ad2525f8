"""Build certificates as RFC 5280 wants them: clients' by a profile, and an issuing CA's own."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from .settings import Profile
from .subject_templates import dns_name, mail_address, uri

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
PublicKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey | ed25519.Ed25519PublicKey

BACKDATED = timedelta(minutes=5)
"""By how much a certificate begins before now: clocks of devices differ."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Whom a certificate is for: everything that goes into its names."""

    name: str
    device: str
    profile: Profile

    def subject(self) -> x509.Name:
        """The subject: CN, and O and OU of the profile."""
        attributes = [x509.NameAttribute(NameOID.COMMON_NAME, self.name)]
        if self.profile.o:
            attributes.append(x509.NameAttribute(NameOID.ORGANIZATION_NAME, self.profile.o))
        attributes += [
            x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, each) for each in self.profile.ou
        ]
        return x509.Name(attributes[::-1])

    def alternative_names(self) -> list[x509.GeneralName]:
        """The subject alternative names.  Raises ValueError where a template doesn't fit."""
        profile, name, device = self.profile, self.name, self.device
        return [
            *(dns_name(each, name, device) for each in profile.dns),
            *(mail_address(each, name, device) for each in profile.email),
            *(uri(each, name, device) for each in profile.uri),
        ]


def new_key(kind: str) -> PrivateKey:
    """Make a private key of one of `KEY_TYPES`."""
    if kind.startswith("rsa-"):
        size = int(kind.removeprefix("rsa-"))
        return rsa.generate_private_key(public_exponent=65537, key_size=size)
    return ec.generate_private_key(ec.SECP384R1() if kind == "ec-p384" else ec.SECP256R1())


def usage(key: PublicKey | None) -> x509.KeyUsage:
    """keyUsage of a client's key, or with None of a CA's."""
    ca = key is None
    return x509.KeyUsage(
        digital_signature=not ca,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=ca,
        crl_sign=ca,
        encipher_only=False,
        decipher_only=False,
    )


def client_certificate(
    identity: Identity,
    key: PublicKey,
    issuer: x509.Certificate,
    now: datetime,
) -> x509.CertificateBuilder:
    """Describe a client's certificate; the caller signs it.  Raises ValueError.

    It ends no later than its issuer does.
    """
    start, end = validity(identity.profile, issuer, now)
    builder = (
        x509.CertificateBuilder()
        .subject_name(identity.subject())
        .issuer_name(issuer.subject)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(end)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(usage(key), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        .add_extension(authority_key(issuer), critical=False)
    )
    if names := identity.alternative_names():
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return builder


def validity(
    profile: Profile, issuer: x509.Certificate, now: datetime
) -> tuple[datetime, datetime]:
    """Return from when to when a certificate is valid.  Raises ValueError."""
    now = now.replace(microsecond=0)
    start = max(now - BACKDATED, issuer.not_valid_before_utc)
    end = min(now + timedelta(seconds=profile.validity), issuer.not_valid_after_utc)
    if not start <= now < end:
        text = f"{issuer.not_valid_before_utc:%Y-%m-%d} to {issuer.not_valid_after_utc:%Y-%m-%d}"
        raise ValueError(f"the CA's certificate is valid from {text}, not now")
    return start, end


def authority_key(issuer: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    """Return the issuer's key identifier, as its own certificate spells it."""
    try:
        found = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    except x509.ExtensionNotFound:
        return x509.AuthorityKeyIdentifier.from_issuer_public_key(_signing_key(issuer))
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(found)


def _signing_key(issuer: x509.Certificate) -> ec.EllipticCurvePublicKey | rsa.RSAPublicKey:
    key = issuer.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey | rsa.RSAPublicKey):
        raise ValueError("the CA's key is neither RSA nor EC")
    return key


def ca_certificate(name: str, key: PrivateKey, now: datetime, days: int) -> x509.CertificateBuilder:
    """Describe a self-signed issuing CA that is good for clients' certificates and nothing else."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    start = now.replace(microsecond=0)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start - BACKDATED)
        .not_valid_after(start + timedelta(days=days))
    )
    for extension, critical in ca_extensions(key):
        builder = builder.add_extension(extension, critical)
    found = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    issuer = x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(found)
    return builder.add_extension(issuer, critical=False)


def ca_extensions(key: PrivateKey) -> list[tuple[x509.ExtensionType, bool]]:
    """Return what an issuing CA's certificate, or its CSR to an offline root, has."""
    return [
        (x509.BasicConstraints(ca=True, path_length=0), True),
        (usage(None), True),
        # A device that trusts this CA must not take a web server's certificate from it.
        (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), False),
        (x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False),
    ]


def now_utc(moment: float) -> datetime:
    """Convert seconds since the epoch."""
    return datetime.fromtimestamp(moment, UTC)

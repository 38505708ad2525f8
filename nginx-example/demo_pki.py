"""The demo's PKI: python demo_pki.py DIRECTORY.  For a demo only: the CA's keys aren't kept.

Makes nginx/pki/ (what nginx.conf names), sidecar/pki/ (what policy.yaml names), server-ca.crt and
NAME.pem (certificate and key) for each client, valid for a week.
"""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

NOW = datetime.now(UTC).replace(microsecond=0)
START, END = NOW - timedelta(hours=1), NOW + timedelta(days=7)
SERVER_NAMES = ["app.example.com", "*.customers.example.com", "localhost"]

Key = ec.EllipticCurvePrivateKey


class Authority:
    """A root, which issues certificates and a CRL."""

    def __init__(self, name: str) -> None:
        self.key, self.name = new_key(), named(name)
        basic = x509.BasicConstraints(ca=True, path_length=None)
        self.cert = sign(self.name, self.key, self, (basic, True), (usage(ca=True), True))

    def issue(self, cn: str, dns: list[str], *, server: bool = False) -> tuple[bytes, bytes]:
        """Certificate and key, PEM."""
        key = new_key()
        purpose = ExtendedKeyUsageOID.SERVER_AUTH if server else ExtendedKeyUsageOID.CLIENT_AUTH
        extensions: list[tuple[x509.ExtensionType, bool]] = [
            (x509.BasicConstraints(ca=False, path_length=None), True),
            (usage(ca=False), True),
            (x509.ExtendedKeyUsage([purpose]), False),
        ]
        if dns:
            extensions.append((x509.SubjectAlternativeName(list(map(x509.DNSName, dns))), False))
        cert = sign(named(cn), key, self, *extensions)
        secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        return pem(cert), secret

    def crl(self) -> bytes:
        """An empty one, for the week."""
        builder = x509.CertificateRevocationListBuilder(self.name, START, END)
        builder = builder.add_extension(x509.CRLNumber(1), False)
        builder = builder.add_extension(issued_by(self.key), False)
        return builder.sign(self.key, hashes.SHA256()).public_bytes(Encoding.PEM)


def new_key() -> Key:
    return ec.generate_private_key(ec.SECP256R1())


def named(cn: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, cn)])


def pem(cert: x509.Certificate) -> bytes:
    return cert.public_bytes(Encoding.PEM)


def issued_by(key: Key) -> x509.AuthorityKeyIdentifier:
    return x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key())


def usage(*, ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(not ca, False, False, False, False, ca, ca, False, False)


def sign(
    name: x509.Name, key: Key, issuer: Authority, *extensions: tuple[x509.ExtensionType, bool]
) -> x509.Certificate:
    serial = x509.random_serial_number()
    builder = x509.CertificateBuilder(issuer.name, name, key.public_key(), serial, START, END)
    ski = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    for extension, critical in [*extensions, (ski, False), (issued_by(issuer.key), False)]:
        builder = builder.add_extension(extension, critical)
    return builder.sign(issuer.key, hashes.SHA256())


def write(path: Path, data: bytes, mode: int = 0o644) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode)
    path.chmod(mode)
    path.write_bytes(data)


def main(directory: Path) -> None:
    staff, partners = Authority("Demo Staff CA"), Authority("Demo Partners CA")
    servers = Authority("Demo Server CA")
    cert, key = servers.issue(SERVER_NAMES[0], SERVER_NAMES, server=True)
    write(directory / "nginx/pki/server.crt", cert)
    write(directory / "nginx/pki/server.key", key, 0o600)
    write(directory / "nginx/pki/client-cas.crt", pem(staff.cert) + pem(partners.cert))
    write(directory / "sidecar/pki/staff-ca.crt", pem(staff.cert))
    write(directory / "sidecar/pki/staff.crl", staff.crl())
    write(directory / "sidecar/pki/partners-ca.crt", pem(partners.cert))
    write(directory / "server-ca.crt", pem(servers.cert))
    for authority, cn, dns in [
        (staff, "alice", []),
        (staff, "bob", []),
        (staff, "acme", ["acme.customers.example.com"]),
        (partners, "partner", []),
    ]:
        write(directory / f"{cn}.pem", b"".join(authority.issue(cn, dns)), 0o600)


if __name__ == "__main__":
    main(Path(sys.argv[1]))

"""Authorities, responders and OCSP responses for tests, right and wrong on purpose.

`respond` asks the real `openssl ocsp`; `craft` signs a hand-made ResponseData, for what no
responder would send.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Protocol

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509 import ocsp
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from der import tlv
from tools import need, openssl

OCSP_SIGNING = ExtendedKeyUsageOID.OCSP_SIGNING


class HasDer(Protocol):
    """Something with the octets of a certificate."""

    @property
    def der(self) -> bytes: ...


@dataclass(frozen=True)
class Pair:
    """A certificate and its key."""

    cert: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def der(self) -> bytes:
        return self.cert.public_bytes(Encoding.DER)

    def write(self, directory: Path, name: str) -> None:
        """Write NAME.pem and NAME.key."""
        pem = self.cert.public_bytes(Encoding.PEM)
        key = self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        (directory / f"{name}.pem").write_bytes(pem)
        (directory / f"{name}.key").write_bytes(key)


def name(cn: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, cn)])


def issue(
    cn: str,
    issuer: Pair | None = None,
    *,
    ca: bool = False,
    eku: Sequence[x509.ObjectIdentifier] = (),
    extra: Iterable[tuple[x509.ExtensionType, bool]] = (),
    serial: int | None = None,
    days: tuple[float, float] = (-1, 30),
    more: Iterable[x509.NameAttribute[str]] = (),
) -> Pair:
    """A certificate signed by `issuer` (or by itself), valid from and to `days` from now.

    `more` stands in the subject behind the CN.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([*name(cn), *more]))
        .issuer_name(issuer.cert.subject if issuer else name(cn))
        .public_key(key.public_key())
        .serial_number(serial or x509.random_serial_number())
        .not_valid_before(now + timedelta(days=days[0]))
        .not_valid_after(now + timedelta(days=days[1]))
        .add_extension(x509.BasicConstraints(ca, None), critical=True)
    )
    if eku:
        builder = builder.add_extension(x509.ExtendedKeyUsage(eku), critical=False)
    for extension, critical in extra:
        builder = builder.add_extension(extension, critical)
    return Pair(builder.sign(issuer.key if issuer else key, hashes.SHA256()), key)


@cache
def authority(cn: str = "Test CA") -> Pair:
    return issue(cn, ca=True)


@cache
def leaf(cn: str = "alice") -> Pair:
    return issue(cn, authority())


# -- the real responder ------------------------------------------------------------------------


def write_index(path: Path, *, good: Iterable[Pair] = (), revoked: Iterable[Pair] = ()) -> None:
    """The `index.txt` of `openssl ca`, which `openssl ocsp` answers from."""
    need(openssl())
    lines = []
    for flag, pairs in (("V", good), ("R", revoked)):
        for pair in pairs:
            end = pair.cert.not_valid_after_utc.strftime("%y%m%d%H%M%SZ")
            at = datetime.now(UTC).strftime("%y%m%d%H%M%SZ,keyCompromise") if flag == "R" else ""
            serial = f"{pair.cert.serial_number:X}"
            serial = serial.zfill(len(serial) + len(serial) % 2)
            lines.append(f"{flag}\t{end}\t{at}\t{serial}\tunknown\t/CN=x\n")
    path.write_text("".join(lines))


def respond(directory: Path, request: bytes, signer: Pair, ca: Pair, *options: str) -> bytes:
    """What `openssl ocsp` answers from DIRECTORY/index.txt."""
    signer.write(directory, "signer")
    ca.write(directory, "ca")
    (directory / "req.der").write_bytes(request)
    command = ["ocsp", "-index", "index.txt", "-CA", "ca.pem", "-rsigner", "signer.pem"]
    command += ["-rkey", "signer.key", "-reqin", "req.der", "-respout", "resp.der", *options]
    need(openssl()).run(*command, cwd=directory, check=True)
    return (directory / "resp.der").read_bytes()


# -- hand-made responses -----------------------------------------------------------------------


def generalized(at: datetime) -> bytes:
    """GeneralizedTime, which OCSP has for every date."""
    return tlv(0x18, at.strftime("%Y%m%d%H%M%SZ").encode())


def extension(oid: bytes, critical: bool, value: bytes = b"\x05\x00") -> bytes:
    flag = tlv(0x01, b"\xff") if critical else b""
    return tlv(0x30, tlv(0x06, oid), flag, tlv(0x04, value))


def single(
    cert: x509.Certificate,
    issuer: x509.Certificate,
    *,
    status: bytes = b"\x80\x00",
    algorithm: hashes.HashAlgorithm | None = None,
    extensions: Sequence[bytes] = (),
    start: float = -60,
    end: float | None = 3600,
) -> bytes:
    """One SingleResponse; `start` and `end` are seconds from now."""
    request = ocsp.OCSPRequestBuilder().add_certificate(cert, issuer, algorithm or hashes.SHA1())
    # OCSPRequest > TBSRequest > requestList > Request > CertID: down to the fifth SEQUENCE
    cert_id = request.build().public_bytes(Encoding.DER)
    for _ in range(4):
        header = 2 if cert_id[1] < 0x80 else 2 + (cert_id[1] & 0x7F)
        cert_id = cert_id[header:]
    now = datetime.now(UTC)
    parts = [cert_id, status, generalized(now + timedelta(seconds=start))]
    if end is not None:
        parts.append(tlv(0xA0, generalized(now + timedelta(seconds=end))))
    if extensions:
        parts.append(tlv(0xA1, tlv(0x30, *extensions)))
    return tlv(0x30, *parts)


ECDSA_SHA256 = tlv(0x30, tlv(0x06, bytes.fromhex("2a8648ce3d040302")))


def craft(
    signer: Pair,
    singles: Sequence[bytes],
    *,
    certs: Sequence[HasDer] = (),
    extensions: Sequence[bytes] = (),
    produced: float = -60,
    responder: bytes | None = None,
    algorithm: bytes = ECDSA_SHA256,
    sign: Callable[[bytes], bytes] | None = None,
) -> bytes:
    """A whole OCSPResponse around `singles`, signed by `signer` with ECDSA and SHA-256.

    Or by whatever `sign` does, which `algorithm` says.
    """
    who = responder or tlv(0xA1, signer.cert.subject.public_bytes())
    at = generalized(datetime.now(UTC) + timedelta(seconds=produced))
    data = tlv(
        0x30,
        who,
        at,
        tlv(0x30, *singles),
        tlv(0xA1, tlv(0x30, *extensions)) if extensions else b"",
    )
    octets = sign(data) if sign else signer.key.sign(data, ec.ECDSA(hashes.SHA256()))
    signature = tlv(0x03, b"\x00", octets)
    chain = tlv(0xA0, tlv(0x30, *(pair.der for pair in certs))) if certs else b""
    basic = tlv(0x30, data, algorithm, signature, chain)
    kind = tlv(0x06, bytes.fromhex("2b0601050507300101"))
    return tlv(0x30, tlv(0x0A, b"\x00"), tlv(0xA0, tlv(0x30, kind, tlv(0x04, basic))))


def key_id(pair: Pair) -> bytes:
    """ResponderID by key."""
    digest = x509.SubjectKeyIdentifier.from_public_key(pair.cert.public_key()).digest
    return tlv(0xA2, tlv(0x04, digest))

"""The certificates of a file: PEM, one or more, or DER, one."""

from __future__ import annotations

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from sidecar.core.errors import MalformedCertificate

from .certificate import ClientCert, from_der


def read_bundle(data: bytes) -> list[ClientCert]:
    """The certificates of a PEM file, or the one of a DER file.  Raises ValueError."""
    try:
        if data.startswith(b"\x30"):
            return [from_der(data)]
        certs = x509.load_pem_x509_certificates(data)
    except ValueError as error:
        hint = "write a PEM file that begins with -----BEGIN CERTIFICATE-----"
        raise ValueError(f"no certificate in it ({error})", hint) from None
    try:
        return [from_der(_der(cert)) for cert in certs]
    except MalformedCertificate as error:
        raise ValueError(str(error), "remove that certificate from the file") from None


def _der(cert: x509.Certificate) -> bytes:
    return cert.public_bytes(Encoding.DER)

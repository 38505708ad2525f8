"""Check the validity period of a certificate (RFC 5280, 4.1.2.5): `notAfter` is included."""

from __future__ import annotations

from cryptography import x509

from .certificate import ClientCert


def validity(cert: ClientCert | x509.Certificate) -> tuple[float, float]:
    """Return the first moment of a certificate's validity, and the first moment after it.

    Both are in seconds since the epoch.
    """

    if isinstance(cert, ClientCert):
        return cert.not_before, cert.not_after + 1
    return cert.not_valid_before_utc.timestamp(), cert.not_valid_after_utc.timestamp() + 1


def is_valid(cert: ClientCert | x509.Certificate, now: float) -> bool:
    """Return whether a certificate is valid at `now`, in seconds since the epoch."""
    start, end = validity(cert)
    return start <= now < end

"""When a certificate is valid (RFC 5280, 4.1.2.5): the second of `notAfter` is included."""

from __future__ import annotations

from cryptography import x509

from .certificate import ClientCert


def validity(cert: ClientCert | x509.Certificate) -> tuple[float, float]:
    """The first moment at which a certificate is valid, and the first at which it has ended.

    Both in seconds since the epoch.
    """
    if isinstance(cert, ClientCert):
        return cert.not_before, cert.not_after + 1
    return cert.not_valid_before_utc.timestamp(), cert.not_valid_after_utc.timestamp() + 1


def is_valid(cert: ClientCert | x509.Certificate, now: float) -> bool:
    """Whether a certificate is valid at `now`, in seconds since the epoch."""
    start, end = validity(cert)
    return start <= now < end

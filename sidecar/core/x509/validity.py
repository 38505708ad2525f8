"""Check the validity period of a certificate (RFC 5280, 4.1.2.5): `notAfter` is included."""

from __future__ import annotations

from .certificate import ClientCert


def validity(cert: ClientCert) -> tuple[float, float]:
    """Return the first moment of a certificate's validity, and the first moment after it.

    Both are in seconds since the epoch.
    """
    return cert.not_before, cert.not_after + 1


def is_valid(cert: ClientCert, now: float) -> bool:
    """Return whether a certificate is valid at `now`, in seconds since the epoch."""
    start, end = validity(cert)
    return start <= now < end

"""Determine the certificates and reasons that a CRL covers: RFC 5280, 5.2.5, 6.3.3 (b) and (d)."""

from __future__ import annotations

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from sidecar.core.x509.certificate import ClientCert, from_der
from sidecar.core.x509.der import comparable_name
from sidecar.core.x509.extensions import BASIC_CONSTRAINTS, read_basic_constraints

from .points import ALL_REASONS, EVERYTHING, DistributionPoint, Scope, directory, read_points

__all__ = ["ALL_REASONS", "EVERYTHING", "DistributionPoint", "Scope"]


class CertFacts:
    """The facts about a certificate that revocation needs.  Extensions are parsed on demand."""

    __slots__ = ("_is_ca", "_points", "cert", "issuer", "serial")

    def __init__(self, cert: ClientCert) -> None:
        self.cert = cert
        self.serial = cert.serial
        self.issuer = comparable_name(cert.issuer_name)
        self._points: tuple[DistributionPoint, ...] | None = None
        self._is_ca: bool | None = None

    @property
    def points(self) -> tuple[DistributionPoint, ...]:
        """The certificate's distribution points; none if they can't be parsed."""
        if self._points is None:
            self._points = _points(self.cert)
        return self._points

    @property
    def is_ca(self) -> bool:
        """Whether BasicConstraints says CA.  Raises ValueError if it can't be parsed."""
        if self._is_ca is None:
            found = self.cert.extension(BASIC_CONSTRAINTS)
            self._is_ca = found is not None and read_basic_constraints(found)[0]
        return self._is_ca


def crl_facts(cert: x509.Certificate | ClientCert) -> CertFacts:
    """Return the facts that `CrlIndex.status` needs.  Raises ValueError for an invalid one."""
    if not isinstance(cert, ClientCert):
        cert = from_der(cert.public_bytes(Encoding.DER))
    return CertFacts(cert)


def covered(scope: Scope, crl_issuer: bytes, point: DistributionPoint, facts: CertFacts) -> int:
    """Return the reasons that a CRL with this scope covers for a certificate's point.

    See RFC 5280, 6.3.3 (b) and (d).  0 means that the CRL does not cover the certificate.
    """
    if point.issuers:
        if not scope.indirect or crl_issuer not in point.issuers:
            return 0
    elif crl_issuer != facts.issuer:
        return 0
    if scope.names:
        wanted = point.names or {directory(name) for name in point.issuers}
        if scope.names.isdisjoint(wanted):
            return 0
    return scope.reasons & point.reasons if _is_meant(scope, facts) else 0


def _is_meant(scope: Scope, facts: CertFacts) -> bool:
    if not scope.only:
        return True
    try:
        return scope.only == ("ca" if facts.is_ca else "user")
    except ValueError:
        return False


def implied_point(issuer: bytes) -> DistributionPoint:
    """Return the implicit point of every certificate: its issuer's name (RFC 5280, 6.3.3, end)."""
    return DistributionPoint(frozenset({directory(issuer)}))


_POINTS = bytes.fromhex("551d1f")


def _points(cert: ClientCert) -> tuple[DistributionPoint, ...]:
    """Return a certificate's cRLDistributionPoints; none if absent or invalid."""
    try:
        found = cert.extension(_POINTS)
        return () if found is None else read_points(found, cert.issuer_name)
    except ValueError:
        return ()

"""Which certificates and reasons a CRL covers: RFC 5280, 5.2.5 and 6.3.3 (b) and (d)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from sidecar.core.x509.certificate import ClientCert, from_der
from sidecar.core.x509.der import comparable_name
from sidecar.core.x509.extensions import (
    BASIC_CONSTRAINTS,
    read_basic_constraints,
    split_extension,
)
from sidecar.core.x509.signature import bare_certificate

# ReasonFlags, RFC 5280, 4.2.1.13.  `unspecified` and `removeFromCRL` are none.
_BITS = {
    x509.ReasonFlags.key_compromise: 1 << 1,
    x509.ReasonFlags.ca_compromise: 1 << 2,
    x509.ReasonFlags.affiliation_changed: 1 << 3,
    x509.ReasonFlags.superseded: 1 << 4,
    x509.ReasonFlags.cessation_of_operation: 1 << 5,
    x509.ReasonFlags.certificate_hold: 1 << 6,
    x509.ReasonFlags.privilege_withdrawn: 1 << 7,
    x509.ReasonFlags.aa_compromise: 1 << 8,
}
ALL_REASONS = sum(_BITS.values())


@dataclass(frozen=True, slots=True)
class Scope:
    """An issuing distribution point.  The default is a CRL without one: everything.

    `names`: the distribution point's names, comparable, if it has any.  `only`: `user`, `ca`,
    `attribute`, or empty for all certificates.  `reasons`: a mask of ReasonFlags' bits.
    """

    names: frozenset[bytes] = frozenset()
    only: str = ""
    reasons: int = ALL_REASONS
    indirect: bool = False

    def __str__(self) -> str:
        names = b"|".join(sorted(self.names)).hex()
        return f"{self.only}/{self.reasons:x}/{int(self.indirect)}/{names}"


EVERYTHING = Scope()


@dataclass(frozen=True, slots=True)
class DistributionPoint:
    """A distribution point of a certificate, all names comparable.  `issuers`: its cRLIssuer."""

    names: frozenset[bytes]
    issuers: frozenset[bytes] = frozenset()
    reasons: int = ALL_REASONS


class CertFacts:
    """What revocation asks of a certificate.  Extensions are read when they are needed."""

    __slots__ = ("_is_ca", "_points", "cert", "issuer", "serial")

    def __init__(self, cert: ClientCert) -> None:
        self.cert = cert
        self.serial = cert.serial
        self.issuer = comparable_name(cert.issuer_name)
        self._points: tuple[DistributionPoint, ...] | None = None
        self._is_ca: bool | None = None

    @property
    def points(self) -> tuple[DistributionPoint, ...]:
        """Its own distribution points; none where they can't be read."""
        if self._points is None:
            self._points = _points(self.cert)
        return self._points

    @property
    def is_ca(self) -> bool:
        """Whether BasicConstraints says so.  Raises ValueError where that can't be read."""
        if self._is_ca is None:
            found = self.cert.extension(BASIC_CONSTRAINTS)
            self._is_ca = found is not None and read_basic_constraints(found)[0]
        return self._is_ca


def crl_facts(cert: x509.Certificate | ClientCert) -> CertFacts:
    """What `CrlIndex.status` needs of a certificate.  Raises ValueError for a broken one."""
    if not isinstance(cert, ClientCert):
        cert = from_der(cert.public_bytes(Encoding.DER))
    return CertFacts(cert)


def covered(scope: Scope, crl_issuer: bytes, point: DistributionPoint, facts: CertFacts) -> int:
    """The reasons for which a CRL with this scope answers about a certificate's point.

    RFC 5280, 6.3.3 (b) and (d).  0: it does not speak about it.
    """
    if point.issuers:
        if not scope.indirect or crl_issuer not in point.issuers:
            return 0
    elif crl_issuer != facts.issuer:
        return 0
    if scope.names:
        wanted = point.names or {_directory(name) for name in point.issuers}
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
    """The point that every certificate has: its issuer's name (RFC 5280, 6.3.3, at the end)."""
    return DistributionPoint(frozenset({_directory(issuer)}))


def read_scope(found: x509.IssuingDistributionPoint, issuer: x509.Name) -> Scope:
    """The scope that an issuing distribution point states.  Raises ValueError."""
    only = {
        "user": found.only_contains_user_certs,
        "ca": found.only_contains_ca_certs,
        "attribute": found.only_contains_attribute_certs,
    }
    return Scope(
        names=_names(found.full_name, found.relative_name, issuer),
        only="".join(kind for kind, asserted in only.items() if asserted),
        reasons=_mask(found.only_some_reasons),
        indirect=found.indirect_crl,
    )


_POINTS = bytes.fromhex("551d1f")


def _points(cert: ClientCert) -> tuple[DistributionPoint, ...]:
    """A certificate's cRLDistributionPoints, read by themselves: nothing else can spoil them."""
    try:
        found = [octets for octets in cert.extensions if split_extension(octets)[0] == _POINTS]
        bare = x509.load_der_x509_certificate(bare_certificate(cert.issuer_name, found))
        points = bare.extensions.get_extension_for_class(x509.CRLDistributionPoints).value
        return tuple(_point(point, bare.issuer) for point in points)
    except Exception:  # noqa: BLE001 - absent, or broken in any way: then nothing covers a point
        return ()


def _point(point: x509.DistributionPoint, issuer: x509.Name) -> DistributionPoint:
    directories = [n.value for n in point.crl_issuer or () if isinstance(n, x509.DirectoryName)]
    if point.crl_issuer and len(directories) != len(point.crl_issuer):
        raise ValueError("a cRLIssuer is no directoryName")
    base = directories[0] if directories else issuer
    return DistributionPoint(
        names=_names(point.full_name, point.relative_name, base),
        issuers=frozenset(comparable_name(name.public_bytes()) for name in directories),
        reasons=_mask(point.reasons),
    )


def _mask(reasons: Iterable[x509.ReasonFlags] | None) -> int:
    return ALL_REASONS if reasons is None else sum(_BITS.get(reason, 0) for reason in set(reasons))


def _names(
    full: Iterable[x509.GeneralName] | None,
    relative: x509.RelativeDistinguishedName | None,
    base: x509.Name,
) -> frozenset[bytes]:
    if relative is not None:
        name = x509.Name([*base.rdns, relative])
        return frozenset({_directory(comparable_name(name.public_bytes()))})
    return frozenset(_general(name) for name in full or ())


def _general(name: x509.GeneralName) -> bytes:
    """A GeneralName in a form that is equal for equal names.

    URIs and the rest are compared as they are written: what differs is UNKNOWN, never GOOD.
    """
    if isinstance(name, x509.DirectoryName):
        return _directory(comparable_name(name.value.public_bytes()))
    return f"{type(name).__name__} {name.value}".encode("utf-8", "surrogateescape")


def _directory(name: bytes) -> bytes:
    return b"DirectoryName " + name

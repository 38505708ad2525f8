"""What a CRL may speak about: by its scope, and by who signed it.

The scope is RFC 5280, 5.2.5 and 6.3.3 (b) and (d); the signer's place among the authorities of a
trust is 6.3.3 (f).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeVar

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from sidecar.core.x509.certificate import ClientCert, from_der
from sidecar.core.x509.der import comparable_name
from sidecar.core.x509.extensions import (
    BASIC_CONSTRAINTS,
    read_basic_constraints,
    split_extension,
)
from sidecar.core.x509.keys import subject_public_key_info
from sidecar.core.x509.signature import bare_certificate, take_apart

E = TypeVar("E", bound=x509.ExtensionType)

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


# -- who signs: the authorities of a trust ---------------------------------------------------------

Windows = tuple[tuple[float, float], ...]
"""Periods in seconds since the epoch, in order; a beginning is in, an end is out."""


@dataclass(frozen=True, slots=True)
class Signer:
    """One certificate of a CRL's signer, and one that issued it.

    `issuer` is empty where the signer is itself the top.  `valid`: when that certificate and all
    of some way from there to the top are valid.
    """

    cert: bytes
    issuer: bytes
    valid: Windows


@dataclass(frozen=True, slots=True, eq=False)
class Authority:
    """A certificate of the trust.  `key` is the SHA-256 of its SubjectPublicKeyInfo."""

    cert: x509.Certificate
    der: bytes
    subject: bytes
    issuer: bytes
    key: bytes
    signs_crls: bool
    issues: bool

    @property
    def window(self) -> tuple[float, float]:
        """Its own validity; `notAfter`'s second is in."""
        cert = self.cert
        start, stop = cert.not_valid_before_utc, cert.not_valid_after_utc
        return start.timestamp(), stop.timestamp() + 1


@dataclass(frozen=True, slots=True, eq=False)
class Authorities:
    """The authorities of a trust and who of them issued whom.

    A top is one that is self-signed, or that nobody here issued.  Authorities under the same top
    are one authority's business: one's CRLs may speak of what the other issued.
    """

    all: tuple[Authority, ...]
    parents: dict[bytes, tuple[Authority, ...]]
    valid: dict[bytes, Windows]

    @staticmethod
    @lru_cache(maxsize=8)
    def of(ders: tuple[bytes, ...]) -> Authorities:
        """Read DER certificates; each signature among them is checked once.

        One that can't be read here has signed nothing that could be verified: it is left out.
        """
        read = (_authority_or_none(der) for der in dict.fromkeys(ders))
        found = tuple(authority for authority in read if authority is not None)
        parents = {a.der: tuple(_parents(a, found)) for a in found}
        return Authorities(found, parents, _valid_ways(found, parents))

    def tops(self, authority: Authority) -> set[bytes]:
        """The DER of every top above an authority, or itself."""
        seen, todo, tops = {authority.der}, [authority], set()
        while todo:
            here = todo.pop()
            above = self.parents[here.der]
            if _is_top(here, above):
                tops.add(here.der)
            todo += [a for a in above if a.der not in seen]
            seen.update(a.der for a in above)
        return tops

    def speak_for(self, signers: Iterable[Authority]) -> frozenset[bytes]:
        """The keys of all authorities that share a top with one of these."""
        tops = {top for signer in signers for top in self.tops(signer)}
        return frozenset(a.key for a in self.all if tops & self.tops(a))

    def signers(self, signers: Iterable[Authority]) -> tuple[Signer, ...]:
        """Each of these with each that issued it."""
        found = []
        for signer in signers:
            above = self.parents[signer.der]
            if _is_top(signer, above):
                found.append(Signer(signer.der, b"", (signer.window,)))
            for parent in above:
                if parent is not signer:
                    valid = _within(signer.window, self.valid[parent.der])
                    found.append(Signer(signer.der, parent.der, valid))
        return tuple(found)


def _is_top(authority: Authority, parents: tuple[Authority, ...]) -> bool:
    return not parents or authority in parents


def _valid_ways(
    all_: tuple[Authority, ...], parents: dict[bytes, tuple[Authority, ...]]
) -> dict[bytes, Windows]:
    """When each authority and all of some way to a top above it are valid, at the same time."""
    found: dict[bytes, Windows] = {
        a.der: (a.window,) if _is_top(a, parents[a.der]) else () for a in all_
    }
    grown = True
    while grown:
        grown = False
        for a in all_:
            above = [window for parent in parents[a.der] for window in found[parent.der]]
            windows = _joined([*found[a.der], *_within(a.window, above)])
            grown = grown or windows != found[a.der]
            found[a.der] = windows
    return found


def _within(limit: tuple[float, float], windows: Iterable[tuple[float, float]]) -> Windows:
    cut = ((max(start, limit[0]), min(stop, limit[1])) for start, stop in windows)
    return tuple((start, stop) for start, stop in cut if start < stop)


def _joined(windows: Iterable[tuple[float, float]]) -> Windows:
    found: list[tuple[float, float]] = []
    for start, stop in sorted(windows):
        if found and start <= found[-1][1]:
            found[-1] = found[-1][0], max(found[-1][1], stop)
        else:
            found.append((start, stop))
    return tuple(found)


def _authority_or_none(der: bytes) -> Authority | None:
    try:
        return _authority(der)
    except Exception:  # noqa: BLE001 - the parser's errors are of many classes
        return None


def _authority(der: bytes) -> Authority:
    cert = x509.load_der_x509_certificate(der)
    usage = _extension(cert, x509.KeyUsage)
    constraints = _extension(cert, x509.BasicConstraints)
    is_ca = constraints.ca if constraints else cert.version is x509.Version.v1
    return Authority(
        cert=cert,
        der=der,
        subject=comparable_name(cert.subject.public_bytes()),
        issuer=comparable_name(cert.issuer.public_bytes()),
        key=key_digest(cert),
        signs_crls=usage is None or usage.crl_sign,
        issues=is_ca and (usage is None or usage.key_cert_sign),
    )


def _extension(cert: x509.Certificate, kind: type[E]) -> E | None:
    try:
        return cert.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None


def key_digest(cert: x509.Certificate) -> bytes:
    """The SHA-256 of a certificate's SubjectPublicKeyInfo, whatever kind of key that is."""
    signed = take_apart(cert.public_bytes(Encoding.DER)).signed
    return hashlib.sha256(subject_public_key_info(signed)).digest()


def _parents(child: Authority, all_: Iterable[Authority]) -> Iterator[Authority]:
    for parent in all_:
        if parent.subject == child.issuer and parent.issues:
            try:
                child.cert.verify_directly_issued_by(parent.cert)
            except Exception:  # noqa: BLE001 - a signature that can't be checked proves nothing
                continue
            yield parent

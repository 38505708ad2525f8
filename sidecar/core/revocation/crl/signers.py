"""Determine the possible signers of a trust's CRLs, and the certificates that they cover.

This is step (f) of RFC 5280, section 6.3.3: the signer and the issuer of the certificate must
lead to the same trust anchor.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeVar

from sidecar.core.x509.certificate import ClientCert, from_der
from sidecar.core.x509.der import comparable_name
from sidecar.core.x509.extension_values import bits
from sidecar.core.x509.extensions import BASIC_CONSTRAINTS, read_basic_constraints
from sidecar.core.x509.keys import UnusableKey, public_key
from sidecar.core.x509.signature import is_signed_by
from sidecar.core.x509.validity import validity

Windows = tuple[tuple[float, float], ...]
"""Periods in seconds since the epoch, in order; each includes its start but not its end."""


@dataclass(frozen=True, slots=True)
class Signer:
    """One certificate of a CRL's signer, and one certificate of its issuer.

    `issuer` is empty if the signer is itself at the top.  `valid`: the periods in which the
    certificate and a complete path from it to the top are valid.
    """

    cert: bytes
    issuer: bytes
    valid: Windows


@dataclass(frozen=True, slots=True, eq=False)
class CrlAuthority:
    """A certificate of the trust, as the possible signer of a CRL.

    Unlike `path_building.Authority`, each part is parsed separately: an invalid extension elsewhere
    makes path building refuse an authority, but must not disable its CRLs, which revoke.

    `subject` and `issuer` are comparable names.  `key` is the SHA-256 of its SubjectPublicKeyInfo;
    `public` is the key itself, or None if it can't be used.
    """

    cert: ClientCert
    der: bytes
    subject: bytes
    issuer: bytes
    key: bytes
    public: object | None
    signs_crls: bool
    issues: bool

    @property
    def window(self) -> tuple[float, float]:
        """The certificate's own validity period."""
        return validity(self.cert)


@dataclass(frozen=True, slots=True, eq=False)
class CrlAuthorities:
    """The authorities of a trust and who of them issued whom.

    A top is an authority that is self-signed or has no issuer in the trust.  The CRLs of an
    authority may cover certificates of every authority under the same top.

    `named` are the authorities by their subject, `below` the keys of all that have the same top, by
    that one's DER, and `tops` the tops above each, by its DER, if any.
    """

    named: dict[bytes, tuple[CrlAuthority, ...]]
    parents: dict[bytes, tuple[CrlAuthority, ...]]
    valid: dict[bytes, Windows]
    below: dict[bytes, frozenset[bytes]]
    tops: dict[bytes, frozenset[bytes]]

    @staticmethod
    @lru_cache(maxsize=8)
    def of(ders: tuple[bytes, ...]) -> CrlAuthorities:
        """Parse DER certificates, and verify each signature among them once.

        A certificate that can't be parsed is left out: no signature of it could be verified.
        """
        read = (_authority_or_none(der) for der in dict.fromkeys(ders))
        found = tuple(authority for authority in read if authority is not None)
        named = _grouped((a.subject, a) for a in found)
        parents = {a.der: tuple(_parents(a, named.get(a.issuer, ()))) for a in found}
        under = _under_tops(found, parents)
        return CrlAuthorities(
            {name: tuple(several) for name, several in named.items()},
            parents,
            _valid_ways(found, parents),
            {top: frozenset(a.key for a in several) for top, several in under.items()},
            {
                der: frozenset(tops)
                for der, tops in _grouped((a.der, top) for top in under for a in under[top]).items()
            },
        )

    def speak_for(self, signers: Iterable[CrlAuthority]) -> frozenset[bytes]:
        """Return the keys of all authorities that share a top with one of the signers."""
        tops = {top for signer in signers for top in self.tops.get(signer.der, ())}
        return frozenset().union(*(self.below[top] for top in tops))

    def signers(self, signers: Iterable[CrlAuthority]) -> tuple[Signer, ...]:
        """Return each signer combined with each of its issuers."""
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


K = TypeVar("K")
V = TypeVar("V")


def _grouped(pairs: Iterable[tuple[K, V]]) -> dict[K, list[V]]:
    found: dict[K, list[V]] = {}
    for key, value in pairs:
        found.setdefault(key, []).append(value)
    return found


def _under_tops(
    all_: tuple[CrlAuthority, ...], parents: dict[bytes, tuple[CrlAuthority, ...]]
) -> dict[bytes, list[CrlAuthority]]:
    """Return each top's DER with all authorities under it, the top itself first."""
    children = _grouped((parent.der, a) for a in all_ for parent in parents[a.der])
    under = {}
    for top in (a for a in all_ if _is_top(a, parents[a.der])):
        found, seen = [top], {top.der}
        for here in found:  # which grows
            new = [a for a in children.get(here.der, ()) if a.der not in seen]
            seen.update(a.der for a in new)
            found += new
        under[top.der] = found
    return under


def _is_top(authority: CrlAuthority, parents: tuple[CrlAuthority, ...]) -> bool:
    return not parents or authority in parents


def _valid_ways(
    all_: tuple[CrlAuthority, ...], parents: dict[bytes, tuple[CrlAuthority, ...]]
) -> dict[bytes, Windows]:
    """Return the periods in which each authority and a complete path to a top are valid."""
    found: dict[bytes, Windows] = {
        a.der: (a.window,) if _is_top(a, parents[a.der]) else () for a in all_
    }
    children = _grouped((parent.der, a) for a in all_ for parent in parents[a.der])
    left = [a for a in all_ if found[a.der]]
    while left:
        grown: list[CrlAuthority] = []
        for a in {each.der: each for here in left for each in children.get(here.der, ())}.values():
            above = [window for parent in parents[a.der] for window in found[parent.der]]
            windows = _joined([*found[a.der], *_within(a.window, above)])
            if windows != found[a.der]:
                found[a.der] = windows
                grown.append(a)
        left = grown
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


def _authority_or_none(der: bytes) -> CrlAuthority | None:
    try:
        return _authority(from_der(der))
    except ValueError:
        return None


_KEY_USAGE = bytes.fromhex("551d0f")
_KEY_CERT_SIGN, _CRL_SIGN = 0x04, 0x02


def _authority(cert: ClientCert) -> CrlAuthority:
    """Read the parts needed here separately, so that no other part of a certificate matters."""
    usage, constraints = cert.extension(_KEY_USAGE), cert.extension(BASIC_CONSTRAINTS)
    allowed = None if usage is None else bits(usage)
    is_ca = cert.version == 1 if constraints is None else read_basic_constraints(constraints)[0]
    return CrlAuthority(
        cert=cert,
        der=cert.der,
        subject=comparable_name(cert.subject_name),
        issuer=comparable_name(cert.issuer_name),
        key=key_digest(cert),
        public=_public_key(cert),
        signs_crls=allowed is None or bool(allowed & _CRL_SIGN),
        issues=is_ca and (allowed is None or bool(allowed & _KEY_CERT_SIGN)),
    )


def _public_key(cert: ClientCert) -> object | None:
    try:
        return public_key(cert.spki)
    except UnusableKey:
        return None


def key_digest(cert: ClientCert) -> bytes:
    """Return the SHA-256 of a certificate's SubjectPublicKeyInfo, whatever kind of key that is."""
    return bytes.fromhex(cert.spki_sha256)


def _parents(child: CrlAuthority, named: Iterable[CrlAuthority]) -> Iterator[CrlAuthority]:
    """Yield those of the authorities with the issuer's name that signed a certificate."""
    cert = child.cert
    for parent in named:
        if not parent.issues or parent.public is None:
            continue
        if is_signed_by(parent.public, cert.signed, cert.algorithm, cert):
            yield parent

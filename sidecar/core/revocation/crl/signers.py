"""Determine the possible signers of a trust's CRLs, and the certificates that they cover.

This is step (f) of RFC 5280, section 6.3.3: the signer and the issuer of the certificate must
lead to the same trust anchor.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache

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
    """

    all: tuple[CrlAuthority, ...]
    parents: dict[bytes, tuple[CrlAuthority, ...]]
    valid: dict[bytes, Windows]

    @staticmethod
    @lru_cache(maxsize=8)
    def of(ders: tuple[bytes, ...]) -> CrlAuthorities:
        """Parse DER certificates, and verify each signature among them once.

        A certificate that can't be parsed is left out: no signature of it could be verified.
        """
        read = (_authority_or_none(der) for der in dict.fromkeys(ders))
        found = tuple(authority for authority in read if authority is not None)
        parents = {a.der: tuple(_parents(a, found)) for a in found}
        return CrlAuthorities(found, parents, _valid_ways(found, parents))

    def tops(self, authority: CrlAuthority) -> set[bytes]:
        """Return the DER of every top above an authority, or its own DER if it is a top."""
        seen, todo, tops = {authority.der}, [authority], set()
        while todo:
            here = todo.pop()
            above = self.parents[here.der]
            if _is_top(here, above):
                tops.add(here.der)
            todo += [a for a in above if a.der not in seen]
            seen.update(a.der for a in above)
        return tops

    def speak_for(self, signers: Iterable[CrlAuthority]) -> frozenset[bytes]:
        """Return the keys of all authorities that share a top with one of the signers."""
        tops = {top for signer in signers for top in self.tops(signer)}
        return frozenset(a.key for a in self.all if tops & self.tops(a))

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


def _is_top(authority: CrlAuthority, parents: tuple[CrlAuthority, ...]) -> bool:
    return not parents or authority in parents


def _valid_ways(
    all_: tuple[CrlAuthority, ...], parents: dict[bytes, tuple[CrlAuthority, ...]]
) -> dict[bytes, Windows]:
    """Return the periods in which each authority and a complete path to a top are valid."""
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


def _parents(child: CrlAuthority, all_: Iterable[CrlAuthority]) -> Iterator[CrlAuthority]:
    cert = child.cert
    for parent in all_:
        if parent.subject != child.issuer or not parent.issues or parent.public is None:
            continue
        if is_signed_by(parent.public, cert.signed, cert.algorithm, cert):
            yield parent

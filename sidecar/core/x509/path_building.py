"""From a client certificate up to a trust anchor: who issued it, and is that one of ours?

Two ways.  Where nginx verified the chain (`verify: nginx`), `issuing_path` finds the issuers by
name and signature (RFC 5280, 6.1: CA flag, keyCertSign, path length, validity); it does not
check name constraints or the leaf's key usage: nginx's OpenSSL has.  Policy processing along the
path (RFC 5280, 6.1.5: mappings, inhibitAnyPolicy) nobody does: nginx doesn't ask for it.  Where
the sidecar verifies (`verify: sidecar`), `verified_path` asks `cryptography`'s verifier, which
checks name constraints, critical extensions and clientAuth too; what it would pass over is refused
here: constraints on directory names and policies, critical or not, and on mail addresses that
stand in a subject.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeVar

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from cryptography.x509.verification import (
    Criticality,
    ExtensionPolicy,
    Policy,
    PolicyBuilder,
    Store,
    VerificationError,
)

from .certificate import ClientCert
from .der import comparable_name
from .signature import is_signed_by

E = TypeVar("E", bound=x509.ExtensionType)

MAX_DEPTH = 8
"""Most certificates between a leaf and its anchor."""

MAX_SIGNATURES = 32
"""Most signatures checked for one certificate: a bound on what a hostile one can cost."""


@dataclass(frozen=True, slots=True, eq=False)
class Authority:
    """A certificate that may issue others: an anchor or an intermediate of a trust.

    `name` is comparable, `key` its public key.
    """

    cert: ClientCert
    name: bytes
    key: object
    is_ca: bool
    path_length: float

    @classmethod
    def of(cls, cert: ClientCert) -> Authority:
        """Read what path building needs."""
        constraints = _extension(cert.x509, x509.BasicConstraints)
        usage = _extension(cert.x509, x509.KeyUsage)
        # A version 1 certificate has no extensions; as an anchor it was chosen by hand.
        is_ca = constraints.ca if constraints else cert.x509.version is x509.Version.v1
        length = constraints.path_length if constraints else None
        return cls(
            cert=cert,
            name=_comparable(cert.subject_name),
            key=cert.x509.public_key(),
            is_ca=is_ca and (usage is None or usage.key_cert_sign),
            path_length=math.inf if length is None else length,
        )


def _extension(cert: x509.Certificate, kind: type[E]) -> E | None:
    try:
        return cert.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None


Path = tuple[ClientCert, ...]
"""A leaf's issuers, nearest first, the anchor last; empty where the leaf itself is the anchor."""


class Anchors:
    """The authorities of one trust: anchors, and the intermediates below them."""

    def __init__(self, anchors: Sequence[ClientCert], intermediates: Sequence[ClientCert]) -> None:
        self._anchors = {a.sha256: a for a in anchors}
        self._between = {i.sha256: i for i in intermediates if i.sha256 not in self._anchors}
        self._all = {**self._anchors, **self._between}
        self._by_name: dict[bytes, list[Authority]] = {}
        for authority in map(Authority.of, self._all.values()):
            self._by_name.setdefault(authority.name, []).append(authority)
        self._intermediates = [i.x509 for i in self._between.values()]
        self._store = Store([a.x509 for a in anchors]) if anchors else None
        self._turns = sorted(t for c in self._all.values() for t in (c.not_before, c.not_after + 1))

    @property
    def der(self) -> tuple[bytes, ...]:
        """Every authority's DER, anchors first: those whose signature on a CRL may count."""
        return tuple(cert.der for cert in self._all.values())

    def next_change(self, now: float) -> float:
        """The first moment after `now` at which an authority begins or ends to be valid."""
        position = bisect_right(self._turns, now)
        return self._turns[position] if position < len(self._turns) else math.inf

    # -- verify: nginx

    def issuing_path(self, cert: ClientCert, now: float) -> Path | None:
        """A path to an anchor by names, signatures and validity; None where there is none."""
        if cert.sha256 in self._anchors:
            return ()
        return next(self._paths(cert, now, (), iter(range(MAX_SIGNATURES))), None)

    def _paths(
        self, cert: ClientCert, now: float, below: Path, budget: Iterator[int]
    ) -> Iterator[Path]:
        for authority in self._by_name.get(_comparable(cert.issuer_name), ()):
            issuer = authority.cert
            if issuer in below or not _may_issue(authority, below, now):
                continue
            if next(budget, None) is None:
                return
            if not is_signed_by(authority.key, cert.signed, cert.algorithm, cert.x509):
                continue
            if issuer.sha256 in self._anchors:
                yield (*below, issuer)
            elif len(below) < MAX_DEPTH:
                yield from self._paths(issuer, now, (*below, issuer), budget)

    # -- verify: sidecar

    def verified_path(self, cert: ClientCert, now: float) -> Path | None:
        """A path that `cryptography`'s verifier accepts for a client at `now`, or None."""
        if self._store is None:
            return None
        builder = PolicyBuilder().store(self._store).time(datetime.fromtimestamp(now, UTC))
        builder = builder.extension_policies(ca_policy=_CA, ee_policy=_CLIENT)
        verifier = builder.max_chain_depth(MAX_DEPTH).build_client_verifier()
        try:
            chain = verifier.verify(cert.x509, self._intermediates).chain
        except (VerificationError, ValueError, UnsupportedAlgorithm):
            return None
        path = tuple(self._all[c.fingerprint(_SHA256).hex()] for c in chain[1:])
        return None if _mail_goes_unchecked((cert, *path)) else path


def valid(cert: ClientCert, now: float) -> bool:
    """Whether `now` lies in the validity period; `notAfter`'s second is in (RFC 5280, 4.1.2.5)."""
    return cert.not_before <= now < cert.not_after + 1


def _may_issue(issuer: Authority, below: Path, now: float) -> bool:
    """Whether an authority may stand above these: a valid CA whose path length suffices."""
    if not issuer.is_ca or not valid(issuer.cert, now):
        return False
    return not below or sum(not _is_self_issued(c) for c in below) <= issuer.path_length


def _is_self_issued(cert: ClientCert) -> bool:
    """Issued by an authority of its own name (RFC 5280, 6.1), as in a change of keys."""
    return _comparable(cert.subject_name) == _comparable(cert.issuer_name)


def _comparable(name: bytes) -> bytes:
    """A Name (DER) as RFC 5280, 7.1, compares it; as it is, where it can't be read so."""
    try:
        return comparable_name(name)
    except ValueError:
        return name


def _signs_certificates(_: Policy, __: x509.Certificate, usage: x509.KeyUsage | None) -> None:
    if usage is not None and not usage.key_cert_sign:
        raise ValueError("its keyUsage lacks keyCertSign")


def _constrains_no_directory(
    _: Policy, __: x509.Certificate, names: x509.NameConstraints | None
) -> None:
    """The verifier passes over a constraint on directory names that isn't marked critical."""
    if names is not None and any(isinstance(n, x509.DirectoryName) for n in _subtrees(names)):
        raise ValueError("its nameConstraints are about directory names")


def _subtrees(names: x509.NameConstraints) -> list[x509.GeneralName]:
    return [*(names.permitted_subtrees or ()), *(names.excluded_subtrees or ())]


def _mail_goes_unchecked(chain: Path) -> bool:
    """Whether a constraint on mail stands above an address in a subject.

    RFC 5280, 4.2.1.10, applies it to emailAddress where the SAN has no address; the verifier
    doesn't.
    """
    return any(
        cert.x509.subject.get_attributes_for_oid(NameOID.EMAIL_ADDRESS)
        and not cert.email
        and any(map(_constrains_mail, chain[above:]))
        for above, cert in enumerate(chain, 1)
    )


def _constrains_mail(cert: ClientCert) -> bool:
    names = _extension(cert.x509, x509.NameConstraints)
    return names is not None and any(isinstance(n, x509.RFC822Name) for n in _subtrees(names))


def _is_for_clients(_: Policy, __: x509.Certificate, usage: x509.ExtendedKeyUsage | None) -> None:
    wanted = {ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE}
    if usage is not None and wanted.isdisjoint(usage):
        raise ValueError("its extendedKeyUsage lacks clientAuth")


_SHA256 = SHA256()

_CA = (
    ExtensionPolicy.permit_all()
    .require_present(x509.BasicConstraints, Criticality.AGNOSTIC, None)
    .may_be_present(x509.KeyUsage, Criticality.AGNOSTIC, _signs_certificates)
    .may_be_present(x509.NameConstraints, Criticality.AGNOSTIC, _constrains_no_directory)
    .require_not_present(x509.PolicyConstraints)
    .may_be_present(x509.ExtendedKeyUsage, Criticality.AGNOSTIC, _is_for_clients)
)
_CLIENT = ExtensionPolicy.permit_all().may_be_present(
    x509.ExtendedKeyUsage, Criticality.AGNOSTIC, _is_for_clients
)

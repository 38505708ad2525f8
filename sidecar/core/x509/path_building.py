"""Build the path from a client certificate to a trust anchor.

There are two modes.  Both compare names and verify signatures, and both limit the number of
signature verifications.

Where nginx verified the chain (`verify: nginx`), `issuing_path` finds the issuers (RFC 5280, 6.1:
CA flag, keyCertSign, path length, validity), and checks name constraints and extended key usages of
authorities as OpenSSL reads them (`issuer_limits`).  It does not check the strength of keys
and digests, critical extensions or the leaf's usages: nginx's OpenSSL has checked them.

Where the sidecar verifies (`verify: sidecar`), `verified_path` accepts no chain that OpenSSL
refuses for the purpose `sslclient` at security level 2 (see `client_purpose` and
`name_constraints`; tests/conformance/test_openssl_agreement.py compares).  It does not process
policies: an authority that constrains them is refused.  Neither mode checks revocation.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from sidecar.core.errors import printable

from . import extension_values as ext
from .certificate import ClientCert
from .client_purpose import (
    Profile,
    client_fault,
    issuer_fault,
    may_have_issued,
)
from .der import comparable_name
from .equivalent_keys import equivalent_keys
from .issuer_limits import IssuerLimits, are_exceeded, read_limits
from .keys import UnusableKey, public_key
from .name_constraints import NameNotPermitted, check_names
from .signature import is_signed_by
from .validity import is_valid

MAX_DEPTH = 8
"""Maximum number of certificates between a leaf and its anchor."""

MAX_SIGNATURES = 32
"""Maximum number of signatures verified for one certificate, as a limit on its cost."""

MAX_STEPS = 500
"""Maximum number of candidate issuers tried for one certificate, with `verify: sidecar`."""

_KEY_CERT_SIGN = 0x04


@dataclass(frozen=True, slots=True, eq=False)
class Authority:
    """A certificate that may issue others: an anchor or an intermediate of a trust.

    An extension that can't be parsed makes it issue nothing (`crl.signers.CrlAuthority` differs).


    `name` is the subject in comparable form.  `key` is the public key, or None if it can't be used;
    `key_fault` says why.  `profile` holds the facts for `verify: sidecar`, or None if they can't be
    parsed; `fault` says why such a chain can't contain this authority ("": it can).
    """

    cert: ClientCert
    name: bytes
    key: object | None
    key_fault: str
    is_ca: bool
    path_length: float
    limits: IssuerLimits
    profile: Profile | None
    fault: str

    @classmethod
    def of(cls, cert: ClientCert) -> Authority:
        """Read the parts that path building needs.  An unreadable certificate issues nothing."""
        is_ca, length = _issues(cert)
        profile, fault = _profile(cert)
        key, key_fault = _key(cert)
        return cls(
            cert=cert,
            name=_comparable(cert.subject_name),
            key=key,
            key_fault=key_fault,
            is_ca=is_ca,
            path_length=length,
            limits=read_limits(cert),
            profile=profile,
            fault=fault if profile is None else issuer_fault(profile),
        )


def _key(cert: ClientCert) -> tuple[object | None, str]:
    try:
        return public_key(cert.spki), ""
    except UnusableKey as error:
        return None, str(error)


def _issues(cert: ClientCert) -> tuple[bool, float]:
    """Return whether a certificate may sign others, and its path length."""
    try:
        found = ext.extensions_of(cert)
        usage, constraints = found.get(ext.KEY_USAGE), found.get(ext.BASIC_CONSTRAINTS)
        if usage is not None and not ext.bits(usage.value) & _KEY_CERT_SIGN:
            return False, 0
        if constraints is None:
            # A version 1 certificate has no extensions; as an anchor, an administrator chose it.
            return cert.version == 1, math.inf
        is_ca, length = ext.basic_constraints(constraints.value)
    except ValueError:
        return False, 0
    return is_ca, math.inf if length is None else length


def _profile(cert: ClientCert) -> tuple[Profile | None, str]:
    try:
        return Profile.of(cert), ""
    except ValueError as error:
        return None, f"it can't be read as OpenSSL reads it: {error}"


Path = tuple[ClientCert, ...]
"""A leaf's issuers, nearest first, the anchor last; empty where the leaf itself is the anchor."""

_Chain = tuple[Authority, ...]


class Anchors:
    """The authorities of one trust: anchors, and the intermediates below them."""

    def __init__(self, anchors: Sequence[ClientCert], intermediates: Sequence[ClientCert]) -> None:
        self._anchors = {a.sha256: a for a in anchors}
        between = {i.sha256: i for i in intermediates if i.sha256 not in self._anchors}
        self._all = {**self._anchors, **between}
        self._by_name: dict[bytes, list[Authority]] = {}
        for authority in map(Authority.of, self._all.values()):
            self._by_name.setdefault(authority.name, []).append(authority)
        self._above: dict[tuple[str, bool], Path] = {}
        self._turns = sorted(t for c in self._all.values() for t in (c.not_before, c.not_after + 1))

    @property
    def certificates(self) -> tuple[ClientCert, ...]:
        """Every authority's certificate, anchors first."""
        return tuple(self._all.values())

    def is_anchor(self, cert: ClientCert) -> bool:
        """Return whether a certificate is one of the anchors."""
        return cert.sha256 in self._anchors

    def knows(self, authority: ClientCert) -> bool:
        """Return whether these have a certificate of an authority's name and key, valid or not."""
        named = self._named(authority.subject_name)  # few have one of that name
        return bool(named) and next(self._alike(authority), None) is not None

    @property
    def der(self) -> tuple[bytes, ...]:
        """Every authority's DER, anchors first: the possible signers of CRLs."""
        return tuple(cert.der for cert in self._all.values())

    def next_change(self, now: float) -> float:
        """Return the first moment after `now` at which an authority begins or ends to be valid."""
        position = bisect_right(self._turns, now)
        return self._turns[position] if position < len(self._turns) else math.inf

    # -- above a path

    def above(self, cert: ClientCert, path: Path) -> Path:
        """Return every authority above a certificate with this path, whatever path was found.

        They are the path's own, the other certificates with their names and keys, and whoever
        certified one of these, up to the last one: an anchor may have its issuer beside it.  Other
        certificates of a client's own name and key, where it is an anchor itself, are not above it.
        """
        start, is_authority = path[0] if path else cert, bool(path)
        known = start.sha256, is_authority
        if known not in self._above:
            self._above[known] = self._all_above(start, is_authority=is_authority)
        return self._above[known]

    def _all_above(self, start: ClientCert, *, is_authority: bool) -> Path:
        budget = iter(range(MAX_STEPS))
        own = {each.sha256: each for each in self._alike(start)}
        found = dict(own) if is_authority else {}
        waiting = [*own.values()] if is_authority else [start]
        while waiting:
            for issuer in self._signers(waiting.pop(), budget):
                for each in self._alike(issuer):
                    if each.sha256 not in found and each.sha256 not in own:
                        found[each.sha256] = each
                        waiting.append(each)
        return tuple(found.values())

    def beyond(self, path: Path) -> Iterator[tuple[ClientCert, ClientCert]]:
        """Yield a path's anchor with an issuer that this trust has beside it, and so on above."""
        budget = iter(range(MAX_STEPS))
        waiting, seen = list(path[-1:]), {each.sha256 for each in path}
        while waiting:
            cert = waiting.pop()
            for issuer in self._signers(cert, budget):
                if issuer.sha256 != cert.sha256:
                    yield cert, issuer
                if issuer.sha256 not in seen:
                    seen.add(issuer.sha256)
                    waiting.append(issuer)

    def _alike(self, cert: ClientCert) -> Iterator[ClientCert]:
        """Yield the authorities with a certificate's name and key: this one, and renewed ones."""
        keys = {cert.spki_sha256, *equivalent_keys(cert)}
        for authority in self._named(cert.subject_name):
            if authority.cert.spki_sha256 in keys:
                yield authority.cert

    def _signers(self, cert: ClientCert, budget: Iterator[int]) -> Iterator[ClientCert]:
        """Yield the authorities that signed a certificate; where that can't be told, by name."""
        for authority in self._named(cert.issuer_name):
            unknown = authority.key is None or next(budget, None) is None
            if unknown or is_signed_by(authority.key, cert.signed, cert.algorithm, cert):
                yield authority.cert

    # -- verify: nginx

    def issuing_path(self, cert: ClientCert, now: float) -> Path | None:
        """Find a path to an anchor by names, signatures and validity; None if there is none."""
        if cert.sha256 in self._anchors:
            return ()
        for path in self._paths(cert, now, (), iter(range(MAX_SIGNATURES))):
            limited = [(authority.cert, authority.limits) for authority in path]
            if not are_exceeded(cert, limited):
                return tuple(authority.cert for authority in path)
        return None

    def _paths(
        self, cert: ClientCert, now: float, below: _Chain, budget: Iterator[int]
    ) -> Iterator[_Chain]:
        for authority in self._by_name.get(_comparable(cert.issuer_name), ()):
            issuer = authority.cert
            if authority in below or not _may_issue(authority, below, now):
                continue
            if next(budget, None) is None:
                return
            if not is_signed_by(authority.key, cert.signed, cert.algorithm, cert):
                continue
            if issuer.sha256 in self._anchors:
                yield (*below, authority)
            elif len(below) < MAX_DEPTH:
                yield from self._paths(issuer, now, (*below, authority), budget)

    # -- verify: sidecar

    def verified_path(self, cert: ClientCert, now: float) -> Path | None:
        """Find a path that satisfies all requirements of the purpose `sslclient`, or None.

        Of a certificate that no authority signed, only the issuer and the signature are looked at.
        """
        is_anchor = cert.sha256 in self._anchors
        signatures = _Signatures()
        if not is_valid(cert, now) or not (is_anchor or self._is_signed(cert, signatures)):
            return None
        leaf, _ = _profile(cert)
        if leaf is None or client_fault(leaf):
            return None
        if is_anchor:
            return ()
        if may_have_issued(leaf, cert.serial, leaf, cert.algorithm):
            return None  # OpenSSL takes it for self-signed, and looks for no issuer
        for chain in self._chains(cert, leaf, now, (), signatures):
            if _names_are_permitted(leaf, chain):
                return tuple(authority.cert for authority in chain)
        return None

    def _named(self, issuer: bytes) -> Sequence[Authority]:
        return self._by_name.get(_comparable(issuer), ())

    def _is_signed(self, cert: ClientCert, signatures: _Signatures) -> bool:
        return any(signatures.hold(cert, authority) for authority in self._named(cert.issuer_name))

    def _chains(
        self, cert: ClientCert, low: Profile, now: float, below: _Chain, signatures: _Signatures
    ) -> Iterator[_Chain]:
        if low.weak_signature:
            return
        for authority in self._named(cert.issuer_name):
            high, issuer = authority.profile, authority.cert
            if high is None or authority in below or not _may_verify(authority, below, now):
                continue
            if not may_have_issued(high, issuer.serial, low, cert.algorithm):
                continue
            if not signatures.hold(cert, authority):
                continue
            if issuer.sha256 in self._anchors:
                yield (*below, authority)
            elif len(below) < MAX_DEPTH:
                yield from self._chains(issuer, high, now, (*below, authority), signatures)


class _Signatures:
    """Verify signatures for one certificate: each once, and at most `MAX_SIGNATURES`.

    After `MAX_STEPS` questions every answer is no, because authorities that all issued each other
    make more paths than can be tried.
    """

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], bool] = {}
        self._steps = MAX_STEPS

    def hold(self, cert: ClientCert, authority: Authority) -> bool:
        """Return whether the authority's key signed the certificate."""
        pair = cert.sha256, authority.cert.sha256
        self._steps -= 1
        if self._steps < 0:
            return False
        if pair not in self._known and len(self._known) < MAX_SIGNATURES:
            signed = is_signed_by(authority.key, cert.signed, cert.algorithm, cert)
            self._known[pair] = signed
        return self._known.get(pair, False)


def _may_issue(issuer: Authority, below: _Chain, now: float) -> bool:
    """Return whether an authority can issue `below`: a valid CA for clients, and not too high."""
    if not issuer.is_ca or issuer.key is None or not is_valid(issuer.cert, now):
        return False
    if not issuer.limits.may_issue:
        return False
    return sum(not _is_self_issued(each.cert) for each in below) <= issuer.path_length


def _is_self_issued(cert: ClientCert) -> bool:
    """Return whether subject and issuer are equal (RFC 5280, 6.1), as in a change of keys."""
    return _comparable(cert.subject_name) == _comparable(cert.issuer_name)


def _comparable(name: bytes) -> bytes:
    """Convert a Name (DER) to RFC 5280's comparable form (7.1); keep it if that is impossible."""
    try:
        return comparable_name(name)
    except ValueError:
        return name


def _may_verify(issuer: Authority, below: _Chain, now: float) -> bool:
    """Return whether an authority can issue `below` by OpenSSL's requirements."""
    if issuer.fault or issuer.profile is None or not is_valid(issuer.cert, now):
        return False
    profiles = [authority.profile for authority in below if authority.profile is not None]
    return sum(not each.self_issued for each in profiles) <= issuer.profile.path_length


def issuer_remarks(certs: Iterable[ClientCert]) -> Iterator[str]:
    """Yield a warning for each authority that `verify: sidecar` can't use: its name, and why."""
    for cert in certs:
        authority = Authority.of(cert)
        if authority.fault and not authority.key_fault and authority.is_ca:
            name = printable(cert.dn[:200])
            yield f"verify: sidecar verifies nothing by {name}: {authority.fault}"


def _names_are_permitted(leaf: Profile, chain: _Chain) -> bool:
    """Return whether every certificate's names satisfy the constraints of all certificates above.

    Names of self-issued authorities are not checked, names of a self-issued leaf are (RFC 5280,
    6.1.4 (b)).
    """
    profiles = [leaf, *(authority.profile for authority in chain if authority.profile)]
    try:
        for at, low in enumerate(profiles):
            if at and low.self_issued:
                continue
            for high in profiles[at + 1 :]:
                if high.constraints is not None:
                    check_names(low.names, high.constraints, is_leaf=at == 0)
    except NameNotPermitted:
        return False
    return True

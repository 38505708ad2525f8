"""Define the compiled policy: frozen values that a decision reads.  A reload builds a new one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from sidecar.core.bounded import put_bounded
from sidecar.core.config.schema import DatedWarning
from sidecar.core.errors import Diagnostic
from sidecar.core.nginx.locations import Chooser
from sidecar.core.revocation.crl.index import Crl, CrlIndex
from sidecar.core.revocation.denylist import Denylist
from sidecar.core.x509.certificate import ClientCert
from sidecar.core.x509.path_building import Anchors, Path

from .cases import CaseSpec
from .rules import NOBODY, RuleSet

Choose = Callable[[str, bytes], str | None]
"""Name the location for nginx's `$host` and `$request_uri`, or return None to deny."""


@dataclass(frozen=True, slots=True, eq=False)
class Trust:
    """One named trust of the policy, with the content of its files.

    `crl_list` holds the accepted CRLs; `revoking` the refused ones, whose entries still revoke;
    `missing` the addresses from which nothing was fetched yet.  While `unread` is not empty, it
    lacks what these files had revoked, which isn't known yet: nobody is let in.  `ca_ends` holds
    the ends of the authorities' validity, by file.
    """

    name: str
    anchors: Anchors
    sidecar_verifies: bool
    chain_all: bool
    revocation: str
    denylists: tuple[Denylist, ...]
    crls: CrlIndex | None
    crl_list: tuple[Crl, ...]
    ocsp: str
    clock_tolerance: int
    missing: tuple[str, ...] = ()
    unread: tuple[str, ...] = ()
    revoking: tuple[Crl, ...] = ()
    ca_ends: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    _paths: dict[str, tuple[float, float, Path]] = field(default_factory=dict, repr=False)

    def path(self, cert: ClientCert, now: float) -> Path | None:
        """Return the issuers of a certificate up to an anchor of this trust, or None.

        The result is cached until an authority's validity begins or ends.
        """
        known = self._paths.get(cert.sha256)
        if known is not None and known[0] <= now < known[1]:
            return known[2]
        find = self.anchors.verified_path if self.sidecar_verifies else self.anchors.issuing_path
        path = find(cert, now)
        if path is not None:
            until = self.anchors.next_change(now)
            put_bounded(self._paths, cert.sha256, (now, until, path), _REMEMBERED)
        return path


_REMEMBERED = 4096


@dataclass(frozen=True, slots=True, eq=False)
class Location:
    """One compiled location.

    `without_cert` holds the rules that allow a request without a certificate, unless `deny_request`
    matches: the rules of `deny` that ask only about the request.

    `uses_…` say what can change a decision here beside certificate and `SSL-Client-Verify`: the
    method, the client's address, the host or the SNI, OCSP answers.  `stale` is `serve` or `deny`
    where the location says what a stale fleet means.
    """

    name: str
    trusts: tuple[Trust, ...]
    public: bool
    verified: bool
    allow: RuleSet
    deny: RuleSet
    monitor: bool
    san_matches_host: bool
    sni_matches_host: bool
    cache_seconds: int
    public_methods: frozenset[str]
    forward_cert: bool
    same_origin: bool
    without_cert: RuleSet = NOBODY
    stale: str = ""
    uses_ocsp: bool = False

    deny_request: RuleSet = field(init=False)
    uses_method: bool = field(init=False)
    uses_client_ip: bool = field(init=False)
    uses_host: bool = field(init=False)

    def __post_init__(self) -> None:
        rules = (self.allow, self.deny, self.without_cert)
        client_ip = any(each.client_ip for each in rules)
        method = bool(self.public_methods) or any(each.method for each in rules)
        host = self.san_matches_host or self.sni_matches_host
        object.__setattr__(self, "uses_client_ip", client_ip)
        object.__setattr__(self, "uses_method", method)
        object.__setattr__(self, "uses_host", host)
        object.__setattr__(self, "deny_request", self.deny.of_request())


@dataclass(frozen=True, slots=True, eq=False)
class Policy:
    """The policy in force.  `hash`: the first 12 hex digits of the policy file's SHA-256.

    `denylists` hold for every certificate, of whatever trust: the fleet's revocations.
    """

    hash: str
    locations: Mapping[str, Location]
    trusts: Mapping[str, Trust]
    chooser: Chooser
    warnings: tuple[Diagnostic, ...] = ()
    dated: tuple[DatedWarning, ...] = ()
    tests: tuple[CaseSpec, ...] = ()
    denylists: tuple[Denylist, ...] = ()

    def locate(
        self, name: str | None, host: str, uri: bytes, choose: Choose | None = None
    ) -> Location | None:
        """Find the location that a request names, or else choose it by host and URI.

        `choose` replaces the policy's chooser, so that a caller can cache choices.
        """
        if name is None:
            name = (choose or self.chooser.choose)(host, uri)
        return None if name is None else self.locations.get(name)

    def warnings_at(self, now: float) -> tuple[Diagnostic, ...]:
        """Return the policy's warnings that apply at `now`, in file order."""
        dated = {each.warning for each in self.dated if each.since <= now < each.until}
        return tuple(sorted({*self.warnings, *dated}))

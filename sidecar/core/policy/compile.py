"""Compile a policy and the files that it names: a frozen `Policy`, or every diagnostic.

No file is opened here: `Sources` reads them.  A compiled policy never changes; a reload builds a
new one.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import ParamSpec, Protocol, TypeVar

from sidecar.core.config.crl_place import is_address, shown
from sidecar.core.config.schema import DatedWarning, Located, Report, read_with_report
from sidecar.core.config.yaml_tree import Node
from sidecar.core.errors import Diagnostic, PolicyError
from sidecar.core.nginx.locations import (
    Chooser,
    LocationPattern,
    SelectorError,
    ServerName,
    duplicates,
    overlaps,
)
from sidecar.core.policy.model import Location, Policy, Trust
from sidecar.core.revocation.crl.index import Crl
from sidecar.core.revocation.denylist import Denylist
from sidecar.core.x509.bundle import Bundle
from sidecar.core.x509.certificate import ClientCert
from sidecar.core.x509.path_building import Anchors

from .cases import check_cases
from .keys_without_crl import warn_about_keys_without_crl
from .lockouts import warn_about_lockouts
from .long_denylists import warn_about_long_denylists
from .older_crls import warn_about_older_crls
from .pinned import warn_about_pinned
from .policy_warnings import warn_about_issuers, warn_about_policy
from .rules import NOBODY, RESERVED, Compiler, RuleSet
from .spec import BehaviourSpec, LocationSpec, PolicySpec, RuleSpec, TrustSpec
from .trust import at_node, build_trust, bundle_remarks, file_mistake, trust_warning, unusable_crls

__all__ = ["Draft", "Sources", "compile_draft", "compile_policy"]

_LocationEntry = tuple[str, tuple[ServerName, ...] | None, LocationPattern]

T = TypeVar("T")
D = TypeVar("D")
P = ParamSpec("P")


class Sources(Protocol):
    """Read the files of a policy.  Paths are as written in the policy."""

    def certificates(self, path: str) -> Bundle:
        """Read the certificates of a PEM file (see `read_bundle`).  Raises OSError, ValueError."""

    def denylist(self, path: str) -> Denylist:
        """Read a denylist (see `parse_denylist`).  Raises OSError, PolicyError."""

    def crls(
        self, place: str, trust: str, authorities: tuple[bytes, ...]
    ) -> tuple[Crl, ...] | None:
        """Read the CRLs of a file or an http(s) address; return None if none was fetched yet.

        Raises OSError and `CrlError`.
        """

    def revoking(self, place: str, trust: str, authorities: tuple[bytes, ...]) -> tuple[Crl, ...]:
        """What came last from an http(s) address and was refused: it only revokes.

        Raises OSError.
        """


def policy_hash(data: bytes) -> str:
    """Return the hash in `X-Auth-Policy`: `sha256sum policy.yaml | cut -c1-12`."""
    return hashlib.sha256(data).hexdigest()[:12]


@dataclass(frozen=True, slots=True, eq=False)
class Draft:
    """A compiled policy without the content of its trusts' files; it can't decide yet.

    Its locations are compiled once; `bind` combines them with the current trusts.
    """

    file: str
    spec: PolicySpec
    policy: Policy

    def bind(
        self,
        trusts: Mapping[str, Trust],
        warnings: Sequence[Diagnostic] = (),
        dated: Sequence[DatedWarning] = (),
        denylists: Sequence[Denylist] = (),
    ) -> Policy:
        """Combine the draft with its trusts and their warnings; `trusts` must have every name.

        The entries of `denylists` apply to every trust.
        """
        # Locations that name the same trusts have the same tuple.
        lists = {id(each.trusts): each.trusts for each in self.policy.locations.values()}
        bound = {key: tuple(trusts[each.name] for each in old) for key, old in lists.items()}
        locations = {
            name: replace(location, trusts=bound[id(location.trusts)])
            for name, location in self.policy.locations.items()
        }
        return replace(
            self.policy,
            locations=locations,
            trusts=dict(trusts),
            warnings=(*self.policy.warnings, *warnings),
            dated=(*self.policy.dated, *dated),
            denylists=tuple(denylists),
        )


def compile_draft(data: bytes, file: str) -> Draft:
    """Compile a policy without its trusts' files.  Raises `PolicyError` with every diagnostic."""
    spec, report = read_with_report(PolicySpec, data, file)
    build = _Build(file, spec, None, report)
    warn_about_policy(spec, report)
    trusts = {name: build.unread_trust(name, trust) for name, trust in spec.trust.items()}
    return Draft(file, spec, build.policy(data, trusts))


def compile_policy(data: bytes, file: str, sources: Sources) -> Policy:
    """Compile a policy and its files.  Raises `PolicyError` with the diagnostics of all files."""
    spec, report = read_with_report(PolicySpec, data, file)
    build = _Build(file, spec, sources, report)
    warn_about_policy(spec, report)
    trusts = {name: build.trust(name, trust) for name, trust in spec.trust.items()}
    for name, trust in trusts.items():
        warn_about_lockouts(spec.trust[name], trust, report)
        warn_about_keys_without_crl(spec.trust[name], trust, report)
    authorities = [each for trust in trusts.values() for each in trust.anchors.certificates]
    warn_about_issuers(spec, authorities, report)
    warn_about_older_crls(spec, trusts, report)
    warn_about_pinned(spec, trusts, report)
    warn_about_long_denylists(spec, trusts, report)
    return build.policy(data, trusts)


@dataclass(slots=True)
class _Build:
    """The state of one compilation: the parsed policy, and the mistakes found so far."""

    file: str
    spec: PolicySpec
    sources: Sources | None
    report: Report
    elsewhere: list[Diagnostic] = field(default_factory=list)
    warnings: list[Diagnostic] = field(default_factory=list)
    lists: dict[int, tuple[Trust, ...]] = field(default_factory=dict)
    asking: dict[int, bool] = field(default_factory=dict)

    def policy(self, data: bytes, trusts: Mapping[str, Trust]) -> Policy:
        """Build the policy.  Raises `PolicyError` with every diagnostic."""
        locations = self.locations(trusts)
        chooser = self.chooser()
        check_cases(self.spec.tests, set(locations), self.report)
        if self.report.diagnostics or self.elsewhere:
            raise PolicyError([*self.report.diagnostics, *self.elsewhere])
        return Policy(
            hash=policy_hash(data),
            locations=locations,
            trusts=trusts,
            chooser=chooser,
            warnings=tuple(self.warnings),
            dated=tuple(self.report.warnings),
            tests=self.spec.tests,
        )

    # -- trust

    def unread_trust(self, name: str, spec: TrustSpec) -> Trust:
        """Build one trust without its files."""
        if not spec.ca and any(key.text == "ca" for key, _ in spec.node.pairs or ()):
            self.report.add(spec.node, f"trust {name!r} names no ca", "add ca: pki/ca.crt")
        message = trust_warning(name, spec)
        if message:
            self._warn(spec.node, message)
        return build_trust(name, spec, Anchors([], []))

    def trust(self, name: str, spec: TrustSpec) -> Trust:
        """Build one trust with its files."""
        assert self.sources is not None
        self.unread_trust(name, spec)
        verifies = spec.verify == "sidecar"
        bundles: dict[str, list[ClientCert]] = {}
        anchors = self._certificates(spec.ca, self.sources, verifies, bundles)
        between = self._certificates(spec.intermediates, self.sources, verifies, bundles)
        store = Anchors(anchors, between)
        read = self.sources.crls
        found = [(p, self._take(p, read, p.text, name, store.der)) for p in spec.crl]
        refused = [self._take(p, self.sources.revoking, p.text, name, store.der) for p in spec.crl]
        denylists = [self._take(p, self.sources.denylist, p.text) for p in spec.denylist]
        crls = [crl for _, several in found for crl in several or ()]
        self.warnings += unusable_crls(self.file, spec, crls)
        return build_trust(
            name,
            spec,
            store,
            denylists=[each for each in denylists if each is not None],
            crls=crls,
            revoking=[crl for several in refused for crl in several or ()],
            missing=[shown(place.text) for place, several in found if several is None],
            bundles=bundles,
        )

    def _warn(self, node: Node, message: str) -> None:
        self.warnings.append(at_node(self.file, node, message))

    def _take(self, place: Located, read: Callable[P, T], *args: P.args, **_: P.kwargs) -> T | None:
        """Read a file; report a mistake at the place where the policy names the file.

        A fetched file is not the policy's: if it can't be used, nothing was fetched yet.
        """
        try:
            return read(*args, **_)
        except PolicyError as error:
            self.elsewhere += error.diagnostics
        except Exception as error:  # noqa: BLE001 - any error is reported with its place
            mistake = file_mistake(self.file, place, error)
            if is_address(place.text):
                self.warnings.append(replace(mistake, hint="it counts as not fetched yet"))
            else:
                self.report.diagnostics.append(mistake)
        return None

    def _certificates(
        self,
        places: Sequence[Located],
        sources: Sources,
        verifies: bool,
        bundles: dict[str, list[ClientCert]],
    ) -> list[ClientCert]:
        """Return the certificates of these files, each file's put into `bundles`, too."""
        found: list[ClientCert] = []
        for place in places:
            bundle = self._take(place, sources.certificates, place.text)
            if bundle is not None:
                found += bundle
                bundles[place.text] = list(bundle)
                self.warnings += bundle_remarks(self.file, place, bundle, verifies)
        return found

    # -- locations

    def locations(self, trusts: Mapping[str, Trust]) -> dict[str, Location]:
        """Compile every location; report references to undefined names."""
        for reserved in RESERVED:
            for rule in self.spec.groups.get(reserved, ())[:1]:
                node = rule.node
                self.report.add(node, f"{reserved!r} can't be a group's name", "choose another")
        rules = Compiler(self.spec.groups, self.report)
        rules.check_groups()
        found: dict[str, Location] = {}
        for spec in self.spec.locations:
            if spec.name and spec.name in found:
                message = f"a second location named {spec.name!r}"
                self.report.add(spec.node, message, "give each a name of its own")
            found[spec.name] = self._location(spec, rules, trusts)
            self._doubt_exemption(found[spec.name], spec)
        return found

    def _location(
        self, spec: LocationSpec, rules: Compiler, trusts: Mapping[str, Trust]
    ) -> Location:
        layers: tuple[BehaviourSpec, BehaviourSpec] = (spec, self.spec.defaults)
        named = _first(layers, lambda s: s.trust, None)
        chosen = self._trusts(spec, named, trusts)
        if id(named) not in self.asking:
            self.asking[id(named)] = any(trust.ocsp for trust in chosen)
        allow = _first(layers, lambda s: s.allow, ())
        word = allow[0].text if len(allow) == 1 and isinstance(allow[0], Located) else ""
        plain = word in RESERVED
        deny = _first(layers, lambda s: s.deny, ())
        public_methods = frozenset(_first(layers, lambda s: s.public_methods, ()))
        return Location(
            name=spec.name,
            trusts=chosen,
            uses_ocsp=self.asking[id(named)],
            public=word == "public",
            verified=word == "verified",
            allow=NOBODY if plain else rules.compile_layer(allow, "allow", refusing=False),
            deny=rules.compile_layer(deny, "deny", refusing=True, roles=False),
            monitor=_first(layers, lambda s: s.mode, "enforce") == "monitor",
            san_matches_host=_first(layers, lambda s: s.san_matches_host, False),
            sni_matches_host=_first(layers, lambda s: s.sni_matches_host, False),
            cache_seconds=_first(layers, lambda s: s.cache_seconds, 0),
            public_methods=public_methods,
            forward_cert=_first(layers, lambda s: s.forward_cert, False),
            without_cert=self._without_cert(
                _first(layers, lambda s: s.without_certificate, ()), rules
            ),
            stale=_first(layers, lambda s: s.stale, ""),
            # A location that lets CORS preflights through is intended for other origins.
            same_origin=_first(layers, lambda s: s.same_origin, "OPTIONS" not in public_methods),
        )

    def _without_cert(self, specs: Sequence[RuleSpec | Located], rules: Compiler) -> RuleSet:
        """Compile `without_certificate`; report a rule that asks about the certificate."""
        label = "without_certificate"
        found = rules.compile_layer(specs, label, refusing=False, roles=False)
        for spec in specs if found.needs_cert else ():
            if rules.compile([spec], "", refusing=False).needs_cert:
                hint = "use client_ip, method, from and until only"
                message = "a rule of without_certificate that asks about the certificate"
                self.report.add(spec.node, message, hint)
        return found

    def _doubt_exemption(self, location: Location, spec: LocationSpec) -> None:
        """Warn if a client can avoid a `deny` rule by sending no certificate."""
        if len(location.without_cert) and location.deny.needs_cert:
            self.report.warn(
                spec.node,
                f"location {spec.name!r}: a client without a certificate that matches "
                "without_certificate is not subject to deny rules about a certificate",
                "deny by client_ip or method too, or narrow without_certificate",
            )

    def _trusts(
        self,
        spec: LocationSpec,
        named: tuple[Located, ...] | None,
        trusts: Mapping[str, Trust],
    ) -> tuple[Trust, ...]:
        if id(named) not in self.lists:  # of `defaults`, or all of them
            self.lists[id(named)] = self._named_trusts(spec, named, trusts)
        return self.lists[id(named)]

    def _named_trusts(
        self,
        spec: LocationSpec,
        named: tuple[Located, ...] | None,
        trusts: Mapping[str, Trust],
    ) -> tuple[Trust, ...]:
        if named is None:
            return tuple(trusts.values())
        for ref in named:
            if ref.text not in trusts:
                hint = self.report.suggest(ref.text, trusts) or "add it under trust:"
                self.report.add(ref.node, f"undefined trust {ref.text!r}", hint)
        if not named:
            self.report.add(spec.node, "an empty list of trusts", "name one, or leave it out")
        return tuple(trusts[ref.text] for ref in named if ref.text in trusts)

    def chooser(self) -> Chooser:
        """Build the chooser by host and URI for the locations that have `location:`."""
        chosen = [spec for spec in self.spec.locations if spec.location is not None]
        for spec in self.spec.locations:
            written = {name.text for name, _ in spec.node.pairs or ()}
            if spec.server_name is not None and "location" not in written:
                self.report.add(spec.node, "server_name without location", "add location: /")
            if spec.server_name == ():
                hint = "write one, or leave server_name out for the default server"
                self.report.add(spec.node, "an empty list of server names", hint)
        if self.spec.merge_slashes is not None:
            message = (
                "merge_slashes has no effect: a URI with different results for both values is "
                "denied, because nginx sometimes uses another server's value; remove it"
            )
            self._warn(self.spec.node, message)
        entries: list[_LocationEntry] = [
            (s.name, None if s.server_name is None else sum(s.server_name, ()), s.location)
            for s in chosen
        ]
        self._check_servers(chosen, entries)
        try:
            return Chooser(entries)
        except SelectorError as error:
            self.report.add(self.spec.node, str(error))
            return Chooser([])

    def _check_servers(
        self, chosen: Sequence[LocationSpec], entries: Sequence[_LocationEntry]
    ) -> None:
        """Report locations and server names that nginx would ignore or not distinguish."""
        for _, second in duplicates(entries):
            self.report.add(
                chosen[second].node, "the same location twice in one server", "remove one of them"
            )
        for first, second in overlaps(entries):
            hint = "list the same names at each location of a server: nginx ignores repeated ones"
            message = f"server_name has some names of location {chosen[first].name!r}, but not all"
            if first == second:
                message, hint = "server_name has one name twice", "remove x or *.x beside .x"
            self.report.add(chosen[second].node, message, hint)
        for name in dict.fromkeys(n for _, names, _ in entries for n in names or ()):
            if name.kind == "exact" and name.value and not re.search("[a-z0-9]", name.value):
                self._warn(
                    self.spec.node,
                    f"server_name {name.value!r} matches only the host {name.value!r}; for the "
                    "default server leave server_name out",
                )


def _first(
    layers: Sequence[BehaviourSpec], get: Callable[[BehaviourSpec], T | None], default: D
) -> T | D:
    """Return the value of the location, else that of `defaults`, else the built-in one."""
    for layer in layers:
        value = get(layer)
        if value is not None:
            return value
    return default

"""Define policy.yaml as written: every key, its form, its meaning and its place in the file.

`read_policy` reports all mistakes of form at once.  `compile` checks the parts that need other
files (certificates, CRLs) or the whole policy (references to names).
"""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass
from typing import Any

from sidecar.core.config.crl_place import is_address, shown
from sidecar.core.config.dates import parse_date
from sidecar.core.config.schema import (
    Choice,
    Count,
    Flag,
    Invalid,
    ListOf,
    Located,
    MapOf,
    Record,
    Report,
    Text,
    each,
    key,
    keys_of,
    pairs,
    read_record,
    suggest,
)
from sidecar.core.config.yaml_tree import Node
from sidecar.core.nginx.locations import SelectorError, parse_location, parse_server_name

from .cases import CASES, CaseSpec
from .patterns import KEY_COMPARISONS, Pattern, check_method

NAME = r"[A-Za-z0-9_-]{1,64}"
MAX_RULE_DEPTH = 16

_HOST = r"\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?\.?"
_ADDRESS = re.compile(
    rf"https?://([^/?#@]*@)?({_HOST})(:(?P<port>[0-9]{{1,5}}))?([/?][!-?A-~]*)?", re.IGNORECASE
)


def _address(text: str) -> str:
    """Check an http(s) address.  Raises ValueError."""
    found = _ADDRESS.fullmatch(text)
    hint = "write http://… or https://…"
    if text.startswith("file:"):
        hint = "write only the file's path"
    elif "@" in text:
        hint += ", with %2F, %3F, %23, %40 for / ? # @ in user or password, %40 behind the host"
    if not found or not text.isascii() or "#" in text:
        raise ValueError(f"{shown(text)!r} is not an http(s) address", hint)
    if found["port"] and not 0 < int(found["port"]) < 65536:
        raise ValueError(f"{shown(text)!r} has no port from 1 to 65535", hint)
    return text


def _ocsp(text: str) -> str:
    return "" if text == "off" else _address(text)


def _crl(text: str) -> str:
    """Check a CRL's place: a file's path, or an http(s) address.  Raises ValueError."""
    return (
        _address(text) if is_address(text) or re.match("(?i)(https?|file|ldaps?):", text) else text
    )


def _path(text: str) -> str:
    """Check a file's path.  Raises ValueError for an address: only CRLs are fetched."""
    if is_address(text):
        raise ValueError(f"{shown(text)!r} is not a file: only CRLs are fetched", "write a path")
    return text


_FILES = ListOf(Text("a file's path", check=_path, located=True), or_one=True)
_CRLS = ListOf(Text("a path or an address", check=_crl, located=True), or_one=True)


def _named(text: str) -> str:
    if not re.fullmatch(NAME, text):
        raise ValueError(f"{text!r} is not a name", "use 1 to 64 of A-Z a-z 0-9 _ -")
    return text


# -- rules ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class RuleSpec:
    """One rule: every part must match.  `tests` are (key, patterns): any pattern of a key."""

    node: Node
    name: str = ""
    roles: tuple[str, ...] = ()
    tests: tuple[tuple[str, tuple[Pattern, ...]], ...] = ()
    from_: float | None = None
    until: float | None = None
    until_node: Node | None = None
    any: tuple[RuleSpec | Located, ...] | None = None
    all: tuple[RuleSpec | Located, ...] | None = None
    not_: tuple[RuleSpec | Located, ...] | None = None


def _rule_name(text: str) -> str:
    if not re.fullmatch(r"[ -~]{1,64}", text):
        raise ValueError(f"{text!r} is not a rule name", "use up to 64 printable ASCII characters")
    return text


def _role(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_.:/@-]{1,64}", text):
        raise ValueError(f"{text!r} is not a role", "use letters, digits and _ . : / @ -")
    return text


class Rule:
    """A value that is a rule or the name of a group."""

    def __init__(self, depth: int = 0) -> None:
        self.depth = depth

    def read(self, node: Node, report: Report) -> RuleSpec | Located:
        if node.text is not None and not node.empty:
            return Located(node.text, node)
        if self.depth > MAX_RULE_DEPTH:
            message = f"rules nested deeper than {MAX_RULE_DEPTH}"
            raise report.fail(node, message, "use fewer nested rules")
        found: dict[str, Any] = {}
        tests: list[tuple[str, tuple[Pattern, ...]]] = []
        moments: dict[str, Node] = {}
        parts = pairs(node, report)
        if not parts:
            raise report.fail(node, "an empty rule", "write keys that must match, or `verified`")
        if all(name.text in ("name", "roles") for name, _ in parts):
            raise report.fail(node, "a rule without a condition", "add cn, dns, sha256, …")

        def part(name: Node, value: Node) -> None:
            if name.text in ("from", "until"):
                moments[name.text] = value
            if name.text in KEY_COMPARISONS:
                tests.append((name.text, _patterns(name.text, value, report)))
            elif name.text in self._parts():
                attribute = name.text + "_" * (name.text in ("from", "not"))
                found[attribute] = self._parts()[name.text].read(value, report)
            else:
                known = {**KEY_COMPARISONS, **self._parts()}
                raise report.fail(name, f"unknown key {name.text!r}", suggest(name.text, known))

        for name, value in parts:
            with contextlib.suppress(Invalid):
                part(name, value)
        start, end = found.get("from_"), found.get("until")
        if start is not None and end is not None and start >= end:
            report.add(moments["until"], "`until` isn't after `from`", "write a later `until`")
        return RuleSpec(node=node, tests=tuple(tests), until_node=moments.get("until"), **found)

    def _parts(self) -> dict[str, Any]:
        rules = NonEmpty(ListOf(Rule(self.depth + 1), or_one=True))
        return {
            "name": Text("a rule's name", check=_rule_name),
            "roles": ListOf(Text("a role", check=_role), or_one=True),
            "from": Text("a date", check=parse_date),
            "until": Text("a date", check=lambda text: parse_date(text, end=True)),
            "any": rules,
            "all": rules,
            "not": rules,
        }

    def schema(self) -> dict[str, Any]:
        return {"$ref": "#/$defs/rule"}


KEY_TEXTS = {
    "cn": "common names of the subject: all of them for allow, any for deny",
    "o": "organizations of the subject: all of them for allow, any for deny",
    "ou": "organizational units of the subject: all of them for allow, any for deny",
    "dn": "the whole subject, as RFC 4514 writes it: CN=alice,O=Example",
    "email": "a mail address of the SAN",
    "dns": "a DNS name of the SAN; * is one left-most label",
    "uri": "a URI of the SAN, like spiffe://example.org/ns/prod/*",
    "ip": "an address of the SAN: 192.0.2.7, 192.0.2.0/24 or 2001:db8::/32",
    "upn": "a user principal name of the SAN",
    "issuer_cn": "common names of the issuer",
    "issuer_dn": "the whole name of the issuer, as RFC 4514 writes it",
    "serial": "the serial number in hexadecimal, with or without colons",
    "sha256": "the certificate's SHA-256 fingerprint in hexadecimal",
    "spki_sha256": "the SHA-256 of the certificate's public key in hexadecimal",
    "eku": "an extended key usage: clientAuth, or an OID",
    "policy_oid": "a certificate policy: an OID",
    "client_ip": "the client's address: 192.0.2.7, 192.0.2.0/24 or 2001:db8::/32",
    "method": "the request's method, in upper case",
    "name": "the name by which decisions tell this rule",
    "roles": "roles that the rule grants, for X-Client-Role",
    "from": "the moment from which the rule holds: a day, or RFC 3339",
    "until": "the last day on which the rule holds, or an RFC 3339 moment at which it ends",
    "any": "rules of which one must match",
    "all": "rules that must all match",
    "not": "rules of which none may match",
}
"""What each key of a rule is for."""

_FORMS = "exact, with * as a glob, or a ~regular expression of the whole value"
_GLOBBED = frozenset({"cn", "o", "ou", "dn", "email", "uri", "upn", "issuer_cn", "issuer_dn"})


def rule_schema() -> dict[str, Any]:
    """Return the JSON Schema of a rule, for `$defs`."""
    one: dict[str, Any] = {"type": ["string", "number"]}
    patterns = {"anyOf": [one, {"type": "array", "items": one, "minItems": 1}]}
    rule = {"$ref": "#/$defs/rule"}
    rules = {"anyOf": [rule, {"type": "array", "items": rule, "minItems": 1}]}
    forms: dict[str, dict[str, Any]] = {
        **dict.fromkeys(KEY_COMPARISONS, patterns),
        **dict.fromkeys(("any", "all", "not"), rules),
        "name": one,
        "roles": patterns,
        "from": one,
        "until": one,
    }
    parts = {
        name: {
            **form,
            "description": f"{KEY_TEXTS[name]}; {_FORMS}" if name in _GLOBBED else KEY_TEXTS[name],
        }
        for name, form in forms.items()
    }
    mapping = {"type": "object", "properties": parts, "additionalProperties": False}
    return {
        "description": "a group's name, or a mapping of keys that must all match",
        "anyOf": [{"type": "string"}, {**mapping, "minProperties": 1}],
    }


@dataclass(frozen=True, slots=True)
class NonEmpty:
    """A list with at least one item."""

    items: ListOf
    of: str = "rules"

    def read(self, node: Node, report: Report) -> tuple[Any, ...]:
        found = self.items.read(node, report)
        if not found and not node.items:
            raise report.fail(node, f"an empty list of {self.of}", "write one, or remove the key")
        return found

    def schema(self) -> dict[str, Any]:
        return self.items.schema()


def _patterns(name: str, node: Node, report: Report) -> tuple[Pattern, ...]:
    """Read the patterns of one key of a rule; at least one."""
    parse = KEY_COMPARISONS[name].parse

    def one(item: Node) -> Pattern:
        pattern: Pattern = Text(f"a pattern for {name}", check=parse).read(item, report)
        for message, hint in pattern.warnings:
            report.warn(item, f"{name}: {message}", hint)
        return pattern

    nodes = [node] if node.items is None else node.items
    if not nodes:
        raise report.fail(node, f"no pattern for {name}", "write one, or remove the key")
    return tuple(each(nodes, one))


# -- locations and trust -------------------------------------------------------------------------


class Allow:
    """A value that is `public`, `verified`, a group, a rule, or a list of groups and rules."""

    def read(self, node: Node, report: Report) -> tuple[RuleSpec | Located, ...]:
        found: tuple[RuleSpec | Located, ...] = ListOf(Rule(), or_one=True).read(node, report)
        if len(found) < 2:
            return found
        rules = []
        for item in found:
            if isinstance(item, Located) and item.text in ("public", "verified"):
                report.add(item.node, f"{item.text!r} beside other rules", "write it alone")
            else:
                rules.append(item)
        return tuple(rules)

    def schema(self) -> dict[str, Any]:
        rule = Rule().schema()
        return {"anyOf": [rule, {"type": "array", "items": rule}]}


def _selector(text: str) -> Any:
    try:
        return parse_location(text)
    except SelectorError as error:
        raise ValueError(*error.args) from None


def _server_name(text: str) -> Any:
    if not text.split():
        raise ValueError("an empty server name", "write one, or leave server_name out")
    try:
        return tuple(parse_server_name(word) for word in text.split())
    except SelectorError as error:
        raise ValueError(*error.args) from None


@dataclass(frozen=True, slots=True)
class TrustSpec:
    """One trust, as written."""

    node: Node
    ca: tuple[Located, ...] = key(
        _FILES, "trust anchors: PEM files of one or more certificates", required=True, default=()
    )
    intermediates: tuple[Located, ...] = key(
        _FILES, "PEM files of intermediate CAs; nginx forwards the leaf only", default=()
    )
    crl: tuple[Located, ...] = key(
        _CRLS, "CRLs: files (PEM or DER) or http(s) addresses for the fetcher", default=()
    )
    ocsp: str = key(
        Text("off or an http(s) address", check=_ocsp), "address of the OCSP responder", default=""
    )
    denylist: tuple[Located, ...] = key(
        _FILES, "files of certificates and keys to deny", default=()
    )
    revocation: str | None = key(
        Choice(("off", "best_effort", "required")),
        "the meaning of no fresh answer; default: required if a crl or ocsp is named, else off",
        default=None,
    )
    chain: str = key(
        Choice(("leaf", "all")), "which certificates are checked (default: leaf)", default="leaf"
    )
    verify: str = key(
        Choice(("nginx", "sidecar")),
        "who verifies the chain (default: nginx); sidecar is for ssl_verify_client optional_no_ca",
        default="nginx",
    )
    clock_tolerance: int = key(
        Count(0, 86400), "seconds by which clocks may differ (default: 300)", default=300
    )
    crl_grace: int = key(
        Count(0, 31_536_000), "seconds a CRL is used after its nextUpdate (default: 0)", default=0
    )


@dataclass(frozen=True, slots=True)
class BehaviourSpec:
    """The keys that `defaults` can set for every location; None means absent."""

    trust: tuple[Located, ...] | None = key(
        ListOf(Text("a trust's name", located=True), or_one=True),
        "trusts whose certificates are accepted here; default: all of them",
        default=None,
    )
    mode: str | None = key(
        Choice(("enforce", "monitor")),
        "monitor records decisions but always allows (default: enforce)",
        default=None,
    )
    san_matches_host: bool | None = key(
        Flag(), "the certificate's DNS SAN must cover $host (RFC 9525)", default=None
    )
    sni_matches_host: bool | None = key(
        Flag(), "the TLS connection must have been opened for $host", default=None
    )
    cache_seconds: int | None = key(
        Count(0, 86400), "how long nginx may remember an answer (default: 0)", default=None
    )
    public_methods: tuple[str, ...] | None = key(
        ListOf(Text("a method in upper case", check=check_method), or_one=True),
        "methods allowed without a certificate, for example for CORS preflights",
        default=None,
    )
    without_certificate: tuple[RuleSpec | Located, ...] | None = key(
        ListOf(Rule(), or_one=True),
        "rules for requests without a certificate: only client_ip, method, from and until",
        default=None,
    )
    same_origin: bool | None = key(
        Flag(),
        "pages of other sites may only link here (default: true, but false if public_methods "
        "has OPTIONS)",
        default=None,
    )
    stale: str | None = key(
        Choice(("serve", "deny")),
        "what a certificate gets once the fleet's head is too old (default: what sidecar.yaml "
        "says)",
        default=None,
    )
    forward_cert: bool | None = key(
        Flag(), "add RFC 9440's Client-Cert to the answer", default=None
    )
    allow: tuple[RuleSpec | Located, ...] | None = key(
        Allow(), "public, verified, a group, a rule, or a list: who may pass", default=None
    )
    deny: tuple[RuleSpec | Located, ...] | None = key(
        ListOf(Rule(), or_one=True), "groups and rules asked before allow", default=None
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class LocationSpec(BehaviourSpec):
    """One location, as written."""

    node: Node
    name: str = key(
        Text("a name", check=_named), "unique; nginx asks /authz/NAME", required=True, default=""
    )
    server_name: tuple[Any, ...] | None = key(
        NonEmpty(ListOf(Text("a server name", check=_server_name), or_one=True), "server names"),
        "nginx server_name forms; only for choosing by host and URI",
        default=None,
    )
    location: Any = key(
        Text("a location", check=_selector),
        "nginx location forms: = /x, ^~ /x, ~ re, ~* re, /x; without it: by name only",
        default=None,
    )


@dataclass(frozen=True, slots=True)
class PolicySpec:
    """The whole policy, as written."""

    node: Node
    version: str = key(Choice(("1",)), "the format's version: 1", required=True, default="")
    trust: dict[str, TrustSpec] = key(
        MapOf(Record(TrustSpec), NAME), "named authorities", default_factory=dict
    )
    groups: dict[str, tuple[RuleSpec | Located, ...]] = key(
        MapOf(NonEmpty(ListOf(Rule(), or_one=True)), NAME),
        "named lists of rules",
        default_factory=dict,
    )
    defaults: BehaviourSpec = key(
        Record(BehaviourSpec), "values for keys that a location omits", default=BehaviourSpec()
    )
    merge_slashes: bool | None = key(
        Flag(),
        "no effect: a URI that leads to two locations with merge_slashes on and off is denied",
        default=None,
    )
    locations: tuple[LocationSpec, ...] = key(
        ListOf(Record(LocationSpec)), "the entries that nginx asks about", required=True, default=()
    )
    tests: tuple[CaseSpec, ...] = key(
        CASES, "the policy's own tests; if one fails, the policy is refused", default=()
    )


def read_policy(data: bytes, file: str) -> PolicySpec:
    """Read a policy as written.  Raises `PolicyError` with every diagnostic."""
    return read_record(PolicySpec, data, file)


_VERSION = re.compile(rb"""^[\s{"']*version["']?\s*:\s*["']?1\b""", re.MULTILINE)


def is_meant_as_policy(data: bytes) -> bool:
    """Return whether a file says that it is a policy, however broken it is."""
    return _VERSION.search(data) is not None


def policy_schema() -> dict[str, Any]:
    """Return the JSON Schema of policy.yaml, for editors."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "mtls-sidecar policy",
        **Record(PolicySpec).schema(),
        "$defs": {"rule": rule_schema()},
    }


__all__ = [
    "BehaviourSpec",
    "LocationSpec",
    "PolicySpec",
    "RuleSpec",
    "TrustSpec",
    "keys_of",
    "policy_schema",
    "read_policy",
]

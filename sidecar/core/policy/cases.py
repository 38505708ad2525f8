"""Define the form of a policy's own tests: a request, a certificate and the expected decision.

A test has one request, or with `principals` a table: which of them each location allows; it must
deny the others.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import Any

from sidecar.core.config.dates import parse_date
from sidecar.core.config.schema import (
    Choice,
    FieldType,
    ListOf,
    Located,
    MapOf,
    Record,
    Report,
    Text,
    key,
)
from sidecar.core.config.yaml_tree import Node
from sidecar.core.errors import MalformedCertificate
from sidecar.core.x509.certificate import EKU_NAMES, ClientCert
from sidecar.core.x509.described import ALWAYS, SERIAL, Described, build

from .patterns import PatternError, parse_fingerprint, parse_serial

NOBODY = "none"
"""The word for no certificate."""


UNIX_CLIENT = "unix:"
"""`$remote_addr` of a client on a Unix socket, which has no address."""

METHOD = "[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}"
"""A method, as RFC 9110 has it: a token."""


def _ip(text: str) -> str:
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        raise ValueError(f"{text!r} is not an address", "write 192.0.2.7 or 2001:db8::7") from None


def _client_ip(text: str) -> str:
    return text if text == UNIX_CLIENT else str(_ip(text.partition("%")[0]))


def _ascii(text: str) -> str:
    if not text.isascii():
        raise ValueError(f"{text!r} is not ASCII", "a name of this kind is (IA5String)")
    return text


def _usage(text: str) -> str:
    names = {name.lower(): oid for name, oid in EKU_NAMES.items()}
    found = names.get(text.lower(), text)
    try:
        return _identifier(found)
    except ValueError:
        raise ValueError(
            f"{text!r} is not an extended key usage", "write clientAuth or an OID"
        ) from None


def _identifier(text: str) -> str:
    parts = text.split(".")
    if len(parts) < 2 or not all(part.isascii() and part.isdigit() for part in parts):
        raise ValueError(f"{text!r} is not an object identifier", "write it dotted: 2.5.29.32.0")
    return text


def _pattern(read: Any) -> Any:
    def checked(text: str) -> Any:
        try:
            return read(text)
        except PatternError as error:
            raise ValueError(*error.args) from None

    return checked


_NAMES = ListOf(Text("a name"), or_one=True)
_ASCII_NAMES = ListOf(Text("a name", check=_ascii), or_one=True)


@dataclass(frozen=True, slots=True)
class CertSpec:
    """The description of a certificate by its fields, as written."""

    node: Node
    cn: tuple[str, ...] = key(_NAMES, "CNs of the subject", default=())
    o: tuple[str, ...] = key(_NAMES, "organizations of the subject", default=())
    ou: tuple[str, ...] = key(_NAMES, "organizational units of the subject", default=())
    dns: tuple[str, ...] = key(_ASCII_NAMES, "DNS names of the SAN", default=())
    uri: tuple[str, ...] = key(_ASCII_NAMES, "URIs of the SAN", default=())
    email: tuple[str, ...] = key(_ASCII_NAMES, "mail addresses of the SAN", default=())
    ip: tuple[str, ...] = key(
        ListOf(Text("an address", check=_ip), or_one=True), "addresses of the SAN", default=()
    )
    issuer_cn: tuple[str, ...] = key(_NAMES, "CNs of the issuer", default=())
    serial: int = key(
        Text("a serial number", check=_pattern(parse_serial)), "in hexadecimal", default=SERIAL
    )
    sha256: str = key(
        Text("a fingerprint", check=_pattern(parse_fingerprint)), "the fingerprint", default=""
    )
    spki_sha256: str = key(
        Text("a fingerprint", check=_pattern(parse_fingerprint)), "the key's SHA-256", default=""
    )
    upn: tuple[str, ...] = key(_NAMES, "user principal names of the SAN", default=())
    policy_oid: tuple[str, ...] = key(
        ListOf(Text("an object identifier", check=_identifier), or_one=True),
        "certificate policies",
        default=(),
    )
    not_before: float = key(
        Text("a date", check=parse_date), "when it begins (default: always)", default=ALWAYS[0]
    )
    not_after: float = key(
        Text("a date", check=lambda text: parse_date(text, end=True)),
        "when it ends (default: never)",
        default=ALWAYS[1],
    )
    eku: tuple[str, ...] = key(
        ListOf(Text("an extended key usage", check=_usage), or_one=True),
        "extended key usages (default: clientAuth)",
        default=(EKU_NAMES["clientAuth"],),
    )
    trust: str = key(
        Text("a trust's name"), "the trust that it is issued under (default: any)", default=""
    )

    def build(self) -> ClientCert:
        """Build the certificate.  Raises `MalformedCertificate`."""
        return build(
            Described(
                *(self.cn, self.o, self.ou, self.dns, self.uri, self.ip, self.email),
                issuer_cn=self.issuer_cn,
                eku=self.eku,
                serial=self.serial,
                not_before=self.not_before,
                not_after=min(self.not_after, ALWAYS[1]),
                sha256=self.sha256,
                spki_sha256=self.spki_sha256,
                upn=self.upn,
                policy_oid=self.policy_oid,
            )
        )


@dataclass(frozen=True, slots=True)
class Principal:
    """The client of a test: a certificate's `path`, a described certificate, or neither (none)."""

    path: str = ""
    cert: ClientCert | None = None
    trust: str = ""


class Certificate:
    """A value that is the path of a certificate, the fields of one, or `none`."""

    def read(self, node: Node, report: Report) -> Principal:
        if node.text is not None and not node.empty:
            return Principal() if node.text == NOBODY else Principal(path=node.text)
        spec = Record(CertSpec).read(node, report)
        try:
            return Principal(cert=spec.build(), trust=spec.trust)
        except MalformedCertificate as error:
            raise report.fail(node, f"a certificate can't have these fields: {error}") from None

    def schema(self) -> dict[str, Any]:
        return {"anyOf": [{"type": "string"}, Record(CertSpec).schema()]}


_CERTIFICATE: FieldType = Certificate()
_NAME = "[A-Za-z0-9_-]{1,64}"


@dataclass(frozen=True, slots=True)
class CaseSpec:
    """One entry of `tests`, as written."""

    node: Node
    name: str = key(Text("a name"), "what the test shows", default="")
    location: str = key(Text("a location's name"), "the location asked about", default="")
    cert: Principal = key(
        _CERTIFICATE, "a file, fields of a certificate, or none (default)", default=Principal()
    )
    verify: str = key(
        Text("nginx's verdict"), "$ssl_client_verify (default: SUCCESS with a cert)", default=""
    )
    host: str = key(Text("a host"), "$host", default="")
    sni: str = key(Text("a host"), "$ssl_server_name", default="")
    uri: str = key(Text("a URI"), "$request_uri, to choose the location by", default="")
    method: str = key(Text("a method", METHOD), "$request_method", default="GET")
    client_ip: str = key(Text("an address", check=_client_ip), "$remote_addr", default="")
    now: float | None = key(
        Text("a date", check=parse_date), "the moment (default: now)", default=None
    )
    expect: str = key(Choice(("allow", "deny")), "the decision", default="")
    reason: str = key(Text("a reason"), "and its reason", default="")
    rule: str = key(Text("a rule's name"), "and the rule that matched", default="")
    roles: tuple[str, ...] | None = key(
        ListOf(Text("a role"), or_one=True), "and the roles that it grants", default=None
    )
    principals: dict[str, Principal] = key(
        MapOf(_CERTIFICATE, _NAME), "who asks, by a name, for `allow`", default_factory=dict
    )
    allow: dict[str, tuple[Located, ...]] = key(
        MapOf(ListOf(Text("a principal's name", located=True), or_one=True), _NAME),
        "locations, and which principals each allows; it denies the others",
        default_factory=dict,
    )


CASES = ListOf(Record(CaseSpec))


def check_cases(cases: tuple[CaseSpec, ...], locations: set[str], report: Report) -> None:
    """Report tests that contradict themselves, and names that the policy doesn't have."""
    for case in cases:
        if case.principals or case.allow:
            _check_table(case, locations, report)
        elif not case.expect:
            report.add(case.node, "a test that expects nothing", "add expect: allow or deny")
        elif not case.location and not case.uri:
            hint = "add location: NAME, or host and uri"
            report.add(case.node, "a test that asks about no location", hint)
        elif case.location and case.uri:
            hint = "remove one of them: a location that is named is asked whatever the uri"
            report.add(case.node, "a test that names a location, and a uri to choose one by", hint)


def _check_table(case: CaseSpec, locations: set[str], report: Report) -> None:
    if not case.principals or not case.allow or case.expect:
        hint = "write principals: {NAME: CERT, …} and allow: {LOCATION: [NAME, …], …}"
        report.add(case.node, "a table needs principals and allow, and no expect", hint)
    for name, _ in case.node.pairs or ():
        if name.text in ("location", "uri", "cert"):
            report.add(name, f"`{name.text}` has no effect in a table", "remove it")
    for location, names in case.allow.items():
        if location not in locations:
            report.add(case.node, f"no location {location!r}", "name one of the policy's")
        for each in names:
            if each.text not in case.principals:
                report.add(each.node, f"no principal {each.text!r}", "add it to principals")

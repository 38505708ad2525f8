"""Ask one location about one certificate as nginx would, for `what` and `who`."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from dataclasses import dataclass

from sidecar.core.config.settings import Settings
from sidecar.core.decision import Decision, Reason
from sidecar.core.errors import PolicyError
from sidecar.core.evaluate import evaluate
from sidecar.core.nginx.host import ServerName, compile_name, normalize_host
from sidecar.core.policy.cases import UNIX_CLIENT, Principal
from sidecar.core.policy.model import Policy
from sidecar.core.policy.rule_lines import RuleLines
from sidecar.core.policy.spec import LocationSpec, PolicySpec, read_policy
from sidecar.core.request import Assumed, AuthzRequest, BadRequest, assemble_request
from sidecar.core.x509.certificate import ClientCert
from sidecar.core.x509.service_identity import fold_dns
from sidecar.runtime.files import MAX_POLICY, read_file

SettingsOf = Callable[[argparse.Namespace], Settings]
"""Reads sidecar.yaml, with the overrides of the command line."""


@dataclass(frozen=True, slots=True)
class PolicyFile:
    """A policy in compiled form and as written."""

    policy: Policy
    spec: PolicySpec
    path: str
    lines: RuleLines

    def location(self, name: str) -> LocationSpec:
        """Return one location as written.  Raises ValueError if the policy doesn't have it."""
        for each in self.spec.locations:
            if each.name == name:
                return each
        names = ", ".join(self.policy.locations)
        raise ValueError(f"{self.path} has no location {name!r}", f"name one of: {names}")

    def line(self, decision: Decision) -> int:
        """Return the line of a decision's rule, or else of its location."""
        return self.lines.line(decision.location, str(decision.reason), decision.rule)


def policy_file(policy: Policy, path: str) -> PolicyFile:
    """Read a compiled policy again as written.  Raises OSError, ValueError and `PolicyError`."""
    try:
        spec = read_policy(read_file(path, MAX_POLICY), path)
    except PolicyError:
        raise ValueError(f"{path} changes while it is read", "try again") from None
    return PolicyFile(policy, spec, path, RuleLines(spec))


@dataclass(frozen=True, slots=True)
class Circumstances:
    """The parts of a question beside the certificate.  Empty means unknown."""

    now: float
    host: str = ""
    sni: str = ""
    method: str = "GET"
    client_ip: str = ""
    verify: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """A decision and the assumptions that it depends on."""

    decision: Decision
    notes: tuple[str, ...] = ()


def check_circumstances(request: AuthzRequest, method: str, client_ip: str) -> None:
    """Raise ValueError where the request took a method or an address, as given, for unknown."""
    if client_ip not in ("", UNIX_CLIENT) and not request.client_ip:
        raise ValueError(f"{client_ip!r} is not an address", "write 192.0.2.7 or 2001:db8::7")
    if method and not request.method:
        raise ValueError(f"{method!r} is not a method", "write GET or POST")


def request_of(given: Circumstances, who: Principal | bytes) -> AuthzRequest:
    """Build the request without a location; `who` may be a certificate as nginx forwards it.

    Raises ValueError.
    """
    presented = bool(who) if isinstance(who, bytes) else who.cert is not None
    fields = {
        "host": normalize_host(given.host) or given.host,
        "verify": given.verify or ("SUCCESS" if presented else "NONE"),
        "server_name": given.sni,
        "method": given.method,
        "client_ip": given.client_ip,
    }
    found = {name: os.fsencode(value) for name, value in fields.items() if value}
    try:
        request = assemble_request(None, found)
    except BadRequest as error:
        raise ValueError(str(error)) from None
    check_circumstances(request, given.method, given.client_ip)
    if isinstance(who, bytes):
        return request._replace(cert=who)
    if who.cert is None:
        return request
    return request._replace(cert=b"given", subject=who.cert, assumed=Assumed(who.trust, True))


def ask(file: PolicyFile, name: str, request: AuthzRequest, now: float) -> Answer:
    """Ask one location.

    If the location checks the host and none was given, hosts that it can serve are tried, and a
    note names the host used: an empty host would be refused with any certificate.
    """
    here, spec = file.policy.locations[name], file.location(name)
    request = request._replace(location=name)
    notes = []
    decision = None
    if here.uses_host and not request.host:
        decision, note = _try_hosts(file.policy, spec, request, now)
        notes += [note] if note else []
    elif here.sni_matches_host and not request.server_name:
        request = request._replace(server_name=request.host)
    if decision is None:
        decision = evaluate(file.policy, request, now)
    if here.uses_client_ip and not request.client_ip and decision.reason is not Reason.PUBLIC:
        notes.append("a rule needs the client's address, which is unknown; give --client-ip")
    return Answer(decision, tuple(notes))


def _try_hosts(
    policy: Policy, spec: LocationSpec, request: AuthzRequest, now: float
) -> tuple[Decision, str]:
    """Return the decision of the first host that is allowed, else of the first, and a note."""
    blank = evaluate(policy, request, now)
    if blank.reason not in _BY_HOST:
        return blank, ""
    hosts = _hosts(spec, blank.subject)
    if not hosts and not policy.locations[spec.name].san_matches_host:
        hosts = [request.server_name or ANY_HOST]
    asked = []
    for host in hosts:
        server_name = request.server_name or host
        decision = evaluate(policy, request._replace(host=host, server_name=server_name), now)
        asked.append((decision, f"asked for the host {host}; --host asks for another"))
        if decision.granted:
            return asked[-1]
    unknown = "the certificate names no host that this location is known to serve; give --host"
    return asked[0] if asked else (blank._replace(detail=""), unknown)


ANY_HOST = "host.invalid"
"""The host used if any host is accepted (RFC 6761 reserves this name)."""

_BY_HOST = frozenset({Reason.HOST_MISMATCH, Reason.SNI_MISMATCH})

MAX_HOSTS = 100
"""Maximum number of a certificate's names that are tried as the host."""


def _hosts(spec: LocationSpec, cert: ClientCert | None) -> list[str]:
    """Return the exact names of the location's `server_name`, and hosts that the certificate names.

    Without `server_name`, any host is accepted.
    """
    names: tuple[ServerName, ...] = sum(spec.server_name or (), ())
    own = [name.value for name in names if name.kind in ("exact", "both") and name.value]
    others = [
        host
        for host in _certified(cert)
        if spec.server_name is None or any(_serves(name, host) for name in names)
    ]
    return [*own, *others]


def _certified(cert: ClientCert | None) -> list[str]:
    if cert is None:
        return []
    hosts = [fold_dns(name).replace("*.", "any.", 1) for name in cert.dns[:MAX_HOSTS]]
    hosts += [f"[{ip}]" if ":" in ip else ip for ip in cert.ip[:MAX_HOSTS]]
    return [host for host in hosts if normalize_host(host) == host]


def _serves(name: ServerName, host: str) -> bool:
    if name.kind == "regex":
        return bool(compile_name(name.value)(host.encode()))
    if name.kind == "prefix":
        return host.startswith(name.value)
    return name.kind != "exact" and host.endswith("." + name.value.removeprefix("."))

"""`who`: describe a location's rules in words, and show which of the known clients are allowed."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from sidecar.core.decision import Decision
from sidecar.core.errors import printable
from sidecar.core.policy.rule_words import rules_in_words
from sidecar.core.request import AuthzRequest
from sidecar.core.seen_clients import SeenClient
from sidecar.core.x509.certificate import ClientCert

from .asking import Answer, PolicyFile, ask


@dataclass(frozen=True, slots=True)
class Client:
    """One certificate, and the answer of the location."""

    cert: ClientCert
    answer: Answer

    @property
    def decision(self) -> Decision:
        """The decision of the location."""
        return self.answer.decision


@dataclass(frozen=True, slots=True)
class Access:
    """The rules of a location in words, and the allowed clients."""

    rules: list[str]
    clients: list[Client]
    asked: int


def who(
    file: PolicyFile, name: str, certs: Iterable[ClientCert], request: AuthzRequest, now: float
) -> Access:
    """Ask the location about each certificate.  Raises ValueError for an unknown location."""
    rules = rules_in_words(file.spec, file.location(name))
    presented = request._replace(cert=b"given")
    clients = [
        Client(cert, ask(file, name, presented._replace(subject=cert), now)) for cert in certs
    ]
    let_in = [each for each in clients if each.decision.allowed]
    let_in.sort(key=lambda each: (each.cert.not_after, each.cert.sha256))
    return Access(rules, let_in, len(clients))


def as_json(access: Access) -> str:
    """Format the answer as JSON."""
    clients = [
        {
            "subject": each.cert.dn,
            "sha256": each.cert.sha256,
            "not_after": utc(each.cert.not_after),
            "decision": each.decision.verdict,
            "rule": each.decision.rule,
        }
        for each in access.clients
    ]
    return json.dumps({"rules": access.rules, "clients": clients}, indent=2)


def as_text(access: Access, seen: Mapping[str, SeenClient]) -> str:
    """Format the answer as text; `seen` has the time of each client's last request."""
    lines = [*access.rules, ""]
    for each in access.clients:
        line = f"until {utc(each.cert.not_after)} {each.cert.dn or '(empty subject)'}"
        if each.decision.rule:
            line += f" by {each.decision.rule}"
        if not each.decision.granted:
            line += f"; monitor mode: enforcing would deny ({each.decision.reason})"
        if client := seen.get(each.cert.sha256):
            line += f", last seen {utc(client.last_seen)}"
        lines.append("; ".join([line, *each.answer.notes]))
    if access.asked:
        what = "clients seen" if seen else "certificates"
        lines.append(f"{len(access.clients)} of {access.asked} {what} get in")
    else:
        lines.append("no client was seen yet: --certs DIR tells which of others get in")
    return "\n".join(map(printable, lines))


def utc(moment: float) -> str:
    """Format a moment as RFC 3339."""
    return f"{datetime.fromtimestamp(moment, UTC):%Y-%m-%dT%H:%M:%SZ}"

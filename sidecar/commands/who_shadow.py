"""`who --shadow`: tell which of the clients seen would be locked out if monitor mode ended.

Each client that was seen at the location is asked about again under the policy of today.  Where
the decision depends on the client's address, which is not kept, the recorded decision counts.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from sidecar.core.decision import GRANTS, Decision, Reason
from sidecar.core.errors import MalformedCertificate, printable
from sidecar.core.policy.model import Policy
from sidecar.core.policy.rule_words import rules_in_words
from sidecar.core.request import AuthzRequest
from sidecar.core.seen_clients import SeenClient, Visit
from sidecar.core.x509.certificate import ClientCert

from .asking import PolicyFile, ask
from .who import utc


@dataclass(frozen=True, slots=True)
class LockedOut:
    """A client that enforcing would deny, and why."""

    cert: ClientCert
    reason: Reason
    rule: str
    last_seen: float


@dataclass(frozen=True, slots=True)
class Shadow:
    """One location: its rules in words, who would be locked out, and how many were seen there."""

    location: str
    monitored: bool
    rules: list[str]
    clients: list[LockedOut]
    seen: int


def watched(policy: Policy) -> list[str]:
    """Return the locations in monitor mode."""
    return [name for name, location in policy.locations.items() if location.monitor]


def locked_out(
    file: PolicyFile, name: str, seen: Iterable[SeenClient], request: AuthzRequest, now: float
) -> Shadow:
    """Ask the location about each client seen there.  Raises ValueError for an unknown one."""
    spec = file.location(name)
    here = file.policy.locations[name]
    visitors = [client for client in seen if name in client.visits]
    found = []
    for client in visitors:
        try:
            cert = client.cert
        except MalformedCertificate:
            continue
        asked = request._replace(cert=b"given", subject=cert)
        if here.uses_client_ip and not request.client_ip:
            reason, rule = _recorded(client.visits[name])
        else:
            reason, rule = _verdict(ask(file, name, asked, now).decision)
        is_gone = reason is Reason.EXPIRED and client.visits[name].at <= cert.not_after
        if reason not in GRANTS and not is_gone:
            found.append(LockedOut(cert, reason, rule, client.visits[name].at))
    found.sort(key=lambda each: (each.reason, each.rule, -each.last_seen))
    rules = rules_in_words(file.spec, spec)
    return Shadow(name, here.monitor, rules, found, len(visitors))


def _verdict(decision: Decision) -> tuple[Reason, str]:
    return decision.reason, decision.rule


def _recorded(visit: Visit) -> tuple[Reason, str]:
    known = {str(reason): reason for reason in Reason}
    return known.get(visit.reason, Reason.NOT_ALLOWED), visit.rule


def as_json(found: list[Shadow], *, one: bool) -> str:
    """Return the answer for programs: of one location, or a list of all that were asked."""
    told = [
        {
            "location": shadow.location,
            "rules": shadow.rules,
            "clients": [_facts(each) for each in shadow.clients],
        }
        for shadow in found
    ]
    return json.dumps(told[0] if one else told, indent=2)


def _facts(client: LockedOut) -> dict[str, str]:
    return {
        "subject": client.cert.dn,
        "sha256": client.cert.sha256,
        "not_after": utc(client.cert.not_after),
        "decision": "deny",
        "rule": client.rule,
        "reason": str(client.reason),
        "last_seen": utc(client.last_seen),
    }


def as_text(found: list[Shadow]) -> str:
    """Return the answer for people."""
    if not found:
        return "no location is in monitor mode"
    return "\n\n".join("\n".join(map(printable, _lines(each))) for each in found)


def _lines(shadow: Shadow) -> Iterable[str]:
    mode = "in monitor mode" if shadow.monitored else "enforced already"
    yield f"{shadow.location}, {mode}"
    yield from (f"  {rule}" for rule in shadow.rules)
    for each in shadow.clients:
        why = f"{each.reason} by {each.rule}" if each.rule else str(each.reason)
        subject = each.cert.dn or f"(empty subject) {each.cert.sha256[:16]}"
        yield f"would be denied: {subject}: {why}, last seen {utc(each.last_seen)}"
    if not shadow.seen:
        yield "no client was seen here yet"
        return
    count = Counter(each.reason for each in shadow.clients)
    why = ", ".join(f"{times} {reason}" for reason, times in count.most_common())
    yield f"{len(shadow.clients)} of {shadow.seen} clients seen here would be locked out" + (
        f": {why}" if why else ""
    )

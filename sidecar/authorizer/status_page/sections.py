"""What the sections of the status page show, bounded: each a list of rows and how many were left.

Everything here runs in a thread beside the decisions.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from sidecar.authorizer.daemon_status import DaemonStatus
from sidecar.authorizer.telemetry.history import Kind
from sidecar.authorizer.telemetry.recent_denials import Denial
from sidecar.core.config.crl_place import shown
from sidecar.core.decision import Reason, Step
from sidecar.core.evaluate import STEPS, evaluate
from sidecar.core.policy.model import Policy
from sidecar.core.seen_clients import SeenClient, Visit

from .plots import Plot, plot

MAX_LOCATIONS = 50
MAX_QUIET = 200
MAX_DENIALS = 25
MAX_FOUND = 50
MAX_REQUESTS = 5
MAX_CLIENTS = 25
MAX_WATCHED = 20
MAX_NAMES = 8
MAX_SOURCES = 100
"""Most rows of each section."""

_ENDED_AT = {
    Reason.VERIFY_FAILED: "verify",
    Reason.MALFORMED_CERTIFICATE: "readable",
    Reason.EXPIRED: "validity",
    Reason.NOT_YET_VALID: "validity",
    Reason.UNTRUSTED_ISSUER: "issuer",
}
"""The step that ended a decision about a certificate that is not kept."""


# -- locations


@dataclass(frozen=True, slots=True)
class LocationRow:
    """One location in the last hour; `why` are its denials by reason, the most frequent first."""

    name: str
    monitor: bool
    public: bool
    allowed: int
    denied: int
    why: list[tuple[str, int]]
    shape: Plot
    denied_shape: Plot


@dataclass(frozen=True, slots=True)
class Locations:
    """The locations that were asked in the last hour, and the names of the others."""

    rows: list[LocationRow]
    more: int
    quiet: list[str]
    more_quiet: int


def locations(status: DaemonStatus, policy: Policy, now: float, query: str) -> Locations:
    """Those with most denials first, then those asked most."""
    history = status.history
    busy = {name: history.in_the_hour(now, name) for name in history.locations()}
    names = [name for name in policy.locations if query.lower() in name.lower()]
    asked = [name for name in names if name in busy]
    asked.sort(key=lambda name: (-_denied(busy[name]), -busy[name].total()))
    quiet = [name for name in names if name not in busy]
    rows = [_location_row(name, status, policy, now) for name in asked[:MAX_LOCATIONS]]
    left = len(asked) - len(rows), max(0, len(quiet) - MAX_QUIET)
    return Locations(rows, left[0], quiet[:MAX_QUIET], left[1])


def _location_row(name: str, status: DaemonStatus, policy: Policy, now: float) -> LocationRow:
    history, here = status.history, policy.locations[name]
    kinds = history.in_the_hour(now, name)
    allow, deny = (history.per_minute(verdict, now, name) for verdict in ("allow", "deny"))
    both = [a + d for a, d in zip(allow, deny, strict=True)]
    return LocationRow(
        name,
        here.monitor,
        here.public,
        kinds.total() - _denied(kinds),
        _denied(kinds),
        reasons(kinds),
        plot(both),
        plot(deny, max(both)),
    )


def _denied(kinds: Counter[Kind]) -> int:
    return sum(count for (verdict, _), count in kinds.items() if verdict == "deny")


def reasons(kinds: Counter[Kind]) -> list[tuple[str, int]]:
    """The denials by reason, the most frequent first."""
    return [(kind[1], n) for kind, n in kinds.most_common() if kind[0] == "deny" and n > 0]


# -- denials


@dataclass(frozen=True, slots=True)
class DenialRow:
    """Denials of one kind, and the steps of the last one."""

    key: str
    denial: Denial
    steps: list[Step]
    again: str
    """What today's policy decides, if it is another."""
    changed: bool
    latest: list[tuple[str, float]]


def denials(status: DaemonStatus, policy: Policy, query: str) -> tuple[list[DenialRow], int]:
    """The latest denials, or those that a query names; and how many are not shown."""
    kept = status.denials()
    found = [each for each in kept if _is_meant(each, query)] if query else kept
    most = MAX_FOUND if query else MAX_DENIALS
    rows = [_denial_row(each, policy, status, query) for each in found[:most]]
    return rows, len(found) - len(rows)


def _is_meant(denial: Denial, query: str) -> bool:
    wanted = query.lower()
    texts = (denial.subject, denial.decision.location, denial.sha256, str(denial.decision.reason))
    ids = [request_id for request_id, _ in denial.requests]
    client_ip = denial.request.client_ip
    return (
        any(wanted in text.lower() for text in texts)
        or any(each.lower().startswith(wanted) for each in ids)
        or client_ip == query
    )


def _denial_row(denial: Denial, policy: Policy, status: DaemonStatus, query: str) -> DenialRow:
    decision, request = denial.decision, denial.request
    requests = denial.requests
    meant = [each for each in requests if query and each[0].lower().startswith(query.lower())]
    latest = (meant or requests)[:MAX_REQUESTS]
    key = f"{decision.location}-{decision.reason}-{denial.sha256[:12]}-{decision.rule}"
    changed = denial.policy != policy.hash
    if not denial.can_be_explained or decision.location not in policy.locations:
        return DenialRow(
            key, denial, _steps_of(decision.reason, decision.detail), "", changed, latest
        )
    trace: list[Step] = []
    asked = request._replace(location=decision.location)
    now = evaluate(policy, asked, denial.last, status.ocsp, trace=trace)
    again = f"{now.verdict} ({now.reason})" if now.reason is not decision.reason else ""
    # The octets of the request are not kept, and so not how many they were.
    steps = [
        Step(s.name, True, "presented") if s.name == "certificate" and s.passed else s
        for s in trace
    ]
    return DenialRow(key, denial, steps, again, changed, latest)


def _steps_of(reason: Reason, detail: str) -> list[Step]:
    """The steps up to the one that ended a decision."""
    if reason not in _ENDED_AT:
        return [Step("location", False, detail)]
    steps: list[Step] = []
    for name, _ in STEPS:
        if name == _ENDED_AT[reason]:
            return [*steps, Step(name, False, detail)]
        steps.append(Step(name, True, ""))
    return steps


# -- monitor mode


@dataclass(frozen=True, slots=True)
class WatchedRow:
    """A location in monitor mode, and whom enforcing would lock out."""

    name: str
    clients: int
    why: list[tuple[str, str, int]]
    names: list[str]
    more: int


def watched(
    status: DaemonStatus, policy: Policy, clients: Iterable[SeenClient]
) -> tuple[list[WatchedRow], int]:
    """The locations in monitor mode, those with most clients locked out first."""
    names = [name for name, location in policy.locations.items() if location.monitor]
    counted = {name: list(status.counts.locked_out.get(name, {}).values()) for name in names}
    first = sorted(names, key=lambda name: -len(counted[name]))[:MAX_WATCHED]
    people: dict[str, list[str]] = {name: [] for name in first}
    for client in clients:
        for name, visit in list(client.visits.items()):
            if name in people and visit.shadowed:
                people[name].append(client.subject)
    rows = [
        WatchedRow(
            name,
            len(counted[name]),
            [(str(r), rule, n) for (r, rule), n in Counter(counted[name]).most_common(MAX_NAMES)],
            sorted(people[name])[:MAX_NAMES],
            max(0, len(people[name]) - MAX_NAMES),
        )
        for name in first
    ]
    return rows, len(names) - len(rows)


# -- clients


@dataclass(frozen=True, slots=True)
class ClientRow:
    """One client that was seen."""

    client: SeenClient
    location: str
    visit: Visit
    level: str


@dataclass(frozen=True, slots=True)
class Clients:
    """The clients that are shown, and how many there are."""

    rows: list[ClientRow]
    more: int
    total: int
    today: int


def client_rows(seen: list[SeenClient], now: float, query: str) -> Clients:
    """Those that end first, or those that a query names."""
    wanted = query.lower()
    found = [
        each
        for each in seen
        if each.visits
        and (each.not_after > now or query)
        and (not query or wanted in each.subject.lower() or each.sha256.startswith(wanted))
    ]
    found.sort(key=lambda each: each.not_after)
    rows = []
    for client in found[:MAX_CLIENTS]:
        location, visit = client.last
        rows.append(ClientRow(client, location, visit, _level(client.not_after, now)))
    today = sum(now - each.last_seen < 86_400 for each in seen)
    return Clients(rows, len(found) - len(rows), len(seen), today)


def _level(end: float, now: float) -> str:
    if end <= now:
        return "bad"
    return "warn" if end - now < 14 * 86_400 else "good"


# -- authorities


@dataclass(frozen=True, slots=True)
class SourceRow:
    """A CRL, a CA's file or an OCSP responder, and how fresh it is."""

    trust: str
    kind: str
    source: str
    end: float | None
    note: str
    level: str


def sources(policy: Policy, now: float) -> tuple[list[SourceRow], int]:
    """Everything that can end, by trust."""
    rows = []
    for trust in policy.trusts.values():
        for crl in trust.crl_list:
            note = f"{crl.entry_count:,} revoked" + (f"; {crl.unusable}" if crl.unusable else "")
            level = _freshness(crl.next_update, now, (crl.next_update or now) - crl.this_update)
            rows.append(SourceRow(trust.name, "CRL", crl.source, crl.next_update, note, level))
        rows += [
            SourceRow(trust.name, "CRL", place, None, "not fetched yet", "warn")
            for place in trust.missing
        ]
        for source, ends in trust.ca_ends.items():
            end = next((each for each in ends if each > now), ends[-1])
            note = f"{len(ends)} authorities" if len(ends) > 1 else ""
            level = _freshness(end, now, 120 * 86_400)
            rows.append(SourceRow(trust.name, "CA", source, end, note, level))
        if trust.ocsp:
            rows.append(SourceRow(trust.name, "OCSP", shown(trust.ocsp), None, "", "good"))
    return rows[:MAX_SOURCES], max(0, len(rows) - MAX_SOURCES)


def _freshness(end: float | None, now: float, life: float) -> str:
    if end is None:
        return "good"
    if end <= now:
        return "bad"
    return "warn" if end - now < life / 4 else "good"

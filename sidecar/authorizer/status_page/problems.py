"""What is wrong, the worst first: each with what it means and where to look."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from sidecar.authorizer.daemon_status import DaemonStatus
from sidecar.authorizer.readiness import shut_out
from sidecar.authorizer.status_page.words import counted, moment, relative, span
from sidecar.core.policy.model import Policy, Trust
from sidecar.core.seen_clients import SeenClient

MAX_LINES = 20
"""Most lines of one problem that are shown."""

SOON_CA = 30 * 86_400.0
SOON_CRL = 2 * 86_400.0


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that is wrong (`bad`) or will be (`warn`); `lines` are as the log has them."""

    level: str
    title: str
    meaning: str = ""
    lines: tuple[str, ...] = ()
    more: int = 0
    trust: str = ""


def problems(status: DaemonStatus, clients: list[SeenClient], now: float) -> list[Problem]:
    """Everything that is wrong."""
    found = list(_all(status, clients, now))
    return sorted(found, key=lambda each: each.level != "bad")


def _all(status: DaemonStatus, clients: list[SeenClient], now: float) -> Iterator[Problem]:
    policy = status.policy
    if policy is None:
        lines = status.problems or tuple(filter(None, (status.not_ready,)))
        yield _listed(
            "bad",
            "No policy is in force: nothing is served",
            "nginx's questions wait. It starts by itself once this is mended.",
            lines,
        )
        return
    why, _ = shut_out(policy, now)
    if why:
        yield Problem("bad", "Nobody gets in", "Every location denies everybody.", (why,))
    elif status.not_ready:
        yield Problem("bad", f"Not ready: {status.not_ready}")
    if status.problems:
        when = f"of {moment(status.loaded_at)}" if status.loaded_at else "(its last good copy)"
        since = f"Policy {policy.hash} {when} stays in force"
        meaning = f"{since}: what was edited last is not. Revocations that could be read count."
        yield _listed("bad", "The last reload was refused", meaning, status.problems)
    crls = list(_crls(policy, clients, now))
    told_of = {f"trust {each.trust}" for each in crls if each.level == "bad"}
    for line in status.standing():
        name, _, told = line.partition(": ")
        if name not in told_of:
            yield Problem("bad", _capital(name), told)
    yield from crls
    yield from _authorities(policy, now)
    yield from _counters(status, now)
    warnings = tuple(
        str(each)
        for each in policy.warnings_at(now)
        if not each.message.startswith(("CRL ", "CA "))  # told above
    )
    if warnings:
        meaning = "The policy says something that will hardly be meant."
        yield _listed("warn", "Warnings of the policy", meaning, warnings)


def _listed(level: str, title: str, meaning: str, lines: tuple[str, ...]) -> Problem:
    return Problem(level, title, meaning, lines[:MAX_LINES], max(0, len(lines) - MAX_LINES))


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _crls(policy: Policy, clients: list[SeenClient], now: float) -> Iterator[Problem]:
    for trust in policy.trusts.values():
        if trust.missing:
            meaning = "See `journalctl -u mtls-sidecar-fetch`."
            title = f"CRLs of trust {trust.name} were not fetched yet"
            yield _listed("warn", title, meaning, trust.missing)
        for crl in trust.crl_list:
            end = crl.next_update
            if end is None:
                continue
            name = f"CRL {crl.source} of trust {trust.name}"
            if end <= now:
                yield Problem(
                    "bad" if trust.revocation == "required" else "warn",
                    f"{name} ended {relative(end, now)}",
                    _locked_out(policy, trust, clients, end),
                    trust=trust.name,
                )
            elif end - now < min(SOON_CRL, (end - crl.this_update) / 4):
                yield Problem(
                    "warn", f"{name} ends {relative(end, now)}", "Its successor should be there."
                )


def _locked_out(policy: Policy, trust: Trust, clients: list[SeenClient], since: float) -> str:
    """How many clients an ended CRL has locked out."""
    if trust.revocation != "required":
        return f"Revocation is {trust.revocation} there: it locks nobody out."
    here = {
        name
        for name, location in policy.locations.items()
        if any(each.name == trust.name for each in location.trusts)
    }
    denied = sum(
        any(
            name in here and visit.reason == "revocation_unknown" and visit.at >= since
            for name, visit in client.visits.items()
        )
        for client in clients
    )
    came = counted(denied, "client")
    verb = "has" if denied == 1 else "have"
    return (
        "Revocation is required: everyone whom that CA certified is denied "
        f"(revocation_unknown). {came} {verb} come since."
    )


def _authorities(policy: Policy, now: float) -> Iterator[Problem]:
    for trust in policy.trusts.values():
        for source, ends in trust.ca_ends.items():
            for end in ends:
                name = f"A CA in {source} of trust {trust.name}"
                if end <= now:
                    yield Problem(
                        "warn" if ends[-1] > now else "bad",
                        f"{name} ended {relative(end, now)}",
                        "Whom it certified is denied.",
                    )
                elif end - now < SOON_CA:
                    meaning = "Whom it certified is denied from then on."
                    yield Problem("warn", f"{name} ends {relative(end, now)}", meaning)


def _counters(status: DaemonStatus, now: float) -> Iterator[Problem]:
    counts = status.counts
    up = span(now - status.started)
    if dropped := counts.log_dropped():
        meaning = f"In the {up} since the start. Decisions go on; what they were is not recorded."
        yield Problem("warn", f"{counted(dropped, 'line')} of the decision log were lost", meaning)
    if refused := counts.refused_connections():
        meaning = f"In the {up} since the start, as too many were open. nginx answers 500 for each."
        yield Problem("warn", f"{counted(refused, 'connection')} were closed unanswered", meaning)
    kinds = status.history.in_the_hour(now)
    if bad := kinds["deny", "bad_request"]:
        meaning = (
            "nginx's configuration lacks something (`mtls-sidecar doctor`), or something else "
            "asks. nginx answers 500 for each."
        )
        yield Problem("warn", f"{counted(bad, 'request')} of the last hour made no sense", meaning)
    ending = counts.expiring()["1d"]
    if overdue := counts.overdue():
        meaning = f"Less than a quarter of their life is left; within a day {ending:,} will end."
        title = f"{counted(overdue, 'certificate')} in use should have been renewed"
        yield Problem("warn", title, meaning)

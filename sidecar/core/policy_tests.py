"""Run a policy's tests: decide each request and report each decision that differs from the test.

Tests check the policy's rules.  They do not ask denylists, CRLs or OCSP: these change at any time,
and a revocation must never make a policy fail its tests.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from urllib.parse import quote

from .config.yaml_tree import Node
from .decision import Decision, Reason
from .errors import Diagnostic
from .evaluate import evaluate
from .policy.cases import CaseSpec, Principal
from .policy.model import Policy
from .request import Assumed, BadRequest, assemble_request

Read = Callable[[str], bytes]
"""Reads a certificate's file, PEM, by the path in the policy.  Raises OSError."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A test whose decision differs from the expected one."""

    file: str
    node: Node
    expected: str
    got: str
    name: str = ""

    def diagnostic(self) -> Diagnostic:
        """Return the failure as a mistake in the file of the test."""
        what = f"test {self.name!r}" if self.name else "a test"
        message = f"{what} fails: expected {self.expected}, got {self.got}"
        return Diagnostic(self.file, self.node.line, self.node.column, message)


@dataclass(slots=True)
class Outcome:
    """The result of tests: how many passed, which failed, and which rules decided."""

    passed: int = 0
    failed: list[Failure] = field(default_factory=list)
    decided: set[tuple[str, str]] = field(default_factory=set)


def run_cases(
    policy: Policy, cases: Sequence[CaseSpec], file: str, now: float, read: Read
) -> Outcome:
    """Run tests at `now` (seconds since the epoch), unless a test names its own moment."""
    outcome = Outcome()
    for case in cases:
        for each, label in _requests(case):
            decision = _decide(policy, each, now, read)
            if isinstance(decision, Decision):
                outcome.decided.add((decision.location, decision.rule))
                wrong = _difference(each, decision)
            else:
                wrong = (_expected(each), decision)
            if wrong is None:
                outcome.passed += 1
            else:
                outcome.failed.append(Failure(file, case.node, *wrong, name=label))
    return outcome


def _requests(case: CaseSpec) -> Iterator[tuple[CaseSpec, str]]:
    """Yield the requests of a test, each with its name: one, or all of a table."""
    if not case.principals:
        yield case, case.name
    for location, allowed in case.allow.items():
        names = {each.text for each in allowed}
        for name, principal in case.principals.items():
            expect = "allow" if name in names else "deny"
            yield (
                replace(case, location=location, cert=principal, expect=expect),
                f"{case.name}: {name} at {location}".removeprefix(": "),
            )


def _decide(policy: Policy, case: CaseSpec, now: float, read: Read) -> Decision | str:
    """Decide the request of a test; return the reason as text where that is impossible."""
    who = case.cert
    try:
        cert = _header(who, read)
    except OSError as error:
        return f"{who.path}: {error.strerror or error}"
    presented = bool(cert) or who.cert is not None
    fields = {
        "host": case.host,
        "verify": case.verify or ("SUCCESS" if presented else "NONE"),
        "server_name": case.sni,
        "uri": case.uri,
        "method": case.method,
        "client_ip": case.client_ip,
    }
    found = {name: value.encode() for name, value in fields.items()}
    try:
        request = assemble_request(case.location or None, {**found, "cert": cert or b"described"})
    except BadRequest as error:
        return str(error)
    request = request._replace(
        cert=request.cert if presented else b"",
        subject=who.cert,
        assumed=Assumed(None if who.cert is None else who.trust),
    )
    return evaluate(policy, request, now if case.now is None else case.now)


def _header(who: Principal, read: Read) -> bytes:
    return quote(read(who.path), safe="").encode() if who.path else b""


def _difference(case: CaseSpec, decision: Decision) -> tuple[str, str] | None:
    """Return (expected, got) where a decision differs from its test.  Monitor mode is ignored."""
    verdict = "allow" if decision.granted else "deny"
    wanted = (
        case.expect == verdict
        and case.reason in ("", str(decision.reason))
        and case.rule in ("", decision.rule)
        and (case.roles is None or set(case.roles) == set(decision.roles))
    )
    # A name that is mistyped denies everybody, and must not make the test pass.
    missing = decision.reason is Reason.UNKNOWN_LOCATION and bool(case.location)
    if wanted and (not missing or case.reason):
        return None
    got = f"{verdict} ({decision.reason})"
    if decision.rule:
        got += f" by {decision.rule}"
    if case.roles is not None:
        got += f" with roles {', '.join(decision.roles) or 'none'}"
    return _expected(case), got if decision.granted else f"{got}: {decision.detail}"


def _expected(case: CaseSpec) -> str:
    found = case.expect
    if case.reason:
        found += f" ({case.reason})"
    if case.rule:
        found += f" by {case.rule}"
    if case.roles is not None:
        found += f" with roles {', '.join(case.roles) or 'none'}"
    return found


def untested(policy: Policy, decided: set[tuple[str, str]]) -> list[str]:
    """Return the locations that no test asked, and the rules (`LOCATION: RULE`) never applied."""
    touched = {location for location, _ in decided}
    found = [name for name in policy.locations if name not in touched]
    for name, location in policy.locations.items():
        if name in touched:
            labels = [*location.deny.labels(), *location.allow.labels()]
            found += [f"{name}: {rule}" for rule in labels if (name, rule) not in decided]
    return found

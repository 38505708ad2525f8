"""`what`: show where one certificate is allowed or denied, by which rule, and why."""

from __future__ import annotations

import json
from dataclasses import dataclass

from sidecar.core.errors import printable
from sidecar.core.request import AuthzRequest

from .asking import Answer, PolicyFile, ask


@dataclass(frozen=True, slots=True)
class Access:
    """The answer of one location, and the line of the policy that decided."""

    location: str
    answer: Answer
    line: int


def what(file: PolicyFile, request: AuthzRequest, now: float) -> list[Access]:
    """Ask every location, in the policy's order."""
    found = []
    for name in file.policy.locations:
        answer = ask(file, name, request, now)
        found.append(Access(name, answer, file.line(answer.decision)))
    return found


def as_json(found: list[Access]) -> str:
    """Format the answers as JSON."""
    rows = [
        {
            "location": each.location,
            "decision": each.answer.decision.verdict,
            "reason": str(each.answer.decision.reason),
            "rule": each.answer.decision.rule,
            "line": each.line,
        }
        for each in found
    ]
    return json.dumps(rows, indent=2)


def as_text(found: list[Access], path: str) -> str:
    """Format the answers as text, a line for each location."""
    width = max((len(each.location) for each in found), default=0)
    return "\n".join(_row(each, width, path) for each in found)


def _row(access: Access, width: int, path: str) -> str:
    decision = access.answer.decision
    row = f"{decision.verdict:<5} {access.location:<{width}} {decision.reason}"
    if decision.rule:
        row += f" by {decision.rule}"
    row += f" ({path}:{access.line})"
    if decision.detail and not decision.granted:
        row += f": {decision.detail}"
    if decision.monitored and not decision.granted:
        row += "; monitor mode: enforcing would deny"
    return printable("; ".join([row, *access.answer.notes]))


def notes(found: list[Access]) -> list[str]:
    """Return the assumptions of the answers, to be printed beside JSON."""
    return [printable(f"{each.location}: {note}") for each in found for note in each.answer.notes]

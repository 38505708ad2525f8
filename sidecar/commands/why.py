"""`why`: find the decision about a request in the log, and explain it."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial

from sidecar.core.decision import Decision, Step
from sidecar.core.errors import printable
from sidecar.core.x509.certificate import ClientCert

from .asking import PolicyFile
from .decision_lines import Fields, moment, read_line
from .explain import explain
from .log_files import MAX_LINE
from .replay import logged_request

UNITS = ("mtls-sidecar", "mtls-sidecar@*")
MAX_FOUND = 20
"""Maximum number of decisions shown for one request; nginx asks again at internal redirects."""

_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")


@dataclass(frozen=True, slots=True)
class Found:
    """One decision of the log, and its place there."""

    source: str
    fields: Fields

    @property
    def is_summary(self) -> bool:
        """Whether the line counts several decisions; its values are of the first or the last."""
        return "summarized" in self.fields


@dataclass(frozen=True, slots=True)
class Told:
    """A logged decision, explained by the current policy as far as the line allows."""

    found: Found
    line: int
    changed: bool | None
    """Whether the policy has changed since then; None if the line names no policy."""
    decision: Decision | None
    steps: list[Step]


def check_id(request_id: str) -> str:
    """Check a request id and return it.  Raises ValueError."""
    if not _ID.fullmatch(request_id):
        raise ValueError(f"{request_id!r} is not a request id", "give nginx's $request_id")
    return request_id


def find(request_id: str, logs: Iterable[tuple[str, Iterable[bytes]]]) -> list[Found]:
    """Find the decisions about a request, each with its log and line number."""
    wanted = request_id.encode()
    found: list[Found] = []
    for name, lines in logs:
        for number, line in enumerate(lines, 1):
            if wanted not in line:
                continue
            fields = read_line(line)
            ids = ("id", "first_id", "last_id")
            if fields and request_id in [fields.get(each) for each in ids]:
                found.append(Found(f"{name}:{number}" if name else "journal", fields))
                if len(found) >= MAX_FOUND:
                    return found
    return found


def journal(request_id: str) -> Iterator[bytes]:
    """Yield the lines of the journal that name a request.  Raises ValueError."""
    units = [option for unit in UNITS for option in ("--unit", unit)]
    command = ["journalctl", *units, "--output", "cat", "--no-pager"]
    command.append("--grep=" + re.escape(request_id))
    try:
        asked = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    except OSError:
        raise ValueError(
            "there is no journalctl here", "name the decision log: --log FILE"
        ) from None
    with asked:
        try:
            assert asked.stdout is not None
            yield from iter(partial(asked.stdout.readline, MAX_LINE), b"")
        finally:
            asked.kill()


def tell(found: Found, file: PolicyFile, certs: Mapping[str, ClientCert]) -> Told:
    """Explain a decision by the current policy, and decide it again at its own time."""
    fields = found.fields
    names = ("location", "reason", "rule")
    line = file.lines.line(*(fields.get(name, "") for name in names))
    known = fields.get("policy", "")
    request = None if found.is_summary else logged_request(fields, certs)
    if request is None or (request.cert and request.subject is None):
        return Told(found, line, known != file.policy.hash if known else None, None, [])
    decision, steps = explain(file.policy, request, moment(fields["time"].encode()))
    return Told(found, line, known != file.policy.hash if known else None, decision, steps)


def as_json(told: Iterable[Told], policy_hash: str) -> str:
    """Format the answer as JSON."""
    return json.dumps([_facts(each, policy_hash) for each in told], indent=2)


def _facts(told: Told, policy_hash: str) -> dict[str, object]:
    now = told.decision
    return {
        **told.found.fields,
        "source": told.found.source,
        "line": told.line,
        "policy_now": policy_hash,
        "changed": told.changed,
        "now": now and {"decision": now.verdict, "reason": str(now.reason), "rule": now.rule},
        "steps": [{"step": s.name, "passed": s.passed, "saw": s.saw} for s in told.steps],
    }


def as_text(told: Iterable[Told], file: PolicyFile) -> str:
    """Format the answer as text."""
    return "\n\n".join("\n".join(map(printable, _lines(each, file))) for each in told)


def _lines(told: Told, file: PolicyFile) -> Iterator[str]:
    fields = told.found.fields
    get = fields.get
    verdict = f"{get('decision', '')} ({get('reason', '')})"
    rule = get("rule", "")
    where = get("location") or "(no location)"
    yield f"{get('time', '')} {verdict} at {where} ({told.found.source})"
    if told.found.is_summary:
        yield f"  one of {get('summarized')} decisions that one line counts; nginx's log has each"
    if get("detail"):
        yield f"  because {get('detail')}"
    if rule or told.line:
        yield f"  by {rule or 'no rule'}: {file.path}:{told.line}"
    for name in ("method", "host", "uri", "client_ip", "verify", "subject", "serial", "sha256"):
        if get(name):
            yield f"  {name} {get(name)}"
    if told.changed:
        yield f"  the policy has changed since: {get('policy')} then, {file.policy.hash} now"
    if told.decision is None:
        if not told.found.is_summary:
            yield "  not asked again: the certificate is not known; give it with --certs"
        return
    yield "decided again by the current policy, at that moment:"

    for step in told.steps:
        yield f"{'ok  ' if step.passed else 'STOP'} {step.name:<12} {step.saw}"
    yield f"{told.decision.verdict} ({told.decision.reason})" + (
        f" by {told.decision.rule}" if told.decision.rule else ""
    )

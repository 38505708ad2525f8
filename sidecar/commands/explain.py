"""`explain`: decide one request step by step, with the code of the daemon."""

from __future__ import annotations

import base64
import json
import os
import re
from urllib.parse import quote

from sidecar.core.config.schema import Invalid, Report
from sidecar.core.config.yaml_tree import parse
from sidecar.core.decision import Decision, Step
from sidecar.core.errors import PolicyError, printable
from sidecar.core.evaluate import evaluate
from sidecar.core.policy.cases import Certificate, Principal
from sidecar.core.policy.model import Policy
from sidecar.core.request import AuthzRequest
from sidecar.core.x509.pem_text import plain_pem

_PEM = re.compile(rb"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)


def escaped_pem(data: bytes) -> bytes:
    """Encode a certificate file, PEM or DER, as nginx would forward it.

    Of a file with text around it (as EasyRSA writes) or with a chain, the first certificate is
    used.  Other content is passed unchanged: the decision reports the mistake.
    """
    if found := _PEM.search(data) or _PEM.search(plain_pem(data)):
        data = found.group() + b"\n"
    elif data.startswith(b"\x30"):
        data = pem_of(data)
    return quote(data.decode("latin-1"), safe="", encoding="latin-1").encode()


def pem_of(der: bytes) -> bytes:
    """Encode octets as PEM, even if they are not a certificate: the decision reports that."""

    body = base64.encodebytes(der)
    return b"-----BEGIN CERTIFICATE-----\n" + body + b"-----END CERTIFICATE-----\n"


def described(text: str) -> Principal:
    """Parse a certificate described by its fields, as in tests.  Raises `PolicyError`."""
    node, mistakes = parse(os.fsencode(text), "--cert-fields")
    report = Report("--cert-fields", mistakes)
    try:
        found = Certificate().read(node, report)
    except Invalid:
        raise PolicyError(report.diagnostics) from None
    report.check()
    if found.cert is None:
        raise ValueError("--cert-fields needs {cn: alice, …}; give a file with --cert")
    return found


def explain(policy: Policy, request: AuthzRequest, now: float) -> tuple[Decision, list[Step]]:
    """Decide a request and return the decision with its steps."""
    trace: list[Step] = []
    return evaluate(policy, request, now, trace=trace), trace


def as_json(decision: Decision, steps: list[Step]) -> str:
    """Format the decision as JSON."""
    found = {
        "decision": decision.verdict,
        "reason": str(decision.reason),
        "rule": decision.rule,
        "location": decision.location,
        "roles": list(decision.roles),
        "monitored": decision.monitored,
        "status": decision.status,
        "steps": [{"step": s.name, "passed": s.passed, "saw": s.saw} for s in steps],
    }
    return json.dumps(found, indent=2)


def as_text(decision: Decision, steps: list[Step]) -> str:
    """Format the decision as text: a line for each step, then the verdict."""
    lines = [f"{'ok  ' if s.passed else 'STOP'} {s.name:<12} {printable(s.saw)}" for s in steps]
    verdict = f"{decision.verdict} ({decision.reason})"
    if decision.rule:
        verdict += f" by {decision.rule}"
    if decision.monitored and not decision.granted:
        verdict += "; monitor mode: enforcing would deny"
    return "\n".join([*lines, verdict])

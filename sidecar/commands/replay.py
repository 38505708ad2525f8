"""`replay`: decide logged requests by another policy, and report who would gain or lose access.

Each request is decided at its own time, so that only the policies differ.  Equal requests are
decided once, as long as the decision is valid.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from sidecar.core.decision import Decision, Reason
from sidecar.core.errors import printable
from sidecar.core.evaluate import evaluate
from sidecar.core.policy.model import Policy
from sidecar.core.request import Assumed, AuthzRequest, BadRequest, assemble_request
from sidecar.core.x509.certificate import ClientCert

from .decision_lines import Fields, is_cut, moment, read_line, split

MAX_QUESTIONS = 200_000
"""Maximum number of different cached questions."""

MAX_QUESTION_OCTETS = 64 * 1024 * 1024
"""Most octets of the lines that these were read from."""

MAX_CHANGES = 200_000
"""Maximum number of clients, by location, that gain or lose access."""

_BY_URI = (b' by="uri"', b',"by":"uri"')
_URI = (b' uri="', b',"uri":"')

Verdict = tuple[str, str, str]
"""Decision, reason and rule."""


@dataclass(slots=True)
class Change:
    """A client that gains or loses access, and the number of its requests."""

    location: str
    subject: str
    sha256: str
    was: Verdict
    now: Verdict
    times: int = 0


@dataclass(slots=True)
class _Question:
    """A question, its decision between two moments, and its entry in the result."""

    fields: Fields
    since: float = math.inf
    expires: float = -math.inf
    counted: Change | None = None
    answerable: bool = True


@dataclass(slots=True)
class Replay:
    """Replay logs, and collect the result."""

    policy: Policy
    certs: Mapping[str, ClientCert]
    now: float
    asked: int = 0
    skipped: int = 0
    others: int = 0
    """Lines that are no decision."""
    changes: dict[tuple[str, str, Verdict, Verdict], Change] = field(default_factory=dict)
    _questions: dict[bytes, _Question] = field(default_factory=dict)
    _octets: int = 0

    def gains(self) -> list[Change]:
        """Return the clients that were denied and would be allowed, the most frequent first."""
        return self._sorted("allow")

    def loses(self) -> list[Change]:
        """Return the clients that were allowed and would be denied, the most frequent first."""
        return self._sorted("deny")

    def _sorted(self, verdict: str) -> list[Change]:
        found = [each for each in self.changes.values() if each.now[0] == verdict and each.times]
        return sorted(found, key=lambda each: (-each.times, each.location, each.sha256))

    def take(self, lines: Iterable[bytes]) -> None:
        """Decide the requests of a log's lines.  Raises ValueError for too many changes."""
        last, at = b"", 0.0
        for line in lines:
            parts = split(line)
            if parts is None:
                self.others += 1
                continue
            stamp, same = parts
            if stamp != last:
                try:
                    last, at = stamp, moment(stamp)
                except ValueError:
                    self.skipped += 1
                    continue
            question = self._question(line, same)
            if not question.since <= at < question.expires:
                self._decide(question, at)
            if not question.answerable:
                summarized = question.fields.get("summarized", "")
                self.skipped += int(summarized) if summarized.isdecimal() else 1
                continue
            self.asked += 1
            if question.counted is not None:
                question.counted.times += 1

    def _question(self, line: bytes, same: bytes) -> _Question:
        # The URI matters only if the location was chosen by it; it is the last value of a line.
        by_uri = same.endswith(_BY_URI)
        key = same + line[max(line.rfind(each) for each in _URI) :] if by_uri else same
        found = self._questions.get(key)
        if found is None:
            self._octets += len(line)
            if len(self._questions) >= MAX_QUESTIONS or self._octets > MAX_QUESTION_OCTETS:
                self._questions.clear()
                self._octets = len(line)
            found = self._questions[key] = _Question(read_line(line) or {})
        return found

    def _decide(self, question: _Question, at: float) -> None:
        fields = question.fields
        decision = self._decision(fields, at)
        question.counted = None
        question.answerable = decision is not None
        question.since, question.expires = at, math.inf
        if decision is None:
            question.since = -math.inf
            return
        question.expires = max(decision.expires, math.nextafter(at, math.inf))
        was = (fields["decision"], fields["reason"], fields.get("rule", ""))
        now = (decision.verdict, str(decision.reason), decision.rule)
        if was[0] != now[0]:
            location = fields["location"] or decision.location
            key = (location, fields["sha256"], was, now)
            change = Change(location, fields["subject"], fields["sha256"], was, now)
            question.counted = self.changes.setdefault(key, change)
            if len(self.changes) > MAX_CHANGES:
                message = f"more than {MAX_CHANGES} clients gain or lose access"
                raise ValueError(message, "replay a part of the logs")

    def _decision(self, fields: Fields, at: float) -> Decision | None:
        """Decide the request at its time; return None if the line doesn't contain all of it."""
        request = logged_request(fields, self.certs)
        if request is None:
            return None
        decision = evaluate(self.policy, request, at)
        if request.cert and request.subject is None:
            # The certificate is unknown: only a decision that doesn't depend on it is certain.
            return decision if decision.reason in _WITHOUT else None
        if decision.reason is Reason.REVOCATION_UNKNOWN:
            return self._by_todays_revocation(request, decision, at)
        return decision

    def _by_todays_revocation(
        self, request: AuthzRequest, decision: Decision, at: float
    ) -> Decision:
        """Decide by today's revocation, because a current CRL says nothing of the past.

        If that is unknown too, for example without OCSP answers, revocation is ignored.
        """
        today = evaluate(self.policy, request, self.now)
        here = self.policy.locations[decision.location]
        if today.reason is Reason.REVOCATION_UNKNOWN and not here.uses_ocsp:
            return decision
        return evaluate(self.policy, request._replace(assumed=Assumed(None)), at)


_WITHOUT = frozenset({Reason.PUBLIC, Reason.UNKNOWN_LOCATION, Reason.VERIFY_FAILED})


def logged_request(fields: Fields, certs: Mapping[str, ClientCert]) -> AuthzRequest | None:
    """Rebuild the request of a line; return None if the line doesn't contain all of it.

    A presented but unknown certificate gives a request without `subject`.
    """
    by_uri = fields.get("by") == "uri"
    needed = ("decision", "reason", "location", "subject", "sha256", "verify", "host")
    if not all(name in fields for name in needed) or fields["reason"] == Reason.BAD_REQUEST:
        return None
    names = {"host": "host", "verify": "verify", "sni": "server_name", "method": "method"}
    names |= {"client_ip": "client_ip"} | ({"uri": "uri"} if by_uri else {})
    if not by_uri and not fields["location"]:
        return None
    if any(is_cut(fields.get(name, "")) for name in (*names, "location")):
        return None
    found = {to: fields.get(name, "").encode("latin-1", "replace") for name, to in names.items()}
    try:
        request = assemble_request(None if by_uri else fields["location"], found)
    except BadRequest:
        return None
    presented = fields["sha256"] or fields["verify"] not in ("NONE", "")
    return request._replace(
        cert=b"given" if presented else b"",
        subject=certs.get(fields["sha256"]),
        other_origin=fields.get("origin", ""),
    )


def as_json(replay: Replay) -> str:
    """Format the result as JSON."""
    return json.dumps(
        {
            "asked": replay.asked,
            "skipped": replay.skipped,
            "gains": [_row(each) for each in replay.gains()],
            "loses": [_row(each) for each in replay.loses()],
        },
        indent=2,
    )


def _row(change: Change) -> dict[str, object]:
    names = ("decision", "reason", "rule")
    return {
        "location": change.location,
        "subject": change.subject,
        "sha256": change.sha256,
        "times": change.times,
        "was": dict(zip(names, change.was, strict=True)),
        "now": dict(zip(names, change.now, strict=True)),
    }


def as_text(replay: Replay) -> str:
    """Format the result as text."""
    lines = []
    for word, changes in (("loses", replay.loses()), ("gains", replay.gains())):
        for each in changes:
            who = each.subject or "(no certificate)"
            lines.append(
                f"{word} {each.location}: {who} {each.sha256[:16]} {each.times} times: "
                f"{_said(each.was)}, now {_said(each.now)}"
            )
    lines.append(
        f"{replay.asked} asked, {replay.skipped} skipped (what was asked is not known); "
        f"{len(replay.gains())} gain, {len(replay.loses())} lose"
    )
    return "\n".join(map(printable, lines))


def _said(verdict: Verdict) -> str:
    return f"{verdict[0]} ({verdict[1]})" + (f" by {verdict[2]}" if verdict[2] else "")

"""Decide logged requests by another policy, and report who gains or loses access."""

from __future__ import annotations

import json
import time

import pytest
from asking import site
from pki import CA

from sidecar.commands import replay
from sidecar.commands.replay import Replay, as_json, as_text, logged_request
from sidecar.core.x509.certificate import from_der

STAFF = CA("Staff")
ALICE, BOB = from_der(STAFF.issue("alice").der), from_der(STAFF.issue("bob").der)
CERTS = {cert.sha256: cert for cert in (ALICE, BOB)}


def line(decision: str, reason: str, sha256: str = ALICE.sha256, **more: str) -> bytes:
    """A line of the decision log, of now."""
    fields = {
        "time": time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime()),
        "decision": decision,
        "reason": reason,
        "rule": "",
        "location": "site",
        "subject": "CN=alice",
        "sha256": sha256,
        "verify": "SUCCESS" if sha256 else "NONE",
        "host": "a.test",
        "method": "GET",
        **more,
        "id": "r",
    }
    return json.dumps(fields, separators=(",", ":")).encode() + b"\n"


def replayed(allow: str, *lines: bytes) -> Replay:
    found = Replay(site(allow), CERTS, time.time())
    found.take(lines)
    return found


def test_gains_and_losses_are_counted_by_client() -> None:
    """Only changed decisions count; equal questions are counted together, other lines ignored."""
    allowed, denied = line("allow", "allowed"), line("deny", "not_allowed", BOB.sha256)
    found = replayed("[{cn: bob}]", allowed, allowed, denied, b"policy 12 is in force\n")
    assert (found.asked, found.skipped) == (3, 0)
    assert [(each.sha256, each.times) for each in found.loses()] == [(ALICE.sha256, 2)]
    assert [(each.sha256, each.times) for each in found.gains()] == [(BOB.sha256, 1)]
    rows = json.loads(as_json(found))
    assert set(rows) == {"asked", "skipped", "gains", "loses"}
    assert set(rows["loses"][0]) == {"location", "subject", "sha256", "times", "was", "now"}
    assert as_text(found).splitlines()[-1].endswith("1 gain, 1 lose")


def test_many_long_lines_are_not_all_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    """By number and by octets; each is asked all the same."""
    monkeypatch.setattr(replay, "MAX_QUESTION_OCTETS", 20_000)
    found = replayed(
        "[{cn: alice}]", *(line("allow", "allowed", x=f"{i}" * 1000) for i in range(99))
    )
    assert found.asked == 99
    assert sum(map(len, found._questions)) < 20_000


def test_too_many_changes_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are kept until the end of the log, whatever is in it."""
    monkeypatch.setattr(replay, "MAX_CHANGES", 9)
    found = [line("allow", "allowed", location=f"{i}") for i in range(10)]
    assert len(replayed("[{cn: alice}]", *found[:9]).loses()) == 9
    with pytest.raises(ValueError, match="more than 9 clients gain or lose"):
        replayed("[{cn: alice}]", *found)


def test_what_was_asked_is_not_always_known() -> None:
    """An unknown certificate, an invalid time and a summary are skipped, a summary with its
    count."""
    unknown = line("allow", "allowed", "ab" * 32)
    summary = line("deny", "not_allowed", "ab" * 32, summarized="7")
    broken = line("allow", "allowed").replace(b"T", b"X", 1)
    found = replayed("[{cn: bob}]", unknown, summary, broken)
    assert (found.asked, found.skipped) == (0, 9)


def test_a_certificate_is_not_needed_where_it_has_no_part() -> None:
    """A location that becomes public is a gain even for an unknown certificate."""
    found = replayed("public", line("deny", "not_allowed", "ab" * 32))
    assert (found.asked, len(found.gains())) == (1, 1)


@pytest.mark.parametrize(
    "change",
    [
        {"reason": "bad_request"},
        {"host": "x" * 40 + "..."},
        {"location": ""},
    ],
)
def test_a_line_that_does_not_say_all_is_no_request(change: dict[str, str]) -> None:
    """A malformed request, and a line with a shortened or missing part, is skipped."""
    fields = {name: str(value) for name, value in json.loads(line("deny", "x")).items()}
    assert logged_request(fields, CERTS) is not None
    assert logged_request({**fields, **change}, CERTS) is None
    assert logged_request({}, CERTS) is None

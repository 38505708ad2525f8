"""Find the decision about a request in the log, and explain it."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from asking import policy
from pki import CA

from sidecar.commands import why
from sidecar.commands.asking import PolicyFile, policy_file
from sidecar.core.x509.certificate import from_der

ALICE = from_der(CA("Staff").issue("alice").der)
TEXT = "version: 1\nlocations:\n  - name: site\n    allow: [{cn: bob}]\n"


@pytest.fixture
def file(tmp_path: Path) -> PolicyFile:
    (tmp_path / "policy.yaml").write_text(TEXT)
    return policy_file(policy(TEXT), str(tmp_path / "policy.yaml"))


def line(request_id: str = "r1", **more: str) -> bytes:
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime())
    fields = {
        "time": stamp,
        "decision": "deny",
        "reason": "not_allowed",
        "rule": "",
        "location": "site",
        "subject": "CN=alice",
        "sha256": ALICE.sha256,
        "verify": "SUCCESS",
        "host": "a.test",
        "method": "GET",
        "policy": "0",
        **more,
    }
    return json.dumps({**fields, "id": request_id}, separators=(",", ":")).encode() + b"\n"


def found(*lines: bytes) -> list[why.Found]:
    return why.find("r1", [("a.log", lines)])


def test_a_request_is_found_by_its_whole_id() -> None:
    """A line is found by its complete id only, and reported with log and line number."""
    [one] = found(line("r11"), line(subject="CN=r1", request_id="x"), line())
    assert one.source == "a.log:3"
    [summary] = found(line("x", first_id="r1", summarized="9"))
    assert summary.is_summary


def test_no_more_than_a_few_are_told() -> None:
    """The number of decisions for one id is limited."""
    assert len(found(*[line()] * (why.MAX_FOUND + 5))) == why.MAX_FOUND


def test_a_decision_is_asked_again_of_the_policy(file: PolicyFile) -> None:
    """With the certificate, the request is decided again, and a changed policy is noted."""
    [one] = found(line())
    told = why.tell(one, file, {ALICE.sha256: ALICE})
    assert told.changed
    assert told.decision is not None
    assert told.decision.reason == "not_allowed"
    text = why.as_text([told], file)
    assert "the policy has changed since: 0 then" in text
    assert text.splitlines()[-1] == "deny (not_allowed)"
    [row] = json.loads(why.as_json([told], file.policy.hash))
    assert (row["source"], row["changed"], row["policy_now"]) == ("a.log:1", True, file.policy.hash)


def test_without_the_certificate_it_is_told_from_the_line_alone(file: PolicyFile) -> None:
    """Without the certificate, and for a summary, only the line is shown."""
    told = why.tell(found(line(detail="none of 1 matches"))[0], file, {})
    assert told.decision is None
    text = why.as_text([told], file)
    assert "because none of 1 matches" in text
    assert "not asked again: the certificate is not known" in text
    summary = why.tell(found(line("x", first_id="r1", summarized="9"))[0], file, {})
    assert "one of 9 decisions" in why.as_text([summary], file)


@pytest.mark.parametrize("text", ["", "a b", "a/b", "x" * 129, "é"])
def test_what_is_no_id_is_refused(text: str) -> None:
    """An invalid id is refused, so the journal is never searched for a pattern."""
    with pytest.raises(ValueError, match="is not a request id"):
        why.check_id(text)
    assert why.check_id("0123456789abcdef") == "0123456789abcdef"


def test_a_machine_without_a_journal_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error says how to name a log instead."""
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(ValueError, match="there is no journalctl here"):
        next(why.journal("r1"))


def test_the_journal_is_read_as_it_comes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of an id that is in every line it is read as far as decisions are shown, and journalctl
    ends."""
    journalctl = tmp_path / "journalctl"
    journalctl.write_text(f"#!/bin/sh\nwhile echo '{line('a').decode().strip()}'; do :; done\n")
    journalctl.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert len(why.find("a", [("", why.journal("a"))])) == why.MAX_FOUND

"""`why` and `replay`: read the decision log of a real daemon, and ask again what it was asked."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path
from typing import Any

import pytest
from daemon import Daemon, question
from pki import CA, Leaf
from run_command import command

staff = CA("Staff")
alice, bob = staff.issue("alice"), staff.issue("bob")

POLICY = """\
version: 1
trust: {staff: {ca: ca.crt, denylist: denylist.txt}}
locations:
  - {name: site, location: /, allow: [{cn: [alice]}]}
  - {name: lan, allow: [{cn: bob, client_ip: 10.0.0.0/8, method: PUT}]}
  - {name: open, allow: public}
  - {name: sni, allow: verified, sni_matches_host: true}
"""
IDS = [f"{n:032x}" for n in range(11)]


@pytest.fixture(params=["text", "json"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A directory with the log of some decisions, in each of its forms."""
    settings = f"log_format: {request.param}\ndecision_log_file: {tmp_path / 'd.log'}\n"
    files = {"ca_crt": staff.pem, "denylist_txt": b"", "alice_crt": alice.pem, "bob_crt": bob.pem}
    lan = {"X-Real-IP": "10.1.1.1", "X-Original-Method": "PUT"}
    asked: list[tuple[str | None, Leaf | None, dict[str, str]]] = [
        *[("site", alice, {})] * 3,
        ("site", bob, {}),
        ("lan", bob, lan),
        ("open", bob, {}),
        ("open", None, {}),
        ("site", None, {"X-Original-URI": '/a"b%20id="x'}),
        ("sni", bob, {"SSL-Server-Name": "app.example.com"}),
        (None, alice, {"X-Original-URI": "/a"}),
        (None, alice, {"X-Original-URI": "/b"}),
    ]
    with Daemon(tmp_path, POLICY, settings, **files) as daemon, daemon.client() as client:
        for request_id, (location, leaf, headers) in zip(IDS, asked, strict=True):
            client.send(question(location, leaf, {"X-Request-ID": request_id, **headers}))
            assert client.receive() is not None
    return tmp_path


def facts(place: Path, *arguments: str, code: int = 0) -> Any:
    done = command(place, *arguments, "--json")
    assert done.returncode == code, done.stdout + done.stderr
    return json.loads(done.stdout)


def edit(place: Path, old: str, new: str) -> None:
    text = (place / "policy.yaml").read_text()
    assert old in text
    (place / "policy.yaml").write_text(text.replace(old, new))


# -- replay


def test_replay_of_the_same_policy_changes_nothing(place: Path) -> None:
    """Every question of the log is asked again, and comes out as it did."""
    found = facts(place, "replay", "d.log", "--certs", "alice.crt", "bob.crt")
    assert found == {"asked": 11, "skipped": 0, "gains": [], "loses": []}


def test_replay_tells_who_gains_and_who_loses(place: Path) -> None:
    """Grouped, with counts, what was and what would be; exit 1 where someone loses."""
    edit(place, "allow: [{cn: [alice]}]", "allow: [{cn: bob}]")
    found = facts(place, "replay", "d.log", "--certs", ".", code=1)
    [gain], [loss] = found["gains"], found["loses"]
    assert (gain["subject"], gain["sha256"], gain["times"]) == ("CN=bob", bob.sha256, 1)
    assert (loss["subject"], loss["location"], loss["times"]) == ("CN=alice", "site", 5)
    assert loss["was"] == {"decision": "allow", "reason": "allowed", "rule": "allow[0]"}
    assert loss["now"] == {"decision": "deny", "reason": "not_allowed", "rule": ""}
    done = command(place, "replay", "d.log", "--certs", ".")
    assert "loses site: CN=alice" in done.stdout
    assert "11 asked, 0 skipped" in done.stdout


def test_replay_where_someone_only_gains(place: Path) -> None:
    """Exit 0, and the old decision is told with its reason."""
    edit(place, "allow: [{cn: [alice]}]", "allow: verified")
    found = facts(place, "replay", "d.log", "--certs", ".")
    assert [each["was"]["reason"] for each in found["gains"]] == ["not_allowed"]


def test_replay_skips_whose_certificate_is_not_known(place: Path) -> None:
    """Those are counted; who came without one, or to a public location, is asked about."""
    found = facts(place, "replay", "d.log", "--certs", "alice.crt")
    assert (found["asked"], found["skipped"]) == (8, 3)
    edit(place, "allow: public", "allow: verified")
    found = facts(place, "replay", "d.log", "--certs", "alice.crt", code=1)
    assert (found["asked"], found["skipped"]) == (7, 4)
    assert [each["was"]["reason"] for each in found["loses"]] == ["public"]


def test_replay_by_uri_chooses_the_location_anew(place: Path) -> None:
    """Where nginx let the sidecar choose, the new policy chooses by its own locations."""
    edit(place, "  - {name: lan,", "  - {name: b, location: = /b, allow: []}\n  - {name: lan,")
    [loss] = facts(place, "replay", "d.log", "--certs", ".", code=1)["loses"]
    assert (loss["subject"], loss["times"]) == ("CN=alice", 1)


def test_replay_reads_compressed_logs(place: Path) -> None:
    """A log that logrotate compressed counts like the log itself; a broken one is told."""
    data = (place / "d.log").read_bytes()
    (place / "d.log.1.gz").write_bytes(gzip.compress(data))
    found = facts(place, "replay", "d.log", "d.log.1.gz", "--certs", ".")
    assert found["asked"] == 22
    (place / "broken.gz").write_bytes(gzip.compress(data)[:-20])
    for wrong in ("broken.gz", "nothing.log"):
        done = command(place, "replay", wrong)
        assert done.returncode == 2
        assert "Traceback" not in done.stderr


def test_replay_shows_on_a_terminal_how_far_it_is(place: Path) -> None:
    """A bar for each log while it is read, on a terminal alone; none is left at the end."""
    arguments = ("replay", "d.log", "--certs", ".")
    assert command(place, *arguments).stderr == ""
    ours, theirs = os.openpty()
    try:
        done = command(place, *arguments, stderr=theirs)
        shown = os.read(ours, 65536).decode()
    finally:
        os.close(ours)
        os.close(theirs)
    assert "d.log [..............................]   0% 0 lines" in shown
    assert "d.log [##############################] 100%" in shown
    assert shown.endswith("\r\x1b[K")
    assert "%" not in done.stdout


# -- why


def test_why_joins_line_policy_and_explanation(place: Path) -> None:
    """What was decided, the line of the rule, and each step again."""
    [found] = facts(place, "why", IDS[0], "--log", "d.log", "--certs", ".")
    assert (found["decision"], found["rule"], found["line"]) == ("allow", "allow[0]", 4)
    assert found["changed"] is False
    assert found["now"] == {"decision": "allow", "reason": "allowed", "rule": "allow[0]"}
    assert found["steps"][-1]["step"] == "allow"
    done = command(place, "why", IDS[3], "--log", "d.log")
    assert done.returncode == 0
    assert "deny (not_allowed) at site" in done.stdout
    assert "policy.yaml:4" in done.stdout
    assert "give it with --certs" in done.stdout
    assert "STOP certificate" in command(place, "why", IDS[7], "--log", "d.log").stdout


def test_why_says_that_the_policy_has_changed(place: Path) -> None:
    """And what today's would decide; the configured log is found, rotated and compressed, too."""
    edit(place, "cn: [alice]", "cn: [bob]")
    (place / "d.log.2.gz").write_bytes(gzip.compress((place / "d.log").read_bytes()))
    (place / "d.log").unlink()
    [found] = facts(place, "why", IDS[1], "--config", "sidecar.yaml", "--certs", ".")
    assert found["changed"] is True
    assert found["policy"] != found["policy_now"]
    assert found["source"].endswith("d.log.2.gz:2")
    assert found["now"]["decision"] == "deny"


JOURNALCTL = """\
#!/bin/sh
echo "$@" >>calls
[ "$8" = "--grep=$WANTED" ] && exec cat "$LOG"
exit 1
"""


def test_why_asks_the_journal_where_the_log_goes_there(place: Path) -> None:
    """Without a file the lines in the journal are asked for, of the unit and of its instances.

    `journalctl` is a stand-in here, which prints the log of a daemon as the real one would.
    """
    (place / "journalctl").write_text(JOURNALCTL)
    (place / "journalctl").chmod(0o755)
    path = f"{place}{os.pathsep}{os.environ['PATH']}"
    env = {"PATH": path, "WANTED": IDS[0], "LOG": str(place / "d.log")}
    (place / "journal.yaml").write_text("policy: policy.yaml\n")
    done = command(place, "why", IDS[0], "--json", "-c", "journal.yaml", env=env)
    assert done.returncode == 0, done.stderr
    [found] = json.loads(done.stdout)
    assert (found["source"], found["id"], found["decision"]) == ("journal", IDS[0], "allow")
    called = (place / "calls").read_text()
    units = "--unit mtls-sidecar --unit mtls-sidecar@*"
    assert called == f"{units} --output cat --no-pager --grep={IDS[0]}\n"
    done = command(place, "why", IDS[1], "-c", "journal.yaml", env=env)
    assert done.returncode == 1
    assert "in the journal" in done.stderr


def test_why_without_an_answer(place: Path) -> None:
    """Exit 1 where no line names the request, 2 for what is no id or no log."""
    for request_id, log, code in (
        ("f" * 32, "d.log", 1), ("x", "d.log", 1), ("a b", "d.log", 2), (IDS[0], "no.log", 2),
    ):  # fmt: skip
        done = command(place, "why", request_id, "--log", log)
        assert done.returncode == code, done.stdout
        assert "Traceback" not in done.stderr

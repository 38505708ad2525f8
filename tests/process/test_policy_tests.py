"""A policy whose own tests fail is refused: by `check`, at reload, at start; and `test` itself."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from xml.etree import ElementTree

import pytest
from daemon import Daemon
from forked import mtls_sidecar
from pki import CA

staff = CA("Staff")
alice, bob = staff.issue("alice"), staff.issue("bob")
GOOD = """\
version: 1
trust: {staff: {ca: ca.crt, denylist: denylist.txt}}
locations:
  - {name: site, allow: [{cn: alice}]}
tests:
  - {location: site, cert: {cn: alice}, expect: allow}
  - {location: site, cert: bob.crt, expect: deny, reason: not_allowed}
"""
FAILING = GOOD.replace("[{cn: alice}]", "verified")
TOLD = "policy.yaml:7:5: a test fails: expected deny (not_allowed), got allow (allowed) by verified"


def files(place: Path, policy: str) -> Path:
    (place / "ca.crt").write_bytes(staff.pem)
    (place / "bob.crt").write_bytes(bob.pem)
    (place / "denylist.txt").touch()
    (place / "policy.yaml").write_text(policy)
    return place / "policy.yaml"


def command(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return mtls_sidecar(*arguments, env={**os.environ, "NO_COLOR": "1"})


def test_check_refuses_it(tmp_path: Path) -> None:
    """Exit 2, with the test's line and what was decided instead."""
    assert command("check", files(tmp_path, GOOD)).returncode == 0
    done = command("check", files(tmp_path, FAILING))
    assert done.returncode == 2
    assert TOLD in done.stderr


def test_a_reload_is_refused_and_a_revocation_is_not(tmp_path: Path) -> None:
    """The policy in force stays; a denylist line that would fail a test takes effect all the same,
    and the next policy whose tests pass is taken."""
    allowing_bob = GOOD.replace("[{cn: alice}]", "[{cn: [alice, bob]}]").replace(
        "deny, reason: not_allowed", "allow"
    )
    given = {"ca_crt": staff.pem, "bob_crt": bob.pem, "denylist_txt": b""}
    with Daemon(tmp_path, GOOD, "", **given) as daemon:
        daemon.write("policy.yaml", FAILING)
        daemon.until(lambda: TOLD in daemon.log.read_text())
        assert daemon.ask("site", bob).status == 403
        daemon.write("policy.yaml", allowing_bob)
        daemon.until(lambda: daemon.ask("site", bob).status == 204)
        daemon.write("denylist.txt", f"sha256 {bob.sha256}\n")
        daemon.until(lambda: daemon.ask("site", bob).status == 403)
        assert daemon.ask("site", alice).status == 204


def test_at_start_the_last_good_one_serves(tmp_path: Path) -> None:
    """A policy whose tests fail does not start; the one that passed before does."""
    given = {"ca_crt": staff.pem, "bob_crt": bob.pem, "denylist_txt": b""}
    daemon = Daemon(tmp_path, GOOD, "", **given)
    with daemon:
        kept = tmp_path / "state" / "last-good"
        daemon.until(lambda: kept.is_dir() and any(kept.iterdir()))
        daemon.until(lambda: daemon.metric("mtls_sidecar_policy_stale") == 0)
    (tmp_path / "policy.yaml").write_text(FAILING)
    with daemon:
        assert daemon.ask("site", bob).status == 403
        assert daemon.ask("site", alice).status == 204
        assert TOLD in daemon.log.read_text()
        assert daemon.metric("mtls_sidecar_policy_stale") == 1


@pytest.mark.parametrize(
    ("policy", "more", "code"),
    [
        (GOOD, "", 0),
        (FAILING, "", 1),
        (GOOD, "tests: [{location: site, cert: bob.crt, expect: allow}]\n", 1),
        (GOOD, "tests: [{location: site, cert: {cn: alice}, expect: allow}]\n", 0),
        (GOOD, "tests: [{location: site}]\n", 2),
        (GOOD, "no: tests\n", 2),
        (GOOD + "unknown: 1\n", "", 2),
    ],
)
def test_exit_codes_tell_what_is_wrong(tmp_path: Path, policy: str, more: str, code: int) -> None:
    """0 all passed, 1 a test failed, 2 the policy or a file of tests is broken."""
    arguments = [tmp_path / "more.yaml"] if more else []
    (tmp_path / "more.yaml").write_text(more)
    done = command("test", "--policy", files(tmp_path, policy), "--json", *arguments)
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    if code < 2:
        found = json.loads(done.stdout)
        assert found["passed"] + len(found["failed"]) >= 2
        assert {"passed", "failed", "untested"} <= set(found)
        assert bool(found["failed"]) is (code == 1)


def test_coverage_and_junit(tmp_path: Path) -> None:
    """What no test touched is named; a threshold fails; JUnit has each test."""
    policy = files(tmp_path, GOOD.replace("tests:", "  - {name: two, allow: []}\ntests:"))
    done = command("test", "--policy", policy, "--threshold", "90", "--junit", tmp_path / "j.xml")
    assert done.returncode == 1
    assert "untested: two" in done.stdout
    assert "less than --threshold" in done.stderr
    suite = ElementTree.parse(tmp_path / "j.xml").getroot()
    assert (suite.get("tests"), suite.get("failures")) == ("2", "0")


def test_explain_takes_fields(tmp_path: Path) -> None:
    """A certificate described by its fields is decided step by step."""
    policy = files(tmp_path, GOOD)
    ask: list[str | Path] = ["explain", "--policy", policy, "--location", "site", "--json"]
    ask.append("--cert-fields")
    assert json.loads(command(*ask, "{cn: alice}").stdout)["rule"] == "allow[0]"
    assert command(*ask, "{cn: bob}").returncode == 1
    for wrong in ("{cm: alice}", "alice.crt", "{", "none"):
        done = command(*ask, wrong)
        assert done.returncode == 2
        assert "Traceback" not in done.stderr

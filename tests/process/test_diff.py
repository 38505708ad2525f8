"""`diff OLD NEW`: what a change of the policy means, as the operator asks for it."""

from __future__ import annotations

import json
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
from forked import mtls_sidecar
from pki import CA

OLD = """\
version: 1
trust: {staff: {ca: ca.crt, denylist: denylist.txt}}
groups:
  admins: [{cn: [alice, "ops-*"]}]
locations:
  - {name: admin, san_matches_host: true, allow: [admins], deny: [{ou: guests}]}
  - {name: site, allow: verified}
  - {name: gone, allow: public}
"""
NEW = """\
version: 1
trust: {staff: {ca: ca.crt, denylist: denylist.txt}}
groups:
  admins: [{cn: [alice, "~ops-[a-m].*"]}]
locations:
  - {name: admin, san_matches_host: true, allow: [admins]}
  - {name: site, allow: verified, cache_seconds: 5}
  - {name: lan, allow: [], without_certificate: [{client_ip: 10.0.0.0/8}]}
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "ca.crt").write_bytes(CA("Staff").pem)
    (tmp_path / "denylist.txt").touch()
    (tmp_path / "old.yaml").write_text(OLD)
    (tmp_path / "new.yaml").write_text(NEW)
    return tmp_path


def run(place: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return mtls_sidecar(*arguments, cwd=place)


def test_each_location_tells_who_gains_and_who_loses(place: Path) -> None:
    """The keys are the contract's; added and removed locations are compared with deny."""
    done = run(place, "diff", "old.yaml", "new.yaml", "--json")
    assert done.returncode == 1, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)["locations"]
    assert list(found) == ["admin", "site", "gone", "lan"]
    assert all({"gains", "loses", "exact"} <= set(each) for each in found.values())
    assert all(each["exact"] is True for each in found.values())
    assert found["admin"]["gains"]["cert"]["ou"] == ["guests"]
    assert found["admin"]["loses"]["cert"]["cn"] == "ops-x"
    assert found["admin"]["loses"]["old"] == {
        "decision": "allow",
        "reason": "allowed",
        "rule": "admins[0]",
    }
    assert found["admin"]["loses"]["new"]["reason"] == "not_allowed"
    assert (found["site"]["gains"], found["site"]["loses"]) == (None, None)
    assert found["gone"]["loses"]["cert"] is None
    assert found["gone"]["loses"]["new"]["reason"] == "unknown_location"
    assert found["lan"]["gains"]["request"]["client_ip"] == "10.0.0.1"


def test_explain_shows_each_example(place: Path) -> None:
    """Each call of `explain` that is printed decides what is said of the new policy."""
    done = run(place, "diff", "old.yaml", "new.yaml")
    assert done.returncode == 1
    calls = [line.split() and shlex.split(line) for line in done.stdout.splitlines()
             if line.startswith("    mtls-sidecar ")]  # fmt: skip
    assert len(calls) == 4
    codes = [run(place, *call[1:]).returncode for call in calls]
    assert codes == [1, 0, 1, 0], done.stdout
    assert "site: cache_seconds 0, now 5: it changes no decision" in done.stdout
    assert "no difference, proven: site" in done.stdout


def test_equal_policies_have_no_difference(place: Path) -> None:
    """Exit 0, whatever the order of rules and keys."""
    (place / "new.yaml").write_text(OLD.replace('[alice, "ops-*"]', '["ops-*", alice]'))
    done = run(place, "diff", "old.yaml", "new.yaml")
    assert (done.returncode, done.stderr) == (0, "")
    assert "no difference, proven: admin, site, gone" in done.stdout


def test_locations_that_differ_alike_are_told_together(place: Path) -> None:
    """One paragraph for all that a change of a group does; JSON has each of them."""
    text = "version: 1\ngroups: {g: [{cn: [a, b]}]}\nlocations:\n" + "".join(
        f"  - {{name: l{n}, allow: [g, {{cn: x{n}}}]}}\n" for n in range(14)
    )
    (place / "old.yaml").write_text(text)
    (place / "new.yaml").write_text(text.replace("[a, b]", "[a]"))
    done = run(place, "diff", "old.yaml", "new.yaml")
    told = "l0, l1, l2, l3, l4, l5, l6, l7, l8, l9 and 4 more:\n  loses: a certificate with cn b"
    assert done.stdout.startswith(told)
    assert done.stdout.count("loses") == 1
    found = json.loads(run(place, "diff", "old.yaml", "new.yaml", "--json").stdout)["locations"]
    assert {each["loses"]["cert"]["cn"] for each in found.values()} == {"b"}


def test_a_trust_of_another_ca_is_a_difference_that_no_example_shows(place: Path) -> None:
    """A certificate's issuer can't be described: it says so, is not exact, and exits 1."""
    (place / "other.crt").write_bytes(CA("Other").pem)
    (place / "new.yaml").write_text(OLD.replace("ca.crt", "other.crt"))
    done = run(place, "diff", "old.yaml", "new.yaml", "--json")
    assert done.returncode == 1
    found = json.loads(done.stdout)["locations"]
    assert [found[name]["exact"] for name in ("admin", "site", "gone")] == [False, False, True]
    assert "certificates of its ca" in found["site"]["doubts"][0]


@pytest.mark.parametrize("broken", ["old.yaml", "new.yaml"])
def test_a_broken_policy_exits_2(place: Path, broken: str) -> None:
    """Its mistakes are told, as `check` tells them."""
    (place / broken).write_text("version: 1\nlocations: [{name: a, alow: []}]\n")
    done = run(place, "diff", "old.yaml", "new.yaml", "--json")
    assert (done.returncode, done.stdout) == (2, "")
    assert f"{broken}:2:" in done.stderr
    assert run(place, "diff", "old.yaml", "missing.yaml").returncode == 2

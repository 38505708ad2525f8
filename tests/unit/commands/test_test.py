"""Report the result of a policy's tests for people, programs and CI systems."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest
from asking import policy

from sidecar.commands.test import (
    as_json,
    as_junit,
    as_text,
    refuse_failing,
    run_file,
    run_own,
    together,
)
from sidecar.core.errors import PolicyError
from sidecar.core.policy.model import Policy

TEXT = """version: 1
locations:
  - {name: site, allow: [{cn: alice}, {cn: bob}]}
  - {name: other, allow: [{cn: carol}]}
tests:
  - {name: mine, location: site, cert: {cn: alice}, expect: EXPECT}
"""


def rules(expect: str = "allow") -> Policy:
    return policy(TEXT.replace("EXPECT", expect))


def test_what_no_test_touched_lowers_the_coverage() -> None:
    """Two of five locations and rules were used, so the coverage is 40 percent."""
    found = together(rules(), [run_own(rules(), Path("policy.yaml"))])
    assert (found.passed, found.failed) == (1, ())
    assert found.untested == ("other", "site: allow[1]")
    assert found.coverage == 40.0
    assert as_text(found).splitlines()[-1] == (
        "1 passed, 0 failed, 40% of locations and rules tested"
    )


def test_a_failure_is_told_with_its_line_in_every_form() -> None:
    """Text, JSON with the contract's keys, and JUnit XML name the failure."""
    found = together(rules("deny"), [run_own(rules("deny"), Path("policy.yaml"))])
    assert as_text(found).startswith("policy.yaml:6:")
    [failed] = json.loads(as_json(found))["failed"]
    assert {"file", "line", "expected", "got"} <= set(failed)
    assert (failed["line"], failed["expected"]) == (6, "deny")
    suite = ElementTree.fromstring(as_junit(found))
    assert (suite.get("tests"), suite.get("failures")) == ("1", "1")
    assert suite[0].get("name") == "mine"


def test_a_policy_whose_tests_fail_is_refused() -> None:
    """Failing tests raise `PolicyError`; passing tests don't."""
    refuse_failing(rules(), Path("policy.yaml"))
    with pytest.raises(PolicyError, match="test 'mine' fails: expected deny, got allow"):
        refuse_failing(rules("deny"), Path("policy.yaml"))


def test_a_file_of_tests_beside_the_policy(tmp_path: Path) -> None:
    """The tests of a file run, and its mistakes are reported like the policy's own."""
    path = tmp_path / "tests.yaml"
    path.write_text("tests:\n  - {location: site, cert: {cn: bob}, expect: allow}\n")
    assert run_file(rules(), path).passed == 1
    path.write_text("tests:\n  - {location: site, cert: {cn: bob}}\n")
    with pytest.raises(PolicyError, match="a test that expects nothing"):
        run_file(rules(), path)

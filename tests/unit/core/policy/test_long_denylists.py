"""Tell of denylists that take more memory than there is."""

from __future__ import annotations

import pytest
from asking import NOW, policy
from pki import CA

from sidecar.core.policy import long_denylists

STAFF = CA("Staff")
TEXT = """
version: 1
trust:
  one: {ca: ca.crt, denylist: [a.txt, b.txt]}
  two: {ca: ca.crt, denylist: [a.txt]}
locations: [{name: site, allow: verified}]
"""
A, B = b"serial 01\nserial 02\n", b"serial 03\n"


@pytest.mark.parametrize(("most", "told"), [(3, 0), (2, 1)])
def test_entries_of_all_files_count_once(
    most: int, told: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`check` says so before the daemon is killed for its memory."""
    monkeypatch.setattr(long_denylists, "MOST_ENTRIES", most)
    found = policy(TEXT, ca_crt=STAFF.pem, a_txt=A, b_txt=B).warnings_at(NOW)
    assert sum("3 entries in denylists" in each.message for each in found) == told

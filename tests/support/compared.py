"""Count what comparing CRLs costs."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from sidecar.core.revocation.crl import succession
from sidecar.core.revocation.crl.entries import Table


def compared_entries(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Return a list that gets the key of each entry that is compared from now on."""
    asked: list[bytes] = []
    original = succession._revoked

    def revoked(table: Table, start: int, stop: int) -> Iterator[bytes]:
        for each in original(table, start, stop):
            asked.append(each)
            yield each

    monkeypatch.setattr(succession, "_revoked", revoked)
    return asked

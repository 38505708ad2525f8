"""Compare a release with the one in force."""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from sidecar.core.fleet.manifest import File
from sidecar.fleet.in_force import difference
from sidecar.fleet.publisher import Publisher

OLD = b"version: 1\n"


async def test_it_is_unpacked_where_the_publisher_alone_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside its log: a TMPDIR of another user's, who could exchange what is there, has no say."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "theirs"))
    own = tmp_path / "own"
    own.mkdir()
    seen: list[Path] = []

    async def blob(*_: Any) -> bytes:
        return OLD

    def diff(old: Path, new: Path) -> str:
        assert old.read_bytes() == OLD
        seen.append(old)
        return f"against {new}"

    files = (File("policy.yaml", hashlib.sha256(OLD).hexdigest(), len(OLD)),)
    release = SimpleNamespace(sequence=1, files=files)
    ledger = SimpleNamespace(directory=own, chain=SimpleNamespace(releases=[release]))
    publisher = cast(Publisher, SimpleNamespace(ledger=ledger, bus=SimpleNamespace(blob=blob)))
    assert await difference(publisher, Path("/new"), diff) == "against /new/policy.yaml"
    assert seen[0].parent.parent == own
    assert not list(own.iterdir())

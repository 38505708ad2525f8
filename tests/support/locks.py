"""The lock files of the runtime, of the tests and of what builds a release."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LOCKS = {
    "deploy": ROOT / "deploy/requirements.lock",
    "enroll": ROOT / "deploy/requirements-enroll.lock",
    "fleet": ROOT / "deploy/requirements-fleet.lock",
    "tests": ROOT / "tests/requirements.lock",
    "release": ROOT / "deploy/release-tools.lock",
}


def locked(path: Path) -> dict[str, tuple[str, str]]:
    """Name to version and the rest of the entry, hashes included."""
    entries = re.split(r"(?m)^(?=[A-Za-z0-9])", path.read_text())
    found = {}
    for entry in entries[1:]:
        head = re.match(r"([a-z0-9.-]+)==([^\s;\\]+)", entry)
        assert head, f"{path.name} has an entry without a version: {entry[:80]}"
        found[head[1]] = (head[2], entry)
    return found

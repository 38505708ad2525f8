"""What the daemons of a host say together."""

from __future__ import annotations

import json
from pathlib import Path

from sidecar.fleet.daemon_status import read, together
from sidecar.runtime.status_files import StatusFile


def test_the_daemon_that_is_furthest_behind_counts() -> None:
    """And what they counted is summed."""
    one = {"sequence": 7, "policy": "a", "decisions": {"allowed": 2}, "refused": {}}
    other = {"sequence": 6, "policy": "b", "decisions": {"allowed": 3, "expired": 1}}
    assert together([one, other]) == {
        "sequence": 6,
        "policy": "b",
        "decisions": {"allowed": 5, "expired": 1},
        "refused": {},
    }


def test_without_a_daemon_its_last_word_is_told_as_such(tmp_path: Path) -> None:
    """Nothing at all where there never was one; junk in a file is nothing."""
    assert read(tmp_path) == {}
    (tmp_path / "0.json").write_text(json.dumps({"sequence": 3}))
    assert read(tmp_path) == {"sequence": 3, "problem": "no daemon runs"}
    file = StatusFile(tmp_path)
    file.write(json.dumps({"sequence": 4}).encode())
    assert read(tmp_path)["sequence"] == 4
    file.write(b"[1")
    assert read(tmp_path).get("sequence") in (None, 3)
    file.close()

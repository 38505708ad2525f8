"""Write files atomically."""

from __future__ import annotations

import os
from pathlib import Path

from sidecar.runtime.files import LEFT_SECONDS, write_file


def test_what_a_killed_writer_left_goes_with_the_next_write(tmp_path: Path) -> None:
    """Old temporary files of the same name are removed; fresh ones and other names stay."""
    for name in (".a.json.abcd1234", ".a.json.fresh123", ".b.json.abcd1234", "a.json.abcd1234"):
        (tmp_path / name).write_bytes(b"x")
        if "fresh" not in name:
            os.utime(tmp_path / name, (0, 0))
    assert LEFT_SECONDS > 60
    write_file(tmp_path / "a.json", b"1")
    write_file(tmp_path / "c.json", b"1")
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {".a.json.fresh123", ".b.json.abcd1234", "a.json.abcd1234", "a.json", "c.json"}
    write_file(tmp_path / "b.json", b"1")
    assert not (tmp_path / ".b.json.abcd1234").exists()

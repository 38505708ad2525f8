"""Open decision logs: plain, rotated and compressed."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import sys
import zlib
from pathlib import Path
from types import SimpleNamespace

import pytest

from sidecar.commands.log_files import MAX_LINE, lines, with_rotated

DATA = b"one\ntwo\n"


@pytest.mark.parametrize("pack", [bytes, gzip.compress, bz2.compress, lzma.compress])
def test_a_log_is_read_whatever_compressed_it(tmp_path: Path, pack: object) -> None:
    """The compression is recognized by the first octets, not by the name."""
    (tmp_path / "log").write_bytes(pack(DATA))  # type: ignore[operator]  # each takes bytes
    assert list(lines(str(tmp_path / "log"))) == [b"one\n", b"two\n"]


def test_a_file_that_is_still_being_written_is_told(tmp_path: Path) -> None:
    """An incomplete compressed file is an error with a remedy, not a traceback."""
    for pack in (gzip.compress, lzma.compress, bz2.compress):
        (tmp_path / "log").write_bytes(pack(os.urandom(5000))[:-20])
        with pytest.raises(ValueError, match="still being written"):
            list(lines(str(tmp_path / "log")))


def test_several_streams_of_xz_are_read(tmp_path: Path) -> None:
    """With padding of any size between and behind them, as `xz -dc` does."""
    packed = lzma.compress(DATA)
    (tmp_path / "log").write_bytes(packed + bytes(9000) + packed + packed + bytes(4))
    assert list(lines(str(tmp_path / "log"))) == [b"one\n", b"two\n"] * 3
    (tmp_path / "log").write_bytes(packed + b"no xz")
    with pytest.raises(ValueError, match="invalid"):
        list(lines(str(tmp_path / "log")))


def test_xz_that_asks_for_much_memory_is_refused(tmp_path: Path) -> None:
    """A header of 12 octets asks for a dictionary of 4 GiB; what `xz -9` makes is read."""
    packed = lzma.compress(DATA, filters=[{"id": lzma.FILTER_LZMA2, "dict_size": 4096}])
    size = (packed[12] + 1) * 4
    header = packed[12:16] + bytes([40]) + packed[17 : 12 + size - 4]
    asked = packed[:12] + header + zlib.crc32(header).to_bytes(4, "little") + packed[12 + size :]
    (tmp_path / "log").write_bytes(asked)
    with pytest.raises(ValueError, match="needs more than 256 MiB"):
        list(lines(str(tmp_path / "log")))
    (tmp_path / "log").write_bytes(lzma.compress(DATA, preset=9))
    assert list(lines(str(tmp_path / "log"))) == [b"one\n", b"two\n"]


def test_a_line_without_end_is_cut(tmp_path: Path) -> None:
    """A line never needs more memory than `MAX_LINE`."""
    (tmp_path / "log").write_bytes(b"x" * (2 * MAX_LINE + 1))
    assert [len(each) for each in lines(str(tmp_path / "log"))] == [MAX_LINE, MAX_LINE, 1]


def test_standard_input_and_what_is_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`-` means standard input; a directory is an error."""
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(DATA)))
    assert list(lines("-")) == [b"one\n", b"two\n"]
    with pytest.raises(ValueError, match="is not a file"):
        list(lines(str(tmp_path)))


def test_rotated_logs_are_read_newest_first(tmp_path: Path) -> None:
    """logrotate's numbered and dated names are found, other names are not."""
    names = ["d.log", "d.log.1", "d.log.2.gz", "d.log-20260101", "other.log.1"]
    for age, name in enumerate(names):
        (tmp_path / name).write_bytes(DATA)
        os.utime(tmp_path / name, (1_000_000 - age, 1_000_000 - age))
    found = with_rotated(str(tmp_path / "d.log"))
    assert [Path(each).name for each in found] == names[:4]
    assert with_rotated(str(tmp_path / "none.log")) == []

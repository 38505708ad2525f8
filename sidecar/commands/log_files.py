"""Open decision logs: plain, rotated and compressed."""

from __future__ import annotations

import bz2
import gzip
import lzma
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO

MAX_LINE = 64 * 1024
"""Maximum length of a line, in octets; the decision log writes no line over 8 KiB."""


def lines(path: str) -> Iterator[bytes]:
    """Yield the lines of a log, `-` for standard input.  Raises OSError and ValueError."""
    if path == "-":
        yield from _lines(sys.stdin.buffer)
        return
    with _open(path) as file:
        try:
            yield from _lines(file)
        except (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile):
            message = f"{path}: the compressed file is invalid or still being written"
            raise ValueError(message, "try again later, or leave it out") from None


def _lines(file: IO[bytes]) -> Iterator[bytes]:
    return iter(lambda: file.readline(MAX_LINE), b"")


def _open(path: str) -> IO[bytes]:
    if not Path(path).is_file():
        raise ValueError(f"{path} is not a file", "give decision logs, plain or compressed")
    with open(path, "rb") as file:
        magic = file.read(6)
    if magic.startswith(b"\x1f\x8b"):
        return gzip.open(path, "rb")  # type: ignore[return-value] # it reads as a file does
    if magic.startswith(b"BZh"):
        return bz2.open(path, "rb")
    if magic == b"\xfd7zXZ\0":
        return lzma.open(path, "rb")
    return open(path, "rb")


def with_rotated(path: str) -> list[str]:
    """Return the paths of a log and of its rotated versions, the newest first."""
    log = Path(path)
    names = (f"{log.name}.*", f"{log.name}-*")
    older = {each for name in names for each in log.parent.glob(name) if each.is_file()}
    found = sorted(older, key=lambda each: each.stat().st_mtime, reverse=True)
    return [str(each) for each in ([log] if log.is_file() else []) + found]

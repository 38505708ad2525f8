"""Open decision logs: plain, rotated and compressed."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import sys
import zlib
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import IO, Any

MAX_LINE = 64 * 1024
"""Maximum length of a line, in octets; the decision log writes no line over 8 KiB."""


MAX_XZ_MEMORY = 256 * 1024 * 1024
"""Most octets that decompressing xz takes: `xz -9` needs 65 MiB, a header may ask for 4 GiB."""

BETWEEN = 20_000
"""Lines between two reports of how far a log is read."""

Watch = Callable[[int, int], None]
"""Told how far a log is read: octets of the file as it stands on the disk, and lines."""


def lines(path: str, watch: Watch | None = None) -> Iterator[bytes]:
    """Yield the lines of a log, `-` for standard input.  Raises OSError and ValueError."""
    if path == "-":
        yield from _lines(sys.stdin.buffer)
        return
    with _open(path) as raw, _unpacked(raw) as file:
        try:
            found = _lines(file)
            yield from found if watch is None else _watched(found, raw, watch)
        except _TooLarge:
            message = f"{path}: decompressing it needs more than {MAX_XZ_MEMORY >> 20} MiB"
            raise ValueError(message, "give `-`, and what `xz -dc` prints of it") from None
        except (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile):
            message = f"{path}: the compressed file is invalid or still being written"
            raise ValueError(message, "try again later, or leave it out") from None


def _lines(file: IO[bytes]) -> Iterator[bytes]:
    return iter(lambda: file.readline(MAX_LINE), b"")


def _watched(found: Iterator[bytes], raw: IO[bytes], watch: Watch) -> Iterator[bytes]:
    count = 0
    while batch := list(islice(found, BETWEEN)):
        yield from batch
        count += len(batch)
        watch(raw.tell(), count)


def _open(path: str) -> IO[bytes]:
    if not Path(path).is_file():
        raise ValueError(f"{path} is not a file", "give decision logs, plain or compressed")
    return open(path, "rb")


def _unpacked(raw: IO[bytes]) -> IO[bytes]:
    """The file itself, or what is compressed in it."""
    magic = raw.read(6)
    raw.seek(0)
    if magic.startswith(b"\x1f\x8b"):
        return gzip.GzipFile(fileobj=raw)  # type: ignore[return-value] # it reads as a file does
    if magic.startswith(b"BZh"):
        return bz2.open(raw)
    if magic == b"\xfd7zXZ\0":
        return io.BufferedReader(_Xz(raw))
    return raw


class _TooLarge(Exception):
    """Decompressing would take too much memory."""


class _Xz(io.RawIOBase):
    """What is compressed by xz, in one stream or more: `lzma.open` with a limit of memory."""

    def __init__(self, raw: IO[bytes]) -> None:
        self._raw, self._packed = raw, b""
        self._stream: lzma.LZMADecompressor | None = None

    def readable(self) -> bool:
        """Return that it can be read."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer, or a part of it.  Raises _TooLarge, EOFError and LZMAError."""
        found = b""
        while not found:
            if not self._packed and (self._stream is None or self._stream.needs_input):
                self._packed = self._raw.read(8192)
                if not self._packed and self._stream is not None:
                    raise EOFError
                if not self._packed:
                    return 0
            if self._stream is None:
                self._packed = self._packed.lstrip(b"\0")  # padding between streams
                if self._packed:
                    self._stream = lzma.LZMADecompressor(lzma.FORMAT_XZ, MAX_XZ_MEMORY)
            else:
                found = self._decompress(self._stream, len(buffer))
        buffer[: len(found)] = found
        return len(found)

    def _decompress(self, stream: lzma.LZMADecompressor, most: int) -> bytes:
        try:
            found = stream.decompress(self._packed, most)
        except lzma.LZMAError as error:
            raise (_TooLarge if "limit" in str(error) else error) from None
        self._packed = stream.unused_data
        if stream.eof:
            self._stream = None
        return found


def with_rotated(path: str) -> list[str]:
    """Return the paths of a log and of its rotated versions, the newest first."""
    log = Path(path)
    names = (f"{log.name}.*", f"{log.name}-*")
    older = {each for name in names for each in log.parent.glob(name) if each.is_file()}
    found = sorted(older, key=lambda each: each.stat().st_mtime, reverse=True)
    return [str(each) for each in ([log] if log.is_file() else []) + found]

"""Every kind of thing that may stand in a file's place."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path


def replace_by(make: Callable[[Path], object]) -> Callable[[Path], None]:
    """Put something else in a file's place, in one step where that can be."""

    def put(path: Path) -> None:
        aside = path.with_name(f".{path.name}.aside")
        make(aside)
        if path.is_dir() or aside.is_dir():
            path.unlink(missing_ok=True)
        aside.rename(path)

    return put


def holding(data: bytes) -> Callable[[Path], None]:
    return replace_by(lambda path: path.write_bytes(data))


def sparse(path: Path) -> None:
    """500 MiB that take no room on disk."""
    with path.open("wb") as file:
        file.truncate(500 << 20)


def loop(path: Path) -> None:
    path.symlink_to(path.with_name("nowhere"))


KINDS: dict[str, Callable[[Path], None]] = {
    "gone": lambda path: path.unlink(),
    "empty": holding(b""),
    "garbage": holding(random.Random(7).randbytes(3000)),
    "text": holding(b"hello\n"),
    "NULs": holding(bytes(100_000)),
    "half": lambda path: holding(path.read_bytes()[: path.stat().st_size // 2])(path),
    "a directory": replace_by(lambda path: path.mkdir()),
    "a FIFO": replace_by(os.mkfifo),
    "a broken link": replace_by(loop),
    "a device": replace_by(lambda path: path.symlink_to("/dev/zero")),
    "500 MiB": replace_by(sparse),
    "writable by all": lambda path: path.chmod(0o666),
}

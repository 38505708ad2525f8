"""The files of a release: names, sizes and SHA-256.

A name is a path below the release's directory.  What could lead out of it, or means different
things to different readers, is refused: no `..`, no absolute path, no name that is a file and a
directory, printable ASCII only.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from .canonical import encode
from .entry import is_number

POLICY = "policy.yaml"
MAX_FILES = 2000
MAX_FILE = 64 * 1024 * 1024
MAX_RELEASE = 256 * 1024 * 1024
"""Most octets of a file, and of all files of a release."""

_SEGMENT = re.compile(r"(?!\.)[ !#-.0-\[\]-~]{1,128}(?<! )")
MAX_DEPTH = 8


@dataclass(frozen=True, slots=True, order=True)
class File:
    """One file of a release."""

    name: str
    sha256: str
    size: int

    def matches(self, data: bytes) -> bool:
        """Whether these octets are this file."""
        return len(data) == self.size and hashlib.sha256(data).hexdigest() == self.sha256


def check_name(name: str) -> str:
    """A file's name as a release may have it.  Raises ValueError."""
    parts = name.split("/")
    if len(parts) > MAX_DEPTH or not all(_SEGMENT.fullmatch(part) for part in parts):
        raise ValueError(
            f"{name[:80]!r} can't be a file of a release",
            "use a relative path of printable ASCII, no part of it hidden (.x), .. or empty",
        )
    return name


def parse_files(found: Any) -> tuple[File, ...]:
    """The files that a release's body lists.  Raises ValueError."""
    if not isinstance(found, list) or not 0 < len(found) <= MAX_FILES:
        raise ValueError(f"expected 1 to {MAX_FILES} files")
    files = tuple(map(_file, found))
    check_files(files)
    return files


def check_files(files: Sequence[File]) -> None:
    """Refuse what can't be one release.  Raises ValueError."""
    names = [each.name for each in files]
    if names != sorted(set(names)):
        raise ValueError("files are listed twice, or not in order")
    if POLICY not in names:
        raise ValueError(f"there is no {POLICY}")
    folders = {name[:at] for name in names for at, sign in enumerate(name) if sign == "/"}
    if both := folders & set(names):
        raise ValueError(f"{min(both)!r} is a file and a directory")
    if sum(each.size for each in files) > MAX_RELEASE:
        raise ValueError(f"the files are larger than {MAX_RELEASE >> 20} MiB together")


def _file(found: Any) -> File:
    if not isinstance(found, dict) or set(found) != {"name", "sha256", "size"}:
        raise ValueError("expected name, sha256 and size of each file")
    file = File(**found)
    if not isinstance(file.name, str):
        raise ValueError("a name that is no text")
    check_name(file.name)
    if not isinstance(file.sha256, str) or not re.fullmatch("[0-9a-f]{64}", file.sha256):
        raise ValueError("a sha256 that is none")
    if not is_number(file.size, 0) or file.size > MAX_FILE:
        raise ValueError(f"a file larger than {MAX_FILE >> 20} MiB")
    return file


def as_body(files: Iterable[File]) -> list[dict[str, Any]]:
    """How a release's body lists its files."""
    return [{"name": f.name, "sha256": f.sha256, "size": f.size} for f in sorted(files)]


def manifest_hash(files: Iterable[File]) -> str:
    """A name for this set of files."""
    return hashlib.sha256(encode(as_body(files))).hexdigest()

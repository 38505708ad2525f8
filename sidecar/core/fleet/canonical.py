"""One encoding for each value, so that what was signed is what is read.

Canonical JSON: keys sorted, no blanks, pure ASCII, integers only.  `decode` takes nothing that
`encode` would have written otherwise, so two readers can never see two things in the same bytes.
"""

from __future__ import annotations

import json
from typing import Any

MAX_DEPTH = 8
MAX_INTEGER = 2**53
"""Larger integers are read differently by other languages' JSON."""


def encode(value: Any) -> bytes:
    """The canonical bytes.  Raises ValueError for what has none, such as a float."""
    _check(value, MAX_DEPTH)
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode("ascii")


def decode(data: bytes) -> Any:
    """The value of canonical bytes.  Raises ValueError."""
    try:
        value = json.loads(data.decode("ascii"))
        if encode(value) == data:
            return value
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError):
        raise ValueError("it is no JSON") from None
    raise ValueError("it is not in canonical form")


def _check(value: Any, depth: int) -> None:
    if depth < 0:
        raise ValueError(f"it is nested deeper than {MAX_DEPTH}")
    if isinstance(value, dict):
        if not all(isinstance(key, str) for key in value):
            raise ValueError("a key is no text")
        for key, each in value.items():
            _check(key, depth)
            _check(each, depth - 1)
    elif isinstance(value, list):
        for each in value:
            _check(each, depth - 1)
    elif isinstance(value, str):
        value.encode()  # a lone surrogate has no bytes: UnicodeEncodeError is a ValueError
    elif value is not None and not _is_integer(value):
        raise ValueError(f"{type(value).__name__} has no place here")


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < MAX_INTEGER

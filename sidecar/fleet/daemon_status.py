"""What the daemons of this host say is in force: one file each.

A host usually has one daemon; with several, the one that is furthest behind counts.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from sidecar.runtime.files import FileVersion, file_version, read_file
from sidecar.runtime.status_files import status_files

MAX_STATUS = 64 * 1024


def looks(directory: Path) -> list[FileVersion | None]:
    """How the files look, to tell whether one has changed."""
    try:
        return [file_version(path) for path in sorted(directory.glob("*.json"))]
    except OSError:
        return []


def read(directory: Path) -> dict[str, Any]:
    """The status of all daemons that run together; else what the last one said that ran."""
    running: list[tuple[float, dict[str, Any]]] = []
    ended: list[tuple[float, dict[str, Any]]] = []
    try:
        for path, is_held in status_files(directory):
            told = json.loads(read_file(path, MAX_STATUS))
            if isinstance(told, dict):
                (running if is_held else ended).append((path.stat().st_mtime, told))
    except (OSError, ValueError, RecursionError):
        pass  # it is written anew just now, or not by us
    if running:
        return together([told for _, told in running])
    if not ended:
        return {}
    _, last = max(ended, key=lambda each: each[0])
    return {**last, "problem": "no daemon runs"}


def together(told: list[dict[str, Any]]) -> dict[str, Any]:
    """One status of several: the lowest sequence, and the sum of what is counted."""
    behind = min(told, key=lambda each: _number(each.get("sequence")))
    result = dict(behind)
    for name in ("decisions", "refused"):
        total: Counter[str] = Counter()
        for each in told:
            counts = each.get(name)
            if isinstance(counts, dict):
                total.update({str(key): _number(value) for key, value in counts.items()})
        result[name] = dict(total)
    return result


def _number(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else 0

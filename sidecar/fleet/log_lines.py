"""Entries of the log, a line each, for people."""

from __future__ import annotations

from datetime import UTC, datetime

from sidecar.core.errors import printable
from sidecar.core.fleet.bodies import (
    KeyChange,
    Release,
    Revocation,
    Said,
    Undo,
    issued_at,
    parse_body,
)
from sidecar.core.fleet.entry import Refused, SignedEntry


def describe(signed: SignedEntry) -> str:
    """One line: number, time, what it says."""
    entry = signed.entry
    try:
        said = _said(parse_body(entry))
        moment = _utc(issued_at(entry))
    except Refused as error:
        said, moment = f"not understood: {error.detail}", "unknown time"
    return printable(f"{entry.sequence} {moment} {entry.kind}: {said}")


def _said(said: Said) -> str:
    match said:
        case Release():
            size = sum(file.size for file in said.files)
            told = f"{len(said.files)} files, {size} octets, to {said.to}"
            return _with(told, said.comment)
        case Revocation():
            end = "" if said.not_after is None else f" until {_utc(said.not_after)}"
            return _with(f"{said.kind} {said.value}{end}", said.comment)
        case Undo():
            return f"entry {said.sequence} is taken back"
        case KeyChange():
            added = ", ".join(map(str, said.add)) or "none"
            return f"added: {added}; removed: {', '.join(said.remove) or 'none'}"


def _with(text: str, comment: str) -> str:
    return f"{text} # {comment}" if comment else text


def _utc(moment: float) -> str:
    try:
        return f"{datetime.fromtimestamp(moment, UTC):%Y-%m-%dT%H:%M:%SZ}"
    except (ValueError, OverflowError, OSError):
        return str(moment)

"""What the body of an entry says, by kind.  Every body has `issued`, milliseconds since the epoch.

release     {files: [{name, sha256, size}], to: null | {labels: […]} | {percent: N}, comment}
revocation  {deny: serial | sha256 | spki_sha256, value: hexadecimal digits, comment}
undo        {sequence: the revocation's}
key         {add: [ed25519 …], remove: [key id]}
head        {}
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

from sidecar.core.revocation.denylist import ENTRY_KINDS, format_entry

from .entry import Entry, Refused, is_number
from .keys import PublicKey, parse_key, parse_name
from .manifest import File, manifest_hash, parse_files

MAX_COMMENT = 500


@dataclass(frozen=True, slots=True)
class To:
    """Whom a release is for: every node, those with a label, or a percentage of all."""

    labels: tuple[str, ...] = ()
    percent: int = 100

    @property
    def is_everyone(self) -> bool:
        """Whether no node is left out."""
        return not self.labels and self.percent == 100

    def includes(self, fleet: str, node: str, labels: Collection[str]) -> bool:
        """Whether a node is meant.  A higher percentage includes all nodes of a lower one."""
        if self.labels:
            return any(label in self.labels for label in labels)
        return _place(fleet, node) < self.percent

    def body(self) -> dict[str, Any] | None:
        """How the body of a release has it."""
        if self.is_everyone:
            return None
        return {"labels": list(self.labels)} if self.labels else {"percent": self.percent}

    def __str__(self) -> str:
        if self.labels:
            return f"nodes labelled {' or '.join(self.labels)}"
        return "all nodes" if self.is_everyone else f"{self.percent}% of the nodes"


def _place(fleet: str, node: str) -> int:
    """Where a node stands among all, from 0 to 99; always the same for one name."""
    return int.from_bytes(hashlib.sha256(f"{fleet}/{node}".encode()).digest()[:8]) % 100


@dataclass(frozen=True, slots=True)
class Release:
    """A policy with its files.  `not_after` in seconds since the epoch, or None."""

    sequence: int
    entry_hash: str
    files: tuple[File, ...]
    to: To
    issued: float
    not_after: int | None
    comment: str = ""

    @property
    def directory(self) -> str:
        """The name of the directory that holds it."""
        return f"{self.sequence}-{self.entry_hash[:16]}"

    @property
    def content(self) -> str:
        """The same for releases of the same files."""
        return manifest_hash(self.files)


@dataclass(frozen=True, slots=True)
class Revocation:
    """A denylist line.  `not_after` in seconds since the epoch: from then on it is void."""

    sequence: int
    kind: str
    value: str
    not_after: int | None
    issued: float
    comment: str = ""


@dataclass(frozen=True, slots=True)
class Undo:
    """A revocation is taken back."""

    sequence: int


@dataclass(frozen=True, slots=True)
class KeyChange:
    """Keys that count from now on, and ids of those that don't any more."""

    add: tuple[PublicKey, ...]
    remove: tuple[str, ...]


Said = Release | Revocation | Undo | KeyChange


def parse_body(entry: Entry) -> Said:
    """What an entry of the log says.  Raises `Refused`."""
    reader = _READERS.get(entry.kind)
    if reader is None:
        raise Refused("unknown_kind", f"kind {entry.kind[:32]!r}")
    try:
        issued_at(entry)
        return reader(entry, entry.body)
    except ValueError as error:
        raise Refused("malformed", f"{entry.kind}: {error.args[0]}"[:200]) from None


def issued_at(entry: Entry) -> float:
    """When an entry was made, in seconds since the epoch.  Raises ValueError."""
    issued = entry.body.get("issued")
    if not is_number(issued, 0):
        raise ValueError("invalid issued")
    return float(issued) / 1000  # type: ignore[arg-type]  # `is_number` says so


def _release(entry: Entry, body: dict[str, Any]) -> Release:
    _expect_keys(body, "files", "to", "comment", "issued")
    return Release(
        sequence=entry.sequence,
        entry_hash=entry.hash,
        files=parse_files(body["files"]),
        to=_to(body["to"]),
        issued=issued_at(entry),
        not_after=entry.not_after,
        comment=_comment(body),
    )


def _to(found: Any) -> To:
    if found is None:
        return To()
    if isinstance(found, dict) and set(found) == {"labels"}:
        labels = found["labels"]
        if not isinstance(labels, list) or not 0 < len(labels) <= 100:
            raise ValueError("expected 1 to 100 labels")
        return To(labels=tuple(parse_name(str(label)) for label in labels))
    if isinstance(found, dict) and set(found) == {"percent"}:
        percent = found["percent"]
        if is_number(percent, 1) and percent <= 100:
            return To(percent=percent)
    raise ValueError("invalid to")


def _revocation(entry: Entry, body: dict[str, Any]) -> Revocation:
    _expect_keys(body, "deny", "value", "comment", "issued")
    kind, value = body["deny"], body["value"]
    if kind not in ENTRY_KINDS or not isinstance(value, str):
        raise ValueError("invalid deny or value")
    if format_entry(kind, value) != f"{kind} {value}":
        raise ValueError(f"{value[:80]!r} is not written as a denylist keeps it")
    return Revocation(
        entry.sequence, kind, value, entry.not_after, issued_at(entry), _comment(body)
    )


def _undo(_: Entry, body: dict[str, Any]) -> Undo:
    _expect_keys(body, "sequence", "issued")
    if not is_number(body["sequence"], 1):
        raise ValueError("invalid sequence")
    return Undo(body["sequence"])


def _key(_: Entry, body: dict[str, Any]) -> KeyChange:
    _expect_keys(body, "add", "remove", "issued")
    for name in ("add", "remove"):
        found = body[name]
        if not isinstance(found, list) or not all(isinstance(each, str) for each in found):
            raise ValueError(f"invalid {name}")
        if len(found) > 32:
            raise ValueError(f"more than 32 keys to {name}")
    return KeyChange(tuple(map(parse_key, body["add"])), tuple(body["remove"]))


_READERS: dict[str, Callable[[Entry, dict[str, Any]], Said]] = {
    "release": _release,
    "revocation": _revocation,
    "undo": _undo,
    "key": _key,
}


def _expect_keys(body: dict[str, Any], *names: str) -> None:
    if set(body) != set(names):
        raise ValueError(f"expected {', '.join(names)}")


def _comment(body: dict[str, Any]) -> str:
    comment = body["comment"]
    if not isinstance(comment, str) or len(comment) > MAX_COMMENT or not comment.isprintable():
        raise ValueError("invalid comment")
    return comment

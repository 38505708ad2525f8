"""One signed entry of the fleet's log: its fields, its bytes, its signature.

An entry travels and is stored as one line: the canonical JSON of

    {"entry": {fleet, epoch, sequence, previous, kind, body, not_after}, "key": …, "signature": …}

The signature is over `CONTEXT` and the canonical bytes of `entry`; the entry's hash, which the
next one names as `previous`, is the SHA-256 of the same.  Nothing here knows which key counts
(see `chain`).
"""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import dataclass, field
from typing import Any

from .canonical import MAX_INTEGER, decode, encode
from .keys import NAME, SIGNATURE_OCTETS, decode_base64

CONTEXT = b"mtls-sidecar fleet entry 1\n"
"""What is signed begins with this: the key's signatures mean nothing anywhere else."""

MAX_LINE = 512 * 1024
"""Most octets of an entry; NATS takes a message of 1 MiB."""

NOTHING_BEFORE = "0" * 64
"""`previous` of the first entry."""

FIELDS = {"fleet", "epoch", "sequence", "previous", "kind", "body", "not_after"}
KINDS = ("release", "revocation", "undo", "key", "head")


class Refused(Exception):
    """An entry that isn't taken.  `why` is one of `WHY`, and a metric's label value."""

    def __init__(self, why: str, detail: str) -> None:
        super().__init__(detail)
        self.why = why
        self.detail = detail


WHY = {
    "malformed": "it is no entry, or says what an entry can't say",
    "unknown_kind": "a kind that this version does not know",
    "wrong_fleet": "it is another fleet's",
    "unknown_key": "signed with a key that is not pinned, or may not sign this",
    "bad_signature": "the signature is not of these octets",
    "rollback": "an older state than the one in force",
    "fork": "another entry of this number, or one that follows another",
    "gap": "entries before it are missing",
    "ended": "its end has passed",
    "file": "a file of a release is not what the release says",
    "policy": "the release's policy can't be used here",
    "disk": "it can't be written",
}
"""Why an entry may be refused: every value of the label."""


@dataclass(frozen=True, slots=True)
class Entry:
    """What was signed.  `not_after` in seconds since the epoch; None is without end."""

    fleet: str
    epoch: int
    sequence: int
    previous: str
    kind: str
    body: dict[str, Any] = field(hash=False)
    not_after: int | None = None

    def content(self) -> bytes:
        """The octets that are signed.  Raises ValueError for a body that has none."""
        fields = {name: getattr(self, name) for name in FIELDS}
        return CONTEXT + encode(fields)

    @property
    def hash(self) -> str:
        """What the next entry names as `previous`."""
        return hashlib.sha256(self.content()).hexdigest()


@dataclass(frozen=True, slots=True)
class SignedEntry:
    """An entry with the name of a key and a signature; whether it holds is not said."""

    entry: Entry
    key: str
    signature: bytes

    def line(self) -> bytes:
        """How it is stored and sent, without a line feed."""
        entry = {name: getattr(self.entry, name) for name in FIELDS}
        signature = base64.b64encode(self.signature).decode()
        return encode({"entry": entry, "key": self.key, "signature": signature})


def parse_line(line: bytes) -> SignedEntry:
    """An entry out of its line.  Raises `Refused`.

    The form alone is checked: not the signature, the place in the chain, or what the body says.
    """
    if len(line) > MAX_LINE:
        raise Refused("malformed", f"longer than {MAX_LINE} octets")
    try:
        found = decode(line)
        if not isinstance(found, dict) or set(found) != {"entry", "key", "signature"}:
            raise ValueError("expected entry, key and signature")
        key = found["key"]
        if not isinstance(key, str) or not re.fullmatch("[0-9a-f]{16}", key):
            raise ValueError("no key is named")
        if not isinstance(found["signature"], str):
            raise ValueError("no signature")
        signature = decode_base64(found["signature"], SIGNATURE_OCTETS)
        return SignedEntry(_entry(found["entry"]), key, signature)
    except ValueError as error:
        raise Refused("malformed", str(error)[:200]) from None


def _entry(found: Any) -> Entry:
    if not isinstance(found, dict) or set(found) != FIELDS:
        raise ValueError(f"expected the fields {', '.join(sorted(FIELDS))}")
    entry = Entry(**found)
    _expect(isinstance(entry.fleet, str) and bool(NAME.fullmatch(entry.fleet)), "fleet")
    _expect(is_number(entry.epoch, 1), "epoch")
    _expect(is_number(entry.sequence, 0), "sequence")
    _expect(isinstance(entry.previous, str), "previous")
    _expect(bool(re.fullmatch("[0-9a-f]{64}", entry.previous)), "previous")
    _expect(isinstance(entry.kind, str) and 0 < len(entry.kind) <= 32, "kind")
    _expect(isinstance(entry.body, dict), "body")
    _expect(entry.not_after is None or is_number(entry.not_after, 0), "not_after")
    return entry


def is_number(value: Any, least: int) -> bool:
    """Whether a value is an integer from `least` on."""
    return isinstance(value, int) and not isinstance(value, bool) and least <= value < MAX_INTEGER


def _expect(holds: bool, name: str) -> None:
    if not holds:
        raise ValueError(f"invalid {name}")

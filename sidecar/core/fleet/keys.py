"""Ed25519 keys: how a public key is written, and what it may sign.

`ed25519 BASE64` may sign everything; `ed25519 BASE64 head` signs heads only.  The second is for a
keeper, whose key is in use all the time.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

KEY_OCTETS = 32
SIGNATURE_OCTETS = 64


@dataclass(frozen=True, slots=True)
class PublicKey:
    """One pinned key.  `id` names it in entries: 16 hexadecimal digits of its SHA-256."""

    raw: bytes
    heads_only: bool = False

    @property
    def id(self) -> str:
        """The name of this key in an entry."""
        return hashlib.sha256(self.raw).hexdigest()[:16]

    def __str__(self) -> str:
        text = f"ed25519 {base64.b64encode(self.raw).decode()}"
        return f"{text} head" if self.heads_only else text

    def verifies(self, signature: bytes, data: bytes) -> bool:
        """Whether this key made the signature."""
        try:
            Ed25519PublicKey.from_public_bytes(self.raw).verify(signature, data)
        except InvalidSignature:
            return False
        return True


def parse_key(text: str) -> PublicKey:
    """A public key as it is written.  Raises ValueError with a message and a hint."""
    hint = "write what `mtls-sidecar fleet keygen` printed: ed25519 BASE64"
    words = text.split()
    if len(words) not in (2, 3) or words[0] != "ed25519" or words[2:] not in ([], ["head"]):
        raise ValueError(f"{text[:80]!r} is no public key", hint)
    try:
        raw = decode_base64(words[1], KEY_OCTETS)
    except ValueError:
        raise ValueError(f"{text[:80]!r} is no Ed25519 public key", hint) from None
    if raw in _LOW_ORDER:
        raise ValueError(f"{text[:80]!r} is a key for which anybody can sign", hint)
    return PublicKey(raw, heads_only=len(words) == 3)


def decode_base64(text: str, octets: int) -> bytes:
    """So many octets out of base64 in its one canonical form.  Raises ValueError."""
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("no base64") from None
    if len(raw) != octets or base64.b64encode(raw).decode() != text:
        raise ValueError(f"not {octets} octets of base64")
    return raw


NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
"""What a fleet, a node or a label may be called: one token of a NATS subject."""


def parse_name(text: str) -> str:
    """A fleet's, node's or label's name.  Raises ValueError."""
    if not NAME.fullmatch(text):
        raise ValueError(f"{text[:80]!r} is no name", "use A-Z a-z 0-9 _ - (1 to 64)")
    return text


_LOW_ORDER = frozenset(
    bytes.fromhex(text)
    for text in (
        "0100000000000000000000000000000000000000000000000000000000000000",
        "0000000000000000000000000000000000000000000000000000000000000000",
        "0000000000000000000000000000000000000000000000000000000000000080",
        "0100000000000000000000000000000000000000000000000000000000000080",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
    )
)
"""The points of small order, for which one signature verifies over many messages."""

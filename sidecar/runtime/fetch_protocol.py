"""Encode and decode messages between `serve` and `fetch`: 4 bytes of length, then a JSON object.

The length is big-endian and counts only the JSON.  Binary values in the JSON are Base64.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
from collections.abc import Mapping

MAX_MESSAGE = 512 * 1024
"""Maximum length of a message in bytes, much more than a certificate and its issuer need."""


class MessageError(ValueError):
    """The received bytes are not a message of this protocol."""


def encode(message: Mapping[str, str]) -> bytes:
    """Encode a message.  Raises `MessageError` if it would be longer than `MAX_MESSAGE`."""
    data = json.dumps(message).encode()
    if len(data) > MAX_MESSAGE:
        raise MessageError("the message is too long")
    return len(data).to_bytes(4, "big") + data


async def read(reader: asyncio.StreamReader) -> dict[str, str] | None:
    """Read the next message; return None if the peer has closed.  Raises `MessageError`."""
    try:
        size = int.from_bytes(await reader.readexactly(4), "big")
        if size > MAX_MESSAGE:
            raise MessageError("the message is too long")
        return decode(await reader.readexactly(size))
    except asyncio.IncompleteReadError as error:
        if error.partial:
            raise MessageError("the message is cut off") from None
        return None


def decode(data: bytes) -> dict[str, str]:
    """Decode a JSON object of strings.  Raises `MessageError`."""
    try:
        message = json.loads(data)
    except (ValueError, RecursionError):
        raise MessageError("the message is not JSON") from None
    if not isinstance(message, dict) or not all(isinstance(v, str) for v in message.values()):
        raise MessageError("the message is not an object of strings")
    return message


def pack(data: bytes) -> str:
    """Encode bytes for a message."""
    return base64.b64encode(data).decode("ascii")


def unpack(message: Mapping[str, str], field: str) -> bytes:
    """Decode the bytes of a field; return b"" if it is absent.  Raises `MessageError`."""
    try:
        return base64.b64decode(message.get(field, ""), validate=True)
    except (binascii.Error, ValueError):
        raise MessageError(f"{field} is not Base64") from None

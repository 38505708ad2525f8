"""Exchange messages between the daemon and the fetcher."""

from __future__ import annotations

import asyncio

import pytest

from sidecar.runtime.fetch_protocol import (
    MAX_MESSAGE,
    MessageError,
    decode,
    encode,
    pack,
    read,
    unpack,
)


async def received(*parts: bytes) -> dict[str, str] | None:
    reader = asyncio.StreamReader()
    for part in parts:
        reader.feed_data(part)
    reader.feed_eof()
    return await read(reader)


async def test_a_message_is_read_as_it_was_written() -> None:
    """A message is decoded as encoded, also byte by byte."""
    message = {"trust": "staff", "cert": pack(b"\x30\x00\xff")}
    frame = encode(message)
    assert await received(frame) == message
    assert await received(*(frame[i : i + 1] for i in range(len(frame)))) == message
    assert unpack(message, "cert") == b"\x30\x00\xff"
    assert unpack(message, "nonce") == b""


async def test_the_end_of_the_stream() -> None:
    """A close between messages is the end; a close within a message is an error."""
    assert await received() is None
    for cut in (b"\0", encode({"a": "b"})[:-1]):
        with pytest.raises(MessageError, match="cut off"):
            await received(cut)


async def test_a_length_beyond_the_limit_is_refused_before_it_is_read() -> None:
    """A message over `MAX_MESSAGE` is neither read nor written."""
    with pytest.raises(MessageError, match="too long"):
        await received((MAX_MESSAGE + 1).to_bytes(4, "big"))
    with pytest.raises(MessageError, match="too long"):
        encode({"a": "x" * MAX_MESSAGE})


@pytest.mark.parametrize("data", [b"", b"{", b"[" * 100_000, b"[]", b'{"a": 1}', b"\xff"])
def test_what_is_no_object_of_strings_is_refused(data: bytes) -> None:
    """Hostile JSON is a `MessageError`, never another exception."""
    with pytest.raises(MessageError):
        decode(data)


@pytest.mark.parametrize("text", ["*", "YQ", "é"])
def test_broken_base64_names_its_field(text: str) -> None:
    """The error says which field it is."""
    with pytest.raises(MessageError, match="cert is not Base64"):
        unpack({"cert": text}, "cert")

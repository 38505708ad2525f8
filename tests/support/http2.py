"""As much HTTP/2 as a client needs that may say anything (RFC 9113; HPACK literals, RFC 7541)."""

from __future__ import annotations

import socket
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

Field = tuple[bytes, bytes]

DATA, HEADERS, RST_STREAM, SETTINGS, GOAWAY = 0, 1, 3, 4, 7
END_STREAM, END_HEADERS = 0x1, 0x4
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

_STATIC_STATUS = {8: 200, 9: 204, 10: 206, 11: 304, 12: 400, 13: 404, 14: 500}
"""RFC 7541, appendix A."""


@dataclass
class Reply:
    """What came back on one stream.  Status 0: it was reset, or the connection ended."""

    status: int = 0
    body: bytes = b""
    ended: bool = False


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """RFC 9113, 4.1."""
    return (
        len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload
    )


def literal(name: bytes, value: bytes) -> bytes:
    """A literal field without indexing, with a new name (RFC 7541, 6.2.2)."""
    return b"\0" + _string(name) + _string(value)


def _string(value: bytes) -> bytes:
    return _integer(len(value), 7) + value


def _integer(value: int, bits: int) -> bytes:
    """RFC 7541, 5.1."""
    most = (1 << bits) - 1
    if value < most:
        return bytes([value])
    value -= most
    found = bytearray([most])
    while value >= 0x80:
        found.append(value % 0x80 | 0x80)
        value //= 0x80
    return bytes([*found, value])


def request(stream: int, fields: Iterable[Field], body: bytes | None = None) -> bytes:
    """The frames of one request."""
    block = b"".join(literal(name, value) for name, value in fields)
    last = END_STREAM if body is None else 0
    frames = frame(HEADERS, END_HEADERS | last, stream, block)
    return frames if body is None else frames + frame(DATA, END_STREAM, stream, body)


def get(path: bytes, authority: bytes, *more: Field) -> list[Field]:
    """The fields of a GET, as a browser would send them."""
    fields = [(b":method", b"GET"), (b":scheme", b"https"), (b":path", path)]
    return [*fields, (b":authority", authority), *more]


def ask(
    connection: socket.socket, requests: Sequence[tuple[Iterable[Field], bytes | None]]
) -> list[Reply]:
    """Send all at once on a fresh connection, each on a stream of its own; what came back."""
    sent = [request(2 * i + 1, fields, body) for i, (fields, body) in enumerate(requests)]
    replies = {2 * i + 1: Reply() for i in range(len(requests))}
    try:
        connection.sendall(PREFACE + frame(SETTINGS, 0, 0, b"") + b"".join(sent))
        with connection.makefile("rb") as stream:
            while not all(reply.ended for reply in replies.values()):
                head = stream.read(9)
                if len(head) < 9:
                    break
                payload = stream.read(int.from_bytes(head[:3], "big"))
                _take(replies, head[3], head[4], int.from_bytes(head[5:9], "big"), payload)
    except ConnectionError:
        pass
    return list(replies.values())


def _take(replies: dict[int, Reply], kind: int, flags: int, stream: int, payload: bytes) -> None:
    reply = replies.get(stream)
    if kind == GOAWAY:
        last = int.from_bytes(payload[:4], "big")
        for number, each in replies.items():
            each.ended = each.ended or number > last or payload[4:8] != bytes(4)
    if reply is None:
        return
    if kind == HEADERS:
        reply.status = _status(payload)
    elif kind == DATA:
        reply.body += payload
    elif kind == RST_STREAM:
        reply.ended = True
    if kind in (DATA, HEADERS) and flags & END_STREAM:
        reply.ended = True


def _status(block: bytes) -> int:
    """nginx writes `:status` first: indexed, or its name indexed and three plain digits."""
    block = block.lstrip(b"\x20")  # table size updates
    if block[0] & 0x80:
        return _STATIC_STATUS[block[0] & 0x7F]
    return int(block[2:5])

"""DER whose tags and lengths lie, at any level: a certificate taken apart, altered, put together.

for der in lies(leaf.der, random.Random(7), 1000): ...
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from random import Random

from der import tlv

from sidecar.core.x509.der import children

_OCTET_STRING, _CONSTRUCTED = 0x04, 0x20
_TAGS = [0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x0C, 0x13, 0x14, 0x16, 0x1E, 0x30, 0x31, 0x80, 0x81]
_TAGS += [0x82, 0x86, 0x87, 0x88, 0xA0, 0xA1, 0xA2, 0xA3, 0xA4, 0xA5, 0xBF, 0x1F, 0x00]
_EXTRA = [b"\0", b"\x05\0", tlv(0x82, b"admin.example.com"), tlv(0x0C, b"x"), tlv(0x30)]
_EXTRA += [tlv(0x30, bytes.fromhex("0603551d25"), tlv(0x04, b"\x30\0"))]


@dataclass
class Node:
    """One TLV: its contents are octets, or nodes; `written` is how it lies, if it does."""

    tag: int
    contents: bytes | list[Node]
    wrapped: bool = False
    written: bytes | None = field(default=None)

    def encode(self) -> bytes:
        if self.written is not None:
            return self.written
        return tlv(self.tag, self.body())

    def body(self) -> bytes:
        if isinstance(self.contents, bytes):
            return self.contents
        return b"".join(each.encode() for each in self.contents)

    def all(self) -> Iterator[Node]:
        yield self
        if isinstance(self.contents, list):
            for each in self.contents:
                yield from each.all()


def tree(der: bytes) -> Node:
    """The whole tree; what is DER within an OCTET STRING belongs to it."""
    (found,) = _nodes(der, 0, len(der))
    return found


def _nodes(der: bytes, start: int, stop: int) -> list[Node]:
    found = []
    for at in children(der, start, stop):
        contents: bytes | list[Node] = der[at.start : at.stop]
        if at.tag & _CONSTRUCTED:
            contents = _nodes(der, at.start, at.stop)
        elif at.tag == _OCTET_STRING:
            with suppress(ValueError):
                contents = _nodes(der, at.start, at.stop) or b""
        found.append(Node(at.tag, contents))
    return found


def lies(der: bytes, random: Random, times: int) -> Iterator[bytes]:
    """So many variants, each with one lie or two.  What holds a lie is mostly put right."""
    for _ in range(times):
        root = tree(der)
        for _ in range(random.choice([1, 1, 1, 2])):
            everything = list(root.all())
            lie(random.choice(everything[1:]), random)
        yield root.encode()


def lie(node: Node, random: Random) -> None:
    """Change one value so that it lies."""
    body, tag = node.body(), node.tag
    match random.randrange(12):
        case 0:
            node.tag = random.choice(_TAGS)
        case 1:  # a length that says more, or less, than there is
            length = max(0, len(body) + random.choice([-2, -1, 1, 2, 5, 100]))
            node.written = tlv(tag, bytes(length))[: -length or None] + body
        case 2:  # a length in more octets than need be
            octets = random.choice([1, 2, 3, 4])
            with suppress(OverflowError):
                node.written = bytes([tag, 0x80 | octets]) + len(body).to_bytes(octets) + body
        case 3:  # an indefinite length
            node.written = bytes([tag, 0x80]) + body + b"\0\0"
        case 4 | 5:  # octets behind the contents
            node.contents, node.written = body + random.choice(_EXTRA), None
        case 6:  # octets behind the value
            node.written = tlv(tag, body) + random.choice(_EXTRA)
        case 7:
            node.contents = body[: random.randrange(len(body) + 1)]
        case 8:
            at = random.randrange(len(body) + 1)
            node.contents = body[:at] + random.randbytes(1) + body[at + 1 :]
        case 9:
            node.contents = b""
        case 10:
            node.written = tlv(tag, body) * 2
        case 11:  # the constructed form of a primitive, or the other way round
            node.tag = tag ^ _CONSTRUCTED
            if random.random() < 0.5:
                node.contents = tlv(_OCTET_STRING, body)

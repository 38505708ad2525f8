"""The text of IP addresses."""

from __future__ import annotations

import random
import sys
from ipaddress import IPv4Address, IPv6Address

from sidecar.core.ip_address import address_text


def test_the_text_of_an_address_is_the_librarys() -> None:
    """For addresses with runs of zeros anywhere; of those that map IPv4 only the octets count."""
    chance = random.Random(7)
    for _ in range(20_000):
        words = [chance.choice([0, 0, 0, 1, 0x10, 0xABCD, 0xFFFF]) for _ in range(8)]
        octets = b"".join(word.to_bytes(2) for word in words)
        address = IPv6Address(octets)
        assert IPv6Address(address_text(octets)) == address
        if address.ipv4_mapped is None or sys.version_info < (3, 13):
            assert address_text(octets) == str(address)
    assert address_text(bytes([10, 0, 200, 255])) == str(IPv4Address("10.0.200.255"))


def test_a_mapped_address_has_one_text() -> None:
    """Python 3.13 writes it otherwise than 3.11, and rules by text would differ."""
    assert address_text(bytes(10) + b"\xff\xff\x0a\0\0\1") == "::ffff:a00:1"

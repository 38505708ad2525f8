"""DER by hand, for the structures that no library writes."""

from __future__ import annotations

from base64 import b64encode
from datetime import UTC, datetime

from cryptography import x509


def tlv(tag: int, *content: bytes) -> bytes:
    """One DER element.  `tag` is the whole identifier octet."""
    body = b"".join(content)
    if len(body) < 0x80:
        return bytes([tag, len(body)]) + body
    length = len(body).to_bytes((len(body).bit_length() + 7) // 8)
    return bytes([tag, 0x80 | len(length)]) + length + body


def der_int(value: int) -> bytes:
    return tlv(0x02, value.to_bytes(value.bit_length() // 8 + 1, signed=True))


def der_oid(dotted: str) -> bytes:
    first, second, *rest = map(int, dotted.split("."))
    body = b""
    for arc in [first * 40 + second, *rest]:
        octets = [arc & 0x7F]
        while arc := arc >> 7:
            octets.append(0x80 | arc & 0x7F)
        body += bytes(reversed(octets))
    return tlv(0x06, body)


def der_time(moment: datetime) -> bytes:
    moment = moment.astimezone(UTC)
    if moment.year < 2050:
        return tlv(0x17, moment.strftime("%y%m%d%H%M%SZ").encode())
    return tlv(0x18, moment.strftime("%Y%m%d%H%M%SZ").encode())


def der_extension(extension: x509.ExtensionType, critical: bool = False) -> bytes:
    flag = tlv(0x01, b"\xff") if critical else b""
    value = tlv(0x04, extension.public_bytes())
    return tlv(0x30, der_oid(extension.oid.dotted_string), flag, value)


def der_rdn(oid: str, value: bytes, tag: int = 0x0C) -> bytes:
    """A RelativeDistinguishedName with one attribute; `value` goes in as it is (UTF8String)."""
    return tlv(0x31, tlv(0x30, der_oid(oid), tlv(tag, value)))


def pem(label: str, der: bytes) -> bytes:
    """DER in PEM armour, as OpenSSL writes it."""
    text = b64encode(der)
    lines = [text[i : i + 64] for i in range(0, len(text), 64)]
    head, foot = f"-----BEGIN {label}-----", f"-----END {label}-----"
    return b"\n".join([head.encode(), *lines, foot.encode(), b""])

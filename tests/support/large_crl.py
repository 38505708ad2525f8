"""CRLs of any size, made in a moment: the builder takes minutes for a million entries."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from der import der_int, der_oid, der_time, tlv
from pki import CA, now

_ECDSA = tlv(0x30, der_oid("1.2.840.10045.4.3.2"))


def large_crl(
    ca: CA, count: int, also: Iterable[int] = (), *, number: int = 6, issuers: bool = False
) -> bytes:
    """A CRL (DER) of so many serial numbers from 2**127 on, and some more.

    With `issuers` it is indirect, and each entry names an issuer of its own.
    """
    start = now() - timedelta(hours=1)
    when, head = der_time(start), (1 << 127).to_bytes(16, "big")[:8]
    if issuers:
        entries = [_indirect(n, when) for n in range(count)]
    else:
        template = tlv(0x30, tlv(0x02, b"\0" + bytes(16)), when)
        before, after = template[:5], template[21:]
        entries = [before + head + n.to_bytes(8, "big") + after for n in range(count)]
    # the serial numbers asked for come first: within an indirect CRL the issuer is inherited
    content = [tlv(0x30, der_int(serial), when) for serial in also] + entries
    scope = _extension("2.5.29.28", tlv(0x30, tlv(0x84, b"\xff")), critical=True)
    extensions = _extension("2.5.29.20", der_int(number)) + (scope if issuers else b"")
    tbs = tlv(
        0x30,
        der_int(1),
        _ECDSA,
        ca.subject.public_bytes(),
        when,
        der_time(start + timedelta(days=2)),
        tlv(0x30, b"".join(content)),
        tlv(0xA0, tlv(0x30, extensions)),
    )
    assert isinstance(ca.key, ec.EllipticCurvePrivateKey)
    signature = ca.key.sign(tbs, ec.ECDSA(hashes.SHA256()))
    return tlv(0x30, tbs, _ECDSA, tlv(0x03, b"\0" + signature))


def _indirect(number: int, when: bytes) -> bytes:
    name = tlv(0x30, tlv(0x31, tlv(0x30, der_oid("2.5.4.3"), tlv(0x0C, f"CA {number}".encode()))))
    issuer = tlv(0x30, tlv(0xA4, name))
    return tlv(0x30, der_int(number + 1), when,
               tlv(0x30, _extension("2.5.29.29", issuer, critical=True)))  # fmt: skip


def _extension(oid: str, value: bytes, *, critical: bool = False) -> bytes:
    return tlv(0x30, der_oid(oid), tlv(0x01, b"\xff") if critical else b"", tlv(0x04, value))

"""Parse the extensions of a CRL entry (RFC 5280, 5.3)."""

from __future__ import annotations

from dataclasses import dataclass

from sidecar.core.x509.der import (
    BOOLEAN,
    ENUMERATED,
    OCTET_STRING,
    OID,
    SEQUENCE,
    children,
    comparable_name,
    only,
)

_REASON_CODE = bytes.fromhex("551d15")
_INVALIDITY_DATE = bytes.fromhex("551d18")
_CERTIFICATE_ISSUER = bytes.fromhex("551d1d")
_DIRECTORY_NAME = 0xA4


@dataclass(frozen=True, slots=True)
class EntryExtensions:
    """The values of an entry's extensions.  `issuer`: a comparable name, if the entry changes it.

    `issuer` is empty if that name can't be parsed: then the entry's certificate is unknown.
    `unusable` says why the whole CRL can only revoke ("": it is usable).
    """

    reason: int = 0
    issuer: bytes | None = None
    unusable: str = ""


def read_extensions(octets: bytes, indirect: bool) -> EntryExtensions:
    """Parse crlEntryExtensions (RFC 5280, 5.3).  Never raises: see `unusable` of the result."""
    reason, issuer, unusable = 0, None, ""
    seen = set()
    try:
        for extension in children(octets, *only(octets, SEQUENCE)[1:]):
            oid, critical, value = _read_extension(octets, extension.start, extension.stop)
            if oid in seen:
                unusable = "an entry has the same extension twice"
            seen.add(oid)
            if oid == _REASON_CODE:
                reason = _reason(value)
            elif oid == _CERTIFICATE_ISSUER and not indirect:
                unusable = "certificateIssuer in a CRL that is not indirect"
            elif oid == _CERTIFICATE_ISSUER:
                issuer = _directory_name(value) or b""
                if not issuer:
                    unusable = "a certificateIssuer is not a directoryName"
            elif critical and oid != _INVALIDITY_DATE:
                unusable = f"unknown critical entry extension {_dotted(oid)}"
    except ValueError as error:
        return EntryExtensions(reason, issuer, f"an entry's extensions can't be read: {error}")
    return EntryExtensions(reason, issuer, unusable)


def _read_extension(octets: bytes, start: int, stop: int) -> tuple[bytes, bool, bytes]:
    parts = list(children(octets, start, stop))
    tags = [part.tag for part in parts]
    if tags not in ([OID, OCTET_STRING], [OID, BOOLEAN, OCTET_STRING]):
        raise ValueError("an entry's extension is broken")
    oid, value = octets[parts[0].start : parts[0].stop], octets[parts[-1].start : parts[-1].stop]
    critical = len(parts) == 3 and any(octets[parts[1].start : parts[1].stop])
    return oid, critical, value


def _reason(value: bytes) -> int:
    found = only(value, ENUMERATED)
    reason = int.from_bytes(value[found.start : found.stop], "big", signed=True)
    return reason if 0 <= reason <= 0xFF else 0


def _directory_name(value: bytes) -> bytes | None:
    """Return the only directoryName of GeneralNames in comparable form, or None."""
    names = list(children(value, *only(value, SEQUENCE)[1:]))
    directory = [name for name in names if name.tag == _DIRECTORY_NAME]
    if len(directory) != 1:
        return None
    return comparable_name(value[directory[0].start : directory[0].stop])


def _dotted(oid: bytes) -> str:
    """Convert an OID's octets to dotted form (X.690, 8.19), or to hex if they are invalid."""
    arcs, value = [], 0
    for octet in oid:
        value = value << 7 | octet & 0x7F
        if octet < 0x80:
            arcs.append(value)
            value = 0
    if not arcs or value:
        return oid.hex()
    first = min(arcs[0] // 40, 2)
    return ".".join(map(str, [first, arcs[0] - 40 * first, *arcs[1:]]))

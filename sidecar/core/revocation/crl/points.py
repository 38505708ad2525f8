"""Parse distribution points of certificates and CRLs (RFC 5280, 4.2.1.13 and 5.2.5).

Each is parsed separately from its DER, so that an invalid name elsewhere does no harm.
"""

from __future__ import annotations

from dataclasses import dataclass

from sidecar.core.x509.der import (
    SEQUENCE,
    SET,
    comparable_name,
    encode,
    is_bits,
    only,
    value_of,
    within,
)

ALL_REASONS = sum(1 << bit for bit in range(1, 9))
"""A mask of all ReasonFlags (RFC 5280, 4.2.1.13) by bit number, without `unused` (0)."""


@dataclass(frozen=True, slots=True)
class Scope:
    """An issuing distribution point.  The default, for a CRL without one, includes everything.

    `names`: the distribution point's names in comparable form, if it has any.  `only`: `user`,
    `ca`, `attribute`, or empty for all certificates.  `reasons`: a mask of ReasonFlags bits.
    """

    names: frozenset[bytes] = frozenset()
    only: str = ""
    reasons: int = ALL_REASONS
    indirect: bool = False

    def __str__(self) -> str:
        names = b"|".join(sorted(self.names)).hex()
        return f"{self.only}/{self.reasons:x}/{int(self.indirect)}/{names}"


EVERYTHING = Scope()


@dataclass(frozen=True, slots=True)
class DistributionPoint:
    """A certificate's distribution point, names in comparable form.  `issuers`: its cRLIssuer."""

    names: frozenset[bytes]
    issuers: frozenset[bytes] = frozenset()
    reasons: int = ALL_REASONS


_NAME, _USER, _CA, _REASONS, _INDIRECT, _ATTRIBUTE = 0xA0, 0x81, 0x82, 0x83, 0x84, 0x85
_ONLY = ((_USER, "user"), (_CA, "ca"), (_ATTRIBUTE, "attribute"))


def read_scope(value: bytes, issuer: bytes) -> Scope:
    """Parse an IssuingDistributionPoint; `issuer` is a Name (DER).  Raises ValueError."""
    parts = _parts(value, (_NAME, _USER, _CA, _REASONS, _INDIRECT, _ATTRIBUTE))
    return Scope(
        names=_names(parts[_NAME], issuer) if _NAME in parts else frozenset(),
        only="".join(kind for tag, kind in _ONLY if _flag(parts.get(tag))),
        reasons=_mask(parts.get(_REASONS)),
        indirect=_flag(parts.get(_INDIRECT)),
    )


MAX_POINTS = 64
"""Maximum number of a certificate's distribution points: each is compared with each CRL's scope."""

_POINT_REASONS, _POINT_ISSUER = 0x81, 0xA2


def read_points(value: bytes, issuer: bytes) -> tuple[DistributionPoint, ...]:
    """Parse a cRLDistributionPoints; `issuer` is a Name (DER).  Raises ValueError."""
    points = within(value, SEQUENCE, MAX_POINTS + 1)
    if len(points) > MAX_POINTS:
        raise ValueError(f"more than {MAX_POINTS} distribution points")
    return tuple(_point(point, issuer) for point in points)


def _point(point: bytes, issuer: bytes) -> DistributionPoint:
    parts = _parts(point, (_NAME, _POINT_REASONS, _POINT_ISSUER))
    directories = [_directory_of(n) for n in _list(parts.get(_POINT_ISSUER, b""))]
    base = directories[0] if directories else issuer
    return DistributionPoint(
        names=_names(parts[_NAME], base) if _NAME in parts else frozenset(),
        issuers=frozenset(map(comparable_name, directories)),
        reasons=_mask(parts.get(_POINT_REASONS)),
    )


def _parts(octets: bytes, tags: tuple[int, ...]) -> dict[int, bytes]:
    """Return the TLVs of a SEQUENCE by tag.  Raises ValueError for repeated and other tags."""
    found = within(octets, SEQUENCE)
    parts = {part[0]: part for part in found}
    if len(parts) != len(found) or not parts.keys() <= set(tags):
        raise ValueError("a distribution point is broken")
    return parts


def _list(octets: bytes) -> list[bytes]:
    """Return the items of an implicitly tagged SEQUENCE OF; none if it is absent."""
    return within(octets, octets[0]) if octets else []


def _flag(octets: bytes | None) -> bool:
    return octets is not None and any(octets[value_of(octets, 0) :])


def _mask(octets: bytes | None) -> int:
    """Convert ReasonFlags to a mask: bit n is reason n.  If absent, all bits are set."""
    if octets is None:
        return ALL_REASONS
    bits = octets[value_of(octets, 0) :]
    if not is_bits(bits):
        raise ValueError("the reasons of a distribution point are not bits")
    flags = "".join(f"{octet:08b}" for octet in bits[1:])
    return sum(1 << bit for bit in range(1, 9) if flags[bit : bit + 1] == "1")


def _names(octets: bytes, base: bytes) -> frozenset[bytes]:
    """Parse a DistributionPointName: its full names, or the name relative to `base`."""
    (name,) = within(octets, octets[0])
    if name[0] == 0xA0:
        return frozenset(_general(each) for each in within(name, name[0]))
    if name[0] != 0xA1:
        raise ValueError("the name of a distribution point is broken")
    relative = encode(SET, name[value_of(name, 0) :])
    whole = encode(SEQUENCE, base[value_of(base, 0) :] + relative)
    return frozenset({directory(comparable_name(whole))})


_KINDS = {0x81: "RFC822Name", 0x82: "DNSName", 0x86: "UniformResourceIdentifier"}


def _general(name: bytes) -> bytes:
    """Convert a GeneralName to a form that is equal for equal names.

    URIs and other kinds are compared octet by octet: a difference leads to UNKNOWN, never to GOOD.
    """
    if name[0] == 0xA4:
        return directory(comparable_name(_directory_of(name)))
    kind = _KINDS.get(name[0], f"{name[0]:02x}")
    return kind.encode() + b" " + name[value_of(name, 0) :]


def _directory_of(name: bytes) -> bytes:
    """Return the Name (DER) in a directoryName.  Raises ValueError for another GeneralName."""
    if name[0] != 0xA4:
        raise ValueError("a cRLIssuer is not a directoryName")
    found = name[value_of(name, 0) :]
    only(found, SEQUENCE)
    return found


def directory(name: bytes) -> bytes:
    """Convert a comparable name to the form that a point's `names` hold."""
    return b"DirectoryName " + name

"""Read what an authority may issue, and tell what it may not, for `verify: nginx`.

nginx may have verified another path than the one found here: an intermediate can have several
certificates for one key, below several roots, and the client sends one of them.  So the limits of
the found path are asked as well: name constraints (RFC 5280, 4.2.1.10) and extended key usage.

What OpenSSL refuses is refused: its `NAME_CONSTRAINTS_check` is followed, whatever the form of a
name or constraint; but a URI that has another host to OpenSSL than to others is refused, too, and
a wildcard that could be an excluded host.  Asked about are the names that a rule can grant by, as a
rule reads them: a SAN that can't be read hides no other name.  `name_constraints`, for
`verify: sidecar`, refuses more.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from ipaddress import ip_address
from typing import NamedTuple

from . import extension_values as ext
from .canonical_name import canonical_name
from .certificate import ClientCert
from .client_purpose import CLIENT_AUTH
from .der import SEQUENCE, children, only
from .extension_values import GeneralName
from .name_constraints import (
    IA5,
    MAX_COMPARISONS,
    NameNotPermitted,
    address_in,
    host_in,
    is_mapped,
    is_wildcard_of,
    mail_in,
    names_of,
    starts_with,
)


class Subtree(NamedTuple):
    """One subtree of nameConstraints.  A bounded one has a `minimum` or `maximum`."""

    permitted: bool
    base: GeneralName
    bounded: bool


class IssuerLimits(NamedTuple):
    """The limits of one authority; it may issue nothing if they can't be read."""

    subtrees: tuple[Subtree, ...] = ()
    may_issue: bool = True


def read_limits(cert: ClientCert) -> IssuerLimits:
    """Read the limits of an authority."""
    try:
        found = ext.extensions_of(cert)
        limits, usages = found.get(ext.NAME_CONSTRAINTS), found.get(ext.EXTENDED_USAGE)
        return IssuerLimits(
            () if limits is None else tuple(_subtrees(limits.value)),
            usages is None or CLIENT_AUTH in ext.oids(usages.value),
        )
    except ValueError:
        return IssuerLimits(may_issue=False)


_NO_MINIMUM = b"\x80\x01\x00"
"""The `minimum` 0, which is the default: DER omits it, OpenSSL takes it."""


def _subtrees(value: bytes) -> Iterator[Subtree]:
    """Yield the subtrees of nameConstraints.  Raises ValueError."""
    outer = only(value, SEQUENCE)
    for part in children(value, outer.start, outer.stop):
        if part.tag not in (0xA0, 0xA1):
            raise ValueError("broken nameConstraints")
        for subtree in children(value, part.start, part.stop):
            if subtree.tag != SEQUENCE:
                raise ValueError("broken nameConstraints")
            base, *_ = children(value, subtree.start, subtree.stop)
            name = ext.general_name(value, base)
            bounds = value[base.stop : subtree.stop]
            yield Subtree(part.tag == 0xA0, name, bounds not in (b"", _NO_MINIMUM))


_LABEL = rb"[A-Za-z0-9_](?:[A-Za-z0-9_-]*[A-Za-z0-9_])?"
_HOST = re.compile(_LABEL + rb"(?:\." + _LABEL + rb")+")
"""A CN that OpenSSL holds against constraints on DNS names: no hyphen stands beside a dot."""


def are_exceeded(leaf: ClientCert, path: Sequence[tuple[ClientCert, IssuerLimits]]) -> bool:
    """Return whether a certificate of a path has a name that an authority above forbids.

    `path` is the leaf's issuers, nearest first, each with its limits.
    """
    lower = [leaf, *(cert for cert, _ in path)]
    try:
        for at, (_, limits) in enumerate(path):
            for place, cert in enumerate(lower[: at + 1] if limits.subtrees else ()):
                if place == 0 or not _is_self_issued(cert):
                    _check(_names(cert, is_leaf=place == 0), limits.subtrees)
    except (NameNotPermitted, ValueError):
        return True
    return False


def _is_self_issued(cert: ClientCert) -> bool:
    """Return whether the names of an authority aren't asked about (RFC 5280, 6.1.4 (b))."""
    return canonical_name(cert.subject_name) == canonical_name(cert.issuer_name)


def _names(cert: ClientCert, *, is_leaf: bool) -> list[GeneralName]:
    """Return the names of a certificate.  Raises ValueError, and `NameNotPermitted`."""
    subject = names_of(cert, [])
    if any(tag != IA5 for tag, _ in subject.mail):
        raise NameNotPermitted("an emailAddress in the subject that is not an IA5String")
    found = [GeneralName(ext.DIRECTORY, cert.subject_name)] if subject.subject else []
    found += [GeneralName(ext.MAIL, octets) for _, octets in subject.mail]
    if is_leaf and not cert.dns:
        if subject.odd_cn:
            raise NameNotPermitted("a CN that is not a string")
        found += [GeneralName(ext.DNS, host) for host in subject.hosts if _HOST.fullmatch(host)]
    for tag, texts in ((ext.DNS, cert.dns), (ext.MAIL, cert.email), (ext.URI, cert.uri)):
        found += [GeneralName(tag, text.encode()) for text in texts]
    found += [GeneralName(ext.IP, ip_address(text).packed) for text in cert.ip]
    found += [GeneralName(ext.OTHER, _UPN)] if cert.upn else []
    found += _others(cert)
    return found + [GeneralName(ext.IP, name.octets[12:]) for name in found if is_mapped(name)]


_ALTERNATIVE_NAME = bytes.fromhex("551d11")
_UPN = bytes.fromhex("060a2b060104018237140203")
_MAILBOX = bytes.fromhex("06082b06010505070809")
"""The OIDs (DER) of the otherNames that are a UPN, and an SmtpUTF8Mailbox, which grants nothing."""


def _others(cert: ClientCert) -> list[GeneralName]:
    """Return the names of a SAN that no rule asks about; none if it can't be read."""
    value = cert.extension(_ALTERNATIVE_NAME)
    try:
        names = [] if value is None else ext.general_names(value)
    except ValueError:
        return []
    kinds = (ext.DIRECTORY, ext.X400, ext.EDI, ext.REGISTERED)
    return [
        name._replace(octets=_oid_of(name)) if name.tag == ext.OTHER else name
        for name in names
        if name.tag in kinds or (name.tag == ext.OTHER and _oid_of(name) != _MAILBOX)
    ]


def _oid_of(name: GeneralName) -> bytes:
    return name.octets[: 2 + name.octets[1]]


def _check(names: Sequence[GeneralName], subtrees: Sequence[Subtree]) -> None:
    """Check names against one authority's subtrees.  Raises `NameNotPermitted` and ValueError."""
    by_kind: dict[int, list[Subtree]] = {}
    for subtree in subtrees:
        by_kind.setdefault(subtree.base.tag, []).append(subtree)
    left = MAX_COMPARISONS
    for name in names:
        asked = by_kind.get(name.tag, ())
        left -= len(asked)
        if left < 0:
            raise NameNotPermitted("too many names to compare")
        if asked:
            _check_one(name, asked)


def _check_one(name: GeneralName, subtrees: Sequence[Subtree]) -> None:
    permitted, found = False, False
    for subtree in subtrees:
        if name.tag == ext.OTHER and not subtree.base.octets.startswith(name.octets):
            continue
        if subtree.bounded:
            raise NameNotPermitted("a subtree with bounds")
        if subtree.permitted and found:
            continue  # OpenSSL looks at no more of them, whatever their form
        lies_in = _lies_in(name, subtree.base)
        if subtree.permitted:
            permitted, found = True, found or lies_in
        elif lies_in or (name.tag == ext.DNS and is_wildcard_of(name.octets, subtree.base.octets)):
            raise NameNotPermitted("a name in an excluded subtree")
    if permitted and not found:
        raise NameNotPermitted("a name in no permitted subtree")


def _lies_in(name: GeneralName, base: GeneralName) -> bool:
    """Return whether a name is in a base of its kind.

    Raises `NameNotPermitted` for a form or kind that OpenSSL refuses whatever the base.
    """
    octets = name.octets
    if name.tag == ext.DIRECTORY:
        return starts_with(canonical_name(octets), base)
    if name.tag == ext.DNS:
        return host_in(octets, base.octets)
    if name.tag == ext.IP and len(base.octets) in (8, 32):
        return address_in(octets, base.octets)
    if name.tag == ext.MAIL and b"@" in octets:
        return mail_in(octets, base.octets)
    host = _URI_HOST.fullmatch(octets) if name.tag == ext.URI else None
    if host is None:
        raise NameNotPermitted(f"the name {octets[:80]!r}, which has no form to compare")
    return _is_host(host[1].lower(), base.octets.lower())


_URI_HOST = re.compile(
    rb"[^:/?#]*://([^:/?#@\\]+)(?::[0-9]*(?:[/?#].*)?|/[^:]*)?",
    re.DOTALL,
)
"""A URI of which OpenSSL takes for the host what everybody does.

To OpenSSL that ends at the next colon, wherever it is, or else at the `/`: `https://a.test/.b.test:`
is a host below `.b.test`, and to whoever reads a rule it is of `a.test`.
"""


def _is_host(host: bytes, base: bytes) -> bool:
    return len(host) > len(base) and host.endswith(base) if base[:1] == b"." else host == base

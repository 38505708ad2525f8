"""Check a certificate's names against an authority's name constraints, as OpenSSL does.

See RFC 5280, 4.2.1.10.  Some names that OpenSSL may accept are refused because their meaning is
uncertain: names of a kind other than DNS, mail, URI, IP and directory name if a constraint is about
that kind; mail addresses and URIs in an unusual form; a wildcard that could match an excluded
host; an IPv4-mapped address whose IPv4 address isn't permitted as well.

Not checked, as in OpenSSL: a CN beside a DNS name in the SAN.  An authority restricted to
`partner.test` can therefore issue any CN.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

from .canonical_name import CanonicalName, attributes, canonical_name, text_of
from .certificate import ClientCert
from .der import NO_STRINGS
from .extension_values import (
    DIRECTORY,
    DNS,
    IP,
    MAIL,
    OTHER,
    URI,
    GeneralName,
    subtrees,
)

MAX_COMPARISONS = 20_000
"""Maximum comparisons (names times subtrees) for one certificate and one authority."""

_COMMON_NAME = bytes.fromhex("0603550403")
_EMAIL_ADDRESS = bytes.fromhex("06092a864886f70d010901")
_SMTP_UTF8_MAILBOX = bytes.fromhex("06082b06010505070809")
IA5 = 0x16
_HOST_LIKE = re.compile(r"[A-Za-z0-9_.-]*\.[A-Za-z0-9_.-]*")
_PLAIN_MAIL = re.compile(rb"[^@\x00-\x20\x7f-\xff\"\\]+@[A-Za-z0-9._-]+")
_PLAIN_URI = re.compile(
    rb"[A-Za-z][A-Za-z0-9+.-]*://([A-Za-z0-9._-]+)(?::[0-9]*)?(?:/.*)?", re.DOTALL
)
_PLAIN_BASE = re.compile(rb"[A-Za-z0-9._-]*")


class NameNotPermitted(ValueError):
    """An authority's constraints don't permit a name; the text says which."""


class Constraints(NamedTuple):
    """The subtrees of one authority."""

    permitted: tuple[GeneralName, ...]
    excluded: tuple[GeneralName, ...]


def read_constraints(value: bytes) -> Constraints:
    """Parse nameConstraints.  Raises ValueError, also for a base in an unusual form."""
    found: tuple[list[GeneralName], list[GeneralName]] = ([], [])
    for permitted, base in subtrees(value):
        _check_base(base)
        found[not permitted].append(base)
    return Constraints(tuple(found[0]), tuple(found[1]))


def _check_base(base: GeneralName) -> None:
    octets = base.octets
    if base.tag == IP and len(octets) not in (8, 32):
        raise ValueError("a constraint on addresses that is not an address and mask")
    if base.tag in (DNS, URI) and not _PLAIN_BASE.fullmatch(octets):
        raise ValueError("a constraint on hosts that is not a host")
    if base.tag == MAIL and not (_PLAIN_BASE.fullmatch(octets) or _PLAIN_MAIL.fullmatch(octets)):
        raise ValueError("a constraint on mail that is neither a host nor an address")


class ConstrainedNames(NamedTuple):
    """The names of a certificate that constraints apply to: subject and alternative names.

    `hosts` are CNs that look like a DNS name; `odd_cn` says that a CN is not a string.
    """

    subject: CanonicalName
    mail: tuple[tuple[int, bytes], ...]
    hosts: tuple[bytes, ...]
    odd_cn: bool
    alternative: tuple[GeneralName, ...]


def names_of(cert: ClientCert, alternative: list[GeneralName]) -> ConstrainedNames:
    """Return the names of a certificate, whose SAN is `alternative`.  Raises ValueError."""
    found = attributes(cert.subject_name)
    named = [(tag, octets) for oid, tag, octets in found if oid == _COMMON_NAME]
    cns = [text_of(tag, octets) for tag, octets in named]
    return ConstrainedNames(
        subject=canonical_name(cert.subject_name),
        mail=tuple((tag, octets) for oid, tag, octets in found if oid == _EMAIL_ADDRESS),
        hosts=tuple(cn.encode() for cn in cns if _HOST_LIKE.fullmatch(cn.rstrip("\0"))),
        odd_cn=any(tag in NO_STRINGS for tag, _ in named),
        alternative=tuple(alternative),
    )


def check_names(names: ConstrainedNames, constraints: Constraints, *, is_leaf: bool) -> None:
    """Check all names of a certificate against one authority's subtrees.

    Raises `NameNotPermitted`.
    """
    asked = list(names.alternative)
    for tag, octets in names.mail:
        if tag != IA5:
            raise NameNotPermitted("an emailAddress in the subject that is not an IA5String")
        asked.append(GeneralName(MAIL, octets))
    if is_leaf and not any(name.tag == DNS for name in names.alternative):
        if names.odd_cn:  # OpenSSL can't convert it, whatever is constrained
            raise NameNotPermitted("a CN that is not a string")
        asked += [GeneralName(DNS, host) for host in names.hosts]
    asked += [GeneralName(IP, name.octets[12:]) for name in asked if is_mapped(name)]
    count = (len(asked) + 1) * (len(constraints.permitted) + len(constraints.excluded))
    if count > MAX_COMPARISONS:
        raise NameNotPermitted("too many names to compare")
    if names.subject:
        _check_directory(names.subject, constraints)
    for name in asked:
        _check(name, constraints)


def _check_directory(name: CanonicalName, constraints: Constraints) -> None:
    _decide(
        "its subject",
        [starts_with(name, base) for base in constraints.permitted if base.tag == DIRECTORY],
        [starts_with(name, base) for base in constraints.excluded if base.tag == DIRECTORY],
    )


def starts_with(name: CanonicalName, base: GeneralName) -> bool:
    """Return whether a name begins with a base, RDN by RDN.  Raises ValueError."""
    wanted = canonical_name(base.octets)
    return name[: len(wanted)] == wanted


def _decide(what: str, permitted: list[bool], excluded: list[bool]) -> None:
    if permitted and not any(permitted):
        raise NameNotPermitted(f"{what} is in no permitted subtree")
    if any(excluded):
        raise NameNotPermitted(f"{what} is in an excluded subtree")


def _check(name: GeneralName, constraints: Constraints) -> None:
    permitted = [base for base in constraints.permitted if base.tag == name.tag]
    excluded = [base for base in constraints.excluded if base.tag == name.tag]
    if name.tag == OTHER and name.octets.startswith(_SMTP_UTF8_MAILBOX):
        every = constraints.permitted + constraints.excluded
        if any(base.tag == MAIL for base in every):
            raise NameNotPermitted("an SmtpUTF8Mailbox under a constraint on mail")
    if not permitted and not excluded:
        return
    if name.tag == DIRECTORY:
        _check_directory(canonical_name(name.octets), constraints)
        return
    if name.tag not in _MATCHERS:
        raise NameNotPermitted("a kind of name whose constraints can't be checked")
    lies_in, may_lie_in, form = _MATCHERS[name.tag]
    if form is not None and not form.fullmatch(name.octets):
        raise NameNotPermitted(f"the name {name.octets[:80]!r}, which has an unusual form")
    _decide(
        f"the name {name.octets[:80]!r}",
        [lies_in(name.octets, base.octets) for base in permitted],
        [may_lie_in(name.octets, base.octets) for base in excluded],
    )


# -- one name and one base ------------------------------------------------------------------------


def host_in(name: bytes, base: bytes) -> bool:
    """Return whether a DNS name is in a base: the host or below it; `.host`: below it only."""
    name, base = name.lower(), base.lower()
    if not base:
        return True
    if not name.endswith(base) or len(name) < len(base):
        return False
    return len(name) == len(base) or base.startswith(b".") or name[-len(base) - 1] == ord(".")


def _host_may_be_in(name: bytes, base: bytes) -> bool:
    """Return whether a DNS name is in a base, or is a wildcard that could match a host in it."""
    if host_in(name, base) or host_in(name, base.removeprefix(b".")):
        return True
    return is_wildcard_of(name, base)


def is_wildcard_of(name: bytes, base: bytes) -> bool:
    """Return whether a DNS name is a wildcard that could match a host in a base."""
    return name.startswith(b"*") and host_in(base.removeprefix(b"."), name[1:].removeprefix(b"."))


def mail_in(address: bytes, base: bytes) -> bool:
    """Return whether an address is in a base: an address, a host, or `.host` for hosts below."""
    local, _, host = address.rpartition(b"@")
    base_local, at, base_host = base.rpartition(b"@")
    if not at and base.startswith(b"."):
        return len(address) > len(base) and host.lower().endswith(base.lower())
    return base_local in (b"", local) and host.lower() == base_host.lower()


def _mail_may_be_in(address: bytes, base: bytes) -> bool:
    """Return whether an address may be in a base; case is ignored, and an empty host means all."""
    return not base or mail_in(address.lower(), base.lower())


def _uri_in(uri: bytes, base: bytes) -> bool:
    """Return whether a URI's host equals the base, or for `.host` is below it."""
    found = _PLAIN_URI.fullmatch(uri)
    host = found[1].lower() if found else b""
    if base.startswith(b"."):
        return len(host) > len(base) and host.endswith(base.lower())
    return host == base.lower()


def _uri_may_be_in(uri: bytes, base: bytes) -> bool:
    return not base or _uri_in(uri, base) or _uri_in(uri.rstrip(b"."), base)


_MAPPED = bytes(10) + b"\xff\xff"


def is_mapped(name: GeneralName) -> bool:
    """Return whether a name is an IPv4-mapped address, which rules compare as IPv4."""
    return name.tag == IP and len(name.octets) == 16 and name.octets.startswith(_MAPPED)


def address_in(address: bytes, base: bytes) -> bool:
    """Return whether an address is in a network (address and mask) of the same family."""
    if len(base) != 2 * len(address):
        return False
    network, mask = base[: len(address)], base[len(address) :]
    return all((a ^ n) & m == 0 for a, n, m in zip(address, network, mask, strict=True))


_Match = Callable[[bytes, bytes], bool]
_MATCHERS: dict[int, tuple[_Match, _Match, re.Pattern[bytes] | None]] = {
    DNS: (host_in, _host_may_be_in, None),
    MAIL: (mail_in, _mail_may_be_in, _PLAIN_MAIL),
    URI: (_uri_in, _uri_may_be_in, _PLAIN_URI),
    IP: (address_in, address_in, re.compile(rb"(?:.{4}|.{16})", re.DOTALL)),
}
"""By kind: test for a permitted base; test for an excluded base; the accepted form of a name."""

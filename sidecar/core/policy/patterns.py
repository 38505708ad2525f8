"""Patterns of the policy against values of a certificate, and names against hosts.

A pattern is exact; with `*` a glob; with a leading `~` a regular expression (RE2, so linear in
what it is given) that must match the whole value.  Each kind of value has its own spelling and
its own comparison: `KINDS` is the table.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import re2

from sidecar.core.x509.certificate import EKU_NAMES

Predicate = Callable[[str], bool]


class PatternError(ValueError):
    """A pattern can't be read.  `args` are what is wrong and what to write instead."""


@dataclass(frozen=True, slots=True)
class Pattern:
    """One pattern.  `exact` is the folded value that alone matches, or None: then ask `test`."""

    text: str
    exact: str | None
    test: Predicate | None = None


@dataclass(frozen=True, slots=True)
class Kind:
    """How values of one kind are folded before comparison, and how their patterns are read."""

    fold: Callable[[str], str]
    parse: Callable[[str], Pattern]


# -- regular expressions and globs ----------------------------------------------------------------

_OPTIONS = re2.Options()
_OPTIONS.log_errors = False


def compile_regex(source: str) -> Predicate:
    """A predicate that is true where the whole value matches.  Raises `PatternError`."""
    try:
        compiled = re2.compile(source, _OPTIONS)
    except re2.error as error:
        why = error.args[0]
        why = why.decode("utf-8", "replace") if isinstance(why, bytes) else str(why)
        raise PatternError(
            f"bad regular expression: {why}",
            "write RE2 syntax (no look-around, no back-references)",
        ) from None
    return lambda value: compiled.fullmatch(value) is not None


def glob(source: str) -> Predicate:
    """A predicate for text in which each `*` stands for any run of characters; linear time."""
    head, *middle, tail = source.split("*")

    def matches(value: str) -> bool:
        end = len(value) - len(tail)
        if end < len(head) or not (value.startswith(head) and value.endswith(tail)):
            return False
        at = len(head)
        for part in middle:
            at = value.find(part, at, end)
            if at < 0:
                return False
            at += len(part)
        return True

    return matches


def _text(text: str, fold: Callable[[str], str] = str) -> Pattern:
    if not text:
        raise PatternError("the pattern is empty", "write the value to match, or remove the key")
    if text.startswith("~"):
        return Pattern(text, None, compile_regex(text[1:].lstrip(" ")))
    if "*" in text:
        return Pattern(text, None, glob(fold(text)))
    return Pattern(text, fold(text))


# -- DNS names (RFC 9525) ------------------------------------------------------------------------


def fold_dns(name: str) -> str:
    """ASCII lower case: DNS names are compared without case (RFC 9525, 6.3; RFC 4343)."""
    return name.translate(_LOWER)


_LOWER = {upper: upper + 32 for upper in range(ord("A"), ord("Z") + 1)}
_LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)")


def is_dns_name(name: str) -> bool:
    """Whether a folded name is labels of letters, digits, `-` and `_`, at most 253 long."""
    return 0 < len(name) <= 253 and all(_LABEL.fullmatch(label) for label in name.split("."))


def covers(presented: str, host: str) -> bool:
    """Whether a presented DNS-ID covers a folded host name (RFC 9525, 6.3).

    `*` counts only as the whole left-most label, and stands for exactly one label.
    """
    presented = fold_dns(presented)
    if presented.startswith("*."):
        label, dot, parent = host.partition(".")
        return bool(label and dot) and parent == presented[2:] and is_dns_name(parent)
    return presented == host and is_dns_name(presented)


def san_matches_host(dns: Sequence[str], ips: Sequence[str], host: str) -> bool:
    """Whether the certificate's names cover nginx's `$host` (RFC 9525, 6.1 to 6.5).

    An IP address is looked for only among iPAddress names, a host name only among dNSName.
    `host` is as `locations.normalize_host` gives it; an IPv6 address stands in brackets.
    """
    try:
        address = ipaddress.ip_address(host.removeprefix("[").removesuffix("]"))
    except ValueError:
        return is_dns_name(host) and any(covers(name, host) for name in dns)
    return str(address) in ips


def _dns(text: str) -> Pattern:
    if text.startswith("~"):
        return Pattern(text, None, compile_regex("(?i)" + text[1:].lstrip(" ")))
    folded = fold_dns(text)
    parent = folded.removeprefix("*.")
    if not is_dns_name(parent):
        raise PatternError(
            f"{text!r} is no DNS name",
            "write ASCII labels (xn--… for others); `*` only as the whole left-most label",
        )
    if parent == folded:
        return Pattern(text, folded)
    return Pattern(text, None, lambda value: value.partition(".")[2] == parent and value[:1] != ".")


# -- addresses, numbers, fingerprints, identifiers -----------------------------------------------


def parse_network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    """One address or a CIDR network.  Raises `PatternError`."""
    try:
        return ipaddress.ip_network(text)
    except ValueError as error:
        raise PatternError(str(error), "write 192.0.2.7, 192.0.2.0/24 or 2001:db8::/32") from None


def _ip(text: str) -> Pattern:
    network = parse_network(text)
    if network.num_addresses == 1:
        return Pattern(text, str(network.network_address))

    def inside(value: str) -> bool:
        try:
            return ipaddress.ip_address(value) in network
        except ValueError:
            return False

    return Pattern(text, None, inside)


def parse_serial(text: str) -> int:
    """A serial number in hex, with or without colons, `0x` or `-`.  Raises `PatternError`."""
    digits = text.strip().lower().replace(":", "")
    negative = digits.startswith("-")
    digits = digits.removeprefix("-").removeprefix("0x")
    if not re.fullmatch("[0-9a-f]{1,128}", digits):
        raise PatternError(f"{text!r} is no serial number", "write it in hex: 0A1B or 0A:1B")
    return -int(digits, 16) if negative else int(digits, 16)


def parse_fingerprint(text: str) -> str:
    """A SHA-256 in hex, with or without colons → 64 lower-case digits.  Raises `PatternError`."""
    digits = text.strip().lower().replace(":", "")
    if not re.fullmatch("[0-9a-f]{64}", digits):
        raise PatternError(f"{text!r} is no SHA-256 fingerprint", "write its 64 hex digits")
    return digits


def _oid(text: str) -> Pattern:
    if not re.fullmatch(r"[0-2](\.(0|[1-9][0-9]*))+", text):
        raise PatternError(
            f"{text!r} is no object identifier", "write it dotted: 1.3.6.1.5.5.7.3.2"
        )
    return Pattern(text, text)


def _eku(text: str) -> Pattern:
    if text in EKU_NAMES:
        return Pattern(text, EKU_NAMES[text])
    try:
        return _oid(text)
    except PatternError:
        names = ", ".join(EKU_NAMES)
        raise PatternError(
            f"{text!r} is no key usage", f"write one of {names}, or an OID"
        ) from None


def _method(text: str) -> Pattern:
    if not re.fullmatch(r"[A-Z][A-Z0-9_-]*", text):
        raise PatternError(f"{text!r} is no method", "write it in upper case, like GET")
    return Pattern(text, text)


def fold_email(address: str) -> str:
    """The host part in lower case; the local part counts as written (RFC 5280, 7.5)."""
    local, at, host = address.rpartition("@")
    return local + at + fold_dns(host)


_TEXT = Kind(str, _text)

KINDS = {
    "cn": _TEXT,
    "o": _TEXT,
    "ou": _TEXT,
    "dn": _TEXT,
    "email": Kind(fold_email, lambda text: _text(text, fold_email)),
    "dns": Kind(fold_dns, _dns),
    "uri": _TEXT,
    "ip": Kind(str, _ip),
    "upn": _TEXT,
    "issuer_cn": _TEXT,
    "issuer_dn": _TEXT,
    "serial": Kind(str, lambda text: Pattern(text, str(parse_serial(text)))),
    "sha256": Kind(str, lambda text: Pattern(text, parse_fingerprint(text))),
    "spki_sha256": Kind(str, lambda text: Pattern(text, parse_fingerprint(text))),
    "eku": Kind(str, _eku),
    "policy_oid": Kind(str, _oid),
    "client_ip": Kind(str, _ip),
    "method": Kind(str, _method),
}
"""Every key of a rule that takes patterns."""

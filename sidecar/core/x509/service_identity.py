"""Compare DNS names, and check whether a certificate's names cover a host (RFC 9525)."""

from __future__ import annotations

import re
from collections.abc import Sequence

from sidecar.core.ip_address import parse_ip_address

_LOWER = {upper: upper + 32 for upper in range(ord("A"), ord("Z") + 1)}
_LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)")


def fold_dns(name: str) -> str:
    """Convert a DNS name to ASCII lower case for comparison (RFC 9525, 6.3; RFC 4343)."""
    return name.lower() if name.isascii() else name.translate(_LOWER)


def is_dns_name(name: str) -> bool:
    """Return whether a lower-case name has valid labels (letters, digits, `-`, `_`; 253 octets)."""
    return 0 < len(name) <= 253 and all(_LABEL.fullmatch(label) for label in name.split("."))


def covers(presented: str, host: str) -> bool:
    """Return whether a presented DNS-ID covers a lower-case host name (RFC 9525, 6.3).

    `*` is a wildcard only as the whole left-most label, and matches exactly one label.
    """
    presented = fold_dns(presented)
    if presented.startswith("*."):
        label, dot, parent = host.partition(".")
        return bool(label and dot) and parent == presented[2:] and is_dns_name(parent)
    return presented == host and is_dns_name(presented)


def san_matches_host(dns: Sequence[str], ips: Sequence[str], host: str) -> bool:
    """Return whether the certificate's names cover nginx's `$host` (RFC 9525, 6.1 to 6.5).

    An IP address is compared only with iPAddress names, a host name only with dNSName names.
    `host` is a result of `normalize_host`; an IPv6 address has brackets.
    """
    try:
        address = parse_ip_address(host.removeprefix("[").removesuffix("]"))
    except ValueError:
        return is_dns_name(host) and any(covers(name, host) for name in dns)
    return any(_is_address(ip, address) for ip in ips)


def _is_address(text: str, address: object) -> bool:
    try:
        return parse_ip_address(text) == address
    except ValueError:
        return False

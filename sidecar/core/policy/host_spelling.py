"""Normalize hosts for refusing rules: addresses, labels beyond ASCII, and a dot at the end."""

from __future__ import annotations

import ipaddress
import re
import unicodedata
from urllib.parse import unquote

from sidecar.core.ip_address import parse_ip_address
from sidecar.core.x509.service_identity import fold_dns

_SNUM = re.compile(r"[0-9]{1,3}(?:\.[0-9]{1,3}){3}")
MAX_NAME = 253
"""Most characters of a host name; a longer one isn't looked at closer."""
_MAX_WRITTEN = 4 * MAX_NAME
"""The same before letters are composed: Unicode decomposes one into four characters at most."""

MAX_LABEL = 63
"""Most characters of a label (RFC 1034, 3.1); a U-label has fewer than its A-label.  Punycode takes
the time of a label's length times its different letters."""

_DOTS = str.maketrans("\u3002\uff0e\uff61", "...")
"""Full stops that IDNA reads as dots (RFC 3490, 3.1)."""


_IGNORED = re.compile(
    "[\u00ad\u034f\u180b-\u180f\u200b-\u200d\u2060-\u2064\ufe00-\ufe0f\ufeff"
    "\U0001bca0-\U0001bca3\U000e0100-\U000e01ef]"
)
"""Characters that a reader of IDNs leaves out: of status *ignored* in UTS 46, and the joiners."""


def normal_name(host: str) -> str:
    """Return a host name in lower case, in A-labels and without the dot at its end.

    Labels beyond ASCII may be written as they are, or percent-encoded (RFC 3986, 3.2.2).  A label
    that is no IDN gets a form, too: what refuses compares more than what exists.  What is too long
    for a host or a label gets no A-labels.
    """
    found = fold_dns(host)
    if "%" in found:
        try:
            found = unquote(found, errors="strict")
        except UnicodeDecodeError:
            return found.removesuffix(".")
    if not found.isascii():
        found = _IGNORED.sub("", found)
    if not found.isascii() and len(found) <= _MAX_WRITTEN:
        mapped = "".join(map(_mapped, found.translate(_DOTS)))
        folded = unicodedata.normalize("NFC", _IGNORED.sub("", mapped))
        found = folded if len(folded) > MAX_NAME else ".".join(map(_a_label, folded.split(".")))
    return found.removesuffix(".")


def _mapped(letter: str) -> str:
    """Map one character as UTS 46 does, whatever is beside it: compatible form, without case."""
    if letter in "\u00df\u03c2":  # they have A-labels of their own
        return letter
    if letter == "\u1e9e":
        return "\u00df"
    folded = unicodedata.normalize("NFKC", letter).casefold()
    return unicodedata.normalize("NFKC", folded)


def _a_label(label: str) -> str:
    if label.isascii() or len(label) > MAX_LABEL:
        return label
    return "xn--" + label.encode("punycode").decode("ascii")


def normal_host(host: str) -> str:
    """Return a URI's host without its port in one form: an IPv4-mapped address is its IPv4 one."""
    address = _bracketed(host)
    if address is None:
        return normal_name(host)
    return f"[{address}]" if isinstance(address, ipaddress.IPv6Address) else str(address)


def normal_mail_host(host: str) -> str:
    """Return the host of a mail address in one form; address literals by RFC 5321, 4.1.3.

    The numbers of an IPv4 literal are decimal there, whatever zeros they begin with.
    """
    found = host.removesuffix(".")
    address = _bracketed(found)
    return normal_name(found) if address is None else f"[{address}]"


def normal_address(address: str) -> str:
    """Return a mail address with its host in one form; the local part stays as it is."""
    local, at, host = address.rpartition("@")
    return local + at + normal_mail_host(host)


def _bracketed(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Return the address of `[2001:db8::1]`, `[IPv6:2001:db8::1]` or `[192.0.2.1]`, else None."""
    if not (host.startswith("[") and host.endswith("]")):
        return None
    text = fold_dns(host[1:-1]).removeprefix("ipv6:")
    if _SNUM.fullmatch(text):
        text = ".".join(str(int(number)) for number in text.split("."))
    try:
        return parse_ip_address(text)
    except ValueError:
        return None


_NUMBER = re.compile(r"(0x)([0-9a-f]*)|(0)([0-7]*)|()([1-9][0-9]*)")
_ZEROS = re.compile(r"((?:^|\.)(?:0x|0))0+(?=[0-9a-f])")
_BASES = {"0x": 16, "0": 8, "": 10}


def ipv4_of_numbers(host: str) -> str:
    """Return `192.0.2.1` for `0xc0.0.513`: what browsers and inet_aton(3) read as an IPv4 address.

    Anything else is returned as it is, without needless zeros (RFC 3986, 7.4; WHATWG URL, 3.5).
    """
    host = _ZEROS.sub(r"\1", host)
    if len(host) > MAX_NAME:
        return host
    parts = host.split(".")
    found = [_NUMBER.fullmatch(part) for part in parts]
    numbers = []
    for each in found:
        if each is None:
            return host
        base, digits = (part for part in each.groups() if part is not None)
        numbers.append(int(digits or "0", _BASES[base]))
    *first, last = numbers
    if len(parts) > 4 or any(number > 255 for number in first) or last >= 256 ** (5 - len(parts)):
        return host
    value = sum(number << 8 * (3 - at) for at, number in enumerate(first)) + last
    return str(ipaddress.IPv4Address(value))

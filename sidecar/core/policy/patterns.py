"""Compare patterns of the policy with values of a certificate or a request.

A pattern is an exact text, a glob with `*`, or after `~` a regular expression (RE2, linear time)
that must match the whole value.  `KEY_COMPARISONS` has the comparison for each key of a rule.
Granting and refusing rules may compare differently: if an identity has several spellings, a
refusing rule matches all of them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable
from dataclasses import replace
from typing import Any

from sidecar.core.x509.certificate import EKU_NAMES, MAX_SERIAL, refused_serials

from .address_patterns import (
    compile_dns,
    compile_email,
    compile_ip,
    compile_upn,
    compile_uri,
    dns_granted,
    dns_refused,
    email_granted,
    email_refused,
    ip_value,
    upn_refused,
    uri_refused,
)
from .matching import PatternError
from .name_patterns import (
    compile_dn,
    compile_issuer_cn,
    compile_issuer_dn,
    dn_granted,
    dn_refused,
    issuer_cn_refused,
    issuer_dn_refused,
)
from .text_patterns import (
    ComparedValue,
    KeyComparison,
    Pattern,
    Reader,
    as_is,
    compile_text,
    either,
    text_refused,
)


def parse_serial(text: str) -> int:
    """Parse a serial number in hex, with or without colons, `0x` or `-`.  Raises `PatternError`."""
    digits = text.strip().lower().replace(":", "")
    negative = digits.startswith("-")
    digits = digits.removeprefix("-").removeprefix("0x")
    if not re.fullmatch(f"[0-9a-f]{{1,{2 * MAX_SERIAL}}}", digits):
        raise PatternError(f"{text!r} is not a serial number", "write it in hex: 0A1B or 0A:1B")
    return -int(digits, 16) if negative else int(digits, 16)


_LOOKS_DECIMAL = 16
"""Minimum digits of a serial number without A to F that is probably decimal."""


def _serial(text: str) -> Pattern:
    number = parse_serial(text)
    warnings: tuple[tuple[str, str], ...] = ()
    if re.fullmatch(f"[0-9]{{{_LOOKS_DECIMAL},}}", text):
        warning = f"serial {text} looks decimal, but is read as hex"
        warnings = ((warning, f"write {int(text):X} if it is decimal, 0x{text} if it is hex"),)
    return Pattern(text, exact=(number,), warnings=warnings)


def _serial_refused(value: int) -> ComparedValue:
    return ComparedValue(refused_serials(value), (value,))


_DIGESTS = {32: "an MD5", 40: "a SHA-1", 96: "a SHA-384", 128: "a SHA-512"}


def parse_fingerprint(text: str) -> str:
    """Normalize a SHA-256 in hex, with or without colons, to 64 lower-case digits.

    Raises `PatternError`.
    """
    digits = text.strip().lower().replace(":", "")
    if re.fullmatch("[0-9a-f]{64}", digits):
        return digits
    other = _DIGESTS.get(len(digits)) if re.fullmatch("[0-9a-f]+", digits) else None
    if other:
        hint = "write the part after = of `openssl x509 -noout -fingerprint -sha256 -in CERT`"
        raise PatternError(f"{text!r} is {other} fingerprint, not a SHA-256", hint)
    raise PatternError(f"{text!r} is not a SHA-256 fingerprint", "write its 64 hex digits")


def _oid(text: str) -> Pattern:
    found = re.fullmatch(r"([0-2])\.(0|[1-9][0-9]*)(\.(0|[1-9][0-9]*))*", text)
    if not found or (found[1] != "2" and int(found[2]) > 39):
        raise PatternError(
            f"{text!r} is not an object identifier", "write it dotted: 1.3.6.1.5.5.7.3.2"
        )
    return Pattern(text, exact=(text,))


_USAGES = {name.lower(): oid for name, oid in EKU_NAMES.items()}


def _eku(text: str) -> Pattern:
    if text.lower() in _USAGES:
        return Pattern(text, exact=(_USAGES[text.lower()],))
    try:
        return _oid(text)
    except PatternError:
        names = ", ".join(EKU_NAMES)
        raise PatternError(
            f"{text!r} is not a key usage", f"write one of {names}, or an OID"
        ) from None


def check_method(text: str) -> str:
    """Check a method that nginx accepts and asks about.  Raises `PatternError`."""
    if not re.fullmatch(r"[A-Z][A-Z_-]*", text):
        raise PatternError(
            f"{text!r} is not a method that nginx accepts", "write it in upper case, like GET"
        )
    if text == "TRACE":
        raise PatternError("nginx answers TRACE itself, with 405", "leave it out")
    return text


def _fixed(parse: Callable[[str], Hashable]) -> Callable[[str], Pattern]:
    return lambda text: Pattern(text, exact=(parse(text),))


def _wider(parse: Callable[[str], Pattern], grants: Reader, refuses: Reader) -> KeyComparison:
    """Compare for refusing rules as for granting ones, too: what lets a value in keeps it out.

    Normalizing a pattern as a whole may change what stands beside a `*`.
    """

    def parse_both(text: str) -> Pattern:
        pattern = parse(text)
        other = pattern.refusing
        if other is None:
            return pattern
        tests = [test for test in (pattern.test, other.test) if test is not None]
        test = either(*tests) if tests else None
        exact = tuple(dict.fromkeys((*other.exact, *pattern.exact)))
        return replace(pattern, refusing=replace(other, exact=exact, test=test))

    def read_both(value: Any) -> ComparedValue:
        (keys, texts), (more_keys, more_texts) = refuses(value), grants(value)
        return ComparedValue(
            tuple(dict.fromkeys((*keys, *more_keys))), tuple(dict.fromkeys((*texts, *more_texts)))
        )

    return KeyComparison(parse_both, grants, read_both)


_TEXT = _wider(compile_text, as_is, text_refused)


_DN = _wider(compile_dn, dn_granted, dn_refused)


_IP = KeyComparison(compile_ip, ip_value, ip_value)


_FINGERPRINT = KeyComparison(_fixed(parse_fingerprint), as_is, as_is)


KEY_COMPARISONS = {
    "cn": _TEXT,
    "o": _TEXT,
    "ou": _TEXT,
    "dn": _DN,
    "email": _wider(compile_email, email_granted, email_refused),
    "dns": _wider(compile_dns, dns_granted, dns_refused),
    "uri": _wider(compile_uri, as_is, uri_refused),
    "ip": _IP,
    "upn": _wider(compile_upn, as_is, upn_refused),
    "issuer_cn": _wider(compile_issuer_cn, as_is, issuer_cn_refused),
    "issuer_dn": _wider(compile_issuer_dn, dn_granted, issuer_dn_refused),
    "serial": KeyComparison(_serial, as_is, _serial_refused),
    "sha256": _FINGERPRINT,
    "spki_sha256": _FINGERPRINT,
    "eku": KeyComparison(_eku, as_is, as_is),
    "policy_oid": KeyComparison(_oid, as_is, as_is),
    "client_ip": _IP,
    "method": KeyComparison(_fixed(check_method), as_is, as_is),
}
"""Every key of a rule that takes patterns."""

__all__ = [
    "KEY_COMPARISONS",
    "ComparedValue",
    "KeyComparison",
    "Pattern",
    "PatternError",
    "check_method",
    "parse_fingerprint",
    "parse_serial",
]

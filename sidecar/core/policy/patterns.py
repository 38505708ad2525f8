"""Compare patterns of the policy with values of a certificate or a request.

A pattern is an exact text, a glob with `*`, or after `~` a regular expression (RE2, linear time)
that must match the whole value.  `KEY_COMPARISONS` has the comparison for each key of a rule.
Granting and refusing rules may compare differently: if an identity has several spellings, a
refusing rule matches all of them.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Hashable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, NamedTuple

from sidecar.core.ip_address import holds_mapped, parse_ip_address, parse_network
from sidecar.core.x509.certificate import EKU_NAMES, MAX_SERIAL, refused_serials
from sidecar.core.x509.der import comparable_text
from sidecar.core.x509.distinguished_name import (
    ComparedName,
    as_logged,
    canonical_text,
    comparable_values,
    escape_in_hex,
    fold_mail,
    key_of,
    parse_name,
    read_compared_name,
    spellings,
    squeezed,
)
from sidecar.core.x509.service_identity import fold_dns, is_dns_name

from .dn_warnings import order_warnings, spelling_warnings
from .host_spelling import normal_address, normal_name
from .matching import PatternError, Predicate, compile_regex, glob
from .uri_spelling import normal_uri


@dataclass(frozen=True, slots=True)
class Pattern:
    """One pattern.  It matches a value whose key is in `exact`, or with a text that `test` accepts.

    `refusing` is the pattern for refusing rules, if they compare differently.  `warnings` are
    reasons why the pattern may never match: each is a message and what to write instead.
    """

    text: str
    exact: tuple[Hashable, ...] = ()
    test: Predicate | None = None
    refusing: Pattern | None = None
    warnings: tuple[tuple[str, str], ...] = ()

    def on(self, refusing: bool) -> Pattern:
        """Return the pattern for refusing or for granting rules."""
        return self.refusing or self if refusing else self


class ComparedValue(NamedTuple):
    """A value prepared for comparison: keys for exact patterns, texts for other patterns."""

    keys: tuple[Hashable, ...]
    texts: tuple[Any, ...]


Reader = Callable[[Any], ComparedValue]


@dataclass(frozen=True, slots=True)
class KeyComparison:
    """The comparison for one rule key: how to parse patterns, and values for each side."""

    parse: Callable[[str], Pattern]
    grants: Reader
    refuses: Reader

    def reader(self, refusing: bool) -> Reader:
        """Return the function that prepares values for refusing or for granting rules."""
        return self.refuses if refusing else self.grants


def _as_is(value: Any) -> ComparedValue:
    return ComparedValue((value,), (value,))


def _either(*tests: Predicate | None) -> Predicate:
    return lambda value: any(test(value) for test in tests if test is not None)


# -- text -----------------------------------------------------------------------------------------

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")


def _checked(text: str) -> str:
    if not text:
        raise PatternError("the pattern is empty", "write the value to match, or remove the key")
    if _CONTROL.search(text):
        raise PatternError(
            f"{text!r} has a control character, and certificates with one are refused", "remove it"
        )
    return text


def nfc(text: str) -> str:
    """Normalize text to Unicode's NFC, in which `é` has one spelling."""
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def _text_warnings(text: str) -> tuple[tuple[str, str], ...]:
    found = []
    if text.startswith("~ "):
        found.append(("the blank after ~ is part of the expression", "remove it, or write ~[ ]"))
    elif not text.startswith("~") and text != text.strip(" "):
        found.append((f"{text!r} begins or ends with a blank", "remove it unless names have it"))
    if nfc(text) != text:
        found.append(
            (f"{text!r} isn't in Unicode's NFC, as most names are", f"write {nfc(text)!r}")
        )
    return tuple(found)


def _text(text: str) -> Pattern:
    pattern = _compared(_checked(text), str)
    if text.isascii() or text.startswith("~"):
        return pattern
    return Pattern(
        text, pattern.exact, pattern.test, refusing=_compared(text, nfc), warnings=pattern.warnings
    )


def _compared(text: str, fold: Callable[[str], str], *, ignore_case: bool = False) -> Pattern:
    """Compile an exact text, a glob or a regular expression over values folded by `fold`."""
    warnings = _text_warnings(text)
    if text.startswith("~"):
        return Pattern(
            text, test=compile_regex(text[1:], ignore_case=ignore_case), warnings=warnings
        )
    if "*" in text:
        return Pattern(text, test=glob(fold(text)), warnings=warnings)
    return Pattern(text, exact=(fold(text),), warnings=warnings)


def _text_refused(value: str) -> ComparedValue:
    if value.isascii():
        return ComparedValue((value,), (value,))
    folded = nfc(value)
    return ComparedValue((folded,), (folded,) if folded == value else (folded, value))


def _upn(text: str) -> Pattern:
    """Compile a user principal name; refusing rules ignore case, as Active Directory does."""
    pattern = _compared(_checked(text), str)
    refusing = _compared(text, _fold_principal, ignore_case=True)
    if refusing.exact:
        refusing = replace(refusing, exact=(*refusing.exact, _fold_case(text)))
    warnings = pattern.warnings
    if text.startswith("@"):
        warnings += (
            (f"{text!r} has nothing before the @; every user principal name has", "write *" + text),
        )
    return Pattern(text, pattern.exact, pattern.test, refusing, warnings)


def _fold_case(text: str) -> str:
    return nfc(text).casefold()


def _fold_principal(text: str) -> str:
    """Fold case; the host, which a `*` may be part of, is in A-labels and without its last dot."""
    user, at, host = text.rpartition("@")
    if "*" in host and not host.isascii():
        return _fold_case(text)
    return _fold_case(user) + at + normal_name(nfc(host))


def _upn_refused(value: str) -> ComparedValue:
    found = _fold_principal(value)
    folded = _fold_case(value)
    return ComparedValue((found, folded), tuple(dict.fromkeys((found, folded, value))))


# -- distinguished names --------------------------------------------------------------------------


def _dn(text: str) -> Pattern:
    if text.startswith("~"):
        pattern = _compared(_checked(text), str)
        return Pattern(text, test=pattern.test, warnings=pattern.warnings + spelling_warnings(text))
    return _dn_glob(text) if "*" in _checked(text) else _exact_dn(text)


_ESCAPED = re.compile(r'\\([\\"+,;<>=# ])')


def _with_hex(text: str) -> str:
    """Write the escapes of a glob as the canonical text has them."""
    return _ESCAPED.sub(lambda found: escape_in_hex(found[1]), text)


def _dn_glob(text: str) -> Pattern:
    logged = as_logged(text)
    canonical = glob(_with_hex(logged))
    written = [glob(nfc(each)) for each in dict.fromkeys((logged, text))]
    refusing = Pattern(text, test=_either(canonical, *written))
    warnings = _text_warnings(logged) + spelling_warnings(logged)
    return Pattern(text, test=canonical, refusing=refusing, warnings=warnings)


def _exact_dn(text: str) -> Pattern:
    as_printed = (text, as_logged(text))
    try:
        name = parse_name(text)
    except ValueError as error:
        message, hint = error.args
        if not text.startswith("/"):
            raise PatternError(message, hint) from None
        warning = (f"{message}: it can refuse, but grants nothing", hint)
        return Pattern(text, refusing=Pattern(text, exact=as_printed), warnings=(warning,))
    refusing = Pattern(text, exact=(key_of(name, refusing=True), *as_printed))
    return Pattern(text, (key_of(name),), refusing=refusing, warnings=order_warnings(name))


_RECENT = 64
"""Maximum number of cached names, of certificates that were issued under a trust."""


@lru_cache(maxsize=_RECENT)
def _dn_granted(der: bytes) -> ComparedValue:
    name = _read_name(der)
    return ComparedValue((key_of(name),), (canonical_text(name),))


@lru_cache(maxsize=_RECENT)
def _dn_refused(der: bytes) -> ComparedValue:
    """Prepare a name for refusing rules: also in reverse order, and in all its spellings."""
    name = _read_name(der)
    printed = tuple(spellings(name))
    reverse: ComparedName = tuple(reversed(name))
    keys = (key_of(name, refusing=True), key_of(reverse, refusing=True), *printed)
    texts = (canonical_text(name), *printed)
    return ComparedValue(keys, (*texts, *(nfc(text) for text in texts if not text.isascii())))


# -- issuers: whoever has an authority's key may write its name in any spelling that finds it ------


def _issuer_cn(text: str) -> Pattern:
    """Compile an issuer's CN; refusing rules compare it as paths are built (RFC 5280, 7.1)."""
    pattern = _text(text)
    if text.startswith("~"):
        refusing = Pattern(text, test=compile_regex(text[1:], ignore_case=True))
    elif "*" in text:
        refusing = Pattern(text, test=_either(pattern.on(True).test, glob(comparable_text(text))))
    else:
        refusing = Pattern(text, exact=(comparable_text(text),))
    return replace(pattern, refusing=refusing)


def _issuer_cn_refused(value: str) -> ComparedValue:
    folded, texts = comparable_text(value), _text_refused(value).texts
    return ComparedValue((folded,), tuple(dict.fromkeys((folded, *map(squeezed, texts), *texts))))


def _issuer_dn(text: str) -> Pattern:
    """Compile an issuer's DN; refusing rules compare it as paths are built (RFC 5280, 7.1)."""
    pattern = _dn(text)
    same = pattern.on(True)
    if text.startswith("~"):
        refusing = Pattern(text, test=compile_regex(text[1:], ignore_case=True))
    elif same.test is not None:
        logged = as_logged(text)
        written = (comparable_text(each) for each in (_with_hex(logged), logged))
        refusing = Pattern(text, test=_either(same.test, *map(glob, written)))
    else:
        named = (key_of(comparable_values(parse_name(text))),) if pattern.exact else ()
        refusing = Pattern(text, exact=(*same.exact, *named, comparable_text(text)))
    return replace(pattern, refusing=refusing)


@lru_cache(maxsize=_RECENT)
def _issuer_dn_refused(der: bytes) -> ComparedValue:
    found, written = _dn_refused(der), _read_name(der)
    name = comparable_values(written)
    texts = [comparable_text(text) for text in (canonical_text(name), *spellings(name))]
    keys = (key_of(name), key_of(tuple(reversed(name))), *texts)
    name = comparable_values(written, squeezed)
    texts += [nfc(text) for text in (canonical_text(name), *spellings(name))]
    return ComparedValue((*found.keys, *keys), (*found.texts, *texts))


def _read_name(der: bytes) -> ComparedName:
    try:
        return read_compared_name(der)
    except ValueError:
        return ()


# -- DNS names ------------------------------------------------------------------------------------


def _dns(text: str) -> Pattern:
    if text.startswith("~"):
        return Pattern(
            text, test=compile_regex(text[1:], ignore_case=True), warnings=_text_warnings(text)
        )
    folded = fold_dns(text)
    parent = folded.removeprefix("*.")
    if not is_dns_name(parent):
        raise PatternError(f"{text!r} is not a DNS name", _dns_hint(parent))
    if re.fullmatch(r"[0-9.]+", parent):
        message = f"{text!r} is an address, and no authority should certify it as a DNS name"
        return Pattern(text, exact=(folded,), warnings=((message, "write ip: instead of dns:"),))
    if parent == folded:
        return Pattern(text, exact=(folded,))
    return Pattern(text, test=lambda value: value.partition(".")[2] == parent and value[:1] != ".")


def _dns_hint(name: str) -> str:
    if name.endswith("."):
        return "leave the dot at the end out"
    if not name.isascii():
        try:
            return f"write its A-labels: {nfc(name).encode('idna').decode()}"
        except UnicodeError:
            return "write its A-labels: xn--…"
    return "write ASCII labels (xn--… for others); `*` only as the whole left-most label"


def _dns_granted(value: str) -> ComparedValue:
    return _as_is(fold_dns(value))


def _dns_refused(value: str) -> ComparedValue:
    return _without_last_dot(fold_dns(value))


def _without_last_dot(value: str) -> ComparedValue:
    """Compare a name without the dot at its end; a glob or an expression may have that dot."""
    plain = value.removesuffix(".")
    return ComparedValue((plain,), (plain,) if plain == value else (plain, value))


# -- mail addresses -------------------------------------------------------------------------------


def _email(text: str) -> Pattern:
    """Compile a mail address; case is ignored in the host, but not in the local part.

    See RFC 5280, 7.5.
    """
    if text.startswith("~"):
        return _email_regex(text)
    if not _checked(text).isascii():
        raise PatternError(f"{text!r} is not a mail address in ASCII", "write its host as xn--…")
    if text.startswith("@") or text.endswith("@"):
        name, sign, host = text.rpartition("@")
        hint = f"write {name or '*'}{sign}{host or 'example.com'}"
        raise PatternError(f"{text!r} is not a mail address", hint)
    if "*" in text:
        either = _email_glob(text), _email_glob(normal_address(text) if "@" in text else text)
        refusing = Pattern(text, test=_either(*either))
        warnings = _text_warnings(text)
        return Pattern(text, test=either[0], refusing=refusing, warnings=warnings)
    if "@" not in text:
        raise PatternError(f"{text!r} is not a mail address", f"write alice@{text} or *@{text}")
    exact = fold_mail(text)
    normal = normal_address(text)
    refusing = Pattern(text, exact=(normal, _unquoted(normal)))
    return Pattern(text, exact=(exact,), refusing=refusing, warnings=_text_warnings(text))


def _email_glob(text: str) -> Predicate:
    """Compile a glob, split at each place that can match the last `@` of an address."""
    parted: list[tuple[Predicate, Predicate]] = []
    for at, character in enumerate(text):
        if character == "*":
            parted.append((glob(text[: at + 1]), glob(fold_dns(text[at:]))))
        elif character == "@":
            parted.append((glob(text[:at]), glob(fold_dns(text[at + 1 :]))))
    without_host = glob(fold_dns(text))

    def matches(value: str) -> bool:
        local, sign, host = value.rpartition("@")
        if not sign:
            return without_host(fold_dns(value))
        return any(before(local) and behind(fold_dns(host)) for before, behind in parted)

    return matches


def _email_regex(text: str) -> Pattern:
    source = text[1:]
    as_written = compile_regex(source)
    at = _host_in(source)
    if at is not None:
        test = compile_regex(f"{source[:at]}(?i:{source[at:]})")
        return Pattern(text, test=test, warnings=_text_warnings(text))
    refusing = Pattern(text, test=compile_regex(source, ignore_case=True))
    return Pattern(text, test=as_written, refusing=refusing, warnings=_text_warnings(text))


_REGEX_TOKEN = re.compile(
    r"\\Q.*?(?:\\E|\Z)|\\.|\[\^?\]?(?:\[:[a-z^]+:\]|\\.|[^\]\\])*\]|.", re.DOTALL
)


def _host_in(source: str) -> int | None:
    """Return the position after the only `@` of a regular expression, where the host begins.

    Returns None if it is not certain: the `@` is in a group, a class or an alternative.
    """
    depth, signs, behind = 0, 0, 0
    for token in _REGEX_TOKEN.finditer(source):
        match token[0]:
            case "(":
                depth += 1
            case ")":
                depth -= 1
            case "|" if depth == 0:
                return None
            case "@" | "\\@":
                signs += 1
                behind = 0 if depth else token.end()
            case other if "@" in other and not other.startswith("[^"):
                return None
    if signs != 1 or not behind or source[behind : behind + 1] in ("*", "+", "?", "{"):
        return None
    return behind


def _email_granted(value: str) -> ComparedValue:
    folded = fold_mail(value)
    return ComparedValue((folded,), (value,) if folded == value else (value, folded))


_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"(@[^@]*)')


def _unquoted(address: str) -> str:
    """Remove the quotation marks of an address's local part (RFC 5321, 4.1.2)."""
    found = _QUOTED.fullmatch(address)
    return address if found is None else re.sub(r"\\(.)", r"\1", found[1]) + found[2]


def _in_a_labels(address: str) -> tuple[str, ...]:
    """Return an address with its host in A-labels, if it has other letters than ASCII."""
    local, at, host = address.rpartition("@")
    if host.isascii():
        return ()
    try:
        return (f"{local}{at}{host.encode('idna').decode()}",)
    except UnicodeError:
        return ()


def _email_refused(value: str) -> ComparedValue:
    """Prepare an address also without the quotation marks of its local part, or the last dot, and
    with its host in one form."""
    plain, normal = value.removesuffix("."), normal_address(value)
    several = (_unquoted(normal), normal, _unquoted(plain), plain, value, *_in_a_labels(plain))
    forms = [_email_granted(form) for form in dict.fromkeys(several)]
    keys = (key for form in forms for key in form.keys)
    texts = (text for form in forms for text in form.texts)
    return ComparedValue(tuple(dict.fromkeys(keys)), tuple(dict.fromkeys(texts)))


# -- URIs -----------------------------------------------------------------------------------------


def _uri(text: str) -> Pattern:
    """Compile a URI pattern; granting compares as written, refusing after normalization.

    Normalization (RFC 3986, 6.2.2) covers case, escapes and dot segments.
    """
    pattern = _compared(_checked(text), str)
    warnings = pattern.warnings
    if not text.startswith(("~", "*")) and not re.match(r"[A-Za-z][A-Za-z0-9+.*-]*:", text):
        warnings += (
            (f"{text!r} has no scheme; every URI in a certificate does", "write https://…"),
        )
    if not text.startswith("~") and not text.isascii():
        warnings += (
            (f"{text!r} isn't ASCII; every URI in a certificate is", "write %C3%A9 for é"),
        )
    return Pattern(text, pattern.exact, pattern.test, _uri_refusing(text), warnings)


def _uri_refusing(text: str) -> Pattern:
    if text.startswith("~"):
        return Pattern(text, test=compile_regex(text[1:], ignore_case=True))
    normal = normal_uri(text)
    if "*" not in text:
        return Pattern(text, exact=(normal,))
    if re.match(r"[^*]+://[^*/]+/", text):
        return Pattern(text, test=_either(glob(text), glob(normal)))
    # In a glob, the host part can't be determined, and a `*` may go on into the path.
    folded = _either(glob(normal.lower()), glob(text.lower()))
    return Pattern(text, test=lambda value: folded(value.lower()))


def _uri_refused(value: str) -> ComparedValue:
    normal = normal_uri(value)
    texts: tuple[str, ...] = (value,) if normal == value else (value, normal)
    if bare := _PATHLESS.fullmatch(normal):  # for a glob that has the path `/`, or has none
        texts += (f"{bare[1]}{'' if bare[2] else '/'}{bare[3]}",)
    return ComparedValue((normal,), texts)


_PATHLESS = re.compile(r"([^/]+://[^/?#]+)(/?)([?#].*|\Z)")


# -- addresses, numbers, fingerprints, identifiers ------------------------------------------------


def _ip(text: str) -> Pattern:
    hint = "write 192.0.2.7, 192.0.2.0/24 or 2001:db8::/32"
    if "%" in text:
        raise PatternError(f"{text!r} has a zone, which nginx never sends", "leave it out")
    try:
        network = parse_network(text)
    except ValueError as error:
        raise PatternError(str(error), hint) from None
    if network.num_addresses == 1:
        return Pattern(text, exact=(network.network_address,))
    warnings: tuple[tuple[str, str], ...] = ()
    if holds_mapped(network):
        warning = f"{text} contains no IPv4 address: IPv4-mapped ones are compared as IPv4"
        warnings = ((warning, "add 0.0.0.0/0 for all of IPv4"),)
    return Pattern(
        text,
        test=lambda value: not isinstance(value, str) and value in network,
        warnings=warnings,
    )


def _ip_value(text: str) -> ComparedValue:
    try:
        return _as_is(parse_ip_address(text))
    except ValueError:
        return _as_is(text)


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
        test = _either(*tests) if tests else None
        exact = tuple(dict.fromkeys((*other.exact, *pattern.exact)))
        return replace(pattern, refusing=replace(other, exact=exact, test=test))

    def read_both(value: Any) -> ComparedValue:
        (keys, texts), (more_keys, more_texts) = refuses(value), grants(value)
        return ComparedValue(
            tuple(dict.fromkeys((*keys, *more_keys))), tuple(dict.fromkeys((*texts, *more_texts)))
        )

    return KeyComparison(parse_both, grants, read_both)


_TEXT = _wider(_text, _as_is, _text_refused)
_DN = _wider(_dn, _dn_granted, _dn_refused)
_IP = KeyComparison(_ip, _ip_value, _ip_value)
_FINGERPRINT = KeyComparison(_fixed(parse_fingerprint), _as_is, _as_is)

KEY_COMPARISONS = {
    "cn": _TEXT,
    "o": _TEXT,
    "ou": _TEXT,
    "dn": _DN,
    "email": _wider(_email, _email_granted, _email_refused),
    "dns": _wider(_dns, _dns_granted, _dns_refused),
    "uri": _wider(_uri, _as_is, _uri_refused),
    "ip": _IP,
    "upn": _wider(_upn, _as_is, _upn_refused),
    "issuer_cn": _wider(_issuer_cn, _as_is, _issuer_cn_refused),
    "issuer_dn": _wider(_issuer_dn, _dn_granted, _issuer_dn_refused),
    "serial": KeyComparison(_serial, _as_is, _serial_refused),
    "sha256": _FINGERPRINT,
    "spki_sha256": _FINGERPRINT,
    "eku": KeyComparison(_eku, _as_is, _as_is),
    "policy_oid": KeyComparison(_oid, _as_is, _as_is),
    "client_ip": _IP,
    "method": KeyComparison(_fixed(check_method), _as_is, _as_is),
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

"""Compare mail addresses, user principal names, DNS names, URIs and IP addresses."""

from __future__ import annotations

import re
from dataclasses import replace

from sidecar.core.ip_address import holds_mapped, parse_ip_address, parse_network
from sidecar.core.x509.distinguished_name import (
    fold_mail,
)
from sidecar.core.x509.service_identity import fold_dns, is_dns_name

from .host_spelling import MAX_NAME, normal_address, normal_name
from .matching import PatternError, Predicate, compile_regex, glob
from .text_patterns import (
    ComparedValue,
    Pattern,
    as_is,
    checked,
    compared,
    either,
    nfc,
    text_warnings,
)
from .uri_spelling import normal_uri


def compile_email(text: str) -> Pattern:
    """Compile a mail address; case is ignored in the host, but not in the local part.

    See RFC 5280, 7.5.
    """
    if text.startswith("~"):
        return _email_regex(text)
    if not checked(text).isascii():
        raise PatternError(f"{text!r} is not a mail address in ASCII", "write its host as xn--…")
    if text.startswith("@") or text.endswith("@"):
        name, sign, host = text.rpartition("@")
        hint = f"write {name or '*'}{sign}{host or 'example.com'}"
        raise PatternError(f"{text!r} is not a mail address", hint)
    if "*" in text:
        normal = normal_address(text) if "@" in text else text
        refusing = None if normal == text else Pattern(text, test=_email_glob(normal))
        return Pattern(text, (), _email_glob(text), refusing, text_warnings(text))
    if "@" not in text:
        raise PatternError(f"{text!r} is not a mail address", f"write alice@{text} or *@{text}")
    exact = fold_mail(text)
    normal = normal_address(text)
    refusing = Pattern(text, exact=(normal, _unquoted(normal)))
    return Pattern(text, exact=(exact,), refusing=refusing, warnings=text_warnings(text))


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
        folded = fold_dns(host)
        return any(before(local) and behind(folded) for before, behind in parted)

    return matches


def _email_regex(text: str) -> Pattern:
    source = text[1:]
    as_written = compile_regex(source)
    at = _host_in(source)
    if at is not None:
        test = compile_regex(f"{source[:at]}(?i:{source[at:]})")
        return Pattern(text, test=test, warnings=text_warnings(text))
    refusing = Pattern(text, test=compile_regex(source, ignore_case=True))
    return Pattern(text, test=as_written, refusing=refusing, warnings=text_warnings(text))


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


def email_granted(value: str) -> ComparedValue:
    """Prepare a mail address for granting rules."""
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
    if host.isascii() or len(host) > MAX_NAME:
        return ()
    try:
        return (f"{local}{at}{host.encode('idna').decode()}",)
    except UnicodeError:
        return ()


def email_refused(value: str) -> ComparedValue:
    """Prepare an address also without the quotation marks of its local part, or the last dot, and
    with its host in one form."""
    plain, normal = value.removesuffix("."), normal_address(value)
    several = (_unquoted(normal), normal, _unquoted(plain), plain, value, *_in_a_labels(plain))
    forms = [email_granted(form) for form in dict.fromkeys(several)]
    keys = (key for form in forms for key in form.keys)
    texts = (text for form in forms for text in form.texts)
    return ComparedValue(tuple(dict.fromkeys(keys)), tuple(dict.fromkeys(texts)))


def compile_upn(text: str) -> Pattern:
    """Compile a user principal name; refusing rules ignore case, as Active Directory does."""
    pattern = compared(checked(text), str)
    refusing = compared(text, _fold_principal, ignore_case=True)
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


def upn_refused(value: str) -> ComparedValue:
    """Prepare a user principal name for refusing rules."""
    found = _fold_principal(value)
    folded = _fold_case(value)
    return ComparedValue((found, folded), tuple(dict.fromkeys((found, folded, value))))


def compile_dns(text: str) -> Pattern:
    """Compile a DNS name; `*` may be its left-most label."""
    if text.startswith("~"):
        return Pattern(
            text, test=compile_regex(text[1:], ignore_case=True), warnings=text_warnings(text)
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


def dns_granted(value: str) -> ComparedValue:
    """Prepare a DNS name for granting rules."""
    return as_is(fold_dns(value))


def dns_refused(value: str) -> ComparedValue:
    """Prepare a DNS name for refusing rules."""
    return _without_last_dot(fold_dns(value))


def _without_last_dot(value: str) -> ComparedValue:
    """Compare a name without the dot at its end; a glob or an expression may have that dot."""
    plain = value.removesuffix(".")
    return ComparedValue((plain,), (plain,) if plain == value else (plain, value))


def compile_uri(text: str) -> Pattern:
    """Compile a URI pattern; granting compares as written, refusing after normalization.

    Normalization (RFC 3986, 6.2.2) covers case, escapes and dot segments.
    """
    pattern = compared(checked(text), str)
    source = host_glob(text)
    if source is not None:
        pattern = replace(pattern, test=compile_regex(source))
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


_GLOB_OF_HOST = re.compile(r"([^~:/?#][^:/?#]*://)([^/?#]*)(.*)", re.DOTALL)
_NAMED = r"\*([^/?#]*[.@][^/?#]*)(.*)"
_GLOBS_OF_ANY = (
    re.compile(r"([^~:/?#][^:/?#]*)(:/?)" + _NAMED, re.DOTALL),
    re.compile(r"((?!~)[^*:/?#]*)()" + _NAMED, re.DOTALL),
)
"""Globs without `://` that name a host all the same: by a dot or an `@` behind a star."""


def host_glob(text: str) -> str | None:
    """Return a glob that has a `*` before the path as a regular expression, None for others.

    There a `*` ends with its part, or `https://*.example.org/*` would take
    `https://other.test/.example.org/`, which an authority for `other.test` alone may issue.  To
    OpenSSL a host ends at the first `:`, even before an `@`.  Where the pattern has no `://`, a `*`
    may take one, and the host up to there: `*.example.org/*`, `sip:*@example.org`.
    """
    text = re.sub(r"\*+", "*", text)
    found = _GLOB_OF_HOST.fullmatch(f"*:{text[1:]}" if text.startswith("*//") else text)
    if found is not None and "*" in found[1] + found[2]:
        return _stars(found[1], "[^:/?#]*") + _authority(found[2] + found[3])
    found = next(filter(None, (each.fullmatch(text) for each in _GLOBS_OF_ANY)), None)
    if found is None:
        return None
    scheme, begun, host, rest = found.groups()
    to_host, elsewhere = _TAKEN[begun]
    behind = to_host + _authority(f"*{host}{rest}"), elsewhere + _stars(host + rest, ".*")
    return f"{_stars(scheme, '[^:/?#]*')}{begun}(?:{'|'.join(behind)})"


_TAKEN = {
    "": ("[^:/?#]*://", "(?:[^:/?#]*|[^:/?#]*[/?#].*|[^:/?#]*:(?:/?|/?[^/].*))"),
    ":": ("//", "(?:/?|/?[^/].*)"),
    ":/": ("/", "(?:|[^/].*)"),
}
"""What a star takes before a host, and what it takes in a URI without one, by what is before it."""


def _authority(text: str) -> str:
    """Return the expression of a glob from its host on."""
    host = re.split("[/?#]", text, maxsplit=1)[0]
    rest = text[len(host) :]
    source = _stars(host, "[^/?#@:]*")
    if not host.endswith("*"):
        return source + _stars(rest, ".*")
    return source + "(:[0-9]*)?" + (_stars(rest, ".*") if rest else "([/?#].*)?")


def _stars(text: str, each: str) -> str:
    return each.join(map(re.escape, text.split("*")))


def _uri_refusing(text: str) -> Pattern | None:
    if text.startswith("~"):
        return Pattern(text, test=compile_regex(text[1:], ignore_case=True))
    normal = normal_uri(text)
    if "*" not in text:
        return Pattern(text, exact=(normal,))
    if re.match(r"[^*]+://[^*/]+/", text):
        return None if normal == text else Pattern(text, test=glob(normal))
    # In a glob, the host part can't be determined, and a `*` may go on into the path.
    folded = either(glob(normal.lower()), glob(text.lower()))
    return Pattern(text, test=lambda value: folded(value.lower()))


def uri_refused(value: str) -> ComparedValue:
    """Prepare a URI for refusing rules."""
    normal = normal_uri(value)
    texts: tuple[str, ...] = (value,) if normal == value else (value, normal)
    if bare := _PATHLESS.fullmatch(normal):  # for a glob that has the path `/`, or has none
        texts += (f"{bare[1]}{'' if bare[2] else '/'}{bare[3]}",)
    return ComparedValue((normal,), texts)


_PATHLESS = re.compile(r"([^/]+://[^/?#]+)(/?)([?#].*|\Z)")


def compile_ip(text: str) -> Pattern:
    """Compile an address or a network.  Raises `PatternError`."""
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


def ip_value(text: str) -> ComparedValue:
    """Prepare an address; a text that is none is compared as it is."""
    try:
        return as_is(parse_ip_address(text))
    except ValueError:
        return as_is(text)

"""Compare distinguished names, and the names of issuers.

Whoever has an authority's key may write its name in any spelling that finds it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache

from sidecar.core.x509.der import comparable_text
from sidecar.core.x509.distinguished_name import (
    ComparedName,
    all_orders,
    as_logged,
    canonical_text,
    comparable_values,
    escape_in_hex,
    key_of,
    parse_name,
    read_compared_name,
    spellings,
    squeezed,
)
from sidecar.core.x509.subject import read_name

from .dn_warnings import order_warnings, spelling_warnings
from .matching import PatternError, Predicate, compile_regex, glob
from .text_patterns import (
    ComparedValue,
    Pattern,
    checked,
    compared,
    compile_text,
    either,
    nfc,
    text_refused,
    text_warnings,
)


def compile_dn(text: str) -> Pattern:
    """Compile a distinguished name."""
    if text.startswith("~"):
        pattern = compared(checked(text), str)
        return Pattern(text, test=pattern.test, warnings=pattern.warnings + spelling_warnings(text))
    return _dn_glob(text) if "*" in checked(text) else _exact_dn(text)


_ESCAPED = re.compile(r'\\([\\"+,;<>=# ])')


def _with_hex(text: str) -> str:
    """Write the escapes of a glob as the canonical text has them."""
    return _ESCAPED.sub(lambda found: escape_in_hex(found[1]), text)


def _dn_glob(text: str) -> Pattern:
    logged = as_logged(text)
    canonical = glob(_with_hex(logged))
    written = [glob(nfc(each)) for each in dict.fromkeys((logged, text))]
    refusing = Pattern(text, test=either(canonical, *written))
    warnings = text_warnings(logged) + spelling_warnings(logged)
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
def dn_granted(der: bytes) -> ComparedValue:
    """Prepare a name for granting rules."""
    name = _read_name(der)
    return ComparedValue((key_of(name),), (canonical_text(name),))


@lru_cache(maxsize=_RECENT)
def dn_refused(der: bytes) -> ComparedValue:
    """Prepare a name for refusing rules: also in reverse order, and in all its spellings."""
    name = _read_name(der)
    printed = tuple(spellings(name))
    reverse: ComparedName = tuple(reversed(name))
    keys = (key_of(name, refusing=True), key_of(reverse, refusing=True), *printed)
    texts = (canonical_text(name), *_shown(der), *printed)
    return ComparedValue(keys, (*texts, *(nfc(text) for text in texts if not text.isascii())))


def compile_issuer_cn(text: str) -> Pattern:
    """Compile an issuer's CN; refusing rules compare it as paths are built (RFC 5280, 7.1)."""
    pattern = compile_text(text)
    if text.startswith("~"):
        refusing = Pattern(text, test=_insensitive(text[1:]))
    elif "*" in text:
        refusing = Pattern(text, test=either(pattern.on(True).test, glob(comparable_text(text))))
    else:
        refusing = Pattern(text, exact=(comparable_text(text),))
    return replace(pattern, refusing=refusing)


def issuer_cn_refused(value: str) -> ComparedValue:
    """Prepare an issuer's CN for refusing rules."""
    folded, texts = comparable_text(value), text_refused(value).texts
    return ComparedValue((folded,), tuple(dict.fromkeys((folded, *map(squeezed, texts), *texts))))


def compile_issuer_dn(text: str) -> Pattern:
    """Compile an issuer's DN; refusing rules compare it as paths are built (RFC 5280, 7.1)."""
    pattern = compile_dn(text)
    same = pattern.on(True)
    if text.startswith("~"):
        refusing = Pattern(text, test=_insensitive(text[1:]))
    elif same.test is not None:
        logged = as_logged(text)
        written = (comparable_text(each) for each in (_with_hex(logged), logged))
        refusing = Pattern(text, test=either(same.test, *map(glob, written)))
    else:
        named = (key_of(comparable_values(parse_name(text))),) if pattern.exact else ()
        refusing = Pattern(text, exact=(*same.exact, *named, comparable_text(text)))
    return replace(pattern, refusing=refusing)


@lru_cache(maxsize=_RECENT)
def issuer_dn_refused(der: bytes) -> ComparedValue:
    """Prepare an issuer's DN for refusing rules."""
    found, written = dn_refused(der), _read_name(der)
    name = comparable_values(written)
    texts = list(map(comparable_text, _in_all_orders(name)))
    keys = (key_of(name), key_of(tuple(reversed(name))), *texts)
    texts += map(nfc, _in_all_orders(comparable_values(written, squeezed)))
    return ComparedValue((*found.keys, *keys), (*found.texts, *texts))


def _in_all_orders(name: ComparedName) -> Iterator[str]:
    """Yield an issuer's texts: how its value is spelled decides the order within an RDN."""
    yield canonical_text(name)
    for each in all_orders(name):
        yield canonical_text(each, in_order=True)
        yield from spellings(each)


def _insensitive(pattern: str) -> Predicate:
    """Compile an issuer's expression without case; of several blanks one is enough."""
    found = (pattern, re.sub(" +", " ", pattern))
    return either(*(compile_regex(each, ignore_case=True) for each in dict.fromkeys(found)))


def _shown(der: bytes) -> tuple[str, ...]:
    """Return a name as the decision log and `X-Client-DN` have it; none if it can't be read."""
    try:
        return (read_name(der).dn,)
    except ValueError:
        return ()


def _read_name(der: bytes) -> ComparedName:
    try:
        return read_compared_name(der)
    except ValueError:
        return ()

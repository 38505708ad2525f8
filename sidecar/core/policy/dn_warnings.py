"""Warn about patterns that no distinguished name can match in its compared form."""

from __future__ import annotations

import re

from sidecar.core.x509.attribute_types import NAMES, OIDS
from sidecar.core.x509.distinguished_name import ComparedName, canonical_text

PatternWarning = tuple[str, str]

_HINT = "write CN=alice,O=Example"
_TOP = {OIDS[name] for name in ("c", "dc", "o", "st", "l")}
_OWN = {OIDS[name] for name in ("cn", "uid", "emailaddress", "serialnumber")}


def order_warnings(name: ComparedName) -> tuple[PatternWarning, ...]:
    """Warn about a name in reverse order: the person as first RDN, the country as last."""
    first, last = name[0][0].oid, name[-1][0].oid
    if first not in _OWN or last not in _TOP:
        return ()
    written = canonical_text(tuple(reversed(name)))
    return (
        (
            "the RDNs seem to be in OpenSSL's order: a granting rule never matches",
            f"write the last RDN first: {written}",
        ),
    )


_ESCAPED = re.compile(r"\\+x?[89A-Fa-f][0-9A-Fa-f]")
_SPECIAL = re.compile(r'\\\\\\?[+,;<>"]')
_TYPE = re.compile(r"(?:^|[,+/*])( *)([A-Za-z][A-Za-z0-9-]*|[0-9.]+)( *)=")


def spelling_warnings(pattern: str) -> tuple[PatternWarning, ...]:
    """Warn about a glob or regular expression that no name's canonical text can match."""
    regex = pattern.startswith("~")
    text = pattern.removeprefix("~")
    found: list[PatternWarning] = []
    if _ESCAPED.search(text):
        found.append(
            (f"{pattern!r}: letters aren't escaped in the compared text", "write é itself")
        )
    if regex and _SPECIAL.search(text):
        found.append(
            (f"{pattern!r}: special characters are escaped in hex", r"write \\\\2C for a comma")
        )
    if text.startswith("/"):
        found.append((f"{pattern!r}: no name begins with /", _HINT))
    for blank, kind, space in _TYPE.findall("" if regex and "(?i" in text else text):
        if blank or space:
            found.append((f"{pattern!r}: there is no blank beside a type or its =", _HINT))
        written = NAMES.get(OIDS.get(kind.lower(), kind), kind)
        if kind != written:
            found.append((f"{pattern!r}: the type is written {written}", f"write {written}="))
    return tuple(dict.fromkeys(found))

"""The automaton of a key of a rule: which values of a certificate its patterns match.

Each key has an alphabet, over which its automata say exactly what `patterns` says.  A pattern whose
comparison no automaton follows raises `NoAutomaton`: it is tried, and nothing is proven.
"""

from __future__ import annotations

import re
import string
import unicodedata
from collections.abc import Callable, Mapping

from sidecar.core.policy.address_patterns import host_glob
from sidecar.core.policy.uri_spelling import normal_uri
from sidecar.core.x509.distinguished_name import fold_mail
from sidecar.core.x509.service_identity import fold_dns

from .atoms import Atom
from .nfa import NoAutomaton, first_label, glob, regex
from .search import Automaton, Union, WithoutDot, Words

_LOWER = string.ascii_lowercase + string.digits
_PUNCTUATION = "-._" + "".join(c for c in string.punctuation if c not in "-._")
_ALL = _LOWER + _PUNCTUATION + string.ascii_uppercase + " "

ALPHABETS: Mapping[str, str] = {
    **dict.fromkeys(("cn", "o", "ou", "issuer_cn"), _ALL + "é"),
    "upn": _LOWER + _PUNCTUATION,
    "dns": _LOWER + "-._*",
    "email": _LOWER + _PUNCTUATION,
    "uri": _ALL.replace(" ", ""),
}
"""The characters that values of a key are made of; those that a pattern names are added."""

OVER = (
    "text in printable ASCII, é and the characters that the patterns name; DNS names, mail "
    "addresses and UPNs in lower case; URIs in their normal form (RFC 3986, 6.2.2)"
)
"""What the alphabets mean, in words."""


def alphabet(key: str, atoms: list[Atom]) -> str:
    """The characters to search over for these atoms of a key."""
    named = {c for atom in atoms for text in atom.texts for c in text if not c.isascii()}
    return ALPHABETS[key] + "".join(sorted(c for c in named if _is_plain(c)))


def _is_plain(character: str) -> bool:
    return character.isprintable() and not unicodedata.combining(character)


def automaton(atom: Atom) -> Automaton:
    """What the patterns of an atom match.  Raises `NoAutomaton`."""
    assert atom.test is not None
    make = _MAKERS[atom.field]
    words: list[Words] = []
    others: list[Automaton] = []
    for text in atom.texts:
        found = make(text, atom.test.refusing)
        if isinstance(found, Words):
            words.append(found)
        else:
            others.append(found)
    if words:
        others.append(Words.of(word for each in words for word in each.words))
    parts = tuple(others)
    whole = parts[0] if len(parts) == 1 else Union(parts)
    return WithoutDot(whole) if atom.test.refusing and atom.field in _DOTTED else whole


_DOTTED = ("dns", "email", "upn")
"""Keys of which what refuses takes no notice of a dot at the end."""


def _text(text: str, refusing: bool) -> Automaton:
    if text.startswith("~"):
        return regex(text[1:])
    if unicodedata.normalize("NFC", text) != text:
        raise NoAutomaton("it isn't in Unicode's NFC")
    return glob(text) if "*" in text else Words.of([text])


def _issuer_cn(text: str, refusing: bool) -> Automaton:
    """What refuses is without case; which blanks count for nothing isn't followed."""
    if not refusing:
        return _text(text, refusing)
    if text.startswith("~"):
        return regex(text[1:], ignore_case=True)
    if not text.isascii():
        raise NoAutomaton("it has characters beyond ASCII")
    return glob(text, ignore_case=True)


def _upn(text: str, refusing: bool) -> Automaton:
    """Over lower case what refuses, without case, is what grants with it."""
    if text.startswith("~"):
        return regex(text[1:], ignore_case=refusing)
    folded = text.casefold().removesuffix(".") if refusing else text
    if not folded.isascii():
        raise NoAutomaton("it has characters beyond ASCII")
    return glob(folded) if "*" in text else Words.of([folded])


def _dns(text: str, refusing: bool) -> Automaton:
    if text.startswith("~"):
        return regex(text[1:], ignore_case=True)
    folded = fold_dns(text)
    parent = folded.removeprefix("*.")
    return Words.of([folded]) if parent == folded else first_label(parent)


def _email(text: str, refusing: bool) -> Automaton:
    if refusing and "@[" in text:
        raise NoAutomaton("an address has several spellings")
    if not text.startswith("~") and "*" not in text:
        return Words.of([fold_mail(text)])
    local, _, host = text.rpartition("@")
    if local != local.lower() or (host != host.lower() and re.search("[~*]", host or text)):
        raise NoAutomaton("it is a mail address with upper case")
    return regex(text[1:]) if text.startswith("~") else glob(text.lower())


def _uri(text: str, refusing: bool) -> Automaton:
    if text.startswith("~"):
        return regex(text[1:], ignore_case=refusing)
    if not refusing:
        if source := host_glob(text):
            return regex(source)
        return glob(text) if "*" in text else Words.of([text])
    normal = normal_uri(text)
    if "*" not in text:
        return Words.of([normal])
    if re.match(r"[^*]+://[^*/]+/", text):
        return Union((glob(text), glob(normal)))
    return glob(normal, ignore_case=True)


_MAKERS: dict[str, Callable[[str, bool], Automaton]] = {
    **dict.fromkeys(("cn", "o", "ou"), _text),
    "issuer_cn": _issuer_cn,
    "upn": _upn,
    "dns": _dns,
    "email": _email,
    "uri": _uri,
}

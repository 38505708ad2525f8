"""Validate the names of people and devices before they go into a certificate.

A name becomes a common name, a part of file names and of pages, and what an administrator types.
So it is short, has one spelling, and holds no character that means something in one of those.
"""

from __future__ import annotations

import re
import unicodedata

MAX_NAME = 64
"""Most octets of a common name in UTF-8 (RFC 5280, ub-common-name, is of characters)."""

MARKS = " ._-@'"
"""Characters that a person's name may have beside letters and digits."""

ALIKE = ("LATIN", "CYRILLIC", "GREEK", "ARMENIAN", "CHEROKEE", "COPTIC")
"""Scripts with letters that look like those of another one."""


def parse_person(text: str) -> str:
    """Validate a person's name.  Raises ValueError with a message and a hint."""
    hint = f"use letters, digits, blanks and {MARKS.strip()} (1 to {MAX_NAME} octets)"
    size = len(text.encode(errors="surrogatepass"))
    if not 0 < size <= MAX_NAME:
        raise ValueError(f"a name of {size} octets", hint)
    if unicodedata.normalize("NFKC", text) != text:
        raise ValueError(
            f"{text!r} has characters with another spelling",
            f"write {unicodedata.normalize('NFKC', text)!r}",
        )
    for character in text:
        if character not in MARKS and unicodedata.category(character)[0] not in "LMN":
            raise ValueError(f"the name {text!r} has a character {character!r}", hint)
    if text != text.strip() or "  " in text or text.startswith(("-", ".")):
        raise ValueError(f"the name {text!r} begins or ends with a blank or a mark", hint)
    _refuse_mixed_scripts(text)
    return text


def _refuse_mixed_scripts(text: str) -> None:
    names = (unicodedata.name(character, "") for character in text if character.isalpha())
    scripts = {name.split()[0] for name in names if name.startswith(ALIKE)}
    if len(scripts) > 1:
        raise ValueError(
            f"the name {text!r} mixes {' and '.join(sorted(scripts)).title()} letters",
            "letters of two alphabets look alike; use one of them",
        )


def parse_device(text: str) -> str:
    """Validate a device's name.  Raises ValueError with a message and a hint."""
    if not re.fullmatch("[A-Za-z0-9](?:[A-Za-z0-9._-]{0,30}[A-Za-z0-9])?", text):
        hint = "use A-Z a-z 0-9 . _ - (1 to 32 characters), such as phone"
        raise ValueError(f"{text[:80]!r} is not the name of a device", hint)
    return text


def folded(name: str) -> str:
    """Return the form under which two names count as the same person's."""
    return unicodedata.normalize("NFKC", name).casefold()


def file_stem(name: str, device: str) -> str:
    """Return a file name's beginning of ASCII letters, digits, `.`, `_` and `-` only."""
    text = unicodedata.normalize("NFKD", f"{name}-{device}").encode("ascii", "ignore").decode()
    return re.sub("[^A-Za-z0-9._-]+", "-", text).strip("-.") or "certificate"

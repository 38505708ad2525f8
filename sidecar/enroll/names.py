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

EAST_ASIAN = frozenset(["BOPOMOFO", "CJK", "HANGUL", "HIRAGANA", "IDEOGRAPHIC", "KATAKANA"])
"""Scripts that are written together, and beside Latin letters (UTS 39, highly restrictive)."""

INVISIBLE = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)
"""Letters and marks that nothing is shown of (Unicode's Default_Ignorable_Code_Point)."""


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
        other = unicodedata.category(character)[0] not in "LMN" or INVISIBLE.match(character)
        if character not in MARKS and other:
            raise ValueError(f"the name {text!r} has a character {character!a}", hint)
    if text != text.strip() or "  " in text or text.startswith(("-", ".")):
        raise ValueError(f"the name {text!r} begins or ends with a blank or a mark", hint)
    _refuse_mixed_scripts(text)
    return text


def _refuse_mixed_scripts(text: str) -> None:
    """Refuse letters and digits of scripts that aren't written together.  Raises ValueError.

    Not checked: a name that is of another script as a whole.
    """
    scripts = {_script(each) for each in text if unicodedata.category(each)[0] in "LN"}
    scripts -= {"DIGIT"}  # 0 to 9
    if len(scripts) > 1 and not scripts - {"LATIN"} <= EAST_ASIAN:
        raise ValueError(
            f"the name {text!r} mixes {' and '.join(sorted(scripts)).title()} letters",
            "letters of two alphabets look alike; use one of them",
        )


def _script(character: str) -> str:
    """Return the first word of a character's name, which for letters and digits is its script."""
    name = unicodedata.name(character, "UNKNOWN").removeprefix("EXTENDED ")
    return re.split("[ -]", name)[0]


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

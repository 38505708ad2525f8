"""Random regular expressions: drawn from PCRE2's grammar, and from random text."""

from __future__ import annotations

import random
from collections.abc import Iterator

ATOMS = r"a b A Z 0 _ - / . é % \. \/ \- \d \D \w \W \s \S \t \e \f \x2f \x41 \xe9"
ATOMS += r" \x{e9} \x{a} \_ \@ [a-c] [^a-c] [\w-] [-a] []a] [^]a] [a\]] [\d/] [^\W] [[:alpha:]]"
ATOMS += r" [[:^punct:]x] [[:word:].] [[:upper:]] [[:lower:]_] [[:^upper:]] [[:^lower:]Z] [é] [à-ü]"
ATOMS += r" [W-c] [^W-c] [\x41-\x43] [\b-\x80] [^\D\d] [\D\d] [!-/] [+--] [a&&b] [~~] { } ] {b}"
ATOMS += r" [[:space:]] [[:print:]] [[:graph:]] [[:ascii:]] [[:xdigit:]] [[:blank:]] [[:cntrl:]é]"
POSITIONS = [r"\b", r"\B", "^", "$", r"\A", r"\z", r"\Z"]
REPEATS = ["", "", "", "", "*", "+", "?", "*?", "+?", "??", "{2}", "{02}", "{0,1}", "{1,}", "{0}"]
REPEATS += ["{2,3}?", "*+", "++", "?+", "{1,2}+", "{00,002}"]
OPENINGS = ["(", "(?:", "(?:", "(?<n>", "(?>", "(?i:", "(?-i:", "(?s-i:", "(?m:"]
OPTIONS = ["(?i)", "(?-i)", "(?s)", "(?im)", "(?i-s)"]

TEXT = r"ab AZ09_-/.é%\\\\[[]](())||**+?{{}},,::^$==<>!?isxPdDwWsShvzZbBtnre'#&~QEKRXNGupk1x2f "
SUBJECT = (
    b"a b c A B C X Z 0 9 _ - / . % } ] { ! + ~ & x y \x20 \xc3\xa9 \xe9 \xe0 \xfc \x85 \xa0 \xff"
)


def from_grammar(dice: random.Random, depth: int = 2) -> str:
    """An expression made of what the parser takes, and of some that it refuses."""
    parts: list[str] = []
    for _ in range(dice.randint(1, 4)):
        kind = dice.random()
        if depth and kind < 0.3:
            body = from_grammar(dice, depth - 1)
            parts.append(f"{dice.choice(OPENINGS)}{body}){dice.choice(REPEATS)}")
        elif kind < 0.4:
            parts.append(dice.choice(POSITIONS))
        elif kind < 0.44:
            parts.append(dice.choice(OPTIONS))
        elif kind < 0.52:
            parts.append("|")
        else:
            parts.append(dice.choice(ATOMS.split(" ")) + dice.choice(REPEATS))
    return "".join(parts)


def from_text(dice: random.Random) -> str:
    """Random characters, most of which mean something in some regular expression."""
    return "".join(dice.choices(TEXT, k=dice.randint(1, 10)))


def changed(source: str, dice: random.Random) -> str:
    """The expression with one character put in, taken out or doubled."""
    at = dice.randrange(len(source) + 1)
    middle = dice.choice([dice.choice(TEXT), "", source[at : at + 1] * 2])
    return source[:at] + middle + source[at + 1 - (dice.random() < 0.5) :]


def expressions(dice: random.Random) -> Iterator[str]:
    """Without end, of each kind."""
    while True:
        source = from_text(dice) if dice.random() < 0.3 else from_grammar(dice)
        yield changed(source, dice) if dice.random() < 0.3 else source


def subjects(dice: random.Random, count: int) -> Iterator[bytes]:
    """Subjects without control characters, as nginx's `$uri` mostly is."""
    pieces = [piece or b" " for piece in SUBJECT.split(b" ")]
    for _ in range(count):
        yield b"/" * (dice.random() < 0.7) + b"".join(dice.choices(pieces, k=dice.randint(0, 7)))

r"""Parse the part of PCRE2's grammar that every PCRE2 version reads alike and RE2 can express.

The parser descends recursively over bytes, as nginx compiles them: without UTF, in the C locale,
with no option but CASELESS, lines ending in LF.  The grammar (pcre2pattern(3)):

    expression   branch ( "|" branch )*
    branch       ( atom quantifier? | position | options )*
    atom         byte | "." | class | escape | "(" expression ")" | "(?:" … | "(?<name>" …
                 | "(?P<name>" … | "(?>" … | "(?ims-ims:" …
    position     "^" | "$" | \A \z \Z \b \B
    options      "(?ims-ims)", to the end of the group, through its later branches
    quantifier   ( "*" | "+" | "?" | "{n}" | "{n,}" | "{n,m}" ) ( "?" | "+" )?
    escape       \d \D \w \W \s \S | \a \e \f \n \r \t | \xHH \x{HH}
                 | "\" and any byte but a letter, a digit or "\"
    class        "[" "^"? "]"? ( byte | escape | "\b" | range | "[:name:]" | "[:^name:]" )* "]"

Other syntax of PCRE2 raises a `SelectorError` that says why and what to write.  The caller must
search only subjects without control characters: only there do `$` and `\Z` mean the end of the
subject, and `(?m)` and `(?s)` change nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from .pcre_classes import (
    ALL,
    CONTROLS,
    ESCAPES,
    NOT_NEWLINE,
    either_case,
    posix,
)
from .regex_tree import EMPTY, Alternation, Atomic, Bytes, Concatenation, Node, Position, Repetition
from .selector_error import SelectorError

MAX_DEPTH = 100
"""Groups within groups; PCRE2 takes 250."""

MAX_REPEAT = 1000
"""RE2's bound of a quantifier; PCRE2's is 65535."""

_GROUP = re.compile(
    rb"""\( (?: (?P<atomic> \?> ) | (?P<plain> \?: | (?![?*]) )
          | \?P?<(?P<name> [A-Za-z_][A-Za-z0-9_]* )>
          | \? (?P<on> [ims]* ) (?: - (?P<off> [ims]* ) )? (?P<end> [:)] ) )""",
    re.VERBOSE,
)
_QUANTIFIER = re.compile(
    rb"(?: (?P<sign> [*+?] ) | \{ (?P<least> [0-9]+ ) (?P<range> , (?P<most> [0-9]* ) )? \} )"
    rb"(?P<mode> [?+] )?",
    re.VERBOSE,
)
_BRACE = re.compile(rb"\{[ \t]*[0-9,]")
"""What some PCRE2 reads as a quantifier: since 10.43 blanks and `{,n}` count."""

_HEX = re.compile(rb"\\x(?: ([0-9A-Fa-f]{2}) | \{([0-9A-Fa-f]{1,2})\} )", re.VERBOSE)
_POSIX = re.compile(rb"\[:(\^?)([a-z]+):\]")
_NAMED = re.compile(rb"\[([:.=])[^\]]*\1\]")
_RANGE = re.compile(rb"-[^\]]")
_SIGNS = {b"*": (0, None), b"+": (1, None), b"?": (0, 1)}
_POSITIONS: dict[bytes, Position] = {
    b"^": Position("start"),
    b"$": Position("end"),
    rb"\A": Position("start"),
    rb"\z": Position("end"),
    rb"\Z": Position("end"),
    rb"\b": Position("boundary"),
    rb"\B": Position("no_boundary"),
}

_HINTS = (
    (re.compile(rb"\(\?<?[=!]"), "look-around", "use a second location instead"),
    (re.compile(rb"\(\?[-^aimnrsxJU]*[:)]"), "inline flags other than i, m, s", "leave them out"),
    (re.compile(rb"\(\?"), "this kind of group", "write (…), (?:…) or (?<name>…)"),
    (re.compile(rb"\(\*"), "PCRE verbs", "leave them out"),
    (re.compile(rb"\(|\)"), "an unmatched parenthesis", "write \\( or \\)"),
    (re.compile(rb"\\[1-9]"), "back-references", "write the expression out"),
    (re.compile(rb"\\\Z"), "a backslash at the end", "write \\x5c for a backslash"),
    (
        re.compile(rb"\\\\"),
        "two backslashes",
        "nginx reads \\\\ in nginx.conf as one backslash (\\\\. there means \\. here): write one; "
        "write \\x5c for the character itself",
    ),
    (
        re.compile(rb"\\[hHvV]"),
        "\\h or \\v, which PCRE2 matches wrongly after \\S (\\S?\\v misses \\x85)",
        "write the characters in brackets, such as [\\t\\x20\\xa0]",
    ),
    (re.compile(rb"\\"), "this escape", "write \\xHH, a class, or the character itself"),
    (
        re.compile(rb"[*+?]|\{[0-9]+(,[0-9]*)?\}"),
        "a quantifier with nothing before it",
        "write it after a character, class or group, and only one, or write \\ before it",
    ),
    (
        re.compile(rb"\{[ \t]*,"),
        "a {,n}, which PCRE2 takes literally before 10.43, and as a quantifier since",
        "write {0,3} for {,3}, or \\{ for a brace",
    ),
    (
        re.compile(rb"\{"),
        "a { that only some versions of PCRE2 read as a quantifier",
        "write {2,3} without blanks, or \\{ for a brace",
    ),
)


def parse(source: str, *, ignore_case: bool) -> Node:
    """Parse an expression as nginx passes it to PCRE.  Raises `SelectorError`."""
    parser = _Parser(source.encode(errors="surrogatepass"))
    tree = parser.expression(_Flags(ignore_case, newlines=False), 0)
    if parser.rest:
        raise parser.refused()
    return tree


@dataclass(frozen=True, slots=True)
class _Flags:
    """The options in force.  `newlines`: whether a dot matches a line end."""

    ignore_case: bool
    newlines: bool

    def changed(self, on: bytes, off: bytes) -> _Flags:
        def now(letter: bytes, before: bool) -> bool:
            return letter in on or (before and letter not in off)

        return _Flags(now(b"i", self.ignore_case), now(b"s", self.newlines))


class _Parser:
    """The state of the parser: `source` from `at` on is not parsed yet."""

    def __init__(self, source: bytes) -> None:
        self.source = source
        self.at = 0
        self.names: set[bytes] = set()

    @property
    def rest(self) -> bytes:
        return self.source[self.at :]

    def refused(self, at: int | None = None) -> SelectorError:
        """Return the error for the construct at `at`, by default at the parser's position."""
        rest = self.source[self.at if at is None else at :]
        what, hint = next(
            ((what, hint) for pattern, what, hint in _HINTS if pattern.match(rest)),
            ("this", "write what pcre2pattern(3) and the reference both have"),
        )
        return self.error(what, hint, at)

    def error(self, what: str, hint: str, at: int | None = None) -> SelectorError:
        near = self.source[self.at if at is None else at :][:12].decode(errors="replace")
        return SelectorError(f"{what} in a regular expression, at {near!r}", hint)

    def take(self, text: bytes) -> bool:
        """Consume `text` if it is next; return whether it was."""
        found = self.source.startswith(text, self.at)
        self.at += len(text) * found
        return found

    def match(self, pattern: re.Pattern[bytes]) -> re.Match[bytes] | None:
        """Consume a match of `pattern` at the parser's position and return it."""
        found = pattern.match(self.source, self.at)
        if found is not None:
            self.at = found.end()
        return found

    # -- branches

    def expression(self, flags: _Flags, depth: int) -> Node:
        """Parse branches up to the end of the group or of the source."""
        branches: list[Node] = []
        parts: list[Node] = []
        while self.at < len(self.source) and not self.source.startswith(b")", self.at):
            if self.take(b"|"):
                branches.append(_concatenation(parts))
                parts = []
            elif (changed := self._options(flags)) is not None:
                flags = changed
            elif (position := self._position()) is not None:
                parts.append(position)
            else:
                parts.append(self._quantified(self._atom(flags, depth)))
        branches.append(_concatenation(parts))
        return branches[0] if len(branches) == 1 else Alternation(tuple(branches))

    def _options(self, flags: _Flags) -> _Flags | None:
        """Parse options such as `(?i)`, if they are next, and return the new flags."""
        found = _GROUP.match(self.source, self.at)
        if found is None or found["end"] != b")":
            return None
        changed = self._changed(flags, found)
        self.at = found.end()
        return changed

    def _changed(self, flags: _Flags, found: re.Match[bytes]) -> _Flags:
        on, off = found["on"], found["off"] or b""
        if not on + off or set(on) & set(off):
            raise self.refused()
        return flags.changed(on, off)

    def _position(self) -> Position | None:
        for text, position in _POSITIONS.items():
            if self.take(text):
                return position
        return None

    # -- atoms

    def _atom(self, flags: _Flags, depth: int) -> Node:
        if self.source.startswith(b"(", self.at):
            return self._group(flags, depth)
        if _NAMED.match(self.source, self.at):
            raise self.error("a class by name", "write [[:alpha:]], or \\[ for a bracket")
        if self.take(b"["):
            return Bytes(self._class(flags))
        if self.source.startswith(b"\\", self.at):
            return Bytes(self._folded(self._escape(), flags))
        if self.take(b"."):
            return Bytes(ALL if flags.newlines else NOT_NEWLINE)
        return Bytes(self._folded(frozenset([self._byte()]), flags))

    def _byte(self) -> int:
        if self.source[self.at] in b"*+?" or _BRACE.match(self.source, self.at):
            raise self.refused()
        self.at += 1
        return self.source[self.at - 1]

    @staticmethod
    def _folded(members: frozenset[int], flags: _Flags) -> frozenset[int]:
        return either_case(members) if flags.ignore_case else members

    def _group(self, flags: _Flags, depth: int) -> Node:
        begin = self.at
        found = _GROUP.match(self.source, begin)
        if found is None:
            raise self.refused()
        if depth >= MAX_DEPTH:
            raise self.error(f"more than {MAX_DEPTH} nested groups", "use fewer nested groups")
        if found["name"] in self.names:
            raise self.error("two groups of one name", "name them differently, as nginx demands")
        if found["name"]:
            self.names.add(found["name"])
        inner = self._changed(flags, found) if found["end"] else flags
        self.at = found.end()
        body = self.expression(inner, depth + 1)
        if not self.take(b")"):
            raise self.refused(begin)
        return Atomic(body) if found["atomic"] else body

    def _escape(self) -> frozenset[int]:
        """Parse an escape that means the same inside brackets and outside; return its bytes."""
        if found := self.match(_HEX):
            return frozenset([int(found[1] or found[2], 16)])
        escaped = self.source[self.at + 1 : self.at + 2]
        letter = escaped.decode("latin-1")
        if letter in CONTROLS:
            members = frozenset([CONTROLS[letter]])
        elif letter in ESCAPES:
            members = ESCAPES[letter]
        elif escaped and escaped != b"\\" and not escaped.isalnum():
            members = frozenset(escaped)
        else:
            raise self.refused()
        self.at += 2
        return members

    # -- quantifiers

    def _quantified(self, atom: Node) -> Node:
        begin = self.at
        found = self.match(_QUANTIFIER)
        if found is None:
            return atom
        least, most = self._bounds(found)
        if _QUANTIFIER.match(self.source, self.at):
            raise self.refused()
        if max(least, most or 0) > MAX_REPEAT:
            raise self.error(f"more than {MAX_REPEAT} repeats", "write fewer", begin)
        if most is not None and least > most:
            raise self.error("a quantifier that ends before it begins", "write {2,3}", begin)
        if most == 0:
            # PCRE2 10.42 takes `(?:|^){0}b` for anchored and doesn't find it in `ab`.
            raise self.error("a quantifier of zero, which PCRE2 may misread", "leave it out", begin)
        repeat = Repetition(atom, least, most, greedy=found["mode"] != b"?")
        return Atomic(repeat) if found["mode"] == b"+" else repeat

    @staticmethod
    def _bounds(found: re.Match[bytes]) -> tuple[int, int | None]:
        if found["sign"]:
            return _SIGNS[found["sign"]]
        least, most = (_number(found[name] or b"") for name in ("least", "most"))
        if not found["range"]:
            return least, least
        return least, most if found["most"] else None

    # -- classes

    def _class(self, flags: _Flags) -> frozenset[int]:
        """Parse a bracket expression after its `[`; return its bytes."""
        begin = self.at - 1
        negated = self.take(b"^")
        members: set[int] = set()
        for found in self._items(flags, begin):
            members |= found
        folded = self._folded(frozenset(members), flags)
        return ALL - folded if negated else folded

    def _items(self, flags: _Flags, begin: int) -> Iterator[frozenset[int]]:
        if self.take(b"]"):
            yield self._range_from(0x5D)
        elif self.take(b"-"):
            yield frozenset(b"-")
        while not self.take(b"]"):
            if self.at >= len(self.source):
                raise self.error("a [ without ]", "write \\[ for a bracket", begin)
            if self.source.startswith(b"-", self.at):
                if not self.source.startswith(b"-]", self.at):
                    raise self.error("a - that is not a range", "write \\- for a hyphen")
                self.at += 1
                yield frozenset(b"-")
                continue
            item = self._item(flags)
            yield item if isinstance(item, frozenset) else self._range_from(item)

    def _range_from(self, first: int) -> frozenset[int]:
        """Parse the rest of a range; return its bytes, or `first` alone if it is not a range."""
        if not _RANGE.match(self.source, self.at):
            return frozenset([first])
        begin = self.at
        self.at += 1
        last = self._item(None)
        if isinstance(last, frozenset) or last < first:
            raise self.error("a range that ends nowhere", "write \\- for a hyphen", begin)
        return frozenset(range(first, last + 1))

    def _item(self, flags: _Flags | None) -> frozenset[int] | int:
        """Parse one class or one byte.  `flags` is None for the end of a range."""
        if found := self.match(_POSIX):
            return self._posix(found, flags)
        if _NAMED.match(self.source, self.at):
            raise self.error("a class by name", "write [[:alpha:]], or \\[ for a bracket")
        if self.take(rb"\b"):
            return 0x08
        if not self.source.startswith(b"\\", self.at):
            self.at += 1
            return self.source[self.at - 1]
        one = self.source[self.at + 1 : self.at + 2].decode("latin-1") not in ESCAPES
        members = self._escape()
        return next(iter(members)) if one else members

    def _posix(self, found: re.Match[bytes], flags: _Flags | None) -> frozenset[int]:
        ignore_case = flags is not None and flags.ignore_case
        members = posix(found[2].decode(), ignore_case=ignore_case)
        if members is None:
            raise self.error("an unknown class", "write [[:alpha:]], [[:digit:]], …", found.start())
        return ALL - members if found[1] else members


def _number(digits: bytes) -> int:
    """Convert decimal digits to a number; of a very long one only the first digits count."""
    return int(digits.lstrip(b"0")[:9] or b"0")


def _concatenation(parts: list[Node]) -> Node:
    if not parts:
        return EMPTY
    return parts[0] if len(parts) == 1 else Concatenation(tuple(parts))

"""Regular expressions that mean the same to nginx (PCRE) and here (RE2).

nginx searches bytes with PCRE, without UTF mode and in the C locale.  RE2 in Latin-1 takes time
linear in what it is given, but reads some expressions differently.  So only syntax on which both
agree is let in, and the rest is an error that says what to write instead:

- no look-around, back-references, atomic groups, possessive quantifiers, comments, verbs;
- no inline flags: `~*` is how nginx ignores case;
- no `\\h \\v \\R \\N \\X \\K \\C \\Q \\p`, no octal escapes, `\\x` with two digits only;
- `{` only as a quantifier, since PCRE2 10.43 began to read `{,3}` as one;
- within `[…]`, `-` only for a range or at either end;
- ignoring case: no bytes above 0x7f, no `[:upper:]` and `[:lower:]`.

What still differs hangs on control characters in the subject (`$` before a last newline, `\\s`):
`locations.Chooser` denies those.  PCRE's own match limit is not modelled: nginx answers 500.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import re2

Search = Callable[[bytes], object]
"""A match object, or None.  Never raises, linear time."""


class SelectorError(ValueError):
    """A `location` or `server_name` can't be read.  `args`: what is wrong, what to write."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message, hint)

    def __str__(self) -> str:
        return "; ".join(map(str, self.args))


def compile_search(source: str, *, ignore_case: bool) -> Search:
    """A search for `source` anywhere in the subject.  Raises `SelectorError`."""
    _vet(source, ignore_case)
    options = re2.Options()
    options.encoding = re2.Options.Encoding.LATIN1
    options.case_sensitive = not ignore_case
    options.never_capture = True
    options.log_errors = False
    try:
        found: Search = re2.compile(source.encode(), options).search
    except re2.error as error:
        why = error.args[0]
        why = why.decode("utf-8", "replace") if isinstance(why, bytes) else str(why)
        hint = "write an expression that both PCRE and RE2 take"
        raise SelectorError(f"bad regular expression: {why}", hint) from None
    return found


_TOKEN = re.compile(
    r"""
      (?P<escape> \\ (?: [dDwWsSbBAz] | x[0-9A-Fa-f]{2} | [!-/:-@\[-`{-~\ ] ) )
    | (?P<set>    \[ )
    | (?P<group>  \( (?! [?*] ) | \(\?: | \(\?P?<[A-Za-z_][A-Za-z0-9_]*> )
    | (?P<repeat> (?: [*+?] | \{[0-9]+(?:,[0-9]*)?\} ) \?? (?! \+ ) )
    | (?P<plain>  [^\\(\[{*+?] )
    """,
    re.VERBOSE,
)

_ITEM = re.compile(
    r"""
      (?P<class> \\[dDwWsS] | \[:\^?(?:alnum|alpha|ascii|blank|cntrl|digit|graph|lower|print
                                       |punct|space|upper|word|xdigit):\] )
    | (?P<one>   \\x[0-9A-Fa-f]{2} | \\[!-/:-@\[-`{-~\ ] | \[(?![:.=]) | [^\\\[\]-] )
    """,
    re.VERBOSE,
)

_HINTS = (
    (re.compile(r"\(\?<?[=!]"), "look-around", "use a second location instead"),
    (re.compile(r"\(\?[a-zA-Z]*[-imsxUJ]"), "inline flags", "write ~* to ignore case"),
    (re.compile(r"\(\?"), "this kind of group", "write (…), (?:…) or (?<name>…)"),
    (re.compile(r"\(\*"), "PCRE verbs", "leave them out"),
    (re.compile(r"\\[1-9]"), "back-references", "write the expression out"),
    (re.compile(r"\\\Z"), "a backslash at the end", "write \\\\ for a backslash"),
    (re.compile(r"\\"), "this escape", "write \\xHH, a class, or the character itself"),
    (re.compile(r"([*+?]|\{[0-9,]+\})\??\+"), "possessive quantifiers", "leave the second + out"),
    (re.compile(r"\{"), "a { that is no quantifier", "write \\{ for a brace, {0,3} for {,3}"),
)


def _vet(source: str, ignore_case: bool) -> None:
    if not source:
        raise SelectorError("empty regular expression", "write one after ~")
    if re.search(r"[\x00-\x1f\x7f]", source):
        raise SelectorError("control character in a regular expression", "leave it out")
    if source[0] in "\"'" and source[-1] == source[0]:
        raise SelectorError("nginx's quotes in a regular expression", "leave the quotes out")
    at = 0
    while at < len(source):
        token = _TOKEN.match(source, at)
        if token is None:
            raise _unknown(source, at)
        at = _set_end(source, token.end()) if token["set"] else token.end()
    if ignore_case:
        _vet_caseless(source)


def _vet_caseless(source: str) -> None:
    """Where PCRE folds case by its own tables, and RE2 by Unicode's."""
    if not source.isascii() or re.search(r"\\x[89A-Fa-f]", source):
        hint = "use ~ and write both cases out"
        raise SelectorError("~* with bytes above 0x7f", hint)
    if re.search(r"\[:\^?(upper|lower):\]", source):
        raise SelectorError("~* with [:upper:] or [:lower:]", "write [A-Za-z]")


def _unknown(source: str, at: int) -> SelectorError:
    rest = source[at:]
    for pattern, what, hint in _HINTS:
        if pattern.match(rest):
            return SelectorError(f"{what} in a regular expression, at {rest[:12]!r}", hint)
    return SelectorError(f"bad regular expression, at {rest[:12]!r}", "write RE2 syntax")


def _set_end(source: str, at: int) -> int:
    """The index after the `]` of a bracket expression whose `[` ends at `at`."""
    at += source.startswith("^", at)
    first = at
    while at < len(source):
        if source[at] == "]" and at > first:
            return at + 1
        if source[at] == "-":
            if at > first and source[at + 1 : at + 2] != "]":
                raise SelectorError(
                    f"a - that is no range in a regular expression, at {source[at : at + 12]!r}",
                    "write \\- for a hyphen",
                )
            at += 1
        elif source[at] == "]":
            at += 1
        else:
            at = _item_end(source, at)
    raise SelectorError("a [ without ] in a regular expression", "write \\[ for a bracket")


def _item_end(source: str, at: int) -> int:
    """The index after one character, class or range."""
    item = _ITEM.match(source, at)
    if item is None:
        raise _unknown(source, at)
    at = item.end()
    if item["one"] and re.match(r"-[^\]]", source[at : at + 2]):
        last = _ITEM.match(source, at + 1)
        if last is None or not last["one"]:
            raise _unknown(source, at + 1)
        return last.end()
    return at

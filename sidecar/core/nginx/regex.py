"""Compile regular expressions that mean the same to nginx (PCRE) and here (RE2).

nginx searches bytes with PCRE.  RE2 runs in time linear in its input but has another syntax.  So an
expression is parsed by PCRE's grammar (`pcre_parser`), and the tree is written for RE2 as byte
sets, groups and counts: RE2 never sees the source.  An expression is refused unless both meanings
are proven to be the same.

The subject has no control characters: `locations.Chooser` denies them, because `$`, `\\Z` and the
flags `m` and `s` would differ there.  PCRE's match limit is not modelled: an expression that
exceeds it makes nginx answer 500, which lets nobody in.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import pairwise

import re2

from .atomic_groups import refuse_unproven
from .pcre_parser import parse
from .regex_tree import Alternation, Atomic, Bytes, Concatenation, Node, Position, Repetition
from .selector_error import SelectorError

__all__ = ["Search", "SelectorError", "compile_search", "re2_source"]

Search = Callable[[bytes], object]
"""Returns a match object or None, in linear time.  Never raises."""


def compile_search(source: str, *, ignore_case: bool) -> Search:
    """Compile a search for `source` anywhere in the subject.  Raises `SelectorError`."""
    options = re2.Options()
    options.encoding = re2.Options.Encoding.LATIN1
    options.never_capture = True
    options.log_errors = False
    try:
        found: Search = re2.compile(re2_source(source, ignore_case=ignore_case), options).search
    except re2.error as error:
        why = error.args[0]
        why = why.decode("utf-8", "replace") if isinstance(why, bytes) else str(why)
        hint = "write an expression that both PCRE and RE2 accept"
        raise SelectorError(f"bad regular expression: {why[:80]}", hint) from None
    return found


def re2_source(source: str, *, ignore_case: bool) -> bytes:
    """Translate nginx's `source` to RE2's syntax in Latin-1.  Raises `SelectorError`."""
    if not source:
        raise SelectorError("empty regular expression", "write one after ~")
    if re.search(r"[\x00-\x1f\x7f]", source):
        raise SelectorError("control character in a regular expression", "leave it out")
    if source[0] in "\"'":
        hint = "leave the quotes out, or write \\x22 or \\x27 for the character itself"
        raise SelectorError("nginx's quotes in a regular expression", hint)
    tree = parse(source, ignore_case=ignore_case)
    refuse_unproven(tree)
    return _re2_text(tree).encode()


# -- writing for RE2 -------------------------------------------------------------------------------

_POSITIONS = {"start": r"\A", "end": r"\z", "boundary": r"\b", "no_boundary": r"\B"}


def _re2_text(node: Node) -> str:
    match node:
        case Bytes(members):
            return _set(members)
        case Position(kind):
            return _POSITIONS[kind]
        case Concatenation(parts):
            return "".join(map(_re2_text, parts))
        case Alternation(branches):
            return f"(?:{'|'.join(map(_re2_text, branches))})"
        case Repetition(body, least, most):
            return f"(?:{_re2_text(body)}){{{least},{'' if most is None else most}}}"
        case Atomic(body):
            return f"(?:{_re2_text(body)})"


def _set(members: frozenset[int]) -> str:
    if not members:
        return r"[^\x00-\xff]"
    ordered = sorted(members)
    ends = [0, *(i for i, (a, b) in enumerate(pairwise(ordered), 1) if b != a + 1), len(ordered)]
    ranges = [(ordered[begin], ordered[end - 1]) for begin, end in pairwise(ends)]
    return "[" + "".join(rf"\x{first:02x}-\x{last:02x}" for first, last in ranges) + "]"

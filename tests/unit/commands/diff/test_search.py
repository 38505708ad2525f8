"""The automata of patterns: they match what the daemon matches, and their searches miss nothing."""

from __future__ import annotations

import itertools
import random

import pytest
from asking import matches
from greenery import parse
from hypothesis import given, seed, settings
from hypothesis import strategies as st
from random_regex import expressions

from sidecar.commands.diff.atoms import Atoms
from sidecar.commands.diff.languages import ALPHABETS, automaton
from sidecar.commands.diff.nfa import NoAutomaton, first_label, glob, regex
from sidecar.commands.diff.search import (
    SearchTooLong,
    Union,
    WithoutDot,
    Words,
    accepts,
    shortest,
)
from sidecar.core.policy.matching import PatternError, compile_regex
from sidecar.core.policy.patterns import KEY_COMPARISONS

SUBJECT = "a b c A B C X Z 0 9 _ - / . % } ] { ! + ~ & x y é".split(" ")


def test_an_automaton_matches_what_re2_matches() -> None:
    """Random expressions, drawn from the grammar: the same texts match as a whole."""
    dice = random.Random(20260601)
    compared = 0
    for source in itertools.islice(expressions(dice), 1500):
        try:
            found, matched = regex(source), compile_regex(source)
        except (NoAutomaton, PatternError):
            continue
        for _ in range(20):
            text = "".join(dice.choices(SUBJECT, k=dice.randrange(5)))
            assert accepts(found, text) == matched(text), (source, text)
            compared += 1
    assert compared > 2000


@pytest.mark.parametrize(
    "source",
    ["", "é", "(", r"\bx", r"[\xe9]x", "(a|b){1000}(a|b){1000}(a|b){1000}(a|b){1000}(a|b){1000}"],
)
def test_what_is_not_followed_has_no_automaton(source: str) -> None:
    """It is refused, with a reason, and never read as something else."""
    with pytest.raises(NoAutomaton, match=r"[a-z]+"):
        regex(source)


SMALL = st.recursive(
    st.sampled_from(["a", "b", "[ab]", "."]),
    lambda inner: st.one_of(
        st.tuples(inner, inner).map("".join),
        st.tuples(inner, inner).map(lambda two: f"({two[0]}|{two[1]})"),
        st.tuples(inner, st.sampled_from("*+?")).map(lambda two: f"({two[0]}){two[1]}"),
    ),
    max_leaves=5,
)


@seed(1)
@settings(max_examples=60, deadline=None, database=None)
@given(SMALL, SMALL)
def test_a_search_finds_what_greenery_finds(inside: str, outside: str) -> None:
    """Of two expressions: a text of the one that the other lacks, or the proof of none."""
    found = shortest([regex(inside)], [regex(outside)], "abc")
    difference = (parse(inside).to_fsm() - parse(outside).to_fsm() - parse("").to_fsm()).reduce()
    assert (found is None) == difference.empty()
    if found is not None:
        assert difference.accepts(found)


def test_a_shortest_text_is_found_even_where_it_leads_back_to_the_start() -> None:
    """An automaton that accepts everything has a text of one character; the empty one is none."""
    assert shortest([glob("*")], [], "ab") == "a"
    assert shortest([glob("*")], [Words.of(["a", "b"])], "ab") == "aa"
    assert shortest([Union((Words.of(["b"]), glob("*c")))], [], "abc") == "b"
    assert shortest([first_label("x")], [], "ax.") == "a.x"
    assert shortest([WithoutDot(Words.of(["x"]))], [Words.of(["x"])], "x.") == "x."
    assert shortest([glob("*a")], [glob("*")], "ab") is None


def test_a_search_is_bounded() -> None:
    """A product that is too large is given up, and never called empty."""
    with pytest.raises(SearchTooLong):
        shortest([regex("(a|b)*a(a|b){17}")], [regex("(a|b)*")], "ab")


PATTERNS = {
    "cn": ["a", "a*", "*b*", "é", "~a+b?", "~[^a]+", "a b"],
    "upn": ["a@x", "*@x", "~a+@X", "A@x"],
    "dns": ["a.x", "*.x", "~a[.]x", "A.X", "*.A.x"],
    "email": ["a@x", "*@x", "*@X", "a*", "~a+@x", "A@x.", "*a*@x.b"],
    "uri": ["a:b", "a://x/*", "a:*", "~A:.+", "a://X/%61", "*b", "a://*/b", "*://x/b", "a:*@x"],
}


@pytest.mark.parametrize("refusing", [False, True])
@pytest.mark.parametrize("key", PATTERNS)
def test_an_automaton_follows_the_comparison_of_its_key(key: str, refusing: bool) -> None:
    """Over the alphabet of a key, its automata say what rules that grant and that refuse say."""
    dice = random.Random(7)
    letters = [c for c in "abx.@:/*-é" if c in ALPHABETS[key]]
    tokens = {"uri": ["a:", "a://x/", "a://x/a", "b"], "email": ["a@x", "@x", "a", ".b"]}
    pieces = [*letters, *tokens.get(key, ())]
    for pattern in PATTERNS[key]:
        atom = Atoms().key(key, [KEY_COMPARISONS[key].parse(pattern)], refusing=refusing)
        found = automaton(atom)
        for _ in range(300):
            text = "".join(dice.choices(pieces, k=dice.randint(1, 4)))
            if key == "uri" and ("/." in text or "//" in text[4:]):
                continue  # not in its normal form
            expected = matches(key, pattern, text, refusing=refusing)
            assert accepts(found, text) == expected, (pattern, text)

"""Regular expressions of nginx, understood by PCRE's grammar and searched by RE2.

tests/nginx/test_pcre_grammar.py asks PCRE2 itself, tests/nginx/test_uri_and_host.py nginx.
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pcre_library import Pattern, library

from sidecar.core.nginx.regex import SelectorError, compile_search, re2_source

Case = tuple[str, bytes, bytes]
"""An expression, a subject in which it is found and one in which it is not."""

READ_AS_PCRE: list[Case] = [
    (r"^/\d{04}/", b"/2026/", b"/{04}/"),
    (r"^a{02,003}$", b"aaa", b"a{02,003}"),
    (r"a{b}", b"a{b}", b"ab"),
    (r"{x", b"{x", b"x"),
    (r"x\Z", b"ax", b"xa"),
    (r"\Ax\z", b"x", b"xx"),
    (r"a[\t ]b", b"a b", b"ab"),
    (r"[^\t\n\r\f\e\a]", b"x", b""),
    (r"(?i)a", b"A", b"b"),
    (r"a(?i)b", b"aB", b"AB"),
    (r"(?:(?i)a)b", b"Ab", b"AB"),
    (r"a(?i)b|c", b"C", b"Ab"),
    (r"((?i)a|b)c", b"Bc", b"BC"),
    (r"(?i:a(?-i)b)c", b"Abc", b"ABc"),
    (r"(?s)^.(?m)$", b"a", b"ab"),
    (r"[[:upper:]]", b"A", b"a"),
    (r"(?i)[[:upper:]]", b"a", b"0"),
    (r"(?i)[[:^lower:]]", b"0", b"aZ"),
    (r"(?i)[W-c]", b"w", b"d"),
    (r"(?i)[^W-c]", b"d", b"wA"),
    (r"(?i)k", b"K", b"\xe2\x84\xaa"),
    (r"(?i)\xe9", b"\xe9", b"\xc9"),
    ("é+$", b"\xc3\xa9\xa9", b"e"),
    (r"\x{2f}\x2e", b"/.", b"/x"),
    (r"\"\'\ \_\@", b"\"' _@", b"x"),
    (r"[.][:/][=]", b".:=", b".x="),
    (r"[]a][^]a]", b"]b", b"a]"),
    (r"[\b]", b"\x08", b"b"),
    (r"[^\D\d]|x", b"x", b"0a"),
    (r"[\w\-.]", b"-", b" "),
    (r"^(a||b)$", b"", b"c"),
]


@pytest.mark.parametrize(("source", "found", "missed"), READ_AS_PCRE)
def test_read_as_pcre_reads_it(source: str, found: bytes, missed: bytes) -> None:
    """Usual expressions of nginx.conf are accepted and keep their meaning."""
    search = compile_search(source, ignore_case=False)
    assert search(found) is not None
    assert search(missed) is None


GIVES_NOTHING_BACK: list[Case] = [
    (r"^(?>foo|bar)/", b"foo/", b"fo/"),
    (r"^/[^/]++/", b"/a/", b"//"),
    (r"^\d++$", b"12", b"1a"),
    (r"^(?>a\d+)(?:b|$)", b"a12", b"a12c"),
    (r"^a?+b", b"ab", b"aab"),
    (r"a{2}+a", b"aaa", b"aa"),
    (r"(?>a|bc)d", b"bcd", b"bd"),
    (r"\w++", b"a", b"-"),
    (r"(?:[^/]++/)+$", b"a/b/", b"a/b"),
]


@pytest.mark.parametrize(("source", "found", "missed"), GIVES_NOTHING_BACK)
def test_atomic_groups_that_change_nothing(source: str, found: bytes, missed: bytes) -> None:
    """`?>` and `++` are accepted if backtracking could not change the match."""
    search = compile_search(source, ignore_case=False)
    assert search(found) is not None
    assert search(missed) is None


@pytest.mark.parametrize(
    "source",
    [
        r"(?>a|ab)c",
        r"(?>a*)a",
        r"a*+a",
        r"a*+[^b]",
        r"(?:a*+b?)+c",
        r"(?:a*+){2}",
        r"a*+\b",
        r"a*+^",
        r"(?>a+?)b",
        r"(?>(?:ab)+)c",
        r"(?>a+b*)c",
        r"(?>(?>a+)|b)c",
        r"(?:a*+|b)a",
        r"(?i)a*+A",
    ],
)
def test_atomic_groups_that_may_change_what_matches(source: str) -> None:
    """An atomic group or a possessive quantifier without a proof is refused."""
    with pytest.raises(SelectorError, match="atomic group"):
        compile_search(source, ignore_case=False)


@pytest.mark.parametrize("source", ["(?<a>x(?<a>y))", "(?<a>x)(?P<a>y)", "(?<a>x)|(?<a>y)"])
def test_two_groups_of_one_name_are_refused(source: str) -> None:
    """As PCRE2 does, so that nginx doesn't start with such an expression."""
    with pytest.raises(SelectorError, match="two groups of one name"):
        compile_search(source, ignore_case=False)
    if library() is not None:
        with pytest.raises(ValueError, match="PCRE2 error 143"):
            Pattern(source.encode(), ignore_case=False)
    compile_search(source.replace("<a>", "<b>", 1), ignore_case=False)


def test_re2_never_sees_the_source() -> None:
    """RE2 receives only byte sets, groups and counts, so it can't read the source differently."""
    written = re2_source(r"^/(?<year>\d{04})[[:^alpha:]].*?$", ignore_case=True)
    assert written == (
        rb"\A[\x2f-\x2f](?:[\x30-\x39]){4,4}[\x00-\x40\x5b-\x60\x7b-\xff]"
        rb"(?:[\x00-\x09\x0b-\xff]){0,}\z"
    )


@given(st.text(alphabet=r"ab\[](){}|*+?.,:^$-=<>!12isdwhxZ'" + '"é ', max_size=20), st.booleans())
def test_any_text_is_an_expression_or_an_error(source: str, ignore_case: bool) -> None:
    """Any text is either compiled or a `SelectorError` with a remedy."""
    try:
        compile_search(source, ignore_case=ignore_case)(b"/a")
    except SelectorError as error:
        what, hint = error.args
        assert what
        assert hint

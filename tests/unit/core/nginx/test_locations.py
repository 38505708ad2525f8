"""Choose locations by server name and URI, and refuse unusable patterns.

tests/nginx/test_uri_and_host.py compares with real nginx.
"""

from __future__ import annotations

import contextlib
import string
import time
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.core.nginx.locations import (
    Chooser,
    LocationEntry,
    LocationPattern,
    SelectorError,
    ServerName,
    duplicates,
    overlaps,
    parse_location,
    parse_server_name,
)


def entry(name: str, server_names: str | None, location: str) -> LocationEntry:
    names = None if server_names is None else tuple(map(parse_server_name, server_names.split()))
    return name, names, parse_location(location)


def choose(entries: Sequence[tuple[str, str | None, str]], host: str, target: bytes) -> str | None:
    return Chooser([entry(*e) for e in entries]).choose(host, target)


# -- locations ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ("/x", "prefix", "/x"),
        ("= /x", "exact", "/x"),
        ("=/x", "exact", "/x"),
        ("^~ /x", "prefix_final", "/x"),
        ("~ \\.php$", "regex", "\\.php$"),
        ("~* \\.php$", "iregex", "\\.php$"),
        ("~*x", "iregex", "x"),
        ("/a b", "prefix", "/a b"),
        ("/100%", "prefix", "/100%"),
    ],
)
def test_location_forms(text: str, kind: str, value: str) -> None:
    """The forms of nginx's `location`, with or without a space after the modifier."""
    parsed = parse_location(text)
    assert (parsed.kind, parsed.value) == (kind, value)


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("", "write /x"),
        ("x", "write /x"),
        ("= x", "write /x"),
        ("~", "write one after ~"),
        ("^/x", "write /x"),
        ("@named", "leave location out"),
        ("/x?y=1", "query"),
        ("/a%20b", "decoded"),
        ("/a/../b", ".."),
        ("/a\x00", "control"),
        ('~ "^/a{2}$"', "quotes"),
        ("~ (?=x)", "second location"),
        ("~ (?<!x)y", "second location"),
        ("~ (?x)x", "leave them out"),
        ("~ (?-)x", "leave them out"),
        ("~ (?i-i)x", "leave them out"),
        ("~ (?>a|ab)c", "leave out the ?>"),
        ("~ (?|x)", "write (…)"),
        ("~ (?R)", "write (…)"),
        ("~ (?#x)", "write (…)"),
        ("~ (*UTF8)x", "leave them out"),
        (r"~ (x)\1", "write the expression out"),
        (r"~ \S?\v", "\\xa0"),
        (r"~ [\H]", "\\xa0"),
        (r"~ \N", "\\xHH"),
        (r"~ \R", "\\xHH"),
        (r"~ \G", "\\xHH"),
        (r"~ \K", "\\xHH"),
        (r"~ \Qx\E", "\\xHH"),
        (r"~ \p{L}", "\\xHH"),
        (r"~ \012", "\\xHH"),
        (r"~ \x{1e9}", "\\xHH"),
        (r"~ \x{ e9}", "\\xHH"),
        (r"~ \x9", "\\xHH"),
        ("~ x\\", "\\x5c"),
        ("~ x++x", "second +"),
        ("~ x{1,2}+x", "second +"),
        ("~ x{,3}", "{0,3}"),
        ("~ x{ 2}", "\\{"),
        ("~ x{2 }", "\\{"),
        ("~ x{2}{3}", "only one"),
        ("~ x**", "only one"),
        ("~ ^*", "after a character"),
        ("~ x{2,1}", "{2,3}"),
        ("~ (?:|^){0}/b", "leave it out"),
        ("~ (?:^|^c){0,0}/b", "leave it out"),
        ("~ [x", "\\["),
        ("~ []", "\\["),
        (r"~ [\w-x]", "\\-"),
        ("~ [a-c-e]", "\\-"),
        ("~ [[:foo:]]", "write"),
        ("~ [[.a.]]", "write"),
        ("~ (x", "\\("),
        ("~ x)", "\\)"),
        ("~ [:alpha:]", "[[:alpha:]]"),
        ("~ " + "(" * 101 + ")" * 101, "fewer nested"),
        ("~ (x{1000}){1000}", "PCRE and RE2"),
        ("~ x{1001}", "fewer"),
        ("~ x{" + "9" * 5000 + "}", "fewer"),
        ("~ *", "after a character"),
        ('~ "x', "quotes"),
        (r"~ \\.php$", "nginx.conf"),
        (r"~ [\\/]", "nginx.conf"),
        (r"/a\\b", "nginx.conf"),
        (r"= /a\"b", "nginx.conf"),
        (r"^~ /a\tb", "nginx.conf"),
        ("/x ", "leave it out"),
        (" /x", "leave it out"),
        ("~ x ", "\\x20"),
        ("/" + "a" * 255, "at most 255"),
        ("= /" + "é" * 128, "at most 255"),
        ("~ a\tb", "leave it out"),
    ],
)
def test_refused_locations(text: str, hint: str) -> None:
    """A location that nginx refuses, that no `$uri` has, or that RE2 and PCRE read differently is
    refused."""
    with pytest.raises(SelectorError) as caught:
        parse_location(text)
    assert len(caught.value.args) == 2
    assert hint in caught.value.args[1]
    assert hint in str(caught.value)


@given(st.text(alphabet=string.printable + "é\u2028", max_size=12))
def test_parsing_never_breaks(text: str) -> None:
    """Any text is either parsed or a SelectorError."""
    for parse in (parse_location, parse_server_name, lambda t: parse_location("~ " + t)):
        with contextlib.suppress(SelectorError):
            parse(text)


SITE = [
    ("root", None, "/"),
    ("home", None, "= /"),
    ("a", None, "/a"),
    ("a-dir", None, "/a/"),
    ("a-exact", None, "= /a/x.php"),
    ("static", None, "^~ /static/"),
    ("deep", None, "/static/deep/"),
    ("php", None, r"~ \.php$"),
    ("any-php", None, r"~* \.php$"),
    ("late", None, "~ x"),
]


@pytest.mark.parametrize(
    ("target", "name"),
    [
        (b"/", "home"),
        (b"/b", "root"),
        (b"/a", "a"),
        (b"/abc", "a"),
        (b"/a/", "a-dir"),
        (b"/A", "root"),
        (b"/a/x.php", "a-exact"),
        (b"/a/y.php", "php"),
        (b"/a/y.PHP", "any-php"),
        (b"/a/x", "late"),
        (b"/x.php", "php"),
        (b"/static/x.php", "static"),
        (b"/static/deep/x.php", "php"),
        (b"/static/deep/y", "deep"),
        (b"/b?x.php", "root"),
        (b"/static/../a/x%2ephp", "a-exact"),
        (b"/..", None),
        (b"/b%0a", None),
        (b"/b.php%0A", None),
        (b"/static/%0a", "static"),
    ],
)
def test_precedence(target: bytes, name: str | None) -> None:
    """`=`, then the longest prefix if `^~`, then the first regex, then the longest prefix.

    A control character (`$` before `%0a`) is denied where a regex would have to be asked.
    """
    assert choose(SITE, "h", target) == name


def test_the_first_of_equal_locations_counts() -> None:
    """The later of equal patterns is never chosen; `duplicates` reports it."""
    entries = [
        entry("a", None, "/x"),
        entry("b", None, "^~ /x"),
        entry("c", None, "= /x"),
        entry("d", None, "~ x"),
        entry("e", None, "~ x"),
        entry("f", None, "~* x"),
        entry("g", "a b", "/x"),
        entry("h", ".b", "/x"),
        entry("i", "*.b", "/x"),
        entry("j", "c", "/x"),
    ]
    assert duplicates(entries) == [(0, 1), (3, 4), (6, 7), (7, 8)]
    assert Chooser(entries).choose("h", b"/xy") == "d"


@pytest.mark.parametrize(
    ("target", "name"),
    [
        (b"/a//y.js", "a-dir"),
        (b"//a/y.js", None),
        (b"/b/..//a/y", None),
        (b"/%2fa", None),
        (b"//..", None),
        (b"/?//a", "home"),
    ],
)
def test_a_uri_with_two_readings(target: bytes, name: str | None) -> None:
    """A URI that leads to two locations, with `merge_slashes` on and off, has no location."""
    assert choose(SITE, "h", target) == name


OVERLAPS = [
    (["x.com", ".x.com"], [(0, 1)]),
    ([".x.com", "*.x.com"], [(0, 1)]),
    (["~^a", "~^a b"], [(0, 1)]),
    (["a b", "b c", "d"], [(0, 1)]),
    (["x .x"], [(0, 0)]),
    (["X x", "x"], []),
    (["a b", "b a", "c", None, None], []),
    ([".x", "x *.x"], []),
    (["x", "*.x", "x.*", "~x"], []),
    (["a b", "a", "b"], [(0, 1), (0, 2)]),
]


@pytest.mark.parametrize(("names", "found"), OVERLAPS)
def test_shared_names(names: list[str | None], found: list[tuple[int, int]]) -> None:
    """Entries that share some names but not all are reported: nginx ignores the name in the later
    server."""
    entries = [entry(str(i), each, "/") for i, each in enumerate(names)]
    assert overlaps(entries) == found


# -- servers --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ("A.example.com", "exact", "a.example.com"),
        ("*.example.com", "suffix", ".example.com"),
        (".example.com", "both", "example.com"),
        ("www.example.*", "prefix", "www.example."),
        (r"~^(?<x>.+)\.Net$", "regex", r"^(?<x>.+)\.Net$"),
        ("", "exact", ""),
        ('""', "exact", ""),
        ("[FE80::1]", "exact", "[fe80::1]"),
        ("10.0.0.*", "prefix", "10.0.0."),
        ("a_b", "exact", "a_b"),
        ("_", "exact", "_"),
        ("--", "exact", "--"),
        ("a+b", "exact", "a+b"),
    ],
)
def test_server_name_forms(text: str, kind: str, value: str) -> None:
    """The forms of nginx's `server_name`."""
    assert parse_server_name(text) == ServerName(kind, value)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("*", "*.x"),
        ("*.", "host name"),
        (".", "host name"),
        ("a*.example.com", "~regular"),
        ("*.example.*", "*.x"),
        ("*example.com", "*.x"),
        ("a.example.com.", "dot at the end"),
        ("a.example.com:443", "port"),
        ("::1", "[::1]"),
        ("bücher.example", "xn--"),
        ("$hostname", "variables"),
        ("a..b", "host name"),
        ("a/b", "host name"),
        ("a b", "host name"),
        ("~", "after ~"),
        ("~(?!x)", "second location"),
        ('"~x{2}"', "quotes"),
        (r"~\\.x", "nginx.conf"),
    ],
)
def test_refused_server_names(text: str, hint: str) -> None:
    """Names that nginx refuses or that no request can have are refused."""
    with pytest.raises(SelectorError) as caught:
        parse_server_name(text)
    assert hint in caught.value.args[1]


SERVERS = [
    ("default", None, "/"),
    ("exact", "a.example.com", "/"),
    ("suffix", "*.example.com", "/"),
    ("longer", "*.b.example.com", "/"),
    ("both", ".example.org", "/"),
    ("prefix", "www.*", "/"),
    ("prefix2", "www.example.*", "/"),
    ("regex", r"~^r\d+\.example", "/"),
    ("regex2", r"~^R1\.", "/"),
    ("sub", "only.example.net", "/sub/"),
    ("six", "[::1]", "/"),
]


@pytest.mark.parametrize(
    ("host", "name"),
    [
        ("a.example.com", "exact"),
        ("x.example.com", "suffix"),
        ("x.y.example.com", "suffix"),
        ("x.b.example.com", "longer"),
        ("b.example.com", "suffix"),
        ("example.com", "default"),
        ("xexample.com", "default"),
        ("example.org", "both"),
        ("x.example.org", "both"),
        ("www.example.com", "suffix"),
        ("www.example.de", "prefix2"),
        ("www.other.de", "prefix"),
        ("www", "default"),
        ("r12.example.de", "regex"),
        ("r1.test", "regex2"),
        ("rx.test", "default"),
        ("only.example.net", None),
        ("[::1]", "six"),
        ("", "default"),
        ("a.example.com.", None),
        ("a.example.com:443", None),
        ("A.example.com", None),
        ("a{b", None),
        ("*.example.com", None),
        ("www.*", None),
        ("~www.example.com", None),
        ("a$b.example.com", None),
    ],
)
def test_server_precedence(host: str, name: str | None) -> None:
    """Exact, longest `*.x`, longest `x.*`, first `~re`, default server; no falling through.

    A host that is no `$host` of nginx 1.31 has no location, nor has one that is a `server_name`
    as it is written, which is nginx's `$host` of a request without Host.
    """
    assert choose(SERVERS, host, b"/") == name


def test_a_server_is_a_name() -> None:
    """With A under `a b` and B under `a`, host `a` has both and host `b` has A alone."""
    entries = [("A", "a b", "/"), ("B", "a", "/b"), ("C", "~^c$ d", "/"), ("D", "d", "/b")]
    assert choose(entries, "a", b"/b") == "B"
    assert choose(entries, "b", b"/b") == "A"
    assert choose(entries, "c", b"/b") == "C"
    assert choose(entries, "d", b"/b") == "D"


def test_the_empty_name() -> None:
    """A request without Host uses server_name `""`, else the default server."""
    default = ("default", None, "/")
    assert choose([default, ("none", '""', "/"), ("any", "~.*", "/")], "", b"/") == "none"
    assert choose([default, ("any", "~.*", "/"), ("tail", "x.*", "/")], "", b"/") == "default"


def test_no_default_server() -> None:
    """Without locations for the default server, an unknown host has none."""
    assert choose([("a", "a", "/")], "b", b"/") is None
    assert Chooser([]).choose("b", b"/") is None


TARGETS = st.one_of(st.binary(), st.text("/.%2e?ax").map(lambda text: b"/" + text.encode()))


@given(st.text(alphabet="arw12.examplcom:[]-\u00e9"), TARGETS)
def test_choosing_never_breaks(host: str, target: bytes) -> None:
    """Any host and target give one of the names, or None."""
    entries = [entry(*e) for e in SITE + SERVERS]
    found = Chooser(entries).choose(host, target)
    assert found is None or found in {name for name, _, _ in entries}


def test_ten_thousand_locations() -> None:
    """The cost of a choice does not grow with the number of locations and servers."""

    def seconds(count: int) -> float:
        entries = [
            (
                f"l{i}",
                parse_server_name(f"*.h{i % 100}.test"),
                LocationPattern("prefix", f"/p/{i}/"),
            )
            for i in range(count)
        ]
        chooser = Chooser(entries)
        last = count - 1
        host, target = f"x.h{last % 100}.test", f"/p/{last}/x".encode()
        assert chooser.choose(host, target) == f"l{last}"
        start = time.perf_counter()
        for _ in range(200):
            chooser.choose(host, target)
        return time.perf_counter() - start

    few = min(seconds(100) for _ in range(3))
    many = min(seconds(10_000) for _ in range(3))
    assert many < 10 * few


def test_long_hosts_and_targets_cost_little() -> None:
    """64 KiB of dots or slashes take linear time."""
    chooser = Chooser([entry(*e) for e in SITE + SERVERS])
    start = time.perf_counter()
    chooser.choose("a." * 32000 + "example.com", b"/")
    chooser.choose("a", b"/." * 32000)
    chooser.choose("a", b"/a/.." * 10000 + b"/x")
    chooser.choose("a", b"/%2f" * 16000)
    assert time.perf_counter() - start < 1

"""Convert URIs and hosts to nginx's `$uri` and `$host`.

tests/nginx/test_uri_and_host.py compares with real nginx.
"""

from __future__ import annotations

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.core.nginx.host import normalize_host
from sidecar.core.nginx.uri import normalize_uri, possible_uris

# -- the URI --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "uri"),
    [
        (b"/", b"/"),
        (b"/a?b", b"/a"),
        (b"/a#b?c", b"/a"),
        (b"/?", b"/"),
        (b"?a/../..", b"/"),
        (b"/a/./b", b"/a/b"),
        (b"/a/../b", b"/b"),
        (b"/a/b/..", b"/a/"),
        (b"/a/.", b"/a/"),
        (b"/a/...", b"/a/..."),
        (b"/a/..;/b", b"/a/..;/b"),
        (b"/a/.b/..c", b"/a/.b/..c"),
        (b"/%61%2f%62", b"/a/b"),
        (b"/a/%2e%2E/b", b"/b"),
        (b"/a%2f..%2fb", b"/b"),
        (b"/a%3fb%23c%25d", b"/a?b#c%d"),
        (b"/%252e%252e/", b"/%2e%2e/"),
        (b"/a+b%2Bc", b"/a+b+c"),
        (b"/a%20b%0ac", b"/a b\nc"),
        (b"/\xc3\xa9%C3%A9\xff", b"/\xc3\xa9\xc3\xa9\xff"),
        (b"/a\\..\\b", b"/a\\..\\b"),
        (b"/A;x=y&z", b"/A;x=y&z"),
    ],
)
def test_uri(target: bytes, uri: bytes) -> None:
    """`$uri` is decoded once, without dot segments, query and fragment; everything else is
    unchanged."""
    assert normalize_uri(target) == uri


@pytest.mark.parametrize(
    ("target", "on", "off"),
    [
        (b"//", b"/", b"//"),
        (b"/a//b", b"/a/b", b"/a//b"),
        (b"/a%2f/b", b"/a/b", b"/a//b"),
        (b"/a//../b", b"/b", b"/a/b"),
        (b"//..", None, b"/"),
        (b"/a/.//..", b"/", b"/a/"),
        (b"/a/b//", b"/a/b/", b"/a/b//"),
    ],
)
def test_merge_slashes(target: bytes, on: bytes | None, off: bytes | None) -> None:
    """`merge_slashes on` drops empty segments before `..` counts them."""
    assert normalize_uri(target) == on
    assert normalize_uri(target, merge_slashes=False) == off


@pytest.mark.parametrize("repeated", [b"/", b"/%2f", b"%41", b"/.", b"/%2e", b"%3d", b"=", b"a/"])
def test_a_filled_target_costs_little(repeated: bytes) -> None:
    """Whatever a client fills a target with is decoded and resolved in C: a request of 190 KB holds
    up the others for milliseconds."""
    target = b"/" + repeated * (190_000 // len(repeated))
    calls = 0

    def note(*_: object) -> None:
        nonlocal calls
        calls += 1

    sys.setprofile(note)
    try:
        possible_uris(target)
    finally:
        sys.setprofile(None)
    assert calls < 500


REFUSED_TARGETS = (
    b"|*|a|http://host/|//..|/..|/a/../..|/%2e%2e|/%|/%2|/%zz|/%2?|/%#1|/%00|/a%00b|/a b|/a\tb"
    b"|/a\nb|/\x00|/\x7f"
).split(b"|")


@pytest.mark.parametrize("target", REFUSED_TARGETS)
def test_refused_targets(target: bytes) -> None:
    """A target that nginx answers with 400, or that isn't in origin form, has no `$uri`."""
    assert normalize_uri(target) is None


PIECES = st.sampled_from(
    [
        b"/",
        b"//",
        b".",
        b"..",
        b"/../",
        b"%2e",
        b"%2F",
        b"%",
        b"%25",
        b"%00",
        b"?",
        b"#",
        b"a",
        b"\xff",
    ]
)
TARGETS = st.one_of(st.binary(), st.lists(PIECES).map(lambda pieces: b"/" + b"".join(pieces)))


@given(TARGETS, st.booleans())
def test_uri_properties(target: bytes, merge_slashes: bool) -> None:
    """It never raises; a `$uri` has no NUL and no dot segments, and is a fixed point."""
    uri = normalize_uri(target, merge_slashes=merge_slashes)
    if uri is None:
        return
    assert uri.startswith(b"/")
    assert b"\0" not in uri
    assert not {b".", b".."} & set(uri.split(b"/"))
    assert not (merge_slashes and b"//" in uri)
    escaped = b"".join(b"/" if c == 0x2F else b"%%%02x" % c for c in uri)
    assert normalize_uri(escaped, merge_slashes=merge_slashes) == uri


# -- the host -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sent", "host"),
    [
        ("a.example.com", "a.example.com"),
        ("A.Example.COM", "a.example.com"),
        ("a.example.com.", "a.example.com"),
        ("a:80", "a"),
        ("a.:0080", "a"),
        ("a:", "a"),
        ("a:65535", "a"),
        (".a", ".a"),
        ("*.x", "*.x"),
        ("a%41_~!$&'()+,;=", "a%41_~!$&'()+,;="),
        ("1.2.3.4:8", "1.2.3.4"),
        ("[::1]", "[::1]"),
        ("[FE80::A]:443", "[fe80::a]"),
    ],
)
def test_host(sent: str, host: str) -> None:
    """`$host` is lower case, without port and trailing dot; an IP literal keeps its brackets."""
    assert normalize_host(sent) == host
    assert normalize_host(host) == host


REFUSED_HOSTS = ["", ":80", "a:b", "a:1:2", "a:65536", "a:80.", "a:" + "9" * 9999, "a:\u0661"]
REFUSED_HOSTS += ["[::1", "[::1]x", "[::1].", "[::1]80", "[..]", "[fe80::1%eth0]", "::1", "a]"]
REFUSED_HOSTS += [".", "..", "a..", "a..b", "u@h", "a/b", "a\\b", "a b", "a\tb", "a\n", "\0", "a{"]
REFUSED_HOSTS += ['a"', "a<", "a?b", "a#b", "é.x", "\u0131"]


@pytest.mark.parametrize("sent", REFUSED_HOSTS)
def test_refused_hosts(sent: str) -> None:
    """A Host that nginx 1.31 answers with 400 gives None, also if nginx 1.22 accepts it."""
    assert normalize_host(sent) is None


@given(st.one_of(st.text(), st.text(alphabet="aA.:[]1%_", max_size=8)))
def test_host_properties(sent: str) -> None:
    """It never raises; a `$host` is lower-case ASCII and a fixed point."""
    host = normalize_host(sent)
    if host is not None:
        assert host
        assert host.isascii()
        assert host == host.lower()
        assert not host.endswith(".")
        assert normalize_host(host) == host

"""Find the end of a request head and parse it: one table, as a whole and byte by byte."""

from __future__ import annotations

import pytest

from sidecar.authorizer.request_head import (
    MAX_HEAD,
    MAX_LINES,
    NotOneRequest,
    _Reader,
    is_complete,
    read_head,
)

HEAD = b"GET /authz/site HTTP/1.1\r\nHost: a\r\n\r\n"
WHOLE = {
    "plain": HEAD,
    "1.0": b"GET /authz/site HTTP/1.0\r\n\r\n",
    "without host": b"GET /authz/site HTTP/1.1\r\n\r\n",
    "head": b"HEAD /authz HTTP/1.1\r\nHost: a\r\n\r\n",
}
NEVER = {
    "line end first": b"\r\n" + HEAD,
    "bare line feeds": b"GET /authz/site HTTP/1.1\nHost: a\n\n",
    "lone CR": b"GET /authz/site HTTP/1.1\rHost",
    "NUL": b"GET /authz/site\0",
    "TLS": b"\x16\x03\x01\x02\x00",
    "lower case": b"get /authz/site HTTP/1.1\r\n",
    "too long": b"GET /" + b"x" * MAX_HEAD,
}
ODD = {
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\n",
    "HTTP/0.9": b"GET /authz/site\r\n\r\n",
    "HTTP/1.2": b"GET /authz/site HTTP/1.2\r\nHost: a\r\n\r\n",
    "upgrade": b"GET /authz/a HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
    "connect": b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n",
    "two lengths": b"GET /authz/a HTTP/1.1\r\nContent-Length: 0\r\nContent-Length: 0\r\n\r\n",
}


@pytest.mark.parametrize("name", WHOLE)
def test_the_end_is_found_at_the_last_byte_and_not_before(name: str) -> None:
    """A head is complete with its last byte, independent of the number of bytes seen before."""
    data = WHOLE[name]
    for seen in range(len(data)):
        for upto in range(seen + 1, len(data)):
            assert not is_complete(data[:upto], seen)
        assert is_complete(data, seen)
        for behind in (b"G", b"\r\n", b"\0", HEAD):
            with pytest.raises(NotOneRequest):
                is_complete(data + behind, seen)
    assert read_head(data).mistake == ""


@pytest.mark.parametrize("name", NEVER)
def test_what_can_become_no_head_is_refused_before_its_end(name: str) -> None:
    """Bytes that can't become nginx's HTTP are refused without waiting for the end."""
    with pytest.raises(NotOneRequest):
        is_complete(NEVER[name])


def test_a_head_of_too_many_lines_is_refused_unparsed(monkeypatch: pytest.MonkeyPatch) -> None:
    """So many lines are read, one more is not even looked at, however the head arrived."""
    most = HEAD[:-2] + b"a:\r\n" * (MAX_LINES - 2) + b"\r\n"
    assert read_head(most).mistake == ""
    parsed: list[bytes] = []
    monkeypatch.setattr(_Reader, "on_header", lambda _, name, value: parsed.append(name + value))
    for lines in (MAX_LINES - 1, (MAX_HEAD - len(HEAD)) // 4):
        more = HEAD[:-2] + b"a:\r\n" * lines + b"\r\n"
        assert is_complete(more)
        with pytest.raises(NotOneRequest, match="more than 256 lines"):
            read_head(more)
    assert not parsed


@pytest.mark.parametrize("name", ODD)
def test_another_protocol_is_refused(name: str) -> None:
    """A complete head of another protocol or version, or of an upgrade, is refused."""
    assert is_complete(ODD[name])
    with pytest.raises(NotOneRequest):
        read_head(ODD[name])


def test_a_body_makes_the_request_bad_and_the_last() -> None:
    """A request with a declared body gets 400, and the connection is closed."""
    for field in (b"Content-Length: 3", b"Transfer-Encoding: chunked"):
        head = read_head(b"GET /authz/site HTTP/1.1\r\nHost: a\r\n" + field + b"\r\n\r\n")
        assert head.mistake
        assert not head.keep
        assert head.lingers

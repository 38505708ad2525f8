"""Parse one request of the authorization socket: bytes in, a request or its mistake out.

This module does no input or output.  `is_complete` finds the end of a head in the received bytes,
`read_head` parses exactly one head with httptools (llhttp in strict mode).  nginx sends its next
request only after it has read an answer, so bytes after a head are never another request: somebody
has ended the head early.
"""

from __future__ import annotations

from dataclasses import dataclass

import httptools

from sidecar.core.request import (
    CONTROL_HEADERS,
    MAX_CERT_HEADER,
    AuthzRequest,
    BadRequest,
    assemble_request,
    is_second_spelling,
    parse_target,
)

MAX_HEAD = MAX_CERT_HEADER + 64 * 1024
"""Maximum length of a request head, in bytes."""

MAX_LINES = 256
"""Maximum number of lines of a request head; the snippets for nginx send about a dozen."""

BYTES_BEHIND = "bytes behind the request: nginx sends none before it has read the answer"

_END = b"\r\n\r\n"
_LINE_END = b"\r\n"

_CR = 0x0D
_PLAIN = bytes(byte for byte in range(256) if byte == 0x09 or (byte >= 0x20 and byte != 0x7F))
"""The bytes that lines of a head may contain."""

_SPELT = (
    b"SSL-Client-Verify", b"SSL-Client-Cert", b"Host", b"SSL-Server-Name", b"X-Original-URI",
    b"X-Original-Method", b"X-Real-IP", b"X-Request-ID",
    b"Origin", b"Sec-Fetch-Site", b"Sec-Fetch-Mode", b"Sec-Fetch-Dest", b"X-Original-Port",
)  # fmt: skip
_AS_WRITTEN = {name: CONTROL_HEADERS[name.lower()] for name in _SPELT}
"""The control headers as nginx's configuration spells them; this common case needs no `lower`."""


class NotOneRequest(ValueError):
    """The bytes are not exactly one request; the argument says why."""


@dataclass(slots=True)
class RequestHead:
    """One parsed request.

    `mistake` says why it is answered 400 ("": it isn't).  With `keep`, the connection stays open;
    `old` means HTTP/1.0; with `lingers`, unreadable bytes such as a body may follow.
    """

    request: AuthzRequest
    mistake: str = ""
    keep: bool = True
    old: bool = False
    lingers: bool = False


def is_complete(data: bytes | bytearray, seen: int = 0) -> bool:
    """Return whether the bytes are one complete head; the first `seen` bytes were checked before.

    Raises `NotOneRequest` for bytes after the head, and for bytes that can't become a head.
    """
    end = data.find(_END, max(0, seen - 3))
    if end >= 0 and end + len(_END) < len(data):
        raise NotOneRequest(BYTES_BEHIND)
    if len(data) > MAX_HEAD:
        raise NotOneRequest("the request head is too long")
    if not data[:1].isupper() or (end < 0 and _is_no_head(data, seen)):
        raise NotOneRequest("not HTTP")
    return end >= 0


def _is_no_head(data: bytes | bytearray, seen: int) -> bool:
    """Return whether control characters, or a CR or LF alone, prove that this is not a head."""
    start = seen - 1 if seen and data[seen - 1] == _CR else seen
    rest = data[start:].translate(None, _PLAIN).replace(b"\r\n", b"")
    return bool(rest) and not (rest == b"\r" and data[-1] == _CR)


def read_head(data: bytes) -> RequestHead:
    """Parse the head that `is_complete` found.

    Raises `NotOneRequest` if it is not HTTP, or has too many lines: each costs the time of many
    octets.
    """
    if data.count(_LINE_END) > MAX_LINES + 1:
        raise NotOneRequest(f"the request head has more than {MAX_LINES} lines")
    reader = _Reader()
    reader.parser = parser = httptools.HttpRequestParser(reader)
    try:
        parser.feed_data(data)
    except httptools.HttpParserUpgrade:
        raise NotOneRequest("an upgrade") from None
    except httptools.HttpParserError as error:
        raise NotOneRequest(f"not HTTP: {error}") from None
    finally:
        reader.parser = None  # break the reference cycle
    if not reader.version:
        raise NotOneRequest("not HTTP: the request head doesn't end")
    return reader.judge()


_NONE = AuthzRequest(None)


class _Reader:
    """Collect the events of the HTTP parser."""

    __slots__ = ("_bad", "_body", "_fields", "_keep", "_method", "_target", "parser", "version")

    def __init__(self) -> None:
        self._target = b""
        self._fields: dict[str, bytes] = {}
        self._bad = ""
        self._body = self._keep = False
        self._method = b""
        self.version = ""
        self.parser: httptools.HttpRequestParser | None = None

    def on_url(self, url: bytes) -> None:
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        field = _AS_WRITTEN.get(name)
        if field is None:
            name = name.lower()
            field = CONTROL_HEADERS.get(name)
        if field is not None:
            if field in self._fields:
                self._bad = f"header {name.decode('latin-1')!r} is repeated"
            self._fields[field] = value
        elif name == b"content-length":
            if value != b"0":
                self._refuse_body("Content-Length")
        elif name == b"transfer-encoding":
            self._refuse_body("Transfer-Encoding")
        elif is_second_spelling(name):
            self._bad = f"header {name.decode('latin-1')!r} in a second spelling"

    def _refuse_body(self, header: str) -> None:
        """Refuse a body, and close after the answer: the body could hide another request."""
        self._bad = f"{header}: set proxy_pass_request_body off and Content-Length ''"
        self._body = True

    def on_headers_complete(self) -> None:
        parser = self.parser
        assert parser is not None
        self.version = parser.get_http_version()
        self._method = parser.get_method()
        self._keep = parser.should_keep_alive() and not self._body

    def judge(self) -> RequestHead:
        """Build the request, or a head with its mistake.  Raises `NotOneRequest`."""
        if self.version not in ("1.1", "1.0"):
            raise NotOneRequest(f"HTTP version {self.version}")
        head = RequestHead(_NONE, self._bad, self._keep, self.version == "1.0", self._body)
        if self._method not in (b"GET", b"HEAD"):
            head.mistake = "the method is not GET"
        if not head.mistake:
            try:
                head.request = assemble_request(parse_target(self._target), self._fields)
            except BadRequest as error:
                head.mistake = str(error)
        return head

"""Header pairs → `AuthzRequest`; `Decision` → status line and safe headers.

What arrives is hostile until read here; what leaves can't carry CR, LF or NUL.  A control header
that comes twice, or in a second spelling (`SSL_Client_Verify`), is never picked from: it is a
`BadRequest`.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple

from sidecar.core.x509.certificate import ClientCert

from .decision import Decision, Reason
from .ip_address import parse_ip_address
from .origin import other_origin

MAX_CERT_HEADER = 128 * 1024
"""Longest `SSL-Client-Cert` value, in bytes (the contract's 128 KiB)."""

_PREFIX = b"/authz"

CONTROL_HEADERS = {
    b"ssl-client-verify": "verify",
    b"ssl-client-cert": "cert",
    b"host": "host",
    b"ssl-server-name": "server_name",
    b"x-original-uri": "uri",
    b"x-original-method": "method",
    b"x-real-ip": "client_ip",
    b"x-request-id": "request_id",
    b"origin": "origin",
    b"sec-fetch-site": "site",
    b"sec-fetch-mode": "mode",
    b"sec-fetch-dest": "destination",
}
_SPELLINGS = {name.replace(b"-", b"_"): name for name in CONTROL_HEADERS}

_TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,64}\Z")


class BadRequest(ValueError):
    """The request on the authorization socket is malformed; the argument says how."""


class AuthzRequest(NamedTuple):
    """What nginx asks.  Absent headers are empty.

    `location` is the name asked for, `None` when the sidecar is to choose by `host` and `uri`.
    `cert` and `uri` are the raw header values; text is Latin-1, so any byte has a character.
    A `method` or `client_ip` that can't be one is empty: not known.  `other_origin` names the
    origin of another site's page that made the request (`origin.other_origin`).  `subject` is the
    certificate of `cert` where whoever asks has read it already.
    """

    location: str | None
    host: str = ""
    verify: str = ""
    cert: bytes = b""
    server_name: str = ""
    uri: bytes = b""
    method: str = ""
    client_ip: str = ""
    request_id: str = ""
    other_origin: str = ""
    subject: ClientCert | None = None


def parse(method: bytes, target: bytes, headers: Iterable[tuple[bytes, bytes]]) -> AuthzRequest:
    """Read one request of the authorization socket.  Raises `BadRequest`."""
    if method not in (b"GET", b"HEAD"):
        raise BadRequest("the method is not GET")
    return build(parse_target(target), collect(headers))


MAX_REMEMBERED = 128
"""Longest value, in bytes, whose reading is remembered: peers may send longer ones without end."""


def parse_target(target: bytes) -> str | None:
    """`/authz/NAME` → NAME, `/authz` → None (choose by host and URI).  Raises `BadRequest`."""
    return _short_target(target) if len(target) <= MAX_REMEMBERED else _target(target)


def _target(target: bytes) -> str | None:
    if target == _PREFIX:
        return None
    if not target.startswith(_PREFIX + b"/") or b"?" in target:
        raise BadRequest("the target is neither /authz nor /authz/LOCATION")
    return target[len(_PREFIX) + 1 :].decode("latin-1")


_short_target = lru_cache(maxsize=16384)(_target)


def collect(headers: Iterable[tuple[bytes, bytes]]) -> dict[str, bytes]:
    """The control headers by field name of `AuthzRequest`.  Raises `BadRequest` on a repeat."""
    found: dict[str, bytes] = {}
    for name, value in headers:
        lowered = name.lower()
        field = CONTROL_HEADERS.get(lowered)
        if field is None:
            if is_second_spelling(lowered):
                raise BadRequest(f"header {lowered.decode('latin-1')!r} in a second spelling")
        elif field in found:
            raise BadRequest(f"header {lowered.decode('latin-1')!r} is repeated")
        else:
            found[field] = value
    return found


def is_second_spelling(lowered: bytes) -> bool:
    """Whether a header's name, in lower case, is a control header's with `_` for `-`."""
    return lowered.replace(b"-", b"_") in _SPELLINGS


def build(location: str | None, found: dict[str, bytes]) -> AuthzRequest:
    """Put the control headers together.  Raises `BadRequest`.

    CR, LF and NUL can't stand in a value: the HTTP parser refuses them.
    """
    get = found.get
    cert = get("cert", b"")
    if len(cert) > MAX_CERT_HEADER:
        raise BadRequest("header for cert is too long")
    return AuthzRequest(
        location,
        get("host", b"").decode("latin-1"),
        get("verify", b"").decode("latin-1"),
        cert,
        get("server_name", b"").decode("latin-1"),
        get("uri", b""),
        _method(get("method", b"")),
        _client_ip(get("client_ip", b"")),
        get("request_id", b"").decode("latin-1"),
        _other_origin(found) if "site" in found or "origin" in found else "",
    )


def _other_origin(found: dict[str, bytes]) -> str:
    names = ("host", "method", "origin", "site", "mode", "destination")
    return other_origin(*(found.get(name, b"").decode("latin-1") for name in names))


def _method(value: bytes) -> str:
    return value.decode("latin-1") if _TOKEN.match(value) else ""


def _client_ip(value: bytes) -> str:
    """`$remote_addr` in one spelling; "" (not known) where it is none, as nginx's `unix:`."""
    return _short_client_ip(value) if len(value) <= MAX_REMEMBERED else ""


@lru_cache(maxsize=8192)
def _short_client_ip(value: bytes) -> str:
    try:
        return str(parse_ip_address(value.decode("latin-1")))
    except ValueError:
        return ""


# -- answers ------------------------------------------------------------------------------------

_LINES = {
    204: b"HTTP/1.1 204 No Content\r\n",
    400: b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n",
    401: b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n",
    403: b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n",
}

_UNSAFE = re.compile(rb"[^\x20-\x24\x26-\x7e]|\A\x20|\x20\Z")
_UNSAFE_ITEM = re.compile(rb"[^\x20-\x24\x26-\x2b\x2d-\x7e]|\A\x20|\x20\Z")

# Reasons after which the certificate's identity is proven, though perhaps not let in.
_PROVEN = frozenset({Reason.ALLOWED, Reason.NOT_ALLOWED, Reason.DENIED_BY_RULE})


def _percent(match: re.Match[bytes]) -> bytes:
    return b"%%%02X" % match.group()[0]


def escape(text: str, *, item: bool = False) -> bytes:
    """Printable ASCII for a header value: all else, `%`, and outer blanks, percent-encoded.

    With `item`, `,` too, so that values can be joined by commas.
    """
    raw = text.encode("utf-8", "surrogateescape")
    return (_UNSAFE_ITEM if item else _UNSAFE).sub(_percent, raw)


def render(decision: Decision, policy_hash: str, now: float) -> bytes:
    """The whole answer, without `Connection` and without a body; ends before the blank line."""
    opening = _opening(
        decision.status, decision.location, decision.rule, decision.reason, policy_hash
    )
    identity = b""
    if decision.allowed and decision.subject is not None and decision.reason in _PROVEN:
        identity = _identity(decision, decision.subject)
    return opening + _caching(decision, now) + identity


@lru_cache(maxsize=4096)
def _opening(status: int, location: str, rule: str, reason: Reason, policy_hash: str) -> bytes:
    """What is the same in all answers about one rule of a location."""
    return (
        b"%bX-Auth-Location: %b\r\nX-Auth-Rule: %b\r\nX-Auth-Reason: %b\r\nX-Auth-Policy: %b\r\n"
    ) % (_LINES[status], escape(location), escape(rule), reason.encode(), policy_hash.encode())


def _caching(decision: Decision, now: float) -> bytes:
    """`X-Accel-Expires` in whole seconds, never beyond the decision's own end."""
    if not decision.cache_seconds:
        return b"Cache-Control: no-store\r\n"
    seconds = max(0, int(min(decision.cache_seconds, decision.expires - now)))
    return b"X-Accel-Expires: %d\r\n" % seconds


def _identity(decision: Decision, cert: ClientCert) -> bytes:
    proven = b"X-Client-DN: %b\r\nX-Client-Serial: %b\r\nX-Client-Fingerprint: %b\r\n" % (
        escape(cert.dn),
        cert.serial_hex.encode(),
        cert.sha256.encode(),
    )
    if len(cert.cn) == 1:  # of several CNs none is the name; an application gets none to rely on
        proven += b"X-Client-CN: %b\r\n" % escape(cert.cn[0])
    if san := san_list(cert):
        proven += b"X-Client-SAN: %b\r\n" % san
    if decision.roles:
        roles = b",".join([escape(role, item=True) for role in decision.roles])
        proven += b"X-Client-Role: %b\r\n" % roles
    if decision.forward_cert:  # RFC 9440, section 2.2: a Byte Sequence (RFC 8941) of the DER
        proven += b"Client-Cert: :%b:\r\n" % base64.b64encode(cert.der)
    return proven


def san_list(cert: ClientCert) -> bytes:
    """`DNS:…,URI:…,IP:…,email:…`, each value escaped so that a comma only ever separates."""
    items = ((b"DNS:", cert.dns), (b"URI:", cert.uri), (b"IP:", cert.ip), (b"email:", cert.email))
    return b",".join([tag + escape(v, item=True) for tag, values in items for v in values])

"""Render a `Decision` as a status line and response headers for nginx.

No rendered value contains CR, LF, NUL or another character that a header must not have.
"""

from __future__ import annotations

import base64
import re
from functools import lru_cache

from sidecar.core.x509.certificate import ClientCert

from .decision import Decision, Reason

_LINES = {
    204: b"HTTP/1.1 204 No Content\r\n",
    400: b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n",
    401: b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n",
    403: b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n",
}


_UNSAFE = re.compile(rb"[^\x20-\x24\x26-\x7e]|\A\x20|\x20\Z")


_UNSAFE_ITEM = re.compile(rb"[^\x20-\x24\x26-\x2b\x2d-\x7e]|\A\x20|\x20\Z")


# Reasons that come after the certificate's identity was proven, also where it is denied.
_PROVEN = frozenset({Reason.ALLOWED, Reason.NOT_ALLOWED, Reason.DENIED_BY_RULE})


def _percent(match: re.Match[bytes]) -> bytes:
    return b"%%%02X" % match.group()[0]


def escape(text: str, *, item: bool = False) -> bytes:
    """Encode text as printable ASCII for a header value.

    Every other byte of its UTF-8, `%`, and a blank at an end become percent-escapes; with `item`
    a comma does too, so that commas can separate values.
    """
    raw = text.encode("utf-8", "surrogateescape")
    return (_UNSAFE_ITEM if item else _UNSAFE).sub(_percent, raw)


def render(decision: Decision, policy_hash: str, now: float) -> bytes:
    """Render a decision as status line and headers, without `Connection` and the blank line."""
    opening = _opening(
        decision.status, decision.location, decision.rule, decision.reason, policy_hash
    )
    identity = b""
    if decision.allowed and decision.subject is not None and decision.reason in _PROVEN:
        identity = _identity(decision, decision.subject)
    return opening + _caching(decision, now) + identity


@lru_cache(maxsize=4096)
def _opening(status: int, location: str, rule: str, reason: Reason, policy_hash: str) -> bytes:
    """Render the lines that all answers with the same rule and reason share."""
    return (
        b"%bX-Auth-Location: %b\r\nX-Auth-Rule: %b\r\nX-Auth-Reason: %b\r\nX-Auth-Policy: %b\r\n"
    ) % (_LINES[status], escape(location), escape(rule), reason.encode(), policy_hash.encode())


def _caching(decision: Decision, now: float) -> bytes:
    """Render `X-Accel-Expires` in whole seconds; it never exceeds the decision's own end."""
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
    if len(cert.cn) == 1 and "cn" not in cert.unreadable:  # of several CNs none is the name
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
    """Render the SAN as `DNS:…,URI:…,IP:…,email:…`; a comma only ever separates values."""
    items = ((b"DNS:", cert.dns), (b"URI:", cert.uri), (b"IP:", cert.ip), (b"email:", cert.email))
    return b",".join([tag + escape(v, item=True) for tag, values in items for v in values])

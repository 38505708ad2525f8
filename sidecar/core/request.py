"""Read the headers of a request on the authorization socket into an `AuthzRequest`.

Every value is untrusted.  A control header that is repeated, or that has a second spelling
(`SSL_Client_Verify`), is a `BadRequest`: none of its values is used.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple

from sidecar.core.x509.certificate import ClientCert

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
    b"x-original-port": "port",
}
_SPELLINGS = {name.replace(b"-", b"_"): name for name in CONTROL_HEADERS}

_TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,64}\Z")


class BadRequest(ValueError):
    """The request on the authorization socket is malformed; the argument says how."""


class Assumed(NamedTuple):
    """The assumptions of a policy's test; with them, revocation is not checked.

    `trust` is the trust that the certificate is taken to be issued under: a name, "" for any, None
    where the chain is built as always.  With `denylists` those of the trust are asked all the same.
    """

    trust: str | None
    denylists: bool = False


class AuthzRequest(NamedTuple):
    """A question of nginx.  Absent headers are empty.

    `location` is the name of a location, or `None` if the sidecar must choose by `host` and `uri`.
    `cert` and `uri` are the raw header values; text is Latin-1, so any byte has a character.
    An invalid `method` or `client_ip` is empty: unknown.  `other_origin` names the origin of
    another site's page that made the request (`origin.other_origin`).  `subject` is the certificate
    in `cert` if the caller has parsed it already.
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
    assumed: Assumed | None = None


def parse_request(
    method: bytes, target: bytes, headers: Iterable[tuple[bytes, bytes]]
) -> AuthzRequest:
    """Read one request of the authorization socket.  Raises `BadRequest`."""
    if method not in (b"GET", b"HEAD"):
        raise BadRequest("the method is not GET")
    return assemble_request(parse_target(target), control_headers(headers))


MAX_REMEMBERED = 128
"""Longest value, in bytes, whose parsed form is cached; longer ones could fill the memory."""


def parse_target(target: bytes) -> str | None:
    """Parse the target: `/authz/NAME` → NAME, `/authz` → None (choose by host and URI).

    Raises `BadRequest`.
    """
    return _short_target(target) if len(target) <= MAX_REMEMBERED else _target(target)


def _target(target: bytes) -> str | None:
    if target == _PREFIX:
        return None
    if not target.startswith(_PREFIX + b"/") or b"?" in target:
        raise BadRequest("the target is neither /authz nor /authz/LOCATION")
    return target[len(_PREFIX) + 1 :].decode("latin-1")


_short_target = lru_cache(maxsize=16384)(_target)


def control_headers(headers: Iterable[tuple[bytes, bytes]]) -> dict[str, bytes]:
    """Collect the control headers by field name of `AuthzRequest`.

    Raises `BadRequest` for a repeated header and for a second spelling of one.
    """
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
    """Return whether a lower-case header name is a control header's name with `_` for `-`."""
    return lowered.replace(b"-", b"_") in _SPELLINGS


def assemble_request(location: str | None, found: dict[str, bytes]) -> AuthzRequest:
    """Build an `AuthzRequest` from the control headers.  Raises `BadRequest`.

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
    names = ("host", "method", "origin", "site", "mode", "destination", "port")
    return other_origin(*(found.get(name, b"").decode("latin-1") for name in names))


def _method(value: bytes) -> str:
    return value.decode("latin-1") if _TOKEN.match(value) else ""


def _client_ip(value: bytes) -> str:
    """Normalize `$remote_addr`; return "" (unknown) for no address, such as nginx's `unix:`."""
    return _short_client_ip(value) if len(value) <= MAX_REMEMBERED else ""


@lru_cache(maxsize=8192)
def _short_client_ip(value: bytes) -> str:
    try:
        return str(parse_ip_address(value.decode("latin-1")))
    except ValueError:
        return ""

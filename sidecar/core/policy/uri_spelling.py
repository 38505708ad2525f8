"""Normalize URIs for refusing rules (RFC 3986, 6.2.2 and 6.2.3; URNs by RFC 8141, 3.1)."""

from __future__ import annotations

import ipaddress
import re

from sidecar.core.x509.service_identity import fold_dns

_PARTS = re.compile(r"([^:/?#]+:)?(//[^/?#]*)?([^?#]*)(.*)", re.DOTALL)
_ESCAPE = re.compile("%([0-9A-Fa-f]{2})")
_UNRESERVED = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_PORTS = {
    "http:": ":80",
    "https:": ":443",
    "ws:": ":80",
    "wss:": ":443",
    "ftp:": ":21",
    "ldap:": ":389",
    "ldaps:": ":636",
}
"""The ports that the schemes' own RFCs define (9110, 6455, 1738, 4516)."""


def normal_uri(uri: str) -> str:
    """Normalize the case of scheme and host, escapes, dot segments and the default port."""
    found = _PARTS.fullmatch(_ESCAPE.sub(_unescape, uri))
    assert found is not None  # it matches any text
    scheme, authority, path, rest = (part or "" for part in found.groups())
    scheme = fold_dns(scheme)
    if scheme == "file:" and path.startswith("/") and authority.lower() in ("", "//localhost"):
        authority = "//"  # RFC 8089, 2 and appendix B: file:/a is file:///a
    if not authority:
        return scheme + _rootless(scheme, path) + rest
    user, at, host = authority[2:].rpartition("@")
    host = _ZEROS.sub(":", _literal(fold_dns(host)))
    host = host.removesuffix(_PORTS.get(scheme, ":")).removesuffix(":").removesuffix(".")
    path = _without_dots(path)
    if rest and not path:
        path = "/"  # the path `/` equals an empty one (RFC 3986, 6.2.3)
    return f"{scheme}//{user}{at}{host}{path}{rest}"


def _rootless(scheme: str, path: str) -> str:
    """Normalize the rest of a URI without an authority."""
    if scheme == "urn:":
        return _urn(path)
    if scheme == "mailto:":
        return ",".join(map(_host_of_user, path.split(",")))
    if scheme in _USERS_AT_HOSTS:
        return _host_of_user(path)
    return _without_dots(path) if path.startswith("/") else path


_USERS_AT_HOSTS = frozenset({"sip:", "sips:", "xmpp:", "acct:", "im:", "pres:"})
"""Schemes of one address `user@host` (RFC 3261, 5122, 7565, 3860, 3859)."""


def _host_of_user(path: str) -> str:
    """Fold the case of the host behind the last `@`; SIP's parameters or a resource follow it."""
    user, at, host = path.rpartition("@")
    end = re.search("[;/]", host)
    stop = end.start() if end else len(host)
    return f"{user}{at}{fold_dns(host[:stop]).removesuffix('.')}{host[stop:]}" if at else path


_ZEROS = re.compile(r":0+(?=[0-9]+\Z)")
"""Leading zeros of a port."""


def _literal(host: str) -> str:
    """Write an IPv6 address in brackets in its one form (RFC 5952)."""
    address, bracket, port = host.removeprefix("[").partition("]")
    try:
        return f"[{ipaddress.IPv6Address(address)}]{port}" if bracket else host
    except ValueError:
        return host


def _urn(path: str) -> str:
    """Fold the case of a namespace, and of a UUID (RFC 9562, 4)."""
    namespace, colon, name = path.partition(":")
    namespace = fold_dns(namespace)
    return namespace + colon + (fold_dns(name) if namespace == "uuid" else name)


def _unescape(found: re.Match[str]) -> str:
    octet = int(found[1], 16)
    return chr(octet) if octet in _UNRESERVED else found[0].upper()


def _without_dots(path: str) -> str:
    """Remove dot segments (RFC 3986, 5.2.4); the path `/` equals an empty path."""

    root, *segments = path.split("/")
    found: list[str] = []
    for segment in segments:
        if segment == "..":
            del found[-1:]
        elif segment != ".":
            found.append(segment)
    if segments and segments[-1] in (".", "..") and found:
        found.append("")
    return "/".join([root, *found]) if any(found) else root

"""Normalize URIs for refusing rules (RFC 3986, 6.2.2 and 6.2.3; URNs by RFC 8141, 3.1)."""

from __future__ import annotations

import re

from sidecar.core.x509.service_identity import fold_dns

from .host_spelling import ipv4_of_numbers, normal_address, normal_host

_PARTS = re.compile(r"([^:/?#]+:)?(//[^/?#]*)?([^?#]*)(.*)", re.DOTALL)
_ESCAPE = re.compile("%([0-9A-Fa-f]{2})")
_UNRESERVED = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_PORTS = {
    "http:": "80",
    "https:": "443",
    "ws:": "80",
    "wss:": "443",
    "ftp:": "21",
    "gopher:": "70",
    "telnet:": "23",
    "nntp:": "119",
    "imap:": "143",
    "pop:": "110",
    "ldap:": "389",
    "ldaps:": "636",
    "acap:": "674",
    "nfs:": "2049",
    "dict:": "2628",
    "rtsp:": "554",
    "rtsps:": "322",
    "ipp:": "631",
    "ipps:": "631",
    "coap:": "5683",
    "coaps:": "5684",
    "coap+tcp:": "5683",
    "coaps+tcp:": "5684",
    "coap+ws:": "80",
    "coaps+ws:": "443",
}
"""The ports that the schemes' own RFCs define (9110, 6455, 1738, 4266, 4248, 5538, 5092, 2384,
4516, 2244, 2224, 2229, 7826, 3510, 7472, 7252, 8323)."""

_NUMERIC = frozenset({"http:", "https:", "ws:", "wss:", "ftp:"})
"""Schemes of whose hosts browsers read numbers as an IPv4 address."""


def normal_uri(uri: str) -> str:
    """Normalize the case of scheme and host, escapes, dot segments, the default port, an empty
    user, slashes as browsers read them, and the host (see `host_spelling`)."""
    found = _PARTS.fullmatch(_SPECIAL.sub(_with_slashes, _ESCAPE.sub(_unescape, uri)))
    assert found is not None  # it matches any text
    scheme, authority, path, rest = (part or "" for part in found.groups())
    scheme = fold_dns(scheme)
    if scheme == "file:" and path.startswith("/") and authority.lower() in ("", "//localhost"):
        authority = "//"  # RFC 8089, 2 and appendix B: file:/a is file:///a
    if not authority:
        if scheme == "urn:" and rest.startswith(("?+", "?=", "#")):
            rest = ""  # no part of the name (RFC 8141, 3.2)
        if scheme in _ADDRESSES:
            rest = ""  # header fields of a message, no part of the address
        return scheme + _rootless(scheme, path) + rest
    user, _, host = authority[2:].rpartition("@")
    host = _host_and_port(host, scheme)
    user = user.removesuffix(":") and f"{user.removesuffix(':')}@"
    path = _without_dots(path)
    if rest and not path:
        path = "/"  # the path `/` equals an empty one (RFC 3986, 6.2.3)
    return f"{scheme}//{user}{host}{path}{rest}"


_SPECIAL = re.compile(r"\A((?:https?|wss?|ftp):)[/\\]*([^?#]+)", re.IGNORECASE)


def _with_slashes(found: re.Match[str]) -> str:
    r"""Return `https://host/a` for `https:\\host\a`, `https:/host/a` and so on (WHATWG URL, 4.4).

    An authority follows these schemes, whatever slashes are before it, and `\` is a slash there.
    """
    return f"{found[1]}//{found[2]}".replace("\\", "/")


def _rootless(scheme: str, path: str) -> str:
    """Normalize the rest of a URI without an authority."""
    if scheme == "urn:":
        return _urn(path)
    if scheme == "mailto:":
        return ",".join(map(normal_address, path.split(",")))
    if scheme in _USERS_AT_HOSTS:
        return _host_of_user(path, scheme)
    if scheme == "tel:":
        return _telephone(path)
    return _without_dots(path) if path.startswith("/") else path


_SIP = frozenset({"sip:", "sips:"})
_USERS_AT_HOSTS = frozenset({*_SIP, "xmpp:", "acct:", "im:", "pres:"})
"""Schemes of one address `user@host` (RFC 3261, 5122, 7565, 3860, 3859)."""

_ADDRESSES = frozenset({*_USERS_AT_HOSTS, "mailto:", "tel:"})


def _host_of_user(path: str, scheme: str) -> str:
    """Normalize the host behind the first `@`; remove SIP's parameters, which say how to reach it.

    A resource of XMPP stays as it is.
    """
    user, at, host = path.partition("@") if "@" in path else ("", "", path)
    if scheme in _SIP:
        host = host.partition(";")[0]
    host, slash, resource = host.partition("/")
    return f"{user}{at}{_host_and_port(host)}{slash}{resource}"


_SEPARATORS = str.maketrans("", "", "-.()")
_OF_A_NUMBER = ("ext=", "isub=", "phone-context=")
"""Parameters that are a part of a telephone number (RFC 3966, 3)."""


def _telephone(path: str) -> str:
    """Remove visual separators, and parameters that don't name another telephone (RFC 3966, 5)."""
    number, *parameters = path.lower().split(";")
    named = sorted(each for each in parameters if each.startswith(_OF_A_NUMBER))
    bare = [each.translate(_SEPARATORS) if each.startswith("ext=") else each for each in named]
    return ";".join([number.translate(_SEPARATORS), *bare])


_HOST_AND_PORT = re.compile(r"(\[[^\]]*\]|[^:]*)(?::([0-9]*))?")


def _host_and_port(text: str, scheme: str = "") -> str:
    """Normalize a host, and its port without leading zeros; the scheme's own port is removed."""
    found = _HOST_AND_PORT.fullmatch(text)
    if found is None:
        return fold_dns(text)
    host = normal_host(found[1])
    if scheme in _NUMERIC:
        host = ipv4_of_numbers(host)
    port = found[2] and (found[2].lstrip("0") or "0")
    return f"{host}:{port}" if port and port != _PORTS.get(scheme) else host


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

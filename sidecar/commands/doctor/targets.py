"""Find the addresses and files that a location leads to."""

from __future__ import annotations

import ipaddress
import re
import socket
from contextlib import suppress

from .nginx_config import Block, Root
from .variables import plain_variables, possible

PASSES = (
    "proxy_pass",
    "grpc_pass",
    "fastcgi_pass",
    "uwsgi_pass",
    "scgi_pass",
    "memcached_pass",
    "tunnel_pass",
)

_DEFAULT_PORTS = {"http": "80", "https": "443", "grpc": "80", "grpcs": "443"}
_LOOPBACK = {"localhost", "ip6-localhost", "ip6-loopback", "[::1]", "0.0.0.0", "[::]"}
"""What leads to 127.0.0.1, too."""
_NUMBERS = re.compile(r"(?:0x[0-9a-f]+|\d+)(?:\.(?:0x[0-9a-f]+|\d+)){0,3}")


def passes(location: Block) -> list[Block]:
    """Every `*_pass` of a location, also within `if` and `limit_except`."""
    return list(location.within(*PASSES))


def addresses(passing: Block, root: Root) -> set[str]:
    """The addresses that a `*_pass` leads to: the upstream's, if it names one.

    A variable stands for all that a `set`, `map`, `split_clients` or `geo` with constants gives
    it; what rests on another stays as it is written.
    """
    targets = possible(passing.args[0], passing.parent, root) if passing.args else set[str]()
    return {where for each in targets for where in addresses_of(each, passing, root)}


def addresses_of(target: str, passing: Block, root: Root) -> set[str]:
    """The addresses of one target that a `*_pass` may have."""
    scheme, found, rest = target.partition("://")
    rest = rest if found else target
    if rest.startswith("unix:"):
        return {_socket(":".join(rest.split(":")[:2]))}
    host = re.match(r"[^/$]*", rest)
    name = (host[0] if host else "").lower()
    if not name:
        return {target} - {""}
    around = passing.parent
    streaming = around is not None and around.parent is not None and around.parent.name == "stream"
    upstream = root.upstream(name, "stream" if streaming else "http")
    if upstream is not None:
        return {_address(each.args[0], "80") for each in upstream.own("server") if each.args}
    return {_address(name, _DEFAULT_PORTS.get(scheme, "") if found else "")}


def target_path(target: str) -> str | None:
    """The path that a `proxy_pass` has behind its address, "" for none; None with variables."""
    if "$" in target:
        return None
    rest = target.partition("://")[2]
    if rest.startswith("unix:"):
        return rest.split(":", 2)[2] if rest.count(":") > 1 else ""
    return "".join(rest.partition("/")[1:])


def is_address(target: str) -> bool:
    """Whether a target is an address alone, also one of variables, which may hold a URI."""
    bare = re.fullmatch(r"[^/]*://(?:[^/]+|unix:[^:]+)", target) is not None
    return bare or target_path(target) == ""


def led_to(location: Block, root: Root) -> set[str]:
    """All addresses that a location leads to."""
    return {where for each in passes(location) for where in addresses(each, root)}


def _address(text: str, port: str) -> str:
    if text.startswith("unix:"):
        return _socket(text)
    found = re.fullmatch(r"(\[[^]]*\]|[^:]*)(?::(\d+))?", text.lower())
    if found is None:
        return text.lower()
    host, port = one_host(found[1]), str(int(found[2])) if found[2] else port
    return ":".join(filter(None, ("127.0.0.1" if host in _LOOPBACK else host, port)))


def _socket(text: str) -> str:
    """A socket's path in one spelling: `unix:///run/x`, and /var/run, which is /run on Linux."""
    return re.sub(r"^unix:/var/run/", "unix:/run/", re.sub("/+", "/", text))


def is_local(address: str) -> bool:
    """Whether an address, with or without a port, is this machine's own."""
    own = r"unix:.*|(?:127\.[\d.]+|localhost|\[::1\])(?::\d+)?"
    return re.fullmatch(own, address) is not None


def one_host(host: str) -> str:
    """A host in one spelling: getaddrinfo(3) takes `127.1` and `::ffff:127.0.0.1` as well."""
    host = host.lower().rstrip(".")
    with suppress(ValueError, OSError):
        if host[:1] == "[":
            address = ipaddress.IPv6Address(host[1:-1])
            return str(address.ipv4_mapped or f"[{address}]")
        if _NUMBERS.fullmatch(host):
            return socket.inet_ntoa(socket.inet_aton(host))
    return host


def shown_by(place: Block) -> Block | None:
    """The `alias` or `root` by which files are shown in a place: the nearest one around."""
    found = (each.own("alias") or each.own("root") for each in place.around())
    return next((each[-1] for each in found if each), None)


def files(place: Block) -> set[str]:
    """The directory that a prefix location serves, with a slash at its end; none: it passes on.

    More than one where a `set` within an `if` decides.
    """
    shown = shown_by(place)
    if shown is None or passes(place) or place.args[:1] in (["="], ["~"], ["~*"]):
        return set()
    return {root + _below(shown, place) for root in file_roots(place)}


def directories(place: Block) -> set[str]:
    """The directory that a location or server shows files of; none: it shows none, or one file.

    Of a regular expression that is its whole `root`, or as much of an `alias` as is constant.
    """
    if place.args[:1] not in (["="], ["~"], ["~*"]):
        return files(place)
    if passes(place) or place.args[0] == "=" or ".well-known" in place.args[-1].replace("\\", ""):
        return set()
    paths = file_roots(place)
    return {e if "$" not in e else e.partition("$")[0].rpartition("/")[0] + "/" for e in paths}


def directories_of_one(place: Block) -> set[str]:
    """The directory of the one file that a `location = /x` shows; none: it passes on."""
    shown = shown_by(place)
    if passes(place) or shown is None:
        return set()
    paths = _shown(shown, place)
    if shown.parent is not place or shown.name != "alias":
        paths = {_slash(each) + _below(shown, place) for each in paths}
    return {each.rpartition("/")[0] + "/" for each in paths}


def _below(shown: Block, place: Block) -> str:
    """What of a location's prefix stands behind the directory: with `alias`, the rest of it."""
    prefix = place.args[-1] if place.name == "location" else "/"
    around = shown.parent
    if shown.name == "alias" and around is not None:
        prefix = prefix[len(around.args[-1]) :] if around.args[0] not in ("~", "~*") else ""
    return prefix.lstrip("/")


def file_roots(place: Block) -> set[str]:
    """The `alias` or `root` that holds in a location or server, with a slash at its end."""
    shown = shown_by(place)
    return set(map(_slash, _shown(shown, place))) if shown is not None else set()


def _shown(shown: Block, place: Block) -> set[str]:
    """What an `alias` or `root` may be in a place, by the variables that are set there."""
    return possible(shown.args[0], place)


def script_root(place: Block) -> str:
    """The directory of the scripts that FastCGI runs for a place, "" where it can't be told."""
    given = [e.args[1] for e in place.inherited("fastcgi_param") if e.args[0] == "SCRIPT_FILENAME"]
    path = plain_variables(given[-1]) if given else ""
    if found := re.match(r"\$(?:document|realpath)_root(?=[/$])", path):
        roots = [*file_roots(place)]
        path = roots[0] + path[found.end() :].lstrip("/") if len(roots) == 1 else ""
    return path.partition("$")[0].rpartition("/")[0] + "/" if path.startswith("/") else ""


def resolved(path: str) -> str:
    """A path as files and most applications read it: without `//`, `/./` and `x/../`."""
    path = re.sub(r"^(?:/\.\.)+(?=/)", "", re.sub(r"/(?:\.?/)+", "/", path))
    while (shorter := re.sub(r"/(?!\.\./)[^/$]+/\.\./", "/", path, count=1)) != path:
        path = shorter
    return path


def _slash(path: str) -> str:
    return resolved(path if path.endswith("/") else path + "/")

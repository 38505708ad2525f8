"""Check the location that serves the URI of `auth_request`, by which nginx asks the sidecar."""

from __future__ import annotations

import grp
import os
import pwd
import re
import stat

from sidecar.core.policy.model import Policy

from . import server_name
from .access import is_internal
from .findings import Finding
from .handed_down import handed_down
from .nginx_config import Block, Root
from .rewriting import condition_can_hold, makes_good, status_of
from .routing import REGEX, captures, serving
from .targets import addresses, passes, target_path
from .variables import (
    constant,
    filled,
    names,
    of_maps,
    plain_variables,
    resting_on,
    set_anywhere,
)

SNI = "SSL-Server-Name"
HEADERS = {
    "SSL-Client-Verify": "$ssl_client_verify",
    "SSL-Client-Cert": "$ssl_client_escaped_cert",
    "Host": "$host",
    "X-Original-URI": "$request_uri",
    "X-Original-Method": "$request_method",
    "X-Real-IP": "$remote_addr",
    "X-Request-ID": "$request_id",
}
"""What the auth location has to send, beside the server name."""

KEEP_ALIVE_BY_DEFAULT = (1, 29, 7)
"""The nginx from which on upstreams are asked by HTTP/1.1 and kept open unless told otherwise."""

_FAILURES = {"413", "500", "502", "503", "504"}
"""What the auth location answers by itself when the sidecar can't be asked."""

_CONTENT = ("root", "alias", "empty_gif", "stub_status", "autoindex", "index", "flv", "mp4")

_FINGERPRINT, _WHOLE = "$ssl_client_fingerprint", "$ssl_client_escaped_cert"
"""The certificate in the key of a cache: either tells it from every other of the CA."""

_PORT, _PORT_SOURCE = "$mtls_sidecar_origin_port", "$http_host"
"""The port that the client named; nginx's own is another one behind a mapped port."""
_ORIGIN = {
    "Origin": "$http_origin",
    "Sec-Fetch-Site": "$http_sec_fetch_site",
    "Sec-Fetch-Mode": "$http_sec_fetch_mode",
    "Sec-Fetch-Dest": "$http_sec_fetch_dest",
    "X-Original-Port": _PORT,
}
"""What tells the page of another site: where it is sent, an answer is for that page alone."""

_LIFETIME = {"x-accel-expires", "cache-control", "expires"}
"""Headers by which the sidecar says how long an answer may be kept."""


class AuthLocation:
    """One URI that `auth_request` names, and the location that asks the sidecar about it.

    `kept` holds the addresses of what is protected: none of them may answer the question.
    """

    def __init__(
        self,
        uri: str,
        here: Block,
        root: Root,
        kept: set[str],
        policy: Policy | None,
        findings: list[Finding],
        version: tuple[int, ...] | None = None,
    ) -> None:
        self._uri = uri
        self._here = here
        self._root = root
        self._kept = kept
        self._policy = policy
        self._findings = findings
        self._version = version
        self.untold = False
        """Whether the configuration doesn't tell what the sidecar is asked about."""

    def examine(self, asking: Block) -> str | None:
        """Everything about it; the name that is asked about, "" where the sidecar chooses.

        None: it isn't asked about any, or `untold`.
        """
        here = self._here
        self._answers(here)
        self._led_away(here)
        self._passes_on(here)
        self._headers(here)
        self._origin(here)
        self._server_name(here)
        self._connection(here)
        handed_down(here, asking, self._root, self._findings)
        name = self._name(here, asking)
        if here.value("proxy_cache", "off") != "off":
            self._cache(here, by_uri=name == "")
        return name

    def _add(self, id: str, at: Block, what: str, write: str) -> None:
        self._findings.append(Finding(id, at.file, at.line, what, write))

    # -- who answers

    def _answers(self, here: Block) -> None:
        for early in here.within("return"):
            if self._runs(early) and status_of(early) < 400:
                self._add(
                    "auth-location-returns",
                    early,
                    "`return` in the location that is to ask the sidecar",
                    "proxy_pass http://mtls_sidecar;",
                )
        if not is_internal(here):
            self._add("not-internal", here, "the auth location isn't internal", "internal;")
        for page in here.inherited("error_page"):
            if self._opens(page, here):
                self._add(
                    "error-page-open",
                    page,
                    f"error_page {' '.join(page.args)} reaches the auth location",
                    "error_page 599 /authz/;   (in the auth location)",
                )

    def _opens(self, page: Block, here: Block) -> bool:
        """Whether an error_page can make a 2xx of an answer that isn't the sidecar's."""
        codes = [word for word in page.args[:-1] if word.isdecimal()]
        own = {str(status_of(each)) for each in here.within("return")}
        intercepts = here.value("proxy_intercept_errors", "off") == "on"
        if not any(code in _FAILURES | own or (intercepts and code >= "300") for code in codes):
            return False
        if makes_good(page):
            return True
        return here.value("recursive_error_pages", "off") == "on" and self._opens_further(page)

    def _opens_further(self, page: Block) -> bool:
        """Whether the page's own location has an error_page that makes a 2xx of its errors."""
        server = next((each for each in page.around() if each.name == "server"), None)
        uri = page.args[-1]
        place = serving(server, uri) if server and uri.startswith(("/", "@")) else None
        return place is not None and any(map(makes_good, place.inherited("error_page")))

    def _led_away(self, here: Block) -> None:
        """Whatever answers the question in the sidecar's place."""
        for each in here.within("rewrite"):
            if self._runs(each) and not self._rewrites_to_a_name(each):
                self._elsewhere(each, "`rewrite` in the auth location changes the question")
        for each in here.own("try_files"):
            self._elsewhere(each, "`try_files` in the auth location leads to something else")
        for each in passes(here):
            shared = addresses(each, self._root) & self._kept
            if shared:
                where = ", ".join(sorted(shared))
                self._elsewhere(each, f"the question leads to {where}, which is to be protected")
        if not here.own("proxy_pass"):
            at = next((each for name in _CONTENT for each in here.own(name)), here)
            self._elsewhere(at, f"{self._uri} isn't passed to the sidecar")

    def _elsewhere(self, at: Block, what: str) -> None:
        self._add("no-auth-location", at, what, "include snippets/authz-location.conf;")

    def _runs(self, at: Block) -> bool:
        """Whether a directive can run for the question, by the `if` around it."""
        around = at.parent
        return around is None or around.name != "if" or condition_can_hold(around, self._uri)

    def _rewrites_to_a_name(self, rewrite: Block) -> bool:
        """Whether it only puts another constant name of the sidecar's into the question."""
        words = rewrite.args
        return words[2:] == ["break"] and re.fullmatch(r"/authz(/[\w-]+)?", words[1]) is not None

    def _name(self, here: Block, asking: Block) -> str | None:
        """What the sidecar is asked about: the auth_request's URI, as `proxy_pass` rewrites it."""
        passing = here.own("proxy_pass")
        uri: str | None = self._uri
        for each in here.own("rewrite"):
            if self._rewrites_to_a_name(each):
                uri = each.args[1]
        if passing and uri is not None:
            uri = question_uri(uri, here, passing[0].args[0], asking)
        if uri is None:
            self.untold = True
            return None
        if uri == "/authz":
            return ""
        name = uri.removeprefix("/authz/")
        if name == uri:
            where = passing[0] if passing else here
            self._add("wrong-uri", where, f"the sidecar is asked {uri}", _plain(where))
            return None
        if self._policy is not None and name not in self._policy.locations:
            self._add(
                "unknown-name",
                (asking.inherited("auth_request") or [asking])[-1],
                f"the policy has no location {name!r}",
                f"- {{name: {name}, allow: …}}   (in policy.yaml)",
            )
        return name

    # -- what is passed on

    def _passes_on(self, here: Block) -> None:
        for name, what in (
            ("proxy_pass_request_headers", "the client's own headers are passed on"),
            ("proxy_pass_request_body", "the client's body is passed on"),
        ):
            if here.value(name) != "off":
                self._add(name.replace("_", "-"), here, what, f"{name} off;")

    def _headers(self, here: Block) -> None:
        holding = here.inherited("proxy_set_header")
        for spelled, variable in HEADERS.items():
            line = f"proxy_set_header {spelled} {variable};"
            sent = [each for each in holding if each.args[0].lower() == spelled.lower()]
            if not sent:
                self._add("header-missing", here, f"{spelled} isn't sent", line)
            elif len(sent) > 1:
                self._add("header-twice", sent[-1], f"{spelled} is set twice", line)
            elif plain_variables(sent[0].args[1]) != variable:
                what = f"{spelled} is {sent[0].args[1]}, not {variable}"
                self._add("header-wrong", sent[0], what, line)

    def _origin(self, here: Block) -> None:
        """What `same_origin` asks about: without it every request is the application's own."""
        places = self._policy.locations.values() if self._policy else ()
        if places and not any(each.same_origin and not each.public for each in places):
            return
        if here.value("proxy_pass_request_headers") != "off":
            return  # the client's own arrive
        sent: dict[str, list[Block]] = {}
        for each in here.inherited("proxy_set_header"):
            sent.setdefault(each.args[0].lower(), []).append(each)
        lacking = [each for each in _ORIGIN if each.lower() not in sent]
        if lacking:
            write = " ".join(f"proxy_set_header {each} {_ORIGIN[each]};" for each in lacking)
            self._add("origin-missing", here, f"{', '.join(lacking)}: not sent", write)
        for spelled, variable in _ORIGIN.items():
            found = sent.get(spelled.lower(), [])
            line = f"proxy_set_header {spelled} {variable};"
            if len(found) > 1:
                self._add("header-twice", found[-1], f"{spelled} is set twice", line)
            elif found and not self._tells(found[0].args[1], variable):
                what = f"{spelled} is {found[0].args[1] or 'empty'}, not {variable}"
                self._add("origin-missing", found[0], what, line)

    def _tells(self, value: str, variable: str) -> bool:
        """Whether a value is this variable, or one that a `map` or `set` makes of its source."""
        value, root = plain_variables(value), self._root
        source = _PORT_SOURCE if variable == _PORT else variable
        if value == variable or names(value) != [value]:
            return value == variable
        made = resting_on(value, lambda name: [*set_anywhere(name, root), *of_maps(name, root)])
        return source in made

    def _server_name(self, here: Block) -> None:
        """The one header whose value the client writes: by a strict map, behind all others."""
        holding = here.inherited("proxy_set_header")
        for each in holding:
            if server_name.is_raw(each.args[1], self._root):
                what = f"{each.args[0]} is {each.args[1]}, where a client may write line ends"
                self._add("sni-raw", each, what, server_name.WRITE)
        sent = [each for each in holding if each.args[0].lower() == SNI.lower()]
        if not sent:
            self._add("header-missing", here, f"{SNI} isn't sent", server_name.WRITE)
            return
        if len(sent) > 1:
            self._add("header-twice", sent[-1], f"{SNI} is set twice", server_name.WRITE)
        value = plain_variables(sent[-1].args[1])
        if not server_name.is_raw(value, self._root) and not server_name.is_strict_map(
            value, self._root
        ):
            what = f"{SNI} is {sent[-1].args[1]}, not the client's server name"
            self._add("header-wrong", sent[-1], what, server_name.WRITE)
        if holding[-1] is not sent[-1]:
            what = f"{SNI} stands before {holding[-1].args[0]}"
            self._add("sni-not-last", sent[-1], what, server_name.WRITE)

    # -- the connection

    def _connection(self, here: Block) -> None:
        name = here.value("proxy_pass").partition("://")[2].partition("/")[0]
        upstream = self._root.upstream(name)
        modern = self._version is not None and self._version >= KEEP_ALIVE_BY_DEFAULT
        keepalive = upstream.own("keepalive") if upstream is not None else []
        if upstream is None or (not keepalive and not modern) or _is_zero(keepalive):
            self._add(
                "no-keepalive",
                upstream or here,
                "no upstream with keepalive",
                "upstream mtls_sidecar { …; keepalive 32; }",
            )
        for server in upstream.own("server") if upstream is not None else ():
            self._socket(server)
        if here.value("proxy_http_version", "1.1" if modern else "1.0") == "1.0":
            self._add("no-http11", here, "HTTP/1.1 isn't asked for", "proxy_http_version 1.1;")
        connection = [
            each.args[1]
            for each in here.inherited("proxy_set_header")
            if each.args[0].lower() == "connection"
        ]
        if connection != [""] and (connection or not modern):
            self._add(
                "connection-close",
                here,
                "Connection isn't cleared",
                'proxy_set_header Connection "";',
            )

    def _socket(self, server: Block) -> None:
        path = server.args[0].removeprefix("unix:")
        user = self._root.value("user", "nobody").split()[0]
        if path != server.args[0] and not _may_write(path, user):
            self._add(
                "socket-closed",
                server,
                f"nginx's user {user} may not open {path}",
                f"SocketGroup={_group(user)}   (systemctl edit mtls-sidecar.socket; without "
                "systemd socket_group: in sidecar.yaml)",
            )

    # -- the cache of answers

    def _cache(self, here: Block, *, by_uri: bool) -> None:
        key = set(names(here.value("proxy_cache_key", "$scheme$proxy_host$request_uri")))
        sent = here.inherited("proxy_set_header")
        told = [each.args[1] for each in sent if each.args[0].lower() == SNI.lower()]
        if key & {*map(plain_variables, told), server_name.RAW}:
            key.add("$mtls_sidecar_sni")
        if _WHOLE in key:
            key.add(_FINGERPRINT)
        spelled = {each.args[0].lower() for each in sent}
        needed = self._key_needs(by_uri) + [
            variable for header, variable in _ORIGIN.items() if header.lower() in spelled
        ]
        lacking = [each for each in (*needed, "$uri") if each not in key]
        if lacking:
            at = here.inherited("proxy_cache_key") or [here]
            what = f"the key of the cache of answers lacks {' '.join(lacking)}"
            write = f'proxy_cache_key "{"|".join([*needed, "$uri"])}";'
            self._add("cache-key", at[-1], what, write)
        for directive in ("proxy_cache_use_stale", "proxy_cache_background_update"):
            for each in here.inherited(directive):
                if each.args[0] != "off":
                    what = f"{directive} {' '.join(each.args)} holds for answers"
                    self._add(
                        "cache-stale", each, what, f"{directive} off;   (in the auth location)"
                    )
        for each in here.inherited("proxy_ignore_headers"):
            ignored = sorted(_LIFETIME & set(each.args))
            if ignored:
                what = f"{', '.join(ignored)} of answers is ignored"
                write = "proxy_ignore_headers X-Accel-Redirect;   (in the auth location)"
                self._add("cache-longer", each, what, write)

    def _key_needs(self, by_uri: bool) -> list[str]:
        needed = ["$ssl_client_verify", _FINGERPRINT, "$host", "$mtls_sidecar_sni"]
        places = self._policy.locations.values() if self._policy else ()
        if any(place.uses_method for place in places):
            needed.append("$request_method")
        if any(place.uses_client_ip for place in places):
            needed.append("$remote_addr")
        return [*needed, "$request_uri"] if by_uri else needed


def question_uri(uri: str, here: Block, target: str, asking: Block | None = None) -> str | None:
    """The URI that `proxy_pass` sends (ngx_http_proxy_create_request); None: it can't be told.

    With variables it is what stands there, or where that is an address alone, the URI itself.
    """
    path = target_path(target)
    if path is None:
        path = target_path(_filled(constant(target, here), uri, here, asking))
        return None if path is None else path or uri
    if not path or here.args[0] in REGEX:
        return uri
    return path + uri[len(here.args[-1]) :]


def _filled(target: str, uri: str, here: Block, asking: Block | None) -> str:
    """A target with what a `set` or the location's expression gives its variables for this URI."""
    given = {"uri": uri, "document_uri": uri}
    if here.args[0] in REGEX:
        given |= captures(here.args[-1], uri, ignore_case=here.args[0] == "~*") or {}
    return filled(constant(target, asking), given)


def _plain(passing: Block) -> str:
    target = passing.args[0] if passing.name == "proxy_pass" else "http://mtls_sidecar"
    scheme, _, rest = target.partition("://")
    return f"proxy_pass {scheme}://{rest.partition('/')[0]};"


def _is_zero(keepalive: list[Block]) -> bool:
    return bool(keepalive) and keepalive[-1].args[:1] == ["0"]


def _group(user: str) -> str:
    """The name of a user's own group; the user's where that can't be told."""
    try:
        return grp.getgrgid(pwd.getpwnam(user).pw_gid).gr_name
    except KeyError:
        return user


def _may_write(path: str, user: str) -> bool:
    """Whether a user may open a socket; true where that can't be told."""
    try:
        found, account = os.stat(path), pwd.getpwnam(user)
        groups = os.getgrouplist(user, account.pw_gid)
    except (OSError, KeyError):
        return True
    if account.pw_uid in (0, found.st_uid):
        return account.pw_uid == 0 or bool(found.st_mode & stat.S_IWUSR)
    group = stat.S_IWGRP if found.st_gid in groups else stat.S_IWOTH
    return bool(found.st_mode & group)

"""How nginx asks the sidecar: the location that serves `auth_request`'s URI."""

from __future__ import annotations

import os
import pwd
import re
import stat

from sidecar.core.policy.compile import Policy

from .findings import Finding
from .nginx_config import REGEX, Block

HEADERS = {
    "SSL-Client-Verify": "$ssl_client_verify",
    "SSL-Client-Cert": "$ssl_client_escaped_cert",
    "Host": "$host",
    "X-Original-URI": "$request_uri",
    "X-Original-Method": "$request_method",
    "X-Real-IP": "$remote_addr",
    "X-Request-ID": "$request_id",
    "SSL-Server-Name": "$mtls_sidecar_sni",
}
"""What the auth location has to send."""

_FINGERPRINT, _WHOLE = "$ssl_client_fingerprint", "$ssl_client_escaped_cert"
"""The certificate in the key of a cache: either tells it from every other of the CA."""

_LIFETIME = {"x-accel-expires", "cache-control", "expires"}
"""Headers by which the sidecar says how long an answer may be kept."""


class AuthLocation:
    """One URI that `auth_request` names, and the location that serves it, if any."""

    def __init__(
        self,
        uri: str,
        here: Block | None,
        root: Block,
        policy: Policy | None,
        findings: list[Finding],
    ) -> None:
        self._uri = uri
        self._here = here
        self._root = root
        self._policy = policy
        self._findings = findings

    def examine(self, asking: Block) -> str | None:
        """Everything about it; the name that is asked about, "" where the sidecar chooses."""
        here = self._here
        if here is None or here is asking:
            self._add(
                "no-auth-location",
                asking,
                f"no location of its own serves {self._uri}",
                "include snippets/authz-location.conf;",
            )
            return None
        self._answers(here)
        self._passes_on(here)
        self._headers(here)
        self._connection(here)
        name = self._name(here, asking)
        if here.value("proxy_cache", "off") != "off":
            self._cache(here, by_uri=name == "")
        return name

    def _add(self, id: str, at: Block, what: str, write: str) -> None:
        self._findings.append(Finding(id, at.file, at.line, what, write))

    # -- who answers

    def _answers(self, here: Block) -> None:
        for early in (*here.own("return"), *returns_in_ifs(here)):
            self._add(
                "auth-location-returns",
                early,
                "`return` in the location that is to ask the sidecar",
                "proxy_pass http://mtls_sidecar;",
            )
        if not here.own("internal"):
            self._add("not-internal", here, "the auth location isn't internal", "internal;")
        for page in here.inherited("error_page"):
            if any(re.fullmatch("=(2..)?", word) for word in page.args):
                self._add(
                    "error-page-open",
                    page,
                    f"error_page {' '.join(page.args)} reaches the auth location",
                    "error_page 599 /authz/;   (in the auth location)",
                )

    def _name(self, here: Block, asking: Block) -> str | None:
        """What the sidecar is asked about: the auth_request's URI, as `proxy_pass` rewrites it."""
        passing = here.own("proxy_pass")
        uri = _rewritten(self._uri, here, passing[0].args[0]) if passing else self._uri
        if uri is None:
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
            elif re.sub(r"\$\{(\w+)\}", r"$\1", sent[0].args[1]) != variable:
                what = f"{spelled} is {sent[0].args[1]}, not {variable}"
                self._add("header-wrong", sent[0], what, line)

    # -- the connection

    def _connection(self, here: Block) -> None:
        name = here.value("proxy_pass").partition("://")[2].partition("/")[0]
        upstreams = {each.args[0]: each for each in self._root.all("upstream")}
        upstream = upstreams.get(name)
        if upstream is None or not upstream.own("keepalive"):
            self._add(
                "no-keepalive",
                upstream or here,
                "no upstream with keepalive",
                "upstream mtls_sidecar { …; keepalive 32; }",
            )
        for server in upstream.own("server") if upstream is not None else ():
            self._socket(server)
        if here.value("proxy_http_version") != "1.1":
            self._add("no-http11", here, "HTTP/1.1 isn't asked for", "proxy_http_version 1.1;")
        connection = [
            each
            for each in here.inherited("proxy_set_header")
            if each.args[0].lower() == "connection"
        ]
        if not any(each.args[1] == "" for each in connection):
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
                "socket_group: GROUP   (nginx's, in sidecar.yaml)",
            )

    # -- the cache of answers

    def _cache(self, here: Block, *, by_uri: bool) -> None:
        key = here.value("proxy_cache_key", "$scheme$proxy_host$request_uri")
        key = key.replace(_WHOLE, _FINGERPRINT).replace("$ssl_server_name", "$mtls_sidecar_sni")
        needed = self._key_needs(by_uri)
        lacking = [v for v in (*needed, "$uri") if not re.search(re.escape(v) + r"(?![a-z_])", key)]
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
            ignored = sorted(_LIFETIME & set(map(str.lower, each.args)))
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


def returns_in_ifs(location: Block) -> list[Block]:
    """`return`s of an `if` right in a location: they run before auth_request as well.

    Those that refuse (4xx, 5xx) let nobody in.
    """
    found = (early for each in location.own("if") for early in each.own("return"))
    return [early for early in found if not re.match("[45]..", early.args[0])]


def _rewritten(uri: str, here: Block, target: str) -> str | None:
    """The URI that `proxy_pass` sends (ngx_http_proxy_create_request); None: it can't be told."""
    if "$" in target:
        return None
    rest = target.partition("://")[2]
    if rest.startswith("unix:"):
        path = rest.split(":", 2)[2] if rest.count(":") > 1 else ""
    else:
        path = "".join(rest.partition("/")[1:])
    if not path or here.args[0] in REGEX:
        return uri
    return path + uri[len(here.args[-1]) :]


def _plain(passing: Block) -> str:
    target = passing.args[0] if passing.name == "proxy_pass" else "http://mtls_sidecar"
    scheme, _, rest = target.partition("://")
    return f"proxy_pass {scheme}://{rest.partition('/')[0]};"


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

"""`doctor`: reads nginx's real configuration and says what lets someone past or locks everyone out.

It knows nginx's rules of inheritance as far as the checks below need them: `auth_request` and
`proxy_pass_request_headers` come from the enclosing block unless set; `proxy_set_header` comes from
there only where a block sets none of its own.  It doesn't see variables' values, maps or njs.
"""

from __future__ import annotations

import json
import os
import pwd
import re
import stat
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import crossplane

from ..core.policy import Policy

HEADERS = {
    "ssl-client-verify": "$ssl_client_verify",
    "ssl-client-cert": "$ssl_client_escaped_cert",
    "host": "$host",
    "ssl-server-name": "$ssl_server_name",
    "x-original-uri": "$request_uri",
    "x-original-method": "$request_method",
    "x-real-ip": "$remote_addr",
    "x-request-id": "$request_id",
}
"""What the auth location has to send."""

SPELLED = {
    "ssl-client-verify": "SSL-Client-Verify",
    "ssl-client-cert": "SSL-Client-Cert",
    "host": "Host",
    "ssl-server-name": "SSL-Server-Name",
    "x-original-uri": "X-Original-URI",
    "x-original-method": "X-Original-Method",
    "x-real-ip": "X-Real-IP",
    "x-request-id": "X-Request-ID",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing to mend: a short stable `id`, where, what and why, and the line to write."""

    id: str
    file: str
    line: int
    what: str
    write: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: [{self.id}] {self.what}; write: {self.write}"


@dataclass(slots=True, eq=False)
class Block:
    """One directive, and the directives in it."""

    name: str
    args: list[str]
    file: str
    line: int
    parent: Block | None = None
    inner: list[Block] = field(default_factory=list)

    def own(self, name: str) -> list[Block]:
        """Directives of this name that stand right in this block."""
        return [each for each in self.inner if each.name == name]

    def inherited(self, name: str) -> list[Block]:
        """Directives of this name that hold here: the nearest block's that has any."""
        here: Block | None = self
        while here is not None:
            if found := here.own(name):
                return found
            here = here.parent
        return []

    def value(self, name: str, default: str = "") -> str:
        """The arguments of the directive that holds here, joined."""
        found = self.inherited(name)
        return " ".join(found[-1].args) if found else default

    def all(self, name: str) -> Iterator[Block]:
        """Every block of this name below."""
        for each in self.inner:
            if each.name == name:
                yield each
            yield from each.all(name)


def read_nginx(path: Path) -> Block:
    """The configuration with its includes in place.  Raises ValueError where it can't be read."""
    found = crossplane.parse(str(path), combine=True, catch_errors=True)
    if found["status"] != "ok":
        told = "; ".join(f"{e.get('file')}: {e['error']}" for e in found["errors"])
        raise ValueError(f"nginx's configuration can't be read: {told}")
    root = Block("", [], str(path), 0)
    for config in found["config"]:
        root.inner += [_block(each, root) for each in config["parsed"]]
    return root


def _block(given: dict[str, Any], parent: Block) -> Block:
    block = Block(given["directive"], given["args"], given["file"], given["line"], parent)
    block.inner = [_block(each, block) for each in given.get("block", ())]
    return block


class Doctor:
    """Examines one configuration beside one policy (None: it can't be read)."""

    def __init__(self, root: Block, policy: Policy | None) -> None:
        self._root = root
        self._policy = policy
        self.findings: list[Finding] = []

    def examine(self) -> list[Finding]:
        """Every finding, in the files' order."""
        asked: set[str] = set()
        for server in self._root.all("server"):
            if server.parent is not None and server.parent.name == "http":
                asked |= self._server(server)
        if self._policy is not None and asked:
            self._names(asked)
        unique = dict.fromkeys(self.findings)
        return sorted(unique, key=lambda f: (f.file, f.line, f.id))

    def _add(self, id: str, at: Block, what: str, write: str) -> None:
        self.findings.append(Finding(id, at.file, at.line, what, write))

    # -- servers and locations

    def _server(self, server: Block) -> set[str]:
        """Examine a server; the authorization URIs that it asks."""
        locations = list(server.all("location"))
        asking = [each for each in (server, *locations) if _asks(each)]
        if not asking:
            return set()
        self._certificates(server, asking[0])
        uris = set()
        serving = {_serving(locations, each.value("auth_request")) for each in asking}
        for location in locations:
            if location not in serving or _asks(location):
                self._location(location)
        for here in asking:
            uri = here.value("auth_request")
            uris.add(uri)
            self._auth_location(server, locations, uri, here)
        return uris

    def _certificates(self, server: Block, asking: Block) -> None:
        tls = any("ssl" in listen.args for listen in server.own("listen"))
        verify = server.value("ssl_verify_client", "off")
        if tls and verify == "off":
            self._add(
                "no-verify",
                server,
                "nginx asks for no client certificate here, so everybody is denied",
                "ssl_verify_client optional;",
            )
        if verify in ("on", "optional") and not server.inherited("ssl_client_certificate"):
            self._add(
                "no-ca",
                server,
                "nginx has no CA to verify client certificates by",
                "ssl_client_certificate /etc/nginx/pki/ca.crt;",
            )
        trusts = self._policy.trusts.values() if self._policy else ()
        if (
            verify == "optional_no_ca"
            and self._policy
            and not any(t.sidecar_verifies for t in trusts)
        ):
            self._add(
                "no-ca-no-trust",
                server,
                "optional_no_ca forgives any issuer, and no trust of the policy verifies the chain",
                "verify: sidecar   (in policy.yaml), or ssl_verify_client optional;",
            )

    def _location(self, location: Block) -> None:
        if location.args[-1].startswith("@"):
            return
        if location.own("internal") or _denies_all(location):
            return
        returns = location.own("return")
        if _asks(location):
            for early in (*returns, *_returns_in_ifs(location)):
                self._add(
                    "return-first",
                    early,
                    "`return` runs before auth_request and goes round it",
                    "try_files or proxy_pass in its place",
                )
            if location.value("satisfy") == "any":
                self._add(
                    "satisfy-any",
                    location,
                    "with `satisfy any` an allow or a password lets in whom the sidecar denies",
                    "satisfy all;",
                )
        elif not location.inherited("auth_request") and not returns:
            self._add(
                "not-asked",
                location,
                "nobody is asked here, while other locations of this server ask",
                "auth_request /authz/NAME;  or, if it is meant to be open: auth_request off;",
            )

    # -- the auth location

    def _auth_location(
        self, server: Block, locations: list[Block], uri: str, asking: Block
    ) -> None:
        here = _serving(locations, uri)
        if here is None or here is asking:
            self._add(
                "no-auth-location",
                asking,
                f"no location of its own serves {uri}",
                "include mtls-sidecar/authz-location.conf;",
            )
            return
        for early in (*here.own("return"), *_returns_in_ifs(here)):
            self._add(
                "auth-location-returns",
                early,
                "nginx answers its own question here; a 2xx lets everybody in",
                "proxy_pass http://mtls_sidecar;",
            )
        if not here.own("internal"):
            self._add("not-internal", here, "clients may ask the sidecar themselves", "internal;")
        for name, good, what in (
            ("proxy_pass_request_headers", "off", "the client's own headers are passed on"),
            ("proxy_pass_request_body", "off", "the body is passed on and breaks the connection"),
        ):
            if here.value(name) != good:
                self._add(name.replace("_", "-"), here, what, f"{name} {good};")
        for page in here.inherited("error_page"):
            if any(re.fullmatch("=(2..)?", word) for word in page.args):
                self._add(
                    "error-page-open",
                    page,
                    "it holds in the auth location too, where a 200 means allow",
                    "error_page 599 /authz/;   (in the auth location)",
                )
        self._headers(here)
        self._keepalive(here)
        self._cache(here, uri)

    def _headers(self, here: Block) -> None:
        sent = {d.args[0].lower(): d for d in here.inherited("proxy_set_header")}
        for name, variable in HEADERS.items():
            line = f"proxy_set_header {SPELLED[name]} {variable};"
            found = sent.get(name)
            if found is None:
                self._add("header-missing", here, f"{SPELLED[name]} isn't sent", line)
            elif re.sub(r"\$\{(\w+)\}", r"$\1", found.args[1]) != variable:
                what = f"{SPELLED[name]} is {found.args[1]}, not {variable}"
                self._add("header-wrong", found, what, line)

    def _keepalive(self, here: Block) -> None:
        name = here.value("proxy_pass").partition("://")[2].partition("/")[0]
        upstreams = {u.args[0]: u for u in self._root.all("upstream")}
        if name not in upstreams or not upstreams[name].own("keepalive"):
            self._add(
                "no-keepalive",
                upstreams.get(name, here),
                "every decision costs a new connection",
                "upstream … { …; keepalive 32; }",
            )
        for server in upstreams[name].own("server") if name in upstreams else ():
            path = server.args[0].removeprefix("unix:")
            user = self._root.value("user", "nobody").split()[0]
            if path != server.args[0] and not _may_write(path, user):
                self._add(
                    "socket-closed",
                    server,
                    f"nginx's user {user} may not open {path}, so everybody is denied",
                    "socket_group: GROUP   (nginx's, in sidecar.yaml)",
                )
        if here.value("proxy_http_version") != "1.1":
            self._add("no-http11", here, "connections aren't kept", "proxy_http_version 1.1;")

    def _cache(self, here: Block, uri: str) -> None:
        if here.value("proxy_cache", "off") == "off":
            return
        key = here.value("proxy_cache_key", "$scheme$proxy_host$request_uri")
        needed = ["$ssl_client_verify", "$ssl_client_escaped_cert", "$host", "$ssl_server_name"]
        policy = self._policy
        places = policy.locations.values() if policy else ()
        if any(place.uses_method for place in places):
            needed.append("$request_method")
        if any(place.uses_client_ip for place in places):
            needed.append("$remote_addr")
        if uri == "/authz":  # the sidecar chooses by the client's URI
            needed.append("$request_uri")
        lacking = [v for v in needed if not re.search(re.escape(v) + r"(?![a-z_])", key)]
        if not re.search(r"\$uri(?![a-z_])", key):
            lacking.append("$uri")
        if lacking:
            at = here.inherited("proxy_cache_key") or [here]
            what = f"one client's answer serves another: the cache's key lacks {' '.join(lacking)}"
            self._add("cache-key", at[-1], what, f"proxy_cache_key {' '.join([*needed, '$uri'])};")

    # -- the policy's names

    def _names(self, asked: set[str]) -> None:
        assert self._policy is not None
        for request in self._root.all("auth_request"):
            uri = request.args[0]
            name = uri.removeprefix("/authz/")
            if uri.startswith("/authz/") and name not in self._policy.locations:
                self._add(
                    "unknown-name",
                    request,
                    f"the policy has no location {name!r}: everybody is denied",
                    f"- {{name: {name}, allow: …}}   (in policy.yaml)",
                )
        by_uri = set(self._policy.chooser.names) if "/authz" in asked else set()
        for name in self._policy.locations:
            if f"/authz/{name}" not in asked and name not in by_uri:
                self._add(
                    "never-asked",
                    self._root,
                    f"nginx never asks about the policy's location {name!r}",
                    f"auth_request /authz/{name};  or remove it from the policy",
                )


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


def _asks(block: Block) -> bool:
    """Whether the sidecar is asked here; within its own subrequest nginx never asks."""
    return not block.own("internal") and block.value("auth_request", "off") != "off"


def _denies_all(location: Block) -> bool:
    """Whether nginx itself lets nobody in: a `deny all` without an `allow`."""
    return any(deny.args == ["all"] for deny in location.own("deny")) and not location.own("allow")


def _returns_in_ifs(location: Block) -> list[Block]:
    """`return`s of an `if` right in a location: they run before auth_request as well.

    Those that refuse (4xx, 5xx) let nobody in.
    """
    found = (early for each in location.own("if") for early in each.own("return"))
    return [early for early in found if not re.match("[45]..", early.args[0])]


def _serving(locations: list[Block], uri: str) -> Block | None:
    """The location that serves an authorization URI: exact, else the longest prefix."""
    exact = [each for each in locations if each.args == ["=", uri]]
    prefixes = [
        each
        for each in locations
        if each.args[0] not in ("=", "~", "~*") and uri.startswith(each.args[-1])
    ]
    longest = max(prefixes, key=lambda each: len(each.args[-1]), default=None)
    return exact[0] if exact else longest


def as_json(findings: list[Finding]) -> str:
    """The findings for programs."""
    return json.dumps([asdict(each) for each in findings], indent=2)

"""`doctor`: reads nginx's real configuration and says what lets someone past or locks everyone out.

Here are servers and locations: who is asked, who isn't, and what the application is told.
`auth_location` looks at how the sidecar is asked.
"""

from __future__ import annotations

import re
from itertools import combinations

from sidecar.core.policy.compile import Policy

from .auth_location import AuthLocation, returns_in_ifs
from .findings import Finding
from .nginx_config import Block, serving

PASSES = ("proxy_pass", "grpc_pass", "fastcgi_pass", "uwsgi_pass", "scgi_pass")
DENIALS = {"401", "403", "500"}
"""What auth_request makes of a denial, and of no answer (ngx_http_auth_request_handler)."""

ANSWERED = "$upstream_http_"
CLIENTS = ("$http_", "$arg_", "$cookie_")
"""Variables that hold what the client says."""


def examine(root: Block, policy: Policy | None) -> list[Finding]:
    """Every finding, in the files' order.  `policy` is None where it can't be read."""
    findings: list[Finding] = []
    servers = [
        Server(each, root, policy, findings)
        for each in root.all("server")
        if each.parent is not None and each.parent.name == "http"
    ]
    asking = [each for each in servers if each.asking]
    for server in asking:
        server.examine()
    for server in servers:
        if not server.asking:
            server.examine_open(asking)
    _sessions(asking, policy, findings)
    _identity(servers, findings)
    if policy is not None and asking:
        _never_asked(root, policy, {name for each in asking for name in each.asked}, findings)
    return sorted(dict.fromkeys(findings), key=lambda f: (f.file, f.line, f.id))


class Server:
    """One server { }, its locations, and what is asked there."""

    def __init__(
        self, block: Block, root: Block, policy: Policy | None, findings: list[Finding]
    ) -> None:
        self.block = block
        self.locations = list(block.all("location"))
        self.asking = [each for each in (block, *self.locations) if _asks(each)]
        self.asked: set[str] = set()
        """Names of the policy that are asked about; "" where the sidecar chooses."""
        self._root = root
        self._policy = policy
        self._findings = findings

    def examine(self) -> None:
        """A server that asks: its certificates, its locations, and how it asks."""
        questions = {each.value("auth_request") for each in self.asking}
        places = {uri: serving(self.block, uri) for uri in questions}
        for location in self.locations:
            if location not in places.values() or _asks(location):
                self._location(location)
        for here in self.asking:
            uri = here.value("auth_request")
            place = AuthLocation(uri, places[uri], self._root, self._policy, self._findings)
            name = place.examine(here)
            if name is not None:
                self.asked.add(name)
            self._error_pages(here)
        self._certificates()

    def examine_open(self, asking: list[Server]) -> None:
        """A server that never asks, beside those that do: it must not lead to the same place."""
        kept = {pass_to: other for other in asking for pass_to in other.passed()}
        for location in (self.block, *self.locations):
            if _closed(location) or location.value("auth_request") == "off":
                continue
            for each in _passes(location):
                other = kept.get(_target(each))
                if other is not None:
                    listen = f"the server of line {other.block.line}"
                    self._add(
                        "never-asks",
                        each,
                        f"nobody is asked on the way to {_target(each)}, which {listen} keeps",
                        "auth_request /authz/NAME;  or, if it is meant to be open: "
                        "auth_request off;",
                    )

    def passed(self) -> set[str]:
        """Where requests go to that were asked about."""
        return {_target(each) for location in self.asking for each in _passes(location)}

    def _add(self, id: str, at: Block, what: str, write: str) -> None:
        self._findings.append(Finding(id, at.file, at.line, what, write))

    # -- certificates

    def _certificates(self) -> None:
        server = self.block
        tls = any({"ssl", "quic"} & set(listen.args) for listen in server.own("listen"))
        verify = server.value("ssl_verify_client", "off")
        if tls and verify == "off":
            self._add(
                "no-verify", server, "ssl_verify_client is off here", "ssl_verify_client optional;"
            )
        anchors = ("ssl_client_certificate", "ssl_trusted_certificate")
        if verify in ("on", "optional") and not any(map(server.inherited, anchors)):
            self._add(
                "no-ca",
                server,
                "no ssl_client_certificate holds here",
                "ssl_client_certificate /etc/nginx/pki/ca.crt;",
            )
        if verify == "optional_no_ca" and self._policy is not None:
            for name in sorted(self.asked):
                self._forgiven(name)

    def _forgiven(self, name: str) -> None:
        assert self._policy is not None
        place = self._policy.locations.get(name)
        trusts = place.trusts if place is not None else tuple(self._policy.trusts.values())
        if not any(trust.sidecar_verifies for trust in trusts):
            self._add(
                "no-ca-no-trust",
                self.block,
                f"optional_no_ca, and no trust of {name or 'the policy'!r} verifies chains",
                "verify: sidecar   (in policy.yaml), or ssl_verify_client optional;",
            )

    # -- locations

    def _location(self, location: Block) -> None:
        if location.args[-1].startswith("@") or location.own("internal") or _closed(location):
            return
        returns = location.own("return")
        if _asks(location):
            for early in (*returns, *returns_in_ifs(location)):
                self._add(
                    "return-first",
                    early,
                    "`return` where the sidecar is to be asked",
                    "try_files or proxy_pass in its place",
                )
            if location.value("satisfy") == "any":
                self._add("satisfy-any", location, "`satisfy any` holds here", "satisfy all;")
        elif not location.inherited("auth_request") and not returns:
            self._add(
                "not-asked",
                location,
                "nobody is asked here, while other locations of this server ask",
                "auth_request /authz/NAME;  or, if it is meant to be open: auth_request off;",
            )

    def _error_pages(self, here: Block) -> None:
        """Where a denial leads: to a location that isn't asked about, and not to what is kept."""
        for page in here.inherited("error_page"):
            uri = page.args[-1]
            if not uri.startswith(("/", "@")) or not DENIALS & set(page.args[:-1]):
                continue
            place = serving(self.block, uri) or self.block
            if place.value("auth_request", "off") != "off":
                self._add(
                    "error-page-asks",
                    page,
                    f"{uri} is served by a location that asks",
                    f"location = {uri} {{ internal; auth_request off; … }}",
                )
            elif passes := [each for each in _passes(place) if _target(each) in self.passed()]:
                self._add(
                    "denial-passed-on",
                    page,
                    f"{uri} leads to {_target(passes[0])}, which asking is to keep",
                    f"location {uri} {{ internal; return 403; }}",
                )


# -- the application


def _identity(servers: list[Server], findings: list[Finding]) -> None:
    """Headers that a server tells an application by whom it is used must be nginx's throughout."""
    kept = {target for each in servers for target in each.passed()}
    for server in servers:
        told = _identity_headers(server)
        for location in (server.block, *server.locations):
            passes = [each for each in location.own("proxy_pass") if _target(each) in kept]
            if not passes or location.own("internal") or _closed(location):
                continue
            sent = {d.args[0].lower(): d for d in location.inherited("proxy_set_header")}
            passed_on = location.value("proxy_pass_request_headers", "on") == "on"
            for name, line in told.items():
                found = sent.get(name.lower())
                if found is None and passed_on:
                    what = f"{name} isn't set here, as it is elsewhere"
                    findings.append(
                        Finding("identity-lost", passes[0].file, passes[0].line, what, line)
                    )
                elif found is not None and found.args[1].startswith(CLIENTS):
                    what = f"{name} is {found.args[1]}"
                    findings.append(
                        Finding("identity-from-client", found.file, found.line, what, line)
                    )


def _identity_headers(server: Server) -> dict[str, str]:
    """Each header that a server sets from the sidecar's answer, with the line that does."""
    found: dict[str, str] = {}
    for location in (server.block, *server.locations):
        answered = {
            each.args[0]
            for each in location.inherited("auth_request_set")
            if each.args[1].startswith(ANSWERED)
        }
        for each in location.inherited("proxy_set_header"):
            name, value = each.args[0], re.sub(r"\$\{(\w+)\}", r"$\1", each.args[1])
            if value in answered:
                found.setdefault(name, f"proxy_set_header {name} {value};")
    return found


# -- between servers


def _sessions(asking: list[Server], policy: Policy | None, findings: list[Finding]) -> None:
    """Servers of one port with different CAs share TLS sessions; then the issuer must be asked."""
    if policy is None or policy.trusts:
        return
    for one, other in combinations(asking, 2):
        ports = [{each.args[0] for each in s.block.own("listen")} for s in (one, other)]
        cas = [s.block.value("ssl_client_certificate") for s in (one, other)]
        if ports[0] & ports[1] and cas[0] != cas[1]:
            findings.append(
                Finding(
                    "session-shared",
                    other.block.file,
                    other.block.line,
                    f"another CA than the server of line {one.block.line}, on one port, and the "
                    "policy names no trust",
                    "trust: {NAME: {ca: …}}   (in policy.yaml, and in each location)",
                )
            )


def _never_asked(root: Block, policy: Policy, asked: set[str], findings: list[Finding]) -> None:
    by_uri = set(policy.chooser.names) if "" in asked else set()
    findings += (
        Finding(
            "never-asked",
            root.file,
            root.line,
            f"nginx never asks about the policy's location {name!r}",
            f"auth_request /authz/{name};  or remove it from the policy",
        )
        for name in policy.locations
        if name not in asked and name not in by_uri
    )


def _asks(block: Block) -> bool:
    """Whether the sidecar is asked here; an internal location is somebody's error page at most."""
    return not block.own("internal") and block.value("auth_request", "off") != "off"


def _closed(location: Block) -> bool:
    """Whether nginx itself lets nobody in: a `deny all` without an `allow`."""
    return any(deny.args == ["all"] for deny in location.own("deny")) and not location.own("allow")


def _passes(location: Block) -> list[Block]:
    return [each for name in PASSES for each in location.own(name)]


def _target(passing: Block) -> str:
    """Where a `proxy_pass` leads: the upstream's name or address, without a URI."""
    return passing.args[0].partition("://")[2].partition("/")[0] or passing.args[0]

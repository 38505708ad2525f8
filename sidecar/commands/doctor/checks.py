"""`doctor`: reads nginx's real configuration and says what lets someone past or locks everyone out.

Here are servers and locations: who is asked, and who isn't.  `auth_location` looks at how the
sidecar is asked, `bypasses` at what goes before `auth_request` or round it, `application` at what
the application is told, `between_servers` at servers beside each other.
"""

from __future__ import annotations

import os

from sidecar.core.policy.model import Policy

from .access import always_answers, closed, is_public_file, is_reached
from .application import identity
from .auth_location import AuthLocation
from .authorities import authorities, early_data, verification
from .behind import reached_behind
from .between_servers import ProtectedTargets, sessions, tunnels
from .by_uri import changed_paths
from .bypasses import Bypasses
from .chosen_otherwise import chosen_otherwise
from .chosen_targets import ChosenTargets
from .client_address import client_address
from .destinations import unasked_destinations
from .exemptions import accept
from .findings import Finding
from .line_ends import line_ends
from .mapped import replaced_prefixes, written_paths
from .methods import changed_methods
from .nginx_config import Block, Root
from .onward import Onward
from .precedence import taken_by_regex, taken_by_slashes
from .raw_paths import raw_paths
from .scripts import run_elsewhere
from .second_authorizer import second_authorizers
from .server import Asked, Server, question
from .shared_caches import shared_caches
from .targets import passes, shown_by

INCLUDE = "include snippets/authz-location.conf;"
STOCK_ROOTS = {"html", "/usr/share/nginx/html"}
"""Where nginx's packages have their welcome page."""

WELCOME = {"index.html", "50x.html", "index.nginx-debian.html"}

ACME = "/.well-known/acme-challenge"
"""What is public by its nature (RFC 8555, 8.3)."""


def examine(
    root: Root, policy: Policy | None, version: tuple[int, ...] | None = None
) -> list[Finding]:
    """Every finding, in the files' order; those that the configuration exempts are marked.

    Args:
        root: The configuration.
        policy: The policy, or None where it can't be read.
        version: The nginx that reads the configuration, where it is known.
    """
    findings: list[Finding] = []
    servers = [
        Server(each, root, policy)
        for each in root.all("server")
        if each.parent is not None and each.parent.name == "http"
    ]
    asking = [each for each in servers if each.asking]
    asked: set[str] = set()
    for server in asking:
        check = _ServerCheck(server, root, policy, findings, version)
        check.examine()
        asked |= check.asked
    unasked_destinations(asking, policy, findings)
    kept = ProtectedTargets(asking)
    passed_on = {where for each in asking for where in each.protected()}
    for server in asking:
        line_ends(server, passed_on, findings)
    for server in servers:
        if not server.asking:
            kept.never_asks(server, findings)
    kept.streams(root, findings)
    if asking:
        targets = ChosenTargets(servers, root, findings)
        for server in servers:
            targets.examine(server)
        targets.streams(root)
    streams = [each for stream in root.own("stream") for each in stream.own("server")]
    reached_behind(servers, streams, findings)
    shared_caches(servers, findings)
    tunnels(servers, findings)
    sessions(servers, policy, findings)
    authorities(asking, root, policy, findings)
    identity(servers, findings)
    if policy is not None and asking:
        _never_asked(root, policy, asked, findings)
    elif policy is not None:
        findings.append(_nobody_asks(root))
    return accept(root, list(dict.fromkeys(findings)))


class _ServerCheck:
    """One server that asks: how it asks, and where it doesn't."""

    def __init__(
        self,
        server: Server,
        root: Root,
        policy: Policy | None,
        findings: list[Finding],
        version: tuple[int, ...] | None,
    ) -> None:
        self.asked: set[str] = set()
        """Names of the policy that are asked about; "" where the sidecar chooses."""
        self._by_uri: set[str] = set()
        """The questions in which it chooses."""
        self._server = server
        self._root = root
        self._policy = policy
        self._findings = findings
        self._version = version
        self._onward = Onward(server)

    def examine(self) -> None:
        """Everything about it."""
        server = self._server
        for location in server.locations:
            if location not in server.questions.values() or server.asks(location):
                self._location(location)
        self._rest()
        self._questions()
        Bypasses(server, self._findings).examine()
        taken_by_regex(server, self._findings)
        taken_by_slashes(server, self._findings)
        run_elsewhere(server, self._findings)
        replaced_prefixes(server, self._findings)
        written_paths(server, self._findings)
        changed_paths(server, self._policy, self._findings)
        chosen_otherwise(server, self._policy, self._findings)
        raw_paths(server, self._policy, self._by_uri, self._findings)
        changed_methods(server, self._policy, self._findings)
        second_authorizers(server, self._findings)
        verification(server.block, self._policy, self.asked, self._findings)
        early_data(server.block, self._findings)
        client_address(server, self._policy, self.asked, self._findings)

    def _add(self, id: str, at: Block, what: str, write: str) -> None:
        self._findings.append(Finding(id, at.file, at.line, what, write))

    # -- who is asked

    def _questions(self) -> None:
        """How each question is put; one finding where an include was forgotten."""
        server, told = self._server, False
        kept = server.protected()
        for here in server.asking:
            uri = question(here)
            place = server.questions[uri]
            if server.asked[uri] is Asked.NOBODY or place is None:
                if not told:
                    at = (here.inherited("auth_request") or [here])[-1]
                    what = f"no location of its own serves {uri}"
                    self._add("no-auth-location", at, what, INCLUDE)
                told = True
                self.asked.add(uri.removeprefix("/authz").removeprefix("/"))
                continue
            how = AuthLocation(
                uri, place, self._root, kept, self._policy, self._findings, self._version
            )
            name = how.examine(here)
            if how.untold and self._policy is not None:
                self.asked |= self._policy.locations.keys()  # it may be any
            if name is not None:
                self.asked.add(name)
            if name == "":
                self._by_uri.add(uri)

    # -- who isn't

    def _location(self, location: Block) -> None:
        if not is_reached(location):
            return
        if location.inherited("auth_request") or always_answers(location):
            return
        if self._onward.only_leads_on(location):
            self._led_on(location)
        elif not self._is_public(location):
            self._add(
                "not-asked",
                location,
                "nobody is asked here, while other locations of this server ask",
                "auth_request /authz/NAME;  or, if it is meant to be open: auth_request off;",
            )

    def _is_public(self, location: Block) -> bool:
        """Whether nobody expects a question here: ACME, robots.txt, a static error page."""
        if passes(location):
            return self._is_authorizer_s(location)
        if self._onward.leads_on(location) or any(
            self._onward.leads_in(page.args[-1]) for page in location.own("error_page")
        ):
            return False
        if location.own("stub_status") and _has_rules(location):
            return True
        path = location.args[-1].removeprefix("^")
        if path.startswith(ACME):
            return True
        if location.args[0] != "=":
            return False
        if is_public_file(location):
            return True
        pages = {each.args[-1] for each in self._server.block.all("error_page")}
        pages |= {each.args[-1] for each in self._server.block.inherited("error_page")}
        return path in pages

    def _led_on(self, location: Block) -> None:
        """A location that serves nothing itself: where it leads, somebody must be asked."""
        if self._onward.leads_on(location):
            self._add(
                "rewrite-first",
                location.own("rewrite")[0],
                "`rewrite` leads to what asking is to keep, where nobody is asked",
                "auth_request /authz/NAME;   (here)",
            )

    def _is_authorizer_s(self, location: Block) -> bool:
        """Whether a location leads to another authorizer alone, as to its login page."""
        server = self._server
        others = {
            where
            for uri, place in server.questions.items()
            if place is not None and server.asked[uri] is Asked.OTHER
            for where in server.led_to(place)
        }
        where = server.led_to(location)
        return bool(where) and where <= others - server.protected()

    def _rest(self) -> None:
        """What no location covers is served from the server's own root."""
        server = self._server.block
        root = shown_by(server)
        if server.inherited("auth_request") or closed(server) or root is None:
            return
        if self._server.uncovered() and not _only_welcomes(root.args[0]):
            self._add(
                "not-asked",
                server,
                f"no location covers the rest, which is served from {root.args[0]} to anybody",
                "location / { auth_request /authz/NAME; }   (or return 404; in it)",
            )


def _has_rules(location: Block) -> bool:
    """Whether a location has addresses that may come in, and all others may not."""
    return any(each.args == ["all"] for each in location.own("deny"))


def _only_welcomes(root: str) -> bool:
    """Whether a directory is the package's own, with its welcome page at most.

    One that isn't here (the configuration is another machine's) is taken to be so.
    """
    if root.rstrip("/") not in STOCK_ROOTS:
        return False
    try:
        return all(each.name in WELCOME for each in os.scandir(root))
    except OSError:
        return True


def _nobody_asks(root: Root) -> Finding:
    what = "nginx never asks about anything: no server has an auth_request that the sidecar answers"
    return Finding("never-asked", root.file, root.line, what, "auth_request /authz/NAME;")


def _never_asked(root: Root, policy: Policy, asked: set[str], findings: list[Finding]) -> None:
    by_uri = set(policy.chooser.names) if "" in asked else set()
    findings += (
        Finding(
            "never-asked",
            root.file,
            root.line,
            f"nginx never asks about the policy's location {name!r}",
            f"auth_request /authz/{name};  or remove it from the policy",
            name=name,
        )
        for name in policy.locations
        if name not in asked and name not in by_uri
    )

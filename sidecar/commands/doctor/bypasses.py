"""Find what runs before `auth_request` or avoids it: rewrites, returns, error pages, `satisfy`."""

from __future__ import annotations

import re

from .access import (
    closed,
    denies_all,
    is_internal,
    is_led_to_only,
    is_public_file,
    lets_in_otherwise,
)
from .findings import Finding
from .nginx_config import Block
from .onward import Onward
from .rewriting import (
    asked_of,
    assigned,
    assigned_for,
    can_rewrite,
    condition_holds,
    differs_in_the_question,
    makes_good,
    named_by,
    redirects,
    status_of,
    takes_every_uri,
)
from .routing import REGEX, destination, serving
from .server import DENIALS, Server, has_content, question
from .targets import addresses, passes

EARLIER = {"400", "413", "414", "494", "495", "496", "497"}
"""What nginx answers by itself before anybody is asked."""

OF_THE_HEAD = {"400", "405", "414", "421", "494", "495", "496", "497", "501", "505"}
"""What nginx answers before it has chosen a location: a TRACE, an unknown Transfer-Encoding."""


class Bypasses:
    """The ways past the question within one server."""

    def __init__(self, server: Server, findings: list[Finding]) -> None:
        self._server = server
        self._findings = findings
        self._protected = server.protected()
        self._onward = Onward(server)

    def examine(self) -> None:
        """Everything about the server and those of its locations where the sidecar is asked."""
        self._question_rewritten()
        self._server_returns()
        self._sets()
        self._server_pages()
        for here in self._server.asking:
            self._error_pages(here)
            self._post_actions(here)
            if (here.name == "location" and not closed(here)) or self._is_served(here):
                self._satisfy(here)
            if here.name == "location":
                self._returns(here)
                self._rewrites(here)
        for location in self._server.locations:
            self._traversal(location)
            self._subrequests(location)
            self._not_found(location)
            if not is_led_to_only(location) and not self._server.asks(location):
                self._refusals(location)

    def _add(self, id: str, at: Block, what: str, write: str) -> None:
        self._findings.append(Finding(id, at.file, at.line, what, write))

    # -- the question itself

    def _question_rewritten(self) -> None:
        """A server's rewrites see the question's own URI first, then what they made of it."""
        for uri in self._server.questions:
            if not self._server.asks_sidecar(uri):
                continue
            for each in asked_of(self._server.block, uri, "rewrite"):
                if not can_rewrite(each, uri):
                    continue
                away = redirects(each)
                if away and can_rewrite(each, "/"):
                    continue  # every request is redirected before anything is asked
                self._add(
                    "question-redirected" if away else "question-rewritten",
                    each,
                    f"`rewrite {each.args[0]}` holds for the question {uri} as well",
                    f"rewrite … within location / {{ }}, or: if ($uri !~ ^{uri}) {{ rewrite … }}",
                )

    def _server_returns(self) -> None:
        """A server's returns answer the question, or everybody before it is put."""
        server = self._server.block
        for each in server.within("return"):
            if status_of(each) >= 300:
                self._leads_on(each)
        for uri in self._server.questions:
            if not self._server.asks_sidecar(uri):
                continue
            for each in asked_of(server, uri, "return"):
                good = status_of(each) < 300
                if good and each.parent is server:
                    self._add("return-first", each, *_RETURNS)
                elif self._answers_well(each):
                    self._add(
                        "auth-location-returns",
                        each,
                        f"`return` answers the question {uri} as well",
                        "return … within a location",
                    )
            self._refused(uri)

    def _answers_well(self, early: Block) -> bool:
        """Whether a server's `return` answers a question with a 2xx, and not the request before it.

        One whose error_page leads to a @name answers both, but within a question nobody is asked
        there: what shows the page to those who are allowed is the answer.
        """
        server = self._server
        if differs_in_the_question(early):
            return status_of(early) < 300 or bool(_becomes_good(server.block, early))
        for page in _becomes_good(server.block, early):
            place = serving(server.block, page.args[-1]) if page.args[-1][:1] == "@" else None
            if place is not None and not closed(place):
                led = [e for each in place.within("rewrite") for e in self._onward.rewritten(each)]
                if any(server.asks(each) and not closed(each) for each in (place, *led)):
                    return True
        return False

    def _refused(self, uri: str) -> None:
        """A refusal or redirect of the server's that the question comes to as well."""
        for each in asked_of(self._server.block, uri, "return"):
            around = each.parent
            if around is None or around.name != "if" or not condition_holds(around, uri):
                continue
            if status_of(each) >= 300 and not _becomes_good(self._server.block, each):
                what = f"`return {status_of(each)}` answers the question {uri} as well"
                write = "return … within a location, or before it: if ($uri ~ ^/authz) { break; }"
                self._add("question-redirected", each, what, write)
                return

    # -- before the question

    def _returns(self, here: Block) -> None:
        for each in here.within("return"):
            code = status_of(each)
            if 200 <= code < 300 and not (_is_preflight(each) or is_public_file(here)):
                self._add("return-first", each, *_RETURNS)
            elif code >= 300 and not self._leads_on(each):
                self._leads_to_other(here, each)

    def _leads_on(self, early: Block) -> bool:
        """A `return` whose error_page leads to what is kept, before anybody is asked."""
        page = self._page(early.parent or early, str(status_of(early)))
        if page is not None:
            leading = f"`return {status_of(early)}` leads to {page.args[-1]}, where nobody is asked"
            self._add("return-first", early, leading, "auth_request /authz/NAME;   (there)")
        return page is not None

    def _leads_to_other(self, here: Block, early: Block) -> None:
        """A `return` whose error_page leads to where another question is asked."""
        code = str(status_of(early))
        for page in (early.parent or early).inherited("error_page"):
            uri = page.args[-1]
            if code not in page.args[:-1] or not uri.startswith(("/", "@")):
                continue
            place = destination(self._server.block, uri)
            if place is not None and _shows_one_page(uri, place):
                continue
            if other := self._asks_other(here, place):
                what = f"`return {code}` leads to {uri}, where {other} is asked instead"
                write = f"auth_request {question(here)};   (there)"
                self._add("return-first", early, what, write)

    def _page(self, here: Block, code: str) -> Block | None:
        """The error_page that leads this code to what is kept, asking nobody."""
        for page in here.inherited("error_page"):
            if code in page.args[:-1] and self._onward.leads_in(page.args[-1]):
                return page
        return None

    def _refusals(self, here: Block) -> None:
        """A guard whose error_page leads to what is kept: `deny all`, or a `return`."""
        found = self._onward.refusal_leads_in(here) if closed(here) else None
        if found is None:
            return
        page, code = found
        if denies_all(here) and code == "403":
            what = f"a refusal of {here.args[-1]} leads to {page.args[-1]}, where nobody is asked"
            self._add("denial-passed-on", page, what, "error_page 599 /;   (in that location)")
        for each in here.within("return"):
            if str(status_of(each)) == code:
                self._leads_on(each)

    def _rewrites(self, here: Block) -> None:
        """`rewrite … last` to a location that is internal, and asks nobody."""
        for each in here.within("rewrite"):
            for place in self._onward.rewritten(each):
                if not is_led_to_only(place) or closed(place):
                    continue
                asked = place.value("auth_request", "off") != "off"
                if not asked and (has_content(place) or self._onward.exposes(place)):
                    what = f"`rewrite` leads to {' '.join(place.args)}, where nobody is asked"
                    self._add("rewrite-first", each, what, "rewrite … break;   (and proxy_pass)")

    # -- beside the question

    def _is_served(self, here: Block) -> bool:
        """Whether a server itself serves something: what no location covers."""
        return here.name == "server" and bool(self._server.uncovered()) and not closed(here)

    def _satisfy(self, here: Block) -> None:
        if here.value("satisfy") == "any" and lets_in_otherwise(here):
            self._add("satisfy-any", here, "`satisfy any` holds here", "satisfy all;")

    def _traversal(self, here: Block) -> None:
        """`location /img { alias /data/img/; }`: /img../secret is /data/secret.

        With `proxy_pass http://app/img/;` it is /img/../secret for the application.
        """
        prefix = here.args[-1]
        if here.args[0] in ("=", *REGEX) or prefix[:1] in ("@", "") or prefix.endswith("/"):
            return
        if closed(here):
            return
        for alias in here.own("alias") if not self._server.asks(here) else ():
            if alias.args[0].endswith("/"):
                self._add(
                    "alias-traversal",
                    alias,
                    f"{prefix}../ is served from above {alias.args[0]}, and nobody is asked",
                    f"location {prefix}/ {{ alias {alias.args[0]}; }}",
                )
        for each in passes(here):
            target = "".join(each.args[:1])
            if re.search(r"[^/:]/([^$]*/)?$", target) and self._asks_otherwise(here, each):
                self._add(
                    "alias-traversal",
                    each,
                    f"{prefix}../x is passed on as {each.args[0]}../x, and the wrong is asked",
                    f"location {prefix}/ {{ {each.name} {each.args[0]}; }}",
                )

    def _asks_otherwise(self, here: Block, passing: Block) -> bool:
        """Whether another location asks another question about the same address."""
        where = addresses(passing, self._server.root)
        return any(
            question(other) != question(here) and where & self._server.led_to(other)
            for other in self._server.keeping
            if other not in self._server.questions.values()
        )

    def _subrequests(self, here: Block) -> None:
        """What nginx fetches by itself for a request: nobody is asked about that."""
        if here in self._server.questions.values() or closed(here):
            return
        for name, position in _SUBREQUESTS.items():
            for each in here.inherited(name):
                self._fetched(here, each, "".join(each.args[position : position + 1]))
        if not is_led_to_only(here):
            self._included(here)

    def _fetched(self, here: Block, at: Block, target: str) -> None:
        """A directive that has nginx fetch one URI."""
        place = destination(self._server.block, target) if target.startswith("/") else None
        if place is None or closed(place):
            return
        if self._server.keeps(place) and question(place) != question(here):
            what = f"`{at.name}` fetches {target}, and {question(place)} isn't asked"
            self._add("subrequest", at, what, f"auth_request {question(place)};   (here)")
        elif here.value("auth_request", "off") == "off" and not is_led_to_only(here):
            led = self._server.led_to(place) & self._protected
            if is_internal(place) and led - self._server.led_to(here):
                what = f"`{at.name}` sends what nobody is asked about to {', '.join(sorted(led))}"
                self._add("subrequest", at, what, "auth_request /authz/NAME;   (here)")

    def _included(self, here: Block) -> None:
        """SSI: a page may include any URI of the server (`include virtual`)."""
        found = here.inherited("ssi") + list(here.within("ssi"))
        if not found or found[-1].args != ["on"]:
            return
        asked = self._server.questions.values()
        for other in self._server.keeping:
            if other not in asked and question(other) != question(here) and not closed(other):
                what = f"SSI fetches whatever a page includes, and {question(other)} isn't asked"
                write = f"ssi off;   (here, or: auth_request {question(other)};)"
                self._add("subrequest", found[-1], what, write)
                return

    # -- after a denial

    def _error_pages(self, here: Block) -> None:
        """Where a denial leads: to a location that isn't asked about, and not to what is kept."""
        earlier = EARLIER | self._limits(here)
        pages = [*here.inherited("error_page"), *here.within("error_page")]  # those of an `if`, too
        for page in dict.fromkeys(pages):
            uri, codes = page.args[-1], set(page.args[:-1])
            if not uri.startswith(("/", "@", "$")) or not codes & (DENIALS | earlier):
                continue
            place = destination(self._server.block, uri) if uri[0] != "$" else None
            if place is not None and _shows_one_page(uri, place):
                continue
            recursive = here.value("recursive_error_pages", "off") == "on"
            if self._onward.leads_in(uri, recursive=recursive):
                self._add(
                    "denial-passed-on",
                    page,
                    f"{uri} leads to what asking is to keep, and nobody is asked there",
                    f"location {uri} {{ internal; return 403; }}",
                )
            elif other := self._asks_other(here, place):
                what = f"{uri} leads to what {question(here)} is asked about, and asks {other}"
                write = f"location {uri} {{ auth_request {question(here)}; … }}"
                self._add("denial-passed-on", page, what, write)
            elif codes & earlier and self._asks_login(here, place):
                what = f"{uri} leads to what {question(here)} is asked about, before it is asked"
                write = f"error_page 401 = {uri};   (if a login does here as well)"
                self._add("denial-passed-on", page, what, write)
            elif uri[0] == "$" or not codes & {"401", "403"}:
                continue
            elif self._server.asks(place or self._server.block):
                if place is not None and closed(place):
                    continue  # it answers before it would ask
                self._add(
                    "error-page-asks",
                    page,
                    f"{uri} is served by a location that asks",
                    f"location = {uri} {{ internal; auth_request off; … }}",
                )

    def _asks_other(self, here: Block, place: Block | None) -> str:
        """What is asked where a location leads on to its own application; "" if it is the same."""
        if place is None or not is_led_to_only(place) or closed(place):
            return ""
        other = place.value("auth_request", "off")  # of an internal one, too: it is led there
        if other == question(here) or not self._server.asks_sidecar(other):
            return ""
        return other if self._server.led_to(place) & self._server.served(here) else ""

    def _asks_login(self, here: Block, place: Block | None) -> bool:
        """Whether another authorizer is asked in place of the sidecar, where no denial leads there.

        `error_page 401 = @login` says that a login does as well.
        """
        if place is None or closed(here) or not self._is_anothers(place):
            return False
        for page in here.inherited("error_page"):
            if DENIALS.intersection(page.args[:-1]) and page.args[-1] == place.args[-1]:
                return False
        return bool(self._server.led_to(place) & self._server.served(here))

    def _server_pages(self) -> None:
        """Error pages for what is refused before a location is chosen, or covered by none."""
        server = self._server.block
        unasked = bool(self._server.uncovered()) and not server.inherited("auth_request")
        for page in server.inherited("error_page"):
            uri = page.args[-1]
            codes = OF_THE_HEAD - {"505"} if uri[:1] == "@" else OF_THE_HEAD  # no URI yet: a 500
            if unasked and not closed(server):
                codes = codes | {"403", "404"}
            if not codes.intersection(page.args[:-1]):
                continue
            if self._onward.leads_in(uri):
                what = f"{uri} leads to what asking is to keep, and no location comes before it"
                write = "error_page …   (in the locations that need it, not in the server)"
                self._add("denial-passed-on", page, what, write)
            elif past := self._past_others(uri):
                what = f"{uri} leads past {past}, which asks otherwise"
                write = f"location {uri} {{ rewrite ^ $uri last; }}   (variants/cert-or-login.conf)"
                self._add("denial-passed-on", page, what, write)

    def _past_others(self, uri: str) -> str:
        """The first location that a server's @name leads past, where something else is asked about
        every URI; "" if none takes it amiss: it asks the same, or a login does there as well.
        """
        place = serving(self._server.block, uri) if uri.startswith("@") else None
        if place is None:
            return ""
        for here in self._server.locations:
            if is_led_to_only(here):
                continue
            refused = _refuses(here) and self._is_anothers(place)
            kept = self._server.keeps(here) and not closed(here)
            if refused or (
                kept and (self._asks_login(here, place) or self._asks_other(here, place))
            ):
                return here.args[-1]
        return ""

    def _is_anothers(self, place: Block) -> bool:
        """Whether another authorizer alone is asked in a location, and lets in."""
        other = place.value("auth_request", "off")
        asks = other != "off" and not self._server.asks_sidecar(other)
        return asks and not closed(place) and bool(passes(place))

    def _not_found(self, here: Block) -> None:
        """To a client an internal location is a 404, whose error_page may lead to the same URI."""
        page = self._page(here, "404") if is_internal(here) and has_content(here) else None
        if page is not None and page.args[-1].startswith("@"):
            what = f"{page.args[-1]} serves clients what the internal {here.args[-1]} is to keep"
            self._add(
                "denial-passed-on",
                page,
                what,
                "error_page 404 …   (only in the locations that need it)",
            )

    def _limits(self, here: Block) -> set[str]:
        """What limits answer; they are applied before anybody is asked."""
        return {
            here.value(f"{each}_status", "503")
            for each in ("limit_req", "limit_conn")
            if here.inherited(each)
        }

    def _post_actions(self, here: Block) -> None:
        """`post_action` runs when a request has ended, a denied one, too."""
        for each in here.inherited("post_action"):
            if self._onward.leads_in(each.args[0]):
                what = f"post_action leads to {each.args[0]} after a denial as well"
                self._add("denial-passed-on", each, what, "mirror, in its place")
            elif other := self._asks_other(here, serving(self._server.block, each.args[0])):
                what = f"post_action leads to {each.args[0]} after a denial, if {other} is allowed"
                self._add("denial-passed-on", each, what, "mirror, in its place")

    # -- variables

    def _sets(self) -> None:
        """Variables that the question assigns anew, while the request's own values wait."""
        server = self._server
        anew = assigned_for(server.block, server.questions)
        for place in server.questions.values():
            if place is not None and not any(place is each for each in server.asking):
                for name, where in {**assigned(place), **named_by(place)}.items():
                    anew.setdefault(name, []).extend(where)
        for here in server.asking:
            if here.name != "location":
                continue
            for name, places in {**assigned(here), **named_by(here)}.items():
                for each in places:
                    if name in anew and not _all_alike([each, *anew[name]]):
                        line = anew[name][0].line_from(each)
                        what = f"{name} is assigned here, and again in the question ({line})"
                        self._add("set-undone", each, what, f"another name than {name}")


_RETURNS = (
    "`return` where the sidecar is to be asked",
    "try_files or proxy_pass in its place; or, if it is meant to be open: auth_request off;",
)

_SUBREQUESTS = {
    "mirror": 0,
    "add_before_body": 0,
    "add_after_body": 0,
    "echo_location": 0,
    "echo_location_async": 0,
    "echo_subrequest": 1,
    "echo_subrequest_async": 1,
}
"""Directives that have nginx fetch a URI, and which word of theirs it is."""


def _becomes_good(server: Block, early: Block) -> list[Block]:
    """Each error_page of the server that makes a 2xx of a `return`: in the question, too."""
    return [
        page
        for page in server.inherited("error_page")
        if str(status_of(early)) in page.args[:-1] and makes_good(page)
    ]


def _shows_one_page(uri: str, place: Block) -> bool:
    """Whether an error_page shows one page of the application's, such as its login.

    The page is open to everybody by a location that says `auth_request off` itself.
    """
    if "$" in uri or any("$" in word for each in passes(place) for word in each.args):
        return False
    if uri.startswith("@"):
        first = next((e for e in place.inner if e.name == "rewrite"), None)
        return (
            first is not None
            and takes_every_uri(first, place)
            and "$" not in first.args[1]
            and ("?" not in first.args[1] or first.args[1].endswith("?"))  # else the client's, too
            and first.args[2:] == ["break"]
        )
    return not is_internal(place) and [e.args for e in place.own("auth_request")] == [["off"]]


def _refuses(place: Block) -> bool:
    """Whether a location lets nobody in, and leads nowhere else."""
    errors = any(status_of(each) >= 400 for each in place.within("return"))
    return closed(place) and (errors or denies_all(place))


def _is_preflight(early: Block) -> bool:
    """Whether a `return` answers CORS's OPTIONS alone, without a body."""
    around = early.parent
    if early.args not in (["200"], ["204"]) or around is None or around.name != "if":
        return False
    words = around.args
    return words[:1] == ["$request_method"] and words[-1].strip("^()$") == "OPTIONS"


def _all_alike(sets: list[Block]) -> bool:
    """Whether all of them give the variable the same constant, whatever runs."""
    values = {tuple(each.args) for each in sets}
    return len(values) == 1 and all(each.name == "set" and "$" not in each.args[1] for each in sets)

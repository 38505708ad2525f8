"""Follow where nginx leads a request on by itself: error pages, `try_files`, `rewrite … last`.

nginx asks again wherever an internal redirect leads, also in named and internal locations, but
only where `auth_request` holds there.
"""

from __future__ import annotations

import re

from .access import always_answers, closed, denies_all, is_internal, is_led_to_only
from .guards import may_hold
from .listeners import server_names
from .nginx_config import Block
from .rewriting import status_of, stays, takes_every_uri
from .routing import REGEX, destination, serving
from .server import Server
from .targets import file_roots, passes
from .variables import plain_variables

HANDLER = re.compile(
    r"js_content|content_by_\w+|perl|stub_status|empty_gif|api|flv|mp4|echo(_\w+)?"
)
"""Directives that answer in the place of a file."""


class Onward:
    """Where requests of one server end, if nobody has been asked about them before."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._protected = server.protected()
        self._roots = server.protected_roots()
        answering = [each for each in server.questions.values() if each is not None]
        self._sidecar = {where for each in answering for where in server.led_to(each)}

    def leads_in(
        self, uri: str, *, recursive: bool = False, seen: frozenset[int] = frozenset()
    ) -> bool:
        """Whether a URI within nginx leads to what is kept, and nobody is asked on that way.

        One that a variable holds may be any: also that of an internal location.  `recursive`:
        whether the error pages of where it leads count (`recursive_error_pages`).
        """
        if uri.startswith("$"):
            inner = [each.args[-1] for each in self._server.locations if is_internal(each)]
            return any(
                each[:1] == "/" and self.leads_in(each, recursive=recursive, seen=seen)
                for each in inner
            )
        if not uri.startswith(("/", "@")):
            return False
        path = uri.partition("?")[0]
        place = destination(self._server.block, path)
        if place is None or not is_led_to_only(place):
            return False  # clients may ask for it themselves, and that is looked at by itself
        anything = uri[0] == "@" or "$" in path
        return self.exposes(place, anything=anything, recursive=recursive, seen=seen)

    def exposes(
        self,
        place: Block,
        *,
        anything: bool = True,
        recursive: bool = False,
        seen: frozenset[int] = frozenset(),
    ) -> bool:
        """Whether what is led to a location is shown what is kept.

        `anything`: whether the client chooses the file there, or it is always the same page.
        """
        if id(place) in seen or place.value("auth_request", "off") != "off":
            return False
        seen |= {id(place)}
        if closed(place):
            return recursive and self.refusal_leads_in(place, seen) is not None
        if self._server.led_to(place) & self._protected:
            return True
        if anything and self._shows_files(place):
            return True
        return self.leads_on(place, recursive=recursive, seen=seen)

    def leads_on(
        self, place: Block, *, recursive: bool = True, seen: frozenset[int] = frozenset()
    ) -> bool:
        """Whether `try_files` or `rewrite` lead from a location to what is kept, asking nobody."""
        last = [each.args[-1] for each in place.own("try_files")]
        last += [each.args[0] for each in place.own("echo_exec") if each.args]
        if any(self.leads_in(uri, recursive=recursive, seen=seen) for uri in last):
            return True
        return any(
            self.exposes(other, recursive=recursive, seen=seen)
            for each in place.within("rewrite")
            for other in self.rewritten(each)
            if is_led_to_only(other)
        )

    def refusal_leads_in(
        self, place: Block, seen: frozenset[int] = frozenset()
    ) -> tuple[Block, str] | None:
        """The error_page by which a refusal of nginx's own leads to what is kept, and its code."""
        codes = {str(status_of(each)) for each in place.within("return")}
        codes |= {"403"} if denies_all(place) else set()
        recursive = place.value("recursive_error_pages", "off") == "on"
        for page in place.inherited("error_page"):
            for code in sorted(codes.intersection(page.args[:-1])):
                if self.leads_in(page.args[-1], recursive=recursive, seen=seen):
                    return page, code
        return None

    def rewritten(self, rewrite: Block) -> list[Block]:
        """The locations that may serve what a `rewrite` writes, as far as it is constant."""
        if stays(rewrite):
            return []
        path, variable, _ = rewrite.args[1].partition("?")[0].partition("$")
        if not variable:
            place = serving(self._server.block, path)
            return [place] if place is not None else []
        return [
            each
            for each in self._server.locations
            if not self.answers(each)
            and each.args[0] not in REGEX
            and each.args[-1].startswith("/")
            and (each.args[-1].startswith(path) or path.startswith(each.args[-1]))
            and self._may_come(rewrite, each.args[-1])
        ]

    def _may_come(self, rewrite: Block, path: str) -> bool:
        """Whether a URI below a path may come to a `rewrite ^ $uri last` within an `if`.

        No, where a map of the URI, by which the `if` decides, has nothing for it.
        """
        around = rewrite.parent
        if plain_variables(rewrite.args[1]) != "$uri" or around is None or around.name != "if":
            return True
        name = next(iter(server_names(self._server.block)), "")
        return may_hold(around, {"server_name": name, "uri": path}, self._server.root)

    def answers(self, place: Block) -> bool:
        """Whether a location only asks the sidecar, under whatever URI: it shows nothing."""
        where = self._server.led_to(place)
        return place in self._server.questions.values() or bool(where and where <= self._sidecar)

    def only_leads_on(self, place: Block) -> bool:
        """Whether all that comes to a location is led on by `rewrite`, or refused."""
        ends = place.within("break", "rewrite")
        if any(each.name == "break" or each.args[2:] == ["break"] for each in ends):
            return False
        if any(passes(each) for each in place.own("if")):
            return False
        for each in place.inner:
            if each.name == "return":
                return not 200 <= status_of(each) < 300
            if each.name == "rewrite" and takes_every_uri(each, place):
                return True
        return False

    def _shows_files(self, place: Block) -> bool:
        """Whether a location serves files of a directory that asking is to keep, by any name."""
        if passes(place) or always_answers(place) or self.only_leads_on(place):
            return False
        if any(HANDLER.fullmatch(each.name) for each in place.inner):
            return False
        tried = place.own("try_files")
        if tried and not any("$" in word for each in tried for word in each.args[:-1]):
            return False
        if any(_writes_one_page(each, place) for each in place.own("rewrite")):
            return False
        return bool(file_roots(place) & self._roots)


def _writes_one_page(rewrite: Block, place: Block) -> bool:
    return "$" not in rewrite.args[1] and takes_every_uri(rewrite, place)

"""Model one `server { }`: its `auth_request` URIs, who answers them, and what it protects."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import Enum

from sidecar.core.policy.model import Policy

from .access import always_answers, closed, is_internal, is_led_to_only, is_reached
from .auth_location import question_uri
from .nginx_config import Block, Root
from .rewriting import status_of
from .routing import REGEX, destination, literal_prefixes, serving
from .targets import directories, directories_of_one, file_roots, files, led_to, passes

OWN_CONTENT = re.compile(r"js_content|\w+_by_lua(_\w+)?|perl|auth_jwt|auth_oidc")
"""Directives by which a location may authorize on its own."""

DENIALS = {"401", "403", "500"}
"""What auth_request makes of a denial, and of no answer (ngx_http_auth_request_handler)."""

_USUAL = {*map(str, range(400, 418)), "421", "426", "429", "431", "451", "494", "495", "496", "497"}
"""Refusals of nginx's own, or of anybody's `return`, whose error_page is a page about them."""

_SIDECAR = re.compile(r"mtls.?sidecar|authz\.sock")


class Asked(Enum):
    """Whom a question reaches."""

    SIDECAR = "the sidecar"
    OTHER = "another authorizer"
    NOBODY = "nobody: no location of its own serves it"


@dataclass(slots=True)
class Server:
    """One server { } and its locations."""

    block: Block
    root: Root
    policy: Policy | None = None
    locations: list[Block] = field(init=False)
    questions: dict[str, Block | None] = field(init=False)
    """Each URI that `auth_request` names here, and the location that serves it."""
    asked: dict[str, Asked] = field(init=False)

    def __post_init__(self) -> None:
        self.locations = list(self.block.all("location"))
        guarded = [each for each in self.places if question(each)]
        self.questions = {uri: serving(self.block, uri) for uri in map(question, guarded)}
        answering = list(self.questions.values())
        kept = {where for each in guarded if each not in answering for where in self.led_to(each)}
        self.asked = {uri: self._asked(uri, kept) for uri in self.questions}

    @property
    def places(self) -> list[Block]:
        """The server itself and its locations."""
        return [self.block, *self.locations]

    @property
    def asking(self) -> list[Block]:
        """Where the sidecar is to be asked."""
        return [each for each in self.places if self.asks(each)]

    def asks(self, place: Block) -> bool:
        """Whether the sidecar is to be asked here."""
        return self.asks_sidecar(question(place))

    @property
    def keeping(self) -> list[Block]:
        """Where the sidecar is to be asked, and lets not everybody in."""
        return [each for each in self.places if self.keeps(each)]

    def keeps(self, place: Block) -> bool:
        """Whether the sidecar is to be asked here about what isn't public by the policy."""
        uri = question(place)
        return self.asks_sidecar(uri) and not self._is_public(uri)

    def _is_public(self, uri: str) -> bool:
        place, name = self.questions[uri], uri.removeprefix("/authz/")
        passing = place.own("proxy_pass") if place is not None else []
        if self.policy is None or name not in self.policy.locations or place is None:
            return False
        sent = {question_uri(uri, place, each.args[0]) for each in passing}
        return sent == {uri} and self.policy.locations[name].public

    def is_open_to_clients(self, place: Block) -> bool:
        """Whether clients are served there, and it is known what is asked: else that is told."""
        answers = place in self.questions.values()
        return is_reached(place) and not answers and bool(place.inherited("auth_request"))

    def asks_sidecar(self, uri: str) -> bool:
        """Whether a question is the sidecar's to answer."""
        return self.asked.get(uri, Asked.OTHER) is not Asked.OTHER

    def led_to(self, place: Block) -> set[str]:
        """The addresses that a location leads to."""
        return led_to(place, self.root)

    def protected(self) -> set[str]:
        """The addresses of what the sidecar is asked about."""
        answering = list(self.questions.values())
        keeping = [each for each in self.keeping if each not in answering]
        return {where for each in keeping for where in self.served(each)}

    def served(self, place: Block) -> set[str]:
        """The addresses that a location leads to, itself or by others that serve for it."""
        places = (place, *self.served_by(place))
        return {where for each in places for where in self.led_to(each)}

    def served_by(self, place: Block) -> list[Block]:
        """The named and internal locations by which another one serves what is asked for there.

        `try_files` leads there, an `error_page` for what is no file or isn't in memcached, or one
        for a `return` with a status that nobody else answers.  A page for denials is none.
        """
        found, left = list[Block](), [place]
        while left:
            here = left.pop()
            targets = [each.args[-1] for each in here.own("try_files")]
            targets += [
                page.args[-1]
                for page in here.inherited("error_page")
                if _serves_by(here, set(page.args[:-1])) and _any_uri(page.args[-1])
            ]
            for each in targets:
                other = destination(self.block, each) if each[:1] in "/@" else None
                if other is not None and is_led_to_only(other) and other not in found:
                    found.append(other)
                    left.append(other)
        return found

    def protected_files(self) -> set[str]:
        """The directories that are served where the sidecar is asked."""
        places = [each for each in self.locations if self.keeps(each) and not closed(each)]
        found = {where for each in places for where in files(each)}
        return found | {where for each in places for where in _named_directories(each)}

    def matched_files(self) -> set[str]:
        """The directories of which some files alone are asked about: by expression, or one."""
        places = [
            each
            for each in self.locations
            if each not in self._answering and self.keeps(each) and not closed(each)
        ]
        found = [directories(each) for each in places if each.args[0] in REGEX]
        found += [
            directories_of_one(each)
            for each in places
            if each.args[0] == "=" and each.own("auth_request")
        ]
        return set[str]().union(*found)

    @property
    def _answering(self) -> list[Block]:
        return [each for each in self.questions.values() if each is not None]

    def public_files(self) -> set[str]:
        """The directories that a server that asks shows to anybody."""
        asked = self.questions.values()
        places = [e for e in self.locations if not question(e) and e not in asked]
        found = (files(each) for each in places if not closed(each) and not is_internal(each))
        return set[str]().union(*found)

    def protected_roots(self) -> set[str]:
        """The `root` or `alias` of what is served as files where the sidecar is asked."""
        answering = list(self.questions.values())
        return {
            where
            for each in self.keeping
            if each not in answering and not closed(each) and not passes(each)
            for by in (each, *self.served_by(each))
            if not passes(by)
            for where in file_roots(by)
        }

    def uncovered(self) -> list[str]:
        """URIs, out of a few, that no location serves."""
        return [uri for uri in ("/", "/secret.txt", "/zz/zz.bin") if not serving(self.block, uri)]

    def _asked(self, uri: str, kept: set[str]) -> Asked:
        place = self.questions[uri]
        if place is None:
            return Asked.NOBODY
        passing = passes(place)
        targets = {word for each in passing for word in each.args[:1]} | self.led_to(place)
        if any(map(_SIDECAR.search, targets)):
            return Asked.SIDECAR
        by_name = uri == "/authz" or uri.startswith("/authz/")
        its_own = is_internal(place) or place.args[-1].lstrip("^").startswith("/authz")
        if by_name:
            return Asked.SIDECAR if its_own else Asked.NOBODY
        if _is_everything(place) or self._is_kept(place, kept):
            return Asked.NOBODY
        if self._puts_the_question(uri, place):
            return Asked.SIDECAR
        if passing or any(OWN_CONTENT.fullmatch(each.name) for each in place.inner):
            return Asked.OTHER
        return Asked.SIDECAR if place.own("return") else Asked.NOBODY

    def _is_kept(self, place: Block, kept: set[str]) -> bool:
        """Whether a location belongs to the application, and is no authorizer's."""
        if place.own("auth_request") and question(place):
            return True
        return not is_internal(place) and bool(self.led_to(place) & kept)

    def _puts_the_question(self, uri: str, place: Block) -> bool:
        """Whether a location sends what the sidecar is to be told."""
        for each in place.own("proxy_pass"):
            sent = question_uri(uri, place, each.args[0]) or ""
            if sent == "/authz" or sent.startswith("/authz/"):
                return True
        headers = (each.args[0].lower() for each in place.inherited("proxy_set_header"))
        return "ssl-client-verify" in headers and is_internal(place)


def question(place: Block) -> str:
    """The URI that is asked here, "" for none; an internal location is no client's."""
    uri = "off" if is_internal(place) else place.value("auth_request", "off")
    return "" if uri == "off" else uri


def _serves_by(here: Block, codes: set[str]) -> bool:
    """Whether an error_page for these serves what is asked for: it shows no error."""
    if here.own("memcached_pass") and "404" in codes:
        return True
    if codes & DENIALS:
        return False
    if "=" in codes and codes <= {"=", "404", "405"} and not passes(here):
        return True  # how files were tried before there was try_files
    returned = {str(status_of(each)) for each in here.within("return")}
    if returned & codes:
        unusual = {each for each in returned & codes if each[0] == "4"} - _USUAL
        return bool(unusual) or (always_answers(here) and min(returned) < "500")
    return False


def _named_directories(place: Block) -> list[str]:
    """The directories below a `root` that an expression names at its beginning."""
    if place.args[0] not in REGEX or passes(place) or place.own("alias"):
        return []
    heads = {each.rpartition("/")[0] for each in literal_prefixes(place.args[-1]) or []} - {""}
    return [root.rstrip("/") + head + "/" for root in file_roots(place) for head in heads]


def _any_uri(target: str) -> bool:
    """Whether an error_page leads on with the URI that was asked for, and not to one page."""
    return target.startswith("@") or "$" in target


def has_content(place: Block) -> bool:
    """Whether a location itself serves something: an application or files."""
    return bool(passes(place)) or bool(place.own("root") or place.own("alias"))


def _is_everything(place: Block) -> bool:
    return not is_internal(place) and place.args[-1] == "/" and place.args[0] not in REGEX

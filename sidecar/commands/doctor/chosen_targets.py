"""Find where the client chooses the address, the file or the location that nginx leads to.

`proxy_pass http://$arg_host` reaches every address, `root /srv/$arg_site` by `..` every file, and
`error_page 404 $arg_page` the locations that are internal.  Each is tried: with an address or a
directory that another question is about, with one that nobody is to reach, with the path of an
internal location.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from .access import always_answers, closed, is_led_to_only
from .choices import made
from .findings import Finding
from .nginx_config import Block, Root
from .onward import Onward
from .rewriting import breaks, stays
from .routing import REGEX, literal_prefixes, serving
from .server import Server, has_content, question
from .targets import PASSES, addresses_of, directories, files, passes, shown_by
from .variables import OF_THE_URI, names, plain_variables

_NOBODY_S = "any.invalid"
"""An address and a directory that no configuration means (RFC 6761)."""
_OUTSIDE = "../" * 16 + f"{_NOBODY_S}/"
_ANY_FILE = "every file that nginx may read, by `..`"
_STRANGE = (_NOBODY_S, f"{_NOBODY_S}:9")

_SCRIPTS = {
    "fastcgi_param": ("SCRIPT_FILENAME", "DOCUMENT_ROOT", "PATH_TRANSLATED"),
    "scgi_param": ("SCRIPT_FILENAME", "DOCUMENT_ROOT"),
    "uwsgi_param": (
        "SCRIPT_FILENAME",
        "DOCUMENT_ROOT",
        "UWSGI_FILE",
        "UWSGI_SCRIPT",
        "UWSGI_CHDIR",
    ),
}
"""What names the file that an interpreter runs, or its directory."""


class _Kept(NamedTuple):
    """What a question is about: an address or a directory, of which server."""

    what: str
    server: Block
    uri: str


class ChosenTargets:
    """What is kept in all servers, and the locations that lead to what a client writes."""

    def __init__(self, servers: list[Server], root: Root, findings: list[Finding]) -> None:
        self._root = root
        self._findings = findings
        self._asks = False
        """Whether the server that is looked at asks."""
        places = [
            (server, place)
            for server in servers
            for place in server.keeping
            if place not in server.questions.values() and not closed(place)
        ]
        self._addresses = _once(places, lambda server, place: server.served(place))
        self._files = _once(places, lambda _, place: directories(place))
        self._upstreams = {
            each.args[0].lower(): addresses_of(each.args[0], each, root)
            for each in root.all("upstream")
            if each.args and each.parent is not None and each.parent.name == "http"
        }

    def examine(self, server: Server) -> None:
        """Everything that clients, or what leads on, come to in a server."""
        answering = [*server.questions.values()]
        self._asks = bool(server.asking)
        onward = Onward(server)
        for place in [*server.locations, *([server.block] if server.uncovered() else [])]:
            if place in answering or closed(place) or always_answers(place):
                continue
            self._passes(server, place)
            self._shown(server, place)
            if self._asks:
                self._led_on(server, place, onward)
        for each in server.block.within("rewrite") if self._asks else ():
            self._leads(server, server.block, each, _replacement(each), onward)

    def streams(self, root: Root) -> None:
        """A server of `stream { }` whose client names the address, as by its server name."""
        for stream in root.own("stream"):
            for server in stream.own("server"):
                for each in server.own("proxy_pass"):
                    if variable := self._reaches(each, self._addresses):
                        self._add(each, variable, "every address, such as those that are kept")

    # -- addresses

    def _passes(self, server: Server, place: Block) -> None:
        for each in place.within(*PASSES):
            if each.name == "tunnel_pass" or "$" not in each.args[0]:
                continue  # of any tunnel `tunnels` says so
            others = [e for e in self._addresses if not _is_same(e, server, place)]
            if variable := self._reaches(each, others):
                self._add(each, variable, "addresses about which another question is asked")
            elif self._asks and (variable := self._reaches(each, [])):
                self._add(each, variable, "every address")

    def _reaches(self, passing: Block, kept: Iterable[_Kept]) -> str:
        """The variable by which a client chooses one of these addresses, or else any."""
        at, text = passing.parent, passing.args[0]
        authority = re.match(r"(?:[^/]*://)?[^/]*", text)
        if at is None or authority is None or "$" not in authority[0]:
            return ""
        wanted = {each.what for each in kept}
        words = {word for each in wanted for word in (each, *each.rsplit(":", 1))}
        words |= {name for name, there in self._upstreams.items() if there & wanted}
        head = authority[0].rpartition("://")[2].partition("$")[0].lower()
        if head:  # an address that is there already is not chosen
            words |= {word[len(head) :] for word in words - {head} if word.startswith(head)}
        ends = ("", "/") if passing.name == "proxy_pass" and at.name != "server" else ("",)
        for tried in (word + end for word in sorted(words or _STRANGE) for end in ends):
            for target, variable in made(authority[0], at, self._root, tried):
                where = addresses_of(target, passing, self._root)
                if wanted & where or (not words and any(map(_is_nobody_s, where))):
                    return variable
        return ""

    # -- files

    def _shown(self, server: Server, place: Block) -> None:
        for at, text in _paths(place):
            if set(OF_THE_URI).issuperset(names(text)) or not (self._asks or self._files):
                continue
            if variable := self._shows(text, place, f"/{_NOBODY_S}/", [_OUTSIDE]):
                self._add(at, variable, _ANY_FILE)
                continue
            for kept in self._files:
                parts = kept.what.strip("/").split("/")
                tails = ["/".join(parts[begin:]) for begin in range(len(parts))]
                if not _is_same(kept, server, place) and (
                    variable := self._shows(text, place, kept.what, tails)
                ):
                    self._add(at, variable, kept.what)
                    break

    def _shows(self, text: str, place: Block, directory: str, words: list[str]) -> str:
        """The variable by which a path comes to be in a directory, by one of these words."""
        for tried in words:
            for target, variable in made(text, place, self._root, tried):
                if (_in_full(target) + "/").startswith(directory):
                    return variable
        return ""

    # -- locations

    def _led_on(self, server: Server, place: Block, onward: Onward) -> None:
        for each in place.within("rewrite"):
            self._leads(server, place, each, _replacement(each), onward)
        for each in (*place.own("try_files"), *place.own("internal_redirect")):
            self._leads(server, place, each, each.args[-1], onward)
        for name in ("error_page", "index"):
            for each in (*place.inherited(name), *place.within(name)):
                for word in each.args if name == "index" else each.args[-1:]:
                    self._leads(server, place, each, word, onward)

    def _leads(self, server: Server, place: Block, at: Block, word: str, onward: Onward) -> None:
        """What a URI leads to that nginx looks for the location of again."""
        text = _path(word)
        if "$" not in text or (at.name == "rewrite" and stays(at)):
            return
        for wanted, inner in _inner(server):
            if serving(server.block, text.partition("$")[0]) is inner:
                continue  # it is meant
            if _asked_within(inner) == question(place) != "" or onward.answers(inner):
                continue
            if not (has_content(inner) or onward.exposes(inner)):
                continue
            for tried in (wanted, wanted[1:]):
                for target, variable in made(text, at, self._root, tried):
                    if serving(server.block, target) is inner:
                        self._add(at, variable, f"{inner.args[-1]}, which is internal")
                        return
        self._leads_out(server, at, text)

    def _leads_out(self, server: Server, at: Block, text: str) -> None:
        """nginx resolves no dots in what it leads on to: the system does where a file is shown."""
        for shown in _with_files(server):
            begins = shown.args[-1]
            for head in ("", begins + "/", begins[1:] + "/"):
                for target, variable in made(text, at, self._root, f"{head}{_OUTSIDE}"):
                    if target.endswith(_OUTSIDE) and serving(server.block, target) is shown:
                        self._add(at, variable, _ANY_FILE)
                        return

    def _add(self, at: Block, variable: str, where: str) -> None:
        self._findings.append(
            Finding(
                "target-from-client",
                at.file,
                at.line,
                f"`{at.name}` goes by {variable}, which the client writes, and leads to {where}",
                f"a map of {variable} to constants, with a default; or a constant",
            )
        )


def _asked_within(place: Block) -> str:
    """What is asked where only nginx leads to: `question` has none there."""
    uri = place.value("auth_request", "off")
    return "" if uri == "off" else uri


def _once(
    places: list[tuple[Server, Block]], led_to: Callable[[Server, Block], set[str]]
) -> list[_Kept]:
    found = (
        _Kept(each, server.block, question(place))
        for server, place in places
        for each in sorted(led_to(server, place))
        if "$" not in each
    )
    return list(dict.fromkeys(found))


def _is_nobody_s(address: str) -> bool:
    return address.partition(":")[0] == _NOBODY_S


def _in_full(path: str) -> str:
    """A path as the system reads it; a `..` at the top leads nowhere."""
    return posixpath.normpath("/" + path.lstrip("/"))


def _is_same(kept: _Kept, server: Server, place: Block) -> bool:
    return kept.server is server.block and kept.uri == (question(place) or _asked_within(place))


def _inner(server: Server) -> Iterator[tuple[str, Block]]:
    """The locations that clients can't ask for, each with a URI that is served there."""
    for each in server.locations:
        if not is_led_to_only(each) or each in server.questions.values() or closed(each):
            continue
        if each.args[0] in REGEX:
            yield from ((head + "x", each) for head in literal_prefixes(each.args[-1]) or [])
        else:
            yield each.args[-1], each
            yield each.args[-1] + "x", each


def _with_files(server: Server) -> Iterator[Block]:
    """The prefixes below which files are shown."""
    return (each for each in server.locations if files(each) and not closed(each))


def _paths(place: Block) -> Iterator[tuple[Block, str]]:
    """Each path of a file that a place shows or runs, as it is written, with its directive."""
    shown = shown_by(place)
    base = shown.args[0].rstrip("/") if shown is not None else ""
    written = [each for each in place.within("rewrite") if breaks(each)]
    if passes(place):
        for name, words in _SCRIPTS.items():
            for each in place.inherited(name) if place.own(name.replace("param", "pass")) else ():
                if each.args[0] in words:
                    path = plain_variables(each.args[1]).replace("$document_root", base)
                    yield each, path
                    for by in written:
                        yield by, path.replace("$fastcgi_script_name", _path(_replacement(by)))
        return
    if shown is None:
        return
    yield shown, base + ("/x" if shown.name == "alias" else "/$uri")
    tried = [(each, word) for each in place.own("try_files") for word in each.args[:-1]]
    tried += [(each, f"$uri/{word}") for each in place.inherited("index") for word in each.args]
    tried += [(each, _replacement(each)) for each in written]
    yield from ((each, f"{base}/{_path(word)}") for each, word in tried)


def _replacement(rewrite: Block) -> str:
    """What a `rewrite` writes: $1 is of its own expression, and empty without a group in it."""
    given = plain_variables(rewrite.args[1])
    return given if "(" in rewrite.args[0] else re.sub(r"\$\d", "", given)


def _path(uri: str) -> str:
    return uri.partition("?")[0].partition("$is_args")[0]

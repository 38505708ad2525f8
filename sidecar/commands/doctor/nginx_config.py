"""nginx's configuration as a tree, with as much of nginx's own rules as `doctor` needs.

A directive holds from the nearest block that has any of its name (`inherited`), as most of
nginx's do.  A URI's location is chosen as nginx chooses it.  Variables, maps and scripts are not
followed.
"""

from __future__ import annotations

import fnmatch
import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import crossplane

REGEX = ("~", "~*")
_MARK = re.compile(r"^# configuration file (.+):$", re.MULTILINE)
"""What `nginx -T` writes before each file (ngx_conf_parse, main)."""


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
    _refuse_errors(found)
    root = Block("", [], str(path), 0)
    for config in found["config"]:
        root.inner += [_block(each, root) for each in config["parsed"]]
    return root


def read_dump(text: str) -> Block:
    """The output of `nginx -T`, with its includes in place.  Raises ValueError."""
    parts = _MARK.split(text)[1:]
    if not parts:
        raise ValueError(
            "that isn't the output of nginx -T; write: nginx -T | mtls-sidecar doctor -"
        )
    files = dict(zip(parts[::2], parts[1::2], strict=True))
    return _Dump(files, PurePosixPath(parts[0]).parent).root(parts[0])


class _Dump:
    """The files of a dump, by their names; includes are looked up among them."""

    def __init__(self, files: dict[str, str], base: PurePosixPath) -> None:
        self._files = files
        self._base = base
        self._open: list[str] = []

    def root(self, name: str) -> Block:
        root = Block("", [], name, 0)
        self._put(name, root)
        return root

    def _put(self, name: str, parent: Block) -> None:
        if name in self._open:
            raise ValueError(f"{name} includes itself")
        self._open.append(name)
        text = self._files[name].removeprefix("\n")  # which ends the mark's line
        with tempfile.NamedTemporaryFile("w", suffix=".conf") as file:
            file.write(text)
            file.flush()
            found = crossplane.parse(
                file.name, single=True, catch_errors=True, check_ctx=False, check_args=False
            )
        _refuse_errors(found, name)
        for given in found["config"][0]["parsed"]:
            self._add({**given, "file": name}, parent, name)
        self._open.pop()

    def _add(self, given: dict[str, Any], parent: Block, name: str) -> None:
        if given["directive"] == "include":
            pattern = str(self._base / given["args"][0])
            for each in sorted(self._files):
                if fnmatch.fnmatchcase(each, pattern):
                    self._put(each, parent)
            return
        block = Block(given["directive"], given["args"], name, given["line"], parent)
        parent.inner.append(block)
        for each in given.get("block", ()):
            self._add(each, block, name)


def _refuse_errors(found: dict[str, Any], name: str = "") -> None:
    if found["status"] != "ok":
        told = "; ".join(f"{name or e.get('file')}: {e['error']}" for e in found["errors"])
        raise ValueError(f"nginx's configuration can't be read: {told}")


def _block(given: dict[str, Any], parent: Block) -> Block:
    block = Block(given["directive"], given["args"], given["file"], given["line"], parent)
    block.inner = [_block(each, block) for each in given.get("block", ())]
    return block


# -- choosing a location


def serving(within: Block, uri: str) -> Block | None:
    """The location that serves a URI (ngx_http_core_find_location): exact, prefix, regex; or @name.

    None where none does, or where a regular expression decides that Python can't read.
    """
    locations = within.own("location")
    if uri.startswith("@"):
        return next((each for each in locations if each.args == [uri]), None)
    exact = next((each for each in locations if each.args == ["=", uri]), None)
    if exact is not None:
        return exact
    prefixes = [
        each
        for each in locations
        if each.args[0] not in ("=", *REGEX) and uri.startswith(each.args[-1])
    ]
    longest = max(prefixes, key=lambda each: len(each.args[-1]), default=None)
    inner = serving(longest, uri) if longest is not None else None
    if inner is not None:
        return inner
    if longest is None or longest.args[0] != "^~":
        for each in locations:
            if each.args[0] in REGEX and _matches(each, uri):
                return serving(each, uri) or each
    return longest


def _matches(location: Block, uri: str) -> bool:
    flags = re.IGNORECASE if location.args[0] == "~*" else 0
    try:
        return re.search(location.args[1], uri, flags) is not None
    except re.error:
        return False

"""nginx's configuration as a tree: its files read within bounds, their includes in place.

A directive holds from the nearest block that has any of its name (`inherited`), as most of
nginx's do.  njs and Lua are not followed.
"""

from __future__ import annotations

import fnmatch
import glob
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Protocol

from sidecar.runtime.files import read_file

from .syntax import COMMENT, Statement, SyntaxFault, statements

MAX_BYTES = 32 << 20
"""Octets of all files; a file that is included twice counts once."""
MAX_DIRECTIVES = 500_000
MAX_INCLUDES = 20_000
MAX_INCLUDE_DEPTH = 40

MARKER = "mtls-sidecar:"
"""A comment with this in it is addressed to doctor: see `exemptions`."""

_ARGUMENTS = {
    **dict.fromkeys(
        """add_after_body add_before_body alias allow auth_request deny fastcgi_pass
        fastcgi_split_path_info grpc_pass if keepalive limit_conn limit_req listen location
        memcached_pass mirror post_action proxy_bind proxy_cache proxy_cache_background_update
        proxy_cache_use_stale proxy_ignore_headers proxy_pass real_ip_header return root satisfy
        scgi_pass set_real_ip_from ssi ssl_client_certificate ssl_early_data ssl_trusted_certificate
        upstream user uwsgi_pass""".split(),
        1,
    ),
    **dict.fromkeys(
        """auth_request_set error_page fastcgi_param grpc_set_header map proxy_set_header rewrite
        scgi_param set try_files uwsgi_param""".split(),
        2,
    ),
}
"""The fewest arguments of directives that are looked at; nginx refuses fewer, too."""

_ANY_CASE = frozenset(
    """dav_methods fastcgi_pass_request_headers ignore_invalid_headers merge_slashes
    proxy_cache_background_update proxy_cache_use_stale proxy_ignore_headers proxy_intercept_errors
    proxy_next_upstream proxy_pass_request_body proxy_pass_request_headers recursive_error_pages
    satisfy scgi_pass_request_headers ssi ssl_early_data ssl_verify_client underscores_in_headers
    uwsgi_pass_request_headers""".split()
)
"""Directives whose words nginx takes in any case (ngx_conf_set_flag_slot, enum, bitmask)."""

_TABLES = frozenset({"map", "geo", "types", "split_clients"})
"""Blocks whose lines are no directives."""

_VALUES = ("map", "split_clients", "geo")
"""Blocks that give a variable its value: the last word of each line."""

_CLASSES = {
    "[:alnum:]": "A-Za-z0-9",
    "[:alpha:]": "A-Za-z",
    "[:digit:]": "0-9",
    "[:lower:]": "a-z",
    "[:upper:]": "A-Z",
    "[:xdigit:]": "A-Fa-f0-9",
}
"""Classes of characters in the C locale, which nginx has."""

_MARK = re.compile(r"^# configuration file (.+):$", re.MULTILINE)
"""What `nginx -T` writes before each file (ngx_conf_parse, main)."""


_INDEXED = 32
"""From how many directives on a block is looked up by an index."""


@dataclass(slots=True, eq=False)
class Block:
    """One directive, and the directives in it.  `end` is the line on which it ends."""

    name: str
    args: list[str]
    file: str
    line: int
    parent: Block | None = None
    inner: list[Block] = field(default_factory=list)
    end: int = 0
    includes: list[tuple[str, int, int]] = field(default_factory=list)
    """Of each `include` right in this block its file, its line, and the line on which it ends."""
    named: dict[str, list[Block]] = field(default_factory=dict)
    """Of a large block: what stands in it, by name, built when first asked for."""

    def own(self, name: str) -> list[Block]:
        """Directives of this name that stand right in this block."""
        if len(self.inner) < _INDEXED:
            return [each for each in self.inner if each.name == name]
        if not self.named:
            for each in self.inner:
                self.named.setdefault(each.name, []).append(each)
        return self.named.get(name, [])

    def inherited(self, name: str) -> list[Block]:
        """Directives of this name that hold here: the nearest block's that has any."""
        return next((found for each in self.around() if (found := each.own(name))), [])

    def around(self) -> Iterator[Block]:
        """This block and those around it, from the inside."""
        here: Block | None = self
        while here is not None:
            yield here
            here = here.parent

    def value(self, name: str, default: str = "") -> str:
        """The arguments of the directive that holds here, joined."""
        found = self.inherited(name)
        return " ".join(found[-1].args) if found else default

    def line_from(self, at: Block) -> str:
        """Its line, as told of another directive: with the file, if that is another one."""
        return f"line {self.line}" + (f" of {self.file}" if self.file != at.file else "")

    def all(self, name: str) -> Iterator[Block]:
        """Every block of this name below."""
        yield from (each for each in self._below() if each.name == name)

    def _below(self) -> Iterator[Block]:
        for each in self.inner:
            yield each
            yield from each._below()

    def within(self, *names: str) -> Iterator[Block]:
        """Directives of these names here and in the `if` and `limit_except` blocks below."""
        for each in self.inner:
            if each.name in names:
                yield each
            if each.name in ("if", "limit_except"):
                yield from each.within(*names)


@dataclass(slots=True, eq=False)
class Root(Block):
    """A whole configuration.  What is looked up again and again is indexed when first asked for."""

    by_name: dict[str, list[Block]] = field(default_factory=dict)
    upstreams: dict[tuple[str, str], Block] = field(default_factory=dict)
    tables: dict[str, list[Block]] | None = None

    def all(self, name: str) -> Iterator[Block]:
        """Every block of this name."""
        self._index()
        yield from self.by_name.get(name, ())

    def upstream(self, name: str, context: str = "http") -> Block | None:
        """The upstream of this name, which nginx takes in any case, of http or stream."""
        self._index()
        return self.upstreams.get((context, name.lower()))

    def table(self, variable: str) -> list[Block]:
        """The lines of each `map`, `split_clients` and `geo` that gives this variable its value."""
        if self.tables is None:
            self.tables = {}
            for each in (e for name in _VALUES for e in self.all(name)):
                lines = [line for line in each.inner if line.args and line.name != COMMENT]
                self.tables.setdefault("".join(each.args[-1:]).lower(), []).extend(lines)
        return self.tables.get(variable, [])

    def _index(self) -> None:
        if self.by_name:
            return
        for each in self._below():
            self.by_name.setdefault(each.name, []).append(each)
        for each in self.by_name.get("upstream", ()):
            if each.args and each.parent is not None:
                self.upstreams.setdefault((each.parent.name, each.args[0].lower()), each)


def read_nginx(path: Path) -> Root:
    """The configuration with its includes in place.  Raises ValueError where it can't be read."""
    return _Tree(_Disk(), PurePosixPath(path).parent).root(str(path))


def read_dump(text: str) -> Root:
    """The output of `nginx -T`, with its includes in place.  Raises ValueError."""
    parts = _MARK.split(text)[1:]
    if not parts:
        raise ValueError(
            "that isn't the output of nginx -T; write: nginx -T | mtls-sidecar doctor -"
        )
    names = [str(PurePosixPath(each)) for each in parts[::2]]  # nginx says /etc/nginx/./a.conf
    dump, strange = _Dump({}), list[str]()
    for name, text in zip(names, parts[1::2], strict=True):
        if dump.texts.setdefault(name, text.removeprefix("\n")) != text.removeprefix("\n"):
            strange.append(name)
    root = _Tree(dump, PurePosixPath(names[0]).parent).root(names[0])
    strange += [each for each in names if each not in dump.asked]
    if strange:
        raise ValueError(
            f"{_UNREADABLE} the output of nginx -T has a line `# configuration file {strange[0]}:` "
            "that isn't nginx's own: it stands in one of the files. Remove it there, or write: "
            "mtls-sidecar doctor /etc/nginx/nginx.conf"
        )
    return root


def read_piped(stream: BinaryIO) -> Root:
    """The output of `nginx -T` on a stream, up to a limit.  Raises ValueError."""
    data = stream.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise ValueError(f"{_UNREADABLE} standard input: it is larger than {MAX_BYTES >> 20} MiB")
    return read_dump(data.decode(errors="replace"))


_UNREADABLE = "nginx's configuration can't be read:"


# -- files


class _Files(Protocol):
    """Where the configuration's files are."""

    def read(self, name: str) -> str:
        """A file's text.  Raises OSError."""

    def matching(self, pattern: str) -> list[str]:
        """The files that an `include` with wildcards names, in order.  Raises OSError."""


@dataclass(slots=True)
class _Disk:
    """Files on this machine."""

    left: int = MAX_BYTES

    def read(self, name: str) -> str:
        data = read_file(name, self.left)
        self.left -= len(data)
        return data.decode(errors="replace")

    def matching(self, pattern: str) -> list[str]:
        _refuse_unreadable_directories(pattern)
        return sorted(islice(glob.iglob(pattern), MAX_INCLUDES + 1))


@dataclass(slots=True)
class _Dump:
    """Files of a dump, by their names."""

    texts: dict[str, str]
    asked: set[str] = field(default_factory=set)
    """The names of those that were read."""

    def read(self, name: str) -> str:
        self.asked.add(name)
        if name not in self.texts:
            raise FileNotFoundError(2, "it is not in the output of nginx -T", name)
        return self.texts[name]

    def matching(self, pattern: str) -> list[str]:
        return sorted(each for each in self.texts if _path_matches(each, pattern))


def _refuse_unreadable_directories(pattern: str) -> None:
    """Raise PermissionError for a directory that would have to be listed, and can't be.

    glob(3) takes one for empty, and nginx reads as root what whoever asks here may not see.
    """
    parts = pattern.split("/")
    for at, part in enumerate(parts):
        if not glob.has_magic(part):
            continue
        above = "/".join(parts[:at]) or ("/" if pattern.startswith("/") else ".")
        found = glob.iglob(above) if glob.has_magic(above) else [above]
        for each in islice(found, MAX_INCLUDES):
            with suppress(FileNotFoundError, NotADirectoryError), os.scandir(each):
                pass


def _path_matches(path: str, pattern: str) -> bool:
    """Whether glob(3) would name this path: wildcards match no slash and no leading dot."""
    parts, patterns = path.split("/"), pattern.split("/")
    return len(parts) == len(patterns) and all(
        fnmatch.fnmatchcase(part, one) and not (part.startswith(".") and one[:1] in "*?[")
        for part, one in zip(parts, patterns, strict=True)
    )


# -- the tree


class _Tree:
    """Builds the tree, and refuses what is too large: an include may stand in many places."""

    def __init__(self, files: _Files, base: PurePosixPath) -> None:
        self._files = files
        self._base = base
        self._open: list[str] = []
        self._read: dict[str, list[Statement]] = {}
        self._named: dict[str, list[str]] = {}
        self._directives = 0
        self._includes = 0

    def root(self, name: str) -> Root:
        root = Root("", [], name, 0)
        try:
            self._put(name, root, name)
        except SyntaxFault as fault:
            raise ValueError(f"{_UNREADABLE} {fault}") from None
        return root

    def _put(self, name: str, parent: Block, where: str) -> None:
        if name in self._open:
            raise SyntaxFault(f"{where}: {name} includes itself")
        if len(self._open) >= MAX_INCLUDE_DEPTH:
            raise SyntaxFault(f"{where}: more than {MAX_INCLUDE_DEPTH} includes within each other")
        self._open.append(name)
        for each in self._statements(name, where):
            self._add(each, parent, name)
        self._open.pop()

    def _statements(self, name: str, where: str) -> list[Statement]:
        if name not in self._read:
            try:
                text = self._files.read(name)
            except (OSError, ValueError) as error:
                reason = (isinstance(error, OSError) and error.strerror) or "it has no such name"
                included = f"{where}: " if where != name else ""
                raise SyntaxFault(f"{included}{name}: {reason}") from None
            try:
                self._read[name] = statements(text, keep_comments=MARKER)
            except SyntaxFault as fault:
                raise SyntaxFault(f"{name}:{fault}") from None
        return self._read[name]

    def _add(self, given: Statement, parent: Block, name: str) -> None:
        self._directives += 1
        if self._directives > MAX_DIRECTIVES:
            raise SyntaxFault(f"{name}:{given.line}: more than {MAX_DIRECTIVES:,} directives")
        if given.name == "include" and len(given.args) == 1:
            parent.includes.append((name, given.line, given.end))
            self._include(given, parent, name)
            return
        if len(given.args) < _fewest_arguments(given.name, parent.name):
            raise SyntaxFault(
                f'{name}:{given.line}: invalid number of arguments in "{given.name}" directive'
            )
        args = given.args
        if given.name == "location" and len(args) == 1:
            args = _modified(args[0])
        elif given.name in _ANY_CASE:
            args = [each.lower() for each in args]
        block = Block(given.name, args, name, given.line, parent, end=given.end)
        parent.inner.append(block)
        for each in given.block:
            self._add(each, block, name)

    def _include(self, given: Statement, parent: Block, name: str) -> None:
        where = f"{name}:{given.line}: include {given.args[0]}"
        pattern = str(self._base / given.args[0])
        try:
            names = self._names(pattern)
        except OSError as error:
            raise SyntaxFault(f"{where}: {error.filename}: {error.strerror}") from None
        for each in names:
            self._includes += 1
            if self._includes > MAX_INCLUDES:
                raise SyntaxFault(f"{where}: more than {MAX_INCLUDES:,} files are included")
            self._put(each, parent, where)

    def _names(self, pattern: str) -> list[str]:
        if not glob.has_magic(pattern):
            return [pattern]
        if pattern not in self._named:
            self._named[pattern] = self._files.matching(_as_python_s(pattern))
        return self._named[pattern]


def _modified(written: str) -> list[str]:
    """The words of a location: `~\\.php$` is `~ \\.php$` to nginx (ngx_http_core_location)."""
    found = re.match(r"=|\^~|~\*?", written)
    return [found[0], written[found.end() :]] if found else [written]


def _as_python_s(pattern: str) -> str:
    """A pattern of glob(3) as `fnmatch` has it: there are no `[^a]`, `[[:alpha:]]` and `\\*`."""
    for name, members in _CLASSES.items():
        pattern = pattern.replace(name, members)
    pattern = re.sub(r"\\([*?[])", r"[\1]", pattern)
    return re.sub(r"\\(.)", r"\1", pattern).replace("[^", "[!")


def _fewest_arguments(name: str, within: str) -> int:
    """Return how many arguments nginx wants of a directive at least, as far as it matters here."""
    if within in _TABLES:
        return 0
    return 1 if (name, within) == ("server", "upstream") else _ARGUMENTS.get(name, 0)


__all__ = ["COMMENT", "Block", "Root", "read_dump", "read_nginx", "read_piped"]

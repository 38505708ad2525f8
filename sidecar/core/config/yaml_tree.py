"""Parse YAML into a tree of plain text with line and column.

Scalars stay as written: no booleans, octals or sexagesimals of YAML 1.1.  Duplicate keys,
anchors, aliases, tags, a second document and deep nesting are mistakes, each with its place.
The parser is libyaml's; the tree is built from its events, so an alias is never followed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

import yaml

from sidecar.core.errors import Diagnostic, PolicyError

MAX_BYTES = 16 * 1024 * 1024
"""Largest file read, in bytes."""

MAX_DEPTH = 32
"""Deepest nesting of lists and mappings."""


@dataclass(slots=True, eq=False)
class Node:
    """A scalar (`text`), a list (`items`) or a mapping (`pairs`), and where it starts."""

    line: int
    column: int
    text: str | None = None
    items: list[Node] | None = None
    pairs: list[tuple[Node, Node]] | None = None
    plain: bool = False

    @property
    def kind(self) -> str:
        """The kind of the node, as an error message names it."""
        if self.pairs is not None:
            return "a mapping"
        if self.items is not None:
            return "a list"
        return "nothing" if self.empty else "text"

    @property
    def empty(self) -> bool:
        """Whether the value is absent, as after `allow:`."""
        return self.text == "" and self.plain


@dataclass(slots=True)
class _Builder:
    file: str
    diagnostics: list[Diagnostic] = field(default_factory=list)
    open: list[Node] = field(default_factory=list)
    keys: list[Node | None] = field(default_factory=list)
    root: Node | None = None

    def report(self, event: yaml.Event, message: str, hint: str = "") -> None:
        self.diagnostics.append(Diagnostic(self.file, *_place(event), message, hint))

    def take(self, event: yaml.Event) -> None:
        """Add one event to the tree."""
        if isinstance(event, yaml.ScalarEvent):
            self._check(event)
            self._add(self._node(event, text=event.value, plain=event.style in (None, "")))
        elif isinstance(event, yaml.MappingStartEvent):
            self._check(event)
            self._enter(event, self._node(event, pairs=[]))
        elif isinstance(event, yaml.SequenceStartEvent):
            self._check(event)
            self._enter(event, self._node(event, items=[]))
        elif isinstance(event, (yaml.MappingEndEvent, yaml.SequenceEndEvent)):
            self.open.pop()
            self.keys.pop()
        elif isinstance(event, yaml.AliasEvent):
            self.report(event, f"alias *{event.anchor}", "write the value out")
            self._add(self._node(event, text="", plain=True))
        elif isinstance(event, yaml.DocumentStartEvent) and self.root is not None:
            self.report(event, "a second document", "put everything into one document")
            raise PolicyError(self.diagnostics)

    def _node(
        self,
        event: yaml.Event,
        *,
        text: str | None = None,
        items: list[Node] | None = None,
        pairs: list[tuple[Node, Node]] | None = None,
        plain: bool = False,
    ) -> Node:
        return Node(*_place(event), text, items, pairs, plain)

    def _check(self, event: yaml.ScalarEvent | yaml.CollectionStartEvent) -> None:
        if event.anchor is not None:
            self.report(event, f"anchor &{event.anchor}", "remove it; nothing can refer to it")
        if event.tag is not None:
            self.report(event, f"tag {event.tag}", "remove it; every value is text as written")

    def _enter(self, event: yaml.Event, node: Node) -> None:
        self._add(node)
        self.open.append(node)
        self.keys.append(None)
        if len(self.open) > MAX_DEPTH:
            self.report(event, f"nested deeper than {MAX_DEPTH} levels", "use fewer levels")
            raise PolicyError(self.diagnostics)

    def _add(self, node: Node) -> None:
        if not self.open:
            self.root = node
            return
        parent = self.open[-1]
        if parent.items is not None:
            parent.items.append(node)
        elif parent.pairs is not None:
            key = self.keys[-1]
            if key is None:
                self.keys[-1] = node
            else:
                parent.pairs.append((key, node))
                self.keys[-1] = None


def _place(event: yaml.Event) -> tuple[int, int]:
    """Return line and column of an event, counted from 1."""
    mark = event.start_mark
    assert mark is not None  # every event of a parser has a mark
    return mark.line + 1, mark.column + 1


def _duplicates(node: Node, file: str, found: list[Diagnostic]) -> None:
    """Report each key that a mapping has twice, and each key that isn't text."""
    stack = [node]
    while stack:
        node = stack.pop()
        stack.extend(node.items or ())
        seen: dict[str, int] = {}
        for key, value in node.pairs or ():
            stack.append(value)
            if key.text is None:
                found.append(Diagnostic(file, key.line, key.column, "a key that isn't text"))
            elif key.text in seen:
                found.append(
                    Diagnostic(
                        file,
                        key.line,
                        key.column,
                        f"duplicate key {key.text!r}",
                        f"it is also in line {seen[key.text]}; keep one of them",
                    )
                )
            else:
                seen[key.text] = key.line


_UTF16 = (b"\xff\xfe", b"\xfe\xff")
_HIDDEN_BREAK = re.compile("[\x85\u2028\u2029]")
"""Line ends to libyaml (YAML 1.1) alone: what looks like the rest of a comment would count."""


def _decode(data: bytes, file: str) -> str:
    if len(data) > MAX_BYTES:
        raise PolicyError([Diagnostic(file, 0, 0, f"larger than {MAX_BYTES >> 20} MiB")])
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        column = error.start - data.rfind(b"\n", 0, error.start)
        hint = "save the file as UTF-8"
        what = "UTF-16, not UTF-8" if data.startswith(_UTF16) or b"\0" in data[:2] else "not UTF-8"
        raise PolicyError([Diagnostic(file, line, column, what, hint)]) from None
    if found := _HIDDEN_BREAK.search(text):
        what = f"a line end that most editors don't show (U+{ord(found[0]):04X})"
        place = _place_of(text, found.start())
        raise PolicyError([Diagnostic(file, *place, what, "remove it, or press Enter instead")])
    return text


def _place_of(text: str, position: int) -> tuple[int, int]:
    before = text[:position]
    return before.count("\n") + 1, len(before) - before.rfind("\n")


def _syntax(error: yaml.YAMLError, text: str, file: str) -> Diagnostic:
    """Convert the parser's error to a diagnostic."""
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        mark = error.problem_mark
        message = f"not YAML: {error.problem or error.context}"
        hint = f"{error.context}, line {error.context_mark.line + 1}" if error.context_mark else ""
        if "cannot start any token" in message:
            hint = "indent with blanks, and quote values that begin with a special character"
        return Diagnostic(file, mark.line + 1, mark.column + 1, message, hint)
    if isinstance(error, yaml.reader.ReaderError):
        line, column = _place_of(text, error.position)
        if text.startswith("\0") or text[1:2] == "\0":
            return Diagnostic(file, 1, 1, "UTF-16, not UTF-8", "save the file as UTF-8")
        return Diagnostic(file, line, column, "a control character", "remove it")
    return Diagnostic(file, 0, 0, f"not YAML: {error}")


def parse(data: bytes, file: str) -> tuple[Node, list[Diagnostic]]:
    """Parse the file's only document; return it with every mistake that does not stop the parser.

    Raises `PolicyError` where the file can't be parsed.
    """

    text = _decode(data, file)
    builder = _Builder(file)
    try:
        for event in yaml.parse(text, Loader=yaml.CSafeLoader):
            builder.take(event)
    except yaml.YAMLError as error:
        raise PolicyError([*builder.diagnostics, _syntax(error, text, file)]) from None
    if builder.root is None:
        raise PolicyError(
            [
                Diagnostic(
                    file,
                    0,
                    0,
                    "the file is empty",
                    "write its keys; a policy begins with `version: 1`",
                )
            ]
        )
    _duplicates(builder.root, file, builder.diagnostics)
    return builder.root, builder.diagnostics

"""Describe, read and validate YAML mappings; the same description gives a JSON Schema.

A record is a dataclass whose fields carry a `FieldType` (see `key`).  Reading continues after a
mistake, and `Report` collects every mistake of the file.  A value with a mistake is left out, so
the caller must check the report before it uses the result.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from sidecar.core.errors import Diagnostic, PolicyError

from .yaml_tree import Node, parse

T = TypeVar("T")


class Invalid(Exception):
    """A value was reported as a mistake; the caller continues without it."""


class DatedWarning(NamedTuple):
    """A warning, and the moments from and until which it applies (seconds since the epoch)."""

    since: float
    warning: Diagnostic
    until: float = float("inf")


MAX_COMPARED = 2000
"""Maximum number of names that one file's mistakes are compared with, to suggest what was meant."""


@dataclass(slots=True)
class Report:
    """The mistakes and warnings found in one file so far."""

    file: str
    diagnostics: list[Diagnostic] = field(default_factory=list)
    warnings: list[DatedWarning] = field(default_factory=list)
    _left: int = MAX_COMPARED

    def suggest(self, wrote: str, known: Mapping[str, Any]) -> str:
        """Suggest a known name, for as long as not too many were compared; else nothing."""
        self._left -= len(known)
        return suggest(wrote, known) if known and self._left >= 0 else ""

    def add(self, node: Node, message: str, hint: str = "") -> None:
        """Record a mistake at a node."""
        self.diagnostics.append(Diagnostic(self.file, node.line, node.column, message, hint))

    def warn(
        self,
        node: Node,
        message: str,
        hint: str = "",
        *,
        since: float = float("-inf"),
        until: float = float("inf"),
    ) -> None:
        """Record a warning: the value is valid but probably not intended.

        It applies from `since` until `until` (seconds since the epoch).
        """
        warning = Diagnostic(self.file, node.line, node.column, message, hint)
        self.warnings.append(DatedWarning(since, warning, until))

    def fail(self, node: Node, message: str, hint: str = "") -> Invalid:
        """Record a mistake and return the exception to raise."""
        self.add(node, message, hint)
        return Invalid()

    def check(self) -> None:
        """Raise `PolicyError` if a mistake was recorded."""
        if self.diagnostics:
            raise PolicyError(self.diagnostics)


@dataclass(frozen=True, slots=True)
class Located:
    """A text value and the node that it was read from, for later diagnostics."""

    text: str
    node: Node = field(repr=False, compare=False)


class FieldType(Protocol):
    """The type of a value in the file."""

    def read(self, node: Node, report: Report) -> Any:
        """Read the value of a node.  Reports a mistake, then raises `Invalid`."""

    def schema(self) -> dict[str, Any]:
        """Return the JSON Schema of the type (draft 2020-12)."""


@dataclass(frozen=True, slots=True)
class Text:
    """Text as written; `check` may convert it (and raises ValueError for invalid text)."""

    what: str = "text"
    pattern: str = ""
    check: Callable[[str], Any] | None = None
    located: bool = False

    def read(self, node: Node, report: Report) -> Any:
        if node.text is None or node.text == "":
            raise report.fail(node, f"{node.kind} where {self.what} is expected")
        if self.pattern and not re.fullmatch(self.pattern, node.text):
            raise report.fail(node, f"{node.text!r} is not {self.what}")
        try:
            found = self.check(node.text) if self.check else node.text
        except ValueError as error:
            message, *hint = error.args
            raise report.fail(node, str(message), *map(str, hint)) from None
        return Located(found, node) if self.located else found

    def schema(self) -> dict[str, Any]:
        pattern = {"pattern": f"^(?:{self.pattern})$"} if self.pattern else {}
        return {"type": ["string", "number"], "description": self.what, **pattern}


@dataclass(frozen=True, slots=True)
class Choice:
    """One of a few words."""

    words: tuple[str, ...]

    def read(self, node: Node, report: Report) -> str:
        if node.text not in self.words:
            wrote = repr(node.text) if node.text is not None else node.kind
            hint = suggest(node.text, dict.fromkeys(self.words))
            raise report.fail(node, f"{wrote} is not allowed here", hint)
        return node.text

    def schema(self) -> dict[str, Any]:
        numbers = [int(word) for word in self.words if word.isdecimal()]
        return {"enum": [*self.words, *numbers]}


class Flag:
    """The word `true` or `false`; no other word is accepted."""

    def read(self, node: Node, report: Report) -> bool:
        if node.text not in ("true", "false"):
            wrote = repr(node.text) if node.text is not None else node.kind
            raise report.fail(node, f"{wrote} is neither true nor false", "write true or false")
        return node.text == "true"

    def schema(self) -> dict[str, Any]:
        return {"type": "boolean"}


@dataclass(frozen=True, slots=True)
class Count:
    """A whole number within bounds."""

    least: int
    most: int

    def read(self, node: Node, report: Report) -> int:
        text = node.text or ""
        if not re.fullmatch("0|[1-9][0-9]{0,17}", text) or not self.least <= int(text) <= self.most:
            wrote = repr(text) if node.text is not None else node.kind
            hint = f"write a whole number from {self.least} to {self.most}"
            raise report.fail(node, f"{wrote} is not a number in this range", hint)
        return int(text)

    def schema(self) -> dict[str, Any]:
        return {"type": "integer", "minimum": self.least, "maximum": self.most}


@dataclass(frozen=True, slots=True)
class ListOf:
    """A list; with `or_one`, a single value stands for a list of one.  An absent item is none."""

    item: FieldType
    or_one: bool = False

    def read(self, node: Node, report: Report) -> tuple[Any, ...]:
        if node.items is None:
            if node.empty:
                return ()
            if self.or_one:
                return (self.item.read(node, report),)
            raise report.fail(node, f"{node.kind} where a list is expected", "write [ … ]")
        return tuple(each(node.items, lambda n: self.item.read(n, report)))

    def schema(self) -> dict[str, Any]:
        many = {"type": "array", "items": self.item.schema()}
        return {"anyOf": [self.item.schema(), many]} if self.or_one else many


@dataclass(frozen=True, slots=True)
class MapOf:
    """A mapping whose keys are names that the administrator chooses."""

    value: FieldType
    names: str

    def read(self, node: Node, report: Report) -> dict[str, Any]:
        if node.empty:
            return {}
        found: dict[str, Any] = {}
        for name, value in pairs(node, report):
            if not re.fullmatch(self.names, name.text or ""):
                report.add(name, f"{name.text!r} is not a name", "use A-Z a-z 0-9 _ - (1 to 64)")
            with contextlib.suppress(Invalid):
                found[name.text or ""] = self.value.read(value, report)
        return found

    def schema(self) -> dict[str, Any]:
        return {
            "type": "object",
            "propertyNames": {"pattern": f"^(?:{self.names})$"},
            "additionalProperties": self.value.schema(),
        }


@dataclass(frozen=True, slots=True)
class Record(Generic[T]):
    """A mapping whose keys are the fields of a dataclass."""

    type: type[T]

    def read(self, node: Node, report: Report) -> T:
        fields = keys_of(self.type)
        found: dict[str, Any] = {}
        present = {name.text for name, _ in pairs(node, report)}
        for missing in [n for n, f in fields.items() if f.metadata["required"]]:
            if missing not in present:
                report.add(node, f"{missing!r} is missing", f"add {missing}: …")
        for name, value in pairs(node, report):
            spec = fields.get(name.text or "")
            if spec is None:
                report.add(name, f"unknown key {name.text!r}", suggest(name.text, fields))
                continue
            with contextlib.suppress(Invalid):
                found[spec.name] = spec.metadata["kind"].read(value, report)
        if "node" in {f.name for f in dataclasses.fields(self.type)}:  # type: ignore[arg-type]  # always a dataclass
            found["node"] = node
        return self.type(**found)

    def schema(self) -> dict[str, Any]:
        fields = keys_of(self.type)
        return {
            "type": "object",
            "additionalProperties": False,
            "required": [name for name, spec in fields.items() if spec.metadata["required"]],
            "properties": {
                name: {**spec.metadata["kind"].schema(), "description": spec.metadata["doc"]}
                for name, spec in fields.items()
            },
        }


def read_with_report(record: type[T], data: bytes, file: str) -> tuple[T, Report]:
    """Read the valid parts of a file, and report all mistakes of form.

    Raises `PolicyError` where no part can be read.
    """
    root, mistakes = parse(data, file)
    report = Report(file, mistakes)
    try:
        return Record(record).read(root, report), report
    except Invalid:
        raise PolicyError(report.diagnostics) from None


def read_record(record: type[T], data: bytes, file: str) -> T:
    """Read a file.  Raises `PolicyError` with every diagnostic if it has a mistake."""
    found, report = read_with_report(record, data, file)
    report.check()
    return found


def key(kind: FieldType, doc: str, *, required: bool = False, **default: Any) -> Any:
    """Declare a dataclass field as a key of the file: its type and its meaning."""
    return field(metadata={"kind": kind, "doc": doc, "required": required}, **default)


def keys_of(record: type) -> Mapping[str, dataclasses.Field[Any]]:
    """Return the keys of a record, by their spelling in the file."""
    fields = dataclasses.fields(record)
    return {f.name.rstrip("_"): f for f in fields if "kind" in f.metadata}


def pairs(node: Node, report: Report) -> list[tuple[Node, Node]]:
    """Return the pairs of a mapping; an absent value is an empty mapping.

    Raises `Invalid` for any other node.
    """
    if node.empty:
        return []
    if node.pairs is None:
        raise report.fail(node, f"{node.kind} where a mapping is expected", "write `key: value`")
    return node.pairs


def each(nodes: list[Node], read: Callable[[Node], T]) -> list[T]:
    """Read each node; leave out a node that was reported as invalid."""
    found = []
    for node in nodes:
        with contextlib.suppress(Invalid):
            found.append(read(node))
    return found


def suggest(wrote: str | None, known: Mapping[str, Any]) -> str:
    """Suggest a known word for an unknown one: the most similar, or else all of them."""
    folded = {word.lower(): word for word in known}
    close = difflib.get_close_matches((wrote or "").lower(), folded, n=1)
    return f"did you mean {folded[close[0]]!r}?" if close else f"write {_either(tuple(known))}"


def _either(words: tuple[str, ...]) -> str:
    return " or ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else "".join(words)

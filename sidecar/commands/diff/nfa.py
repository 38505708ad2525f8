"""Finite automata of the patterns of a policy, made deterministic one state at a time.

A regular expression is read by the parser that reads nginx's (`pcre_parser`): what that refuses,
and what is larger than `MAX_NODES`, has no automaton.  States come into being as they are reached,
so that an expression whose deterministic automaton is huge costs no more than what is looked at.

Characters beyond ASCII are one class, but for those that a glob names.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from sidecar.core.nginx.pcre_parser import parse
from sidecar.core.nginx.regex_tree import (
    Alternation,
    Atomic,
    Bytes,
    Concatenation,
    Node,
    Position,
    Repetition,
)
from sidecar.core.nginx.selector_error import SelectorError

MAX_NODES = 20_000
"""Most nodes of one automaton: `(a|b){1000}` has a few thousand."""


class NoAutomaton(Exception):
    """An expression that no automaton is made of; the argument says why."""


State = frozenset[int]
DEAD: State = frozenset()
"""From here nothing is accepted."""


@dataclass(frozen=True, slots=True)
class Characters:
    """A set of characters: some of ASCII, all others or none of them, or some by name."""

    ascii: frozenset[str]
    others: bool = False
    named: str = ""

    def __contains__(self, character: str) -> bool:
        if character.isascii():
            return character in self.ascii
        return self.others or character == self.named


ANY = Characters(frozenset(map(chr, range(128))), others=True)


@dataclass(slots=True)
class Nfa:
    """An automaton with arcs for characters, and free ones: always, at the start, at the end."""

    arcs: list[list[tuple[Characters, int]]] = field(default_factory=list)
    free: list[list[tuple[str, int]]] = field(default_factory=list)
    accepting: int = 0
    fold: bool = False
    _steps: dict[tuple[State, str], State] = field(default_factory=dict)
    _ends: dict[State, bool] = field(default_factory=dict)
    _sets: list[Characters] = field(default_factory=list)

    # -- building

    def node(self) -> int:
        """A new node."""
        if len(self.arcs) >= MAX_NODES:
            raise NoAutomaton("it is too large")
        self.arcs.append([])
        self.free.append([])
        return len(self.arcs) - 1

    def add(self, tree: Node, start: int) -> int:
        """Add a tree behind a node; the node behind it."""
        match tree:
            case Bytes(members):
                return self.behind(start, _characters(members))
            case Position("start" | "end" as kind):
                end = self.node()
                self.free[start].append((kind, end))
                return end
            case Position():
                raise NoAutomaton("it asks for a word boundary")
            case Concatenation(parts):
                for part in parts:
                    start = self.add(part, start)
                return start
            case Alternation(branches):
                end = self.node()
                for branch in branches:
                    begin = self.node()
                    self.free[start].append(("", begin))
                    self.free[self.add(branch, begin)].append(("", end))
                return end
            case Repetition(body, least, most):
                return self._repeat(body, least, most, start)
            case Atomic():
                raise NoAutomaton("it has an atomic group")

    def behind(self, start: int, characters: Characters) -> int:
        """Add an arc; the node behind it."""
        end = self.node()
        self.arcs[start].append((characters, end))
        return end

    def _repeat(self, body: Node, least: int, most: int | None, start: int) -> int:
        for _ in range(least):
            start = self.add(body, start)
        if most is None:
            begin, end = self.node(), self.node()
            self.free[start].append(("", begin))
            self.free[begin].append(("", end))
            self.free[self.add(body, begin)].append(("", begin))
            return end
        end = self.node()
        self.free[start].append(("", end))
        for _ in range(most - least):
            start = self.add(body, start)
            self.free[start].append(("", end))
        return end

    # -- running

    @property
    def start(self) -> State:
        """The state before the first character."""
        return self._closed([0], ("", "start"))

    def step(self, state: State, character: str) -> State:
        """The state behind a character."""
        key = (state, character)
        found = self._steps.get(key)
        if found is None:
            folded = character.lower() if self.fold else character
            ends = [end for node in state for chars, end in self.arcs[node] if folded in chars]
            found = self._steps[key] = self._closed(ends, ("",))
        return found

    def accepts(self, state: State) -> bool:
        """Whether what was read up to here is matched as a whole."""
        found = self._ends.get(state)
        if found is None:
            found = self._ends[state] = self.accepting in self._closed(state, ("", "end"))
        return found

    def is_dead(self, state: State) -> bool:
        """Whether nothing that begins like this is matched."""
        return not state

    def _closed(self, nodes: Iterable[int], kinds: tuple[str, ...]) -> State:
        found, todo = set(nodes), list(nodes)
        while todo:
            for kind, end in self.free[todo.pop()]:
                if kind in kinds and end not in found:
                    found.add(end)
                    todo.append(end)
        return frozenset(found)

    def tells(self, character: str) -> tuple[bool, ...]:
        """A character as this automaton sees it."""
        if not self._sets:
            self._sets += dict.fromkeys(chars for arcs in self.arcs for chars, _ in arcs)
        folded = character.lower() if self.fold else character
        return tuple(folded in chars for chars in self._sets)


_NOT_AS_RE2 = re.compile(r"\{0[0-9]|\{[0-9]+,0[0-9]")
"""What PCRE's grammar reads otherwise than RE2's."""

_HIGH = frozenset(range(128, 256))


def _characters(members: frozenset[int]) -> Characters:
    high = members & _HIGH
    if high and high != _HIGH:
        raise NoAutomaton("it tells characters beyond ASCII apart")
    return Characters(frozenset(map(chr, members - _HIGH)), others=bool(high))


def regex(source: str, *, ignore_case: bool = False, search: bool = False) -> Nfa:
    """The automaton of a regular expression: of a rule, which matches as a whole, or with `search`
    of nginx, which is found anywhere.  Raises `NoAutomaton`.
    """
    if not source.isascii() or not source:
        raise NoAutomaton("it is empty or has characters beyond ASCII")
    if not search and _NOT_AS_RE2.search(source):
        raise NoAutomaton("RE2 reads {02} as text")
    try:
        tree = parse(source, ignore_case=ignore_case)
    except SelectorError as error:
        raise NoAutomaton(str(error.args[0])) from None
    found = Nfa()
    begin = found.node()
    if search:
        inner = found.node()
        found.free[begin].append(("", inner))
        found.arcs[begin].append((ANY, begin))
        begin = inner
    try:
        found.accepting = found.add(tree, begin)
    except RecursionError:
        raise NoAutomaton("it is nested too deep") from None
    if search:
        found.arcs[found.accepting].append((ANY, found.accepting))
    return found


def glob(text: str, *, ignore_case: bool = False) -> Nfa:
    """The automaton of a text in which `*` stands for any run of characters."""
    found = Nfa(fold=ignore_case)
    at = found.node()
    for character in text.lower() if ignore_case else text:
        if character == "*":
            found.arcs[at].append((ANY, at))
        else:
            at = found.behind(at, only(character))
    found.accepting = at
    return found


def only(character: str) -> Characters:
    """The set of one character."""
    if character.isascii():
        return Characters(frozenset(character))
    return Characters(frozenset(), named=character)


def first_label(parent: str) -> Nfa:
    """The automaton of `*.parent`: one label, which is not empty, before the parent."""
    found = Nfa()
    label = Characters(ANY.ascii - {"."}, others=True)
    at = found.behind(found.node(), label)
    found.arcs[at].append((label, at))
    for character in f".{parent}":
        at = found.behind(at, only(character))
    found.accepting = at
    return found

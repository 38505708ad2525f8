"""Read nginx's configuration syntax as nginx does (ngx_conf_read_token): text → statements."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

MAX_DEPTH = 64
"""Blocks within blocks; nginx's own contexts nest no deeper than about ten."""

COMMENT = "#"
"""The name of a comment among statements; its text is the one argument."""

_TOKEN = re.compile(
    r"""(?P<blank>[ \t\r\n]++)
      | (?P<comment>\#[^\n]*+)
      | "(?P<double>(?:[^"\\]|\\.)*+)"
      | '(?P<single>(?:[^'\\]|\\.)*+)'
      | (?P<mark>[;{}])
      | (?P<word>(?:\$\{|\\.|[^ \t\r\n;{\\"'])(?:\$\{|\\.|[^ \t\r\n;{\\])*+)""",
    re.VERBOSE | re.DOTALL,
)
_ESCAPE = re.compile(r"""\\(["'\\trn])""")
_UNESCAPED = {"t": "\t", "r": "\r", "n": "\n"}
_LUA = re.compile(
    r"""--\[(=*)\[.*?\]\1\] | --[^\n]*+ | \[(=*)\[.*?\]\2\]
      | "(?:[^"\\]|\\.)*+" | '(?:[^'\\]|\\.)*+'
      | (?P<brace>[{}])""",
    re.VERBOSE | re.DOTALL,
)


class SyntaxFault(ValueError):
    """Text that nginx would refuse as well."""


@dataclass(slots=True)
class Statement:
    """One directive with its lines, and the statements of its block, if it has one."""

    name: str
    args: list[str]
    line: int
    end: int = 0
    block: list[Statement] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Token:
    """A word, or one of `;` `{` `}`; quoted words are never those."""

    text: str
    line: int
    mark: bool
    at: int


def statements(text: str, *, keep_comments: str) -> list[Statement]:
    """The statements of a file; of its comments those that contain `keep_comments`.

    Raises SyntaxFault, whose text begins with the line.
    """
    top = Statement("", [], 1)
    stack, words = [top], list[_Token]()
    tokens = _tokens(text, keep_comments)
    for token in tokens:
        if not token.mark:
            if token.text.startswith(COMMENT) and token.at < 0:
                note = Statement(COMMENT, [token.text[1:].strip()], token.line, token.line)
                stack[-1].block.append(note)
            else:
                words.append(token)
        elif token.text == "}":
            if words or len(stack) == 1:
                raise SyntaxFault(f'{token.line}: unexpected "}}"')
            stack.pop().end = token.line
        else:
            found = _statement(words, token)
            stack[-1].block.append(found)
            words = []
            if token.text == "{":
                _open(found, stack)
    last = words[-1] if words else None
    if last or len(stack) > 1:
        line = last.line if last else stack[-1].line
        raise SyntaxFault(f'{line}: unexpected end of file, expected ";" or "}}"')
    return top.block


def _open(found: Statement, stack: list[Statement]) -> None:
    stack.append(found)
    if len(stack) > MAX_DEPTH:
        raise SyntaxFault(f"{found.line}: more than {MAX_DEPTH} blocks within each other")


def _statement(words: list[_Token], mark: _Token) -> Statement:
    if not words:
        raise SyntaxFault(f'{mark.line}: unexpected "{mark.text}"')
    args = [each.text for each in words[1:]]
    if words[0].text == "if":
        args = _without_parentheses(args)
    return Statement(words[0].text, args, words[0].line, mark.line)


def _without_parentheses(args: list[str]) -> list[str]:
    """The condition of an `if`, in words."""
    if not args or not args[0].startswith("(") or not args[-1].endswith(")"):
        return args
    args[0] = args[0][1:]
    args[-1] = args[-1][:-1]
    return [each for each in args if each]


def _tokens(text: str, keep_comments: str) -> Iterator[_Token]:
    at, line, first = 0, 1, ""
    while at < len(text):
        found = _TOKEN.match(text, at)
        if found is None:
            raise SyntaxFault(f"{line}: a quotation mark that isn't closed")
        kind = found.lastgroup
        if kind == "comment":
            if keep_comments in found["comment"]:
                yield _Token(found["comment"], line, mark=False, at=-1)
        elif kind == "mark":
            yield _Token(found["mark"], line, mark=True, at=at)
            if found["mark"] == "{" and first.endswith("_by_lua_block"):
                after = _behind_lua(text, found.end(), line)
                line += text.count("\n", found.end(), after)
                yield _Token("}", line, mark=True, at=after)
                at, first = after, ""
                continue
            first = ""
        elif kind != "blank":
            word = _ESCAPE.sub(lambda e: _UNESCAPED.get(e[1], e[1]), found[kind or 0])
            first = first or word
            yield _Token(word, line, mark=False, at=at)
        line += text.count("\n", at, found.end())
        at = found.end()


def _behind_lua(text: str, at: int, line: int) -> int:
    """Where a block of Lua ends; its braces, strings and comments are Lua's."""
    depth = 1
    for found in _LUA.finditer(text, at):
        if found["brace"]:
            depth += 1 if found["brace"] == "{" else -1
        if not depth:
            return found.end()
    raise SyntaxFault(f"{line}: a block of Lua that isn't closed")

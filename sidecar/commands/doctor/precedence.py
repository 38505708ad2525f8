"""Regular expressions take requests away from prefix locations that ask about another name."""

from __future__ import annotations

from .findings import Finding
from .nginx_config import Block
from .routing import REGEX, literal_prefixes
from .server import Server, closed, question


def taken_by_regex(server: Server, findings: list[Finding]) -> None:
    """Each regular expression that serves a part of a prefix location under another question."""
    for regex in server.locations:
        if regex.args[0] not in REGEX or closed(regex) or regex.own("internal"):
            continue
        if regex in server.questions.values() or regex.parent is None:
            continue
        for prefix in regex.parent.own("location"):
            if _takes(server, regex, prefix):
                asked = question(regex) or "nobody"
                findings.append(
                    Finding(
                        "regex-takes",
                        regex.file,
                        regex.line,
                        f"it serves a part of {prefix.args[-1]} (line {prefix.line}), where "
                        f"{question(prefix)} is asked, and asks {asked}",
                        f"location ^~ {prefix.args[-1]} {{ … }}   (and there, if it needs one, "
                        "a location of its own for the regular expression)",
                    )
                )


def _takes(server: Server, regex: Block, prefix: Block) -> bool:
    path = prefix.args[-1]
    if prefix.args[0] in ("=", "^~", *REGEX) or not path.startswith("/") or path == "/":
        return False
    if not server.asks(prefix) or question(prefix) == question(regex) or closed(prefix):
        return False
    if not question(regex) and not regex.inherited("auth_request"):
        return False  # `not-asked` says so
    if any(each.args == regex.args for each in prefix.own("location")):
        return False
    return _can_match_below(regex.args[-1], path)


def _can_match_below(pattern: str, path: str) -> bool:
    """Whether an expression can match a URI below a path, and doesn't itself name that path."""
    beginnings = literal_prefixes(pattern)
    if beginnings is None:
        return path not in pattern.replace("\\", "")
    if any(each.startswith(path.rstrip("/")) for each in beginnings):
        return False
    return any(path.startswith(each) for each in beginnings)

"""Print what a change of the policy means, for people and for programs."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from typing import Any

from sidecar.core.decision import Decision
from sidecar.core.errors import printable

from .changes import OVER, ByUri, Changes
from .compare import Comparison
from .example import Example

_OPTIONS = {
    "location": "--location",
    "host": "--host",
    "uri": "--uri",
    "verify": "--verify",
    "sni": "--sni",
    "method": "--method",
    "client_ip": "--client-ip",
    "now": "--now",
    "sec_fetch_site": "--sec-fetch-site",
}
"""The option of `explain` for each part of a request."""


def as_json(changes: Changes) -> str:
    """The changes for programs."""
    found = {
        "locations": {name: _facts(each) for name, each in changes.locations.items()},
        "by_uri": [_choice(each) for each in changes.by_uri],
        "by_uri_exact": changes.by_uri_exact,
        "notes": changes.notes,
        "over": OVER,
    }
    return json.dumps(found, indent=2)


def _facts(comparison: Comparison) -> dict[str, Any]:
    return {
        "gains": _example(comparison.gains),
        "loses": _example(comparison.loses),
        "exact": comparison.exact,
        "doubts": comparison.doubts,
    }


def _example(example: Example | None) -> dict[str, Any] | None:
    if example is None:
        return None
    verdicts = {"old": _verdict(example.old), "new": _verdict(example.new)}
    return {"cert": example.cert, "request": example.request, **verdicts}


def _verdict(decision: Decision) -> dict[str, str]:
    return {
        "decision": decision.verdict,
        "reason": str(decision.reason),
        "rule": decision.rule,
    }


def _choice(each: ByUri) -> dict[str, Any]:
    chosen = each.chosen
    where = {"host": chosen.host, "uri": chosen.uri, "old": chosen.old, "new": chosen.new}
    return {**where, **_facts(each.comparison)}


def as_text(changes: Changes, new: str) -> str:
    """The changes for people; `new` is the path of the new policy."""
    alike: dict[object, list[str]] = {}
    for name, comparison in changes.locations.items():
        alike.setdefault(_kind(comparison), []).append(name)
    same = alike.pop(_kind(Comparison()), [])
    paragraphs = []
    for names in alike.values():
        lines = _lines(changes.locations[names[0]], new)
        paragraphs.append("\n".join([f"{_listed(names)}:", *lines]))
    paragraphs += ["\n".join(_by_uri(each, new)) for each in changes.by_uri]
    if same:
        paragraphs.append(f"no difference, proven: {_listed(same)}")
    if not changes.by_uri_exact:
        paragraphs.append(
            "by host and URI: examples were tried; with regular expressions, or very many "
            "locations, other differences of choice are not ruled out"
        )
    if changes.notes:
        paragraphs.append("\n".join(changes.notes))
    paragraphs.append(f"compared: {OVER}")
    return "\n\n".join("\n".join(map(printable, each.split("\n"))) for each in paragraphs)


def _kind(comparison: Comparison) -> object:
    """What is equal for locations that are told together."""
    told = []
    for example in (comparison.loses, comparison.gains):
        if example is None:
            told.append("")
            continue
        request = {**example.request, "location": ""}
        said = (_said(example.old), _said(example.new))
        told.append(json.dumps([example.cert, request, said], sort_keys=True))
    return (*told, *comparison.doubts)


_LISTED = 10
"""Most names that are listed of locations that are told together."""


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + more


def _by_uri(each: ByUri, new: str) -> Iterator[str]:
    chosen = each.chosen
    names = [name or "no location" for name in (chosen.old, chosen.new)]
    yield f"https://{chosen.host}{chosen.uri} was {names[0]}, now {names[1]}:"
    yield from _lines(each.comparison, new)


def _lines(comparison: Comparison, new: str) -> Iterator[str]:
    for word, example in (("loses", comparison.loses), ("gains", comparison.gains)):
        if example is None:
            sure = "proven" if comparison.exact else "none was found"
            yield f"  {word}: nobody ({sure})"
        else:
            yield f"  {word}: {_who(example)}: {_said(example.old)}, now {_said(example.new)}"
            yield f"    {_command(example, new)}"
    for doubt in comparison.doubts:
        yield f"  not exact: {doubt}"


def _who(example: Example) -> str:
    if example.cert is None:
        return "a client without a certificate"
    parts = [f"{name} {_words(value)}" for name, value in example.cert.items()]
    return f"a certificate with {', '.join(parts) or 'no names'}"


def _words(value: Any) -> str:
    return " and ".join(map(str, value)) if isinstance(value, list) else str(value)


def _said(decision: Decision) -> str:
    rule = f" by {decision.rule}" if decision.rule else ""
    return f"{decision.verdict} ({decision.reason}){rule}"


def _command(example: Example, policy: str) -> str:
    """The call of `explain` that shows the example."""
    words = ["mtls-sidecar", "explain", "--policy", policy]
    if example.cert is not None:
        words += ["--cert-fields", json.dumps(example.cert, ensure_ascii=False)]
    default = {"verify": "NONE" if example.cert is None else "SUCCESS", "method": "GET"}
    for name, value in example.request.items():
        if default.get(name) != value:
            words += [_OPTIONS[name], value]
    return shlex.join(words)

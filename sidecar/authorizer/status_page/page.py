"""Render the status page: one HTML document that loads nothing and changes nothing.

Whatever a client, a certificate or a file chose is escaped twice over: control characters and
marks that turn the direction of text by `printable`, and then everything by the templates.
"""

from __future__ import annotations

import platform
from typing import Any

import markupsafe

from sidecar import __version__
from sidecar.authorizer.daemon_status import DaemonStatus
from sidecar.core.errors import printable
from sidecar.runtime.page_templates import environment

from . import sections, words
from .headers import SCRIPT, STYLE, TEMPLATES
from .plots import plot
from .problems import problems


def _plain(value: Any) -> Any:
    """What is shown of a value: of a text, nothing that could end a line or turn its direction."""
    return printable(value) if type(value) is str else value


_ENVIRONMENT = environment(TEMPLATES, finalize=_plain)
_ENVIRONMENT.globals |= {
    "style": markupsafe.Markup(STYLE),
    "script": markupsafe.Markup(SCRIPT),
    "version": __version__,
    "python": platform.python_version(),
    "moment": words.moment,
    "machine_time": words.machine_time,
    "relative": words.relative,
    "span": words.span,
    "counted": words.counted,
}
_PAGE = _ENVIRONMENT.get_template("page.html")


def render_page(status: DaemonStatus, now: float, query: str = "") -> str:
    """The page as of a moment; `query` searches denials, clients and locations."""
    query = query.strip()
    history = status.history
    history.take(status.counts.decisions, now)
    clients = status.clients()
    found = problems(status, clients, now)
    shown: dict[str, Any] = {name: ([], 0) for name in ("denials", "watched", "sources")}
    shown["locations"] = sections.Locations([], 0, [], 0)
    policy = status.policy
    if policy is not None:
        shown = {
            "locations": sections.locations(status, policy, now, query),
            "denials": sections.denials(status, policy, query),
            "watched": sections.watched(status, policy, clients),
            "sources": sections.sources(policy, now),
        }
    kinds = history.in_the_hour(now)
    allow, deny = (history.per_minute(verdict, now) for verdict in ("allow", "deny"))
    return _PAGE.render(
        now=now,
        query=query,
        status=status,
        policy=policy,
        problems=found,
        level=found[0].level if found else "good",
        allowed=plot(allow),
        denied=plot(deny),
        per_minute=sum(allow[-6:-1] + deny[-6:-1]) / 5,
        why=sections.reasons(kinds),
        clients=sections.client_rows(clients, now, query),
        connections=status.counts.connections(),
        **shown,
    )

"""Check what another authorizer beside the sidecar is told: about which page it decides.

nginx passes the client's own headers on with a question, where nothing else is said.  Of authentik
and Authelia it is known which header names the page; of others nothing is told.
"""

from __future__ import annotations

from .auth_location import question_uri
from .findings import Finding
from .nginx_config import Block, Root
from .server import Asked, Server
from .targets import target_path
from .variables import plain_variables, possible

_URL = "$scheme://$host$request_uri"
AUTHORIZERS = {
    "/outpost.goauthentik.io/auth/nginx": (
        "authentik",
        # asked first; what begins with its own path it lets through (mode_forward.go)
        {"X-Original-URI": '""', "X-Original-URL": _URL},
    ),
    "/api/authz/auth-request": (
        "Authelia",
        {"X-Original-URL": _URL, "X-Original-Method": "$request_method"},
    ),
    "/api/verify": ("Authelia", {"X-Original-URL": _URL}),
}
"""By the path that is asked: who answers, and the headers by which it knows the page."""


def second_authorizers(server: Server, findings: list[Finding]) -> None:
    """Each header by which a client names the page that another authorizer decides about."""
    for uri, place in server.questions.items():
        if place is None or server.asked[uri] is not Asked.OTHER:
            continue
        found = AUTHORIZERS.get(_asked_path(uri, place, server.root))
        if found is None:
            continue
        name, headers = found
        sent = {e.args[0].lower(): e for e in place.inherited("proxy_set_header")}
        passed_on = place.value("proxy_pass_request_headers", "on") == "on"
        for header, value in headers.items():
            given = sent.get(header.lower())
            at = given or place
            own = f"$http_{header.lower().replace('-', '_')}"
            if passed_on if given is None else plain_variables(given.args[1]) == own:
                what = f"{name} is asked {uri} with {header} as the client wrote it"
                write = f"proxy_set_header {header} {value};"
                findings.append(Finding("page-from-client", at.file, at.line, what, write))


def _asked_path(uri: str, place: Block, root: Root) -> str:
    """The path of the question as it is sent; "" where it can't be told."""
    for each in place.own("proxy_pass"):
        given = plain_variables(each.args[0])
        for target in possible(given, place, root):
            path = target_path(target)
            if path is None:
                continue
            sent = (path or uri) if "$" in given else question_uri(uri, place, target)
            return (sent or "").partition("?")[0]
    return ""

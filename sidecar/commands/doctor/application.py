"""Check that headers about the client come from nginx, on every way to the application."""

from __future__ import annotations

from .findings import Finding
from .server import Server, closed
from .targets import addresses, plain_variables

ANSWERED = "$upstream_http_"
CLIENTS = ("$http_", "$arg_", "$cookie_")
"""Variables that hold what the client says."""


def identity(servers: list[Server], findings: list[Finding]) -> None:
    """Headers that a server tells an application by whom it is used must be nginx's throughout."""
    kept = {target for each in servers for target in each.protected()}
    for server in servers:
        told = _identity_headers(server)
        for location in server.places:
            passing = [
                each for each in location.own("proxy_pass") if addresses(each, server.root) & kept
            ]
            if not passing or location.own("internal") or closed(location):
                continue
            sent = {d.args[0].lower(): d for d in location.inherited("proxy_set_header")}
            passed_on = location.value("proxy_pass_request_headers", "on") == "on"
            for name, line in told.items():
                found = sent.get(name.lower())
                if found is None and passed_on:
                    what = f"{name} isn't set here, as it is elsewhere"
                    at = passing[0]
                    findings.append(Finding("identity-lost", at.file, at.line, what, line))
                elif found is not None and plain_variables(found.args[1]).startswith(CLIENTS):
                    what = f"{name} is {found.args[1]}"
                    findings.append(
                        Finding("identity-from-client", found.file, found.line, what, line)
                    )


def _identity_headers(server: Server) -> dict[str, str]:
    """Each header that a server sets from the sidecar's answer, with the line that does."""
    found: dict[str, str] = {}
    for location in server.places:
        answered = {
            each.args[0]
            for each in location.inherited("auth_request_set")
            if each.args[1].startswith(ANSWERED)
        }
        for each in location.inherited("proxy_set_header"):
            name, value = each.args[0], plain_variables(each.args[1])
            if value in answered:
                found.setdefault(name, f"proxy_set_header {name} {value};")
    return found

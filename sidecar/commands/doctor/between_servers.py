"""Servers beside each other: none may lead to what another protects, or resume its sessions."""

from __future__ import annotations

from itertools import combinations

from sidecar.core.policy.compile import Policy

from .findings import Finding
from .nginx_config import Block
from .server import Server, closed
from .targets import PASSES, addresses, files

WRITE = "auth_request /authz/NAME;  or, if it is meant to be open: auth_request off;"


def never_asks(server: Server, asking: list[Server], findings: list[Finding]) -> None:
    """A server that never asks, beside those that do: it must not lead to the same place."""
    places = server.locations + ([server.block] if server.uncovered() else [])
    for place in places:
        if closed(place) or closed(server.block) or place.inherited("auth_request"):
            continue
        for each in place.within(*PASSES):
            shared = addresses(each, server.root)
            _add_if_kept(each, shared, asking, findings)
        if (directory := files(place)) is not None and not place.own("internal"):
            for other in asking:
                if any(each.startswith(directory) for each in other.protected_files()):
                    at = (place.own("alias") or place.inherited("root"))[-1]
                    _add(at, directory, other, findings)
                    break


def streams(root: Block, asking: list[Server], findings: list[Finding]) -> None:
    """A server of `stream { }` that leads to what a server of `http { }` protects."""
    for stream in root.own("stream"):
        for server in stream.own("server"):
            for each in server.own("proxy_pass"):
                _add_if_kept(each, addresses(each, stream), asking, findings)


def _add_if_kept(at: Block, where: set[str], asking: list[Server], findings: list[Finding]) -> None:
    for other in asking:
        if shared := where & other.protected():
            _add(at, ", ".join(sorted(shared)), other, findings)
            return


def _add(at: Block, where: str, other: Server, findings: list[Finding]) -> None:
    what = (
        f"nobody is asked on the way to {where}, which the server of line {other.block.line} keeps"
    )
    findings.append(Finding("never-asks", at.file, at.line, what, WRITE))


def sessions(servers: list[Block], policy: Policy | None, findings: list[Finding]) -> None:
    """Servers of one port with different CAs share TLS sessions; then the issuer must be asked."""
    if policy is None or policy.trusts:
        return
    for one, other in combinations(servers, 2):
        ports = [{each.args[0] for each in s.own("listen")} for s in (one, other)]
        cas = [s.value("ssl_client_certificate") for s in (one, other)]
        if ports[0] & ports[1] and cas[0] != cas[1]:
            findings.append(
                Finding(
                    "session-shared",
                    other.file,
                    other.line,
                    f"another CA than the server of line {one.line}, on one port, and the "
                    "policy names no trust",
                    "trust: {NAME: {ca: …}}   (in policy.yaml, and in each location)",
                )
            )

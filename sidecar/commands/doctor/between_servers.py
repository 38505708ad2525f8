"""Compare servers: none may reach what another one protects, or resume its TLS sessions."""

from __future__ import annotations

from collections.abc import Iterator

from sidecar.core.policy.model import Policy

from .access import closed, is_internal
from .authorities import ANCHORS
from .findings import Finding
from .listeners import listeners
from .nginx_config import Block, Root
from .server import Server
from .targets import PASSES, addresses, directories, script_root, shown_by

WRITE = "auth_request /authz/NAME;  or, if it is meant to be open: auth_request off;"


class ProtectedTargets:
    """What the servers that ask protect: addresses and directories, each with its server."""

    def __init__(self, asking: list[Server]) -> None:
        self._addresses: dict[str, Server] = {}
        self._scripts: dict[str, set[str]] = {}
        """Where an address is an interpreter's: the directories of scripts that it is to run."""
        self._files: dict[str, Server] = {}
        """Each directory that is protected, and those above it."""
        self._kept: dict[str, Server | None] = {}
        """Each directory that is protected, and with None those that their own server shows."""
        for server in asking:
            for address in sorted(server.protected()):
                self._addresses.setdefault(address, server)
            for address, scripts in _interpreted(server):
                self._scripts.setdefault(address, set()).add(scripts)
            for kept in sorted(server.protected_files()):
                self._kept.setdefault(kept, server)
                for above in (kept, *_above(kept)):
                    self._files.setdefault(above, server)
            for kept in sorted(server.matched_files()):
                for above in (kept, *_above(kept)):
                    self._files.setdefault(above, server)
            for shown in server.public_files():
                self._kept[shown] = None

    def never_asks(self, server: Server, findings: list[Finding]) -> None:
        """A server that never asks: it must not lead to what another one keeps."""
        places = server.locations + ([server.block] if server.uncovered() else [])
        for place in places:
            if closed(place) or place.inherited("auth_request"):
                continue
            for each in place.within(*PASSES):
                where_to = addresses(each, server.root)
                if each.name != "fastcgi_pass" or not self._runs_others(
                    script_root(place), where_to
                ):
                    self._leads(each, where_to, findings)
            shown = shown_by(place)
            for where in sorted(directories(place)) if not is_internal(place) else ():
                other = self._keeper(where)
                if other is not None and shown is not None:
                    within = shown.parent is place or shown.parent is server.block
                    _add(shown if within else place, where, other, findings)

    def _runs_others(self, scripts: str, where: set[str]) -> bool:
        """Whether an interpreter there runs other scripts than those that are kept."""
        kept = set[str]().union(*(self._scripts.get(each, {""}) for each in where))
        return not any(each.startswith(scripts) or scripts.startswith(each) for each in kept)

    def _keeper(self, where: str) -> Server | None:
        """The server that keeps a directory, or something in it, or the nearest one around it."""
        if (found := self._files.get(where)) is not None:
            return found
        if "/.well-known/" in where:
            return None
        around = (where, *reversed(_above(where)))
        return next((self._kept[each] for each in around if each in self._kept), None)

    def streams(self, root: Root, findings: list[Finding]) -> None:
        """A server of `stream { }` that leads to what a server of `http { }` keeps."""
        for stream in root.own("stream"):
            for server in stream.own("server"):
                for each in server.own("proxy_pass"):
                    self._leads(each, addresses(each, root), findings)

    def _leads(self, at: Block, where: set[str], findings: list[Finding]) -> None:
        for address in sorted(where & self._addresses.keys()):
            _add(at, address, self._addresses[address], findings)
            return


def _interpreted(server: Server) -> Iterator[tuple[str, str]]:
    """The addresses of `fastcgi_pass` behind a question, and the directory of the scripts."""
    for place in server.keeping:
        for by in (place, *server.served_by(place)):
            for each in by.within("fastcgi_pass"):
                yield from ((where, script_root(by)) for where in addresses(each, server.root))


def _above(directory: str) -> list[str]:
    """The directories around one, each with a slash at its end."""
    parts = directory.rstrip("/").split("/")
    return ["/".join(parts[:i]) + "/" for i in range(1, len(parts))]


def tunnels(servers: list[Server], findings: list[Finding]) -> None:
    """`tunnel_pass` (CONNECT): nginx asks nothing about, and sets nothing in, what goes through."""
    kept = {target for each in servers for target in each.protected()}
    if not any(each.asking for each in servers):
        return
    for server in servers:
        for place in server.places:
            for each in place.within("tunnel_pass") if not closed(place) else ():
                where = addresses(each, server.root)
                if where & kept or not where or any("$" in one for one in where):
                    what = f"a tunnel leads to {', '.join(sorted(where)) or 'any address'}"
                    write = "remove it, or name another address: tunnel_pass HOST:PORT;"
                    findings.append(Finding("tunnel", each.file, each.line, what, write))


def _add(at: Block, where: str, other: Server, findings: list[Finding]) -> None:
    keeper = f"the server of {other.block.line_from(at)}"
    what = f"nobody is asked on the way to {where}, which {keeper} keeps"
    findings.append(Finding("never-asks", at.file, at.line, what, WRITE))


def sessions(servers: list[Server], policy: Policy | None, findings: list[Finding]) -> None:
    """Servers of one address with different CAs share TLS sessions; then the issuer must be asked.

    One that asks nobody can verify the certificate for another one.
    """
    if policy is None or policy.trusts:
        return
    before: dict[tuple[str, str], dict[tuple[str, ...], Block]] = {}
    asked: dict[tuple[str, str], dict[tuple[str, ...], Block]] = {}
    for other in servers:
        if other.block.value("ssl_verify_client", "off") == "off":
            continue
        block, ca = other.block, tuple(other.block.value(each) for each in ANCHORS)
        held = before if other.asking else asked
        places = [each.where for each in listeners(block)]
        found = [one for each in places for had, one in held.get(each, {}).items() if had != ca]
        for each in places:
            before.setdefault(each, {}).setdefault(ca, block)
            if other.asking:
                asked.setdefault(each, {}).setdefault(ca, block)
        if found:
            line = found[0].line_from(block)
            what = (
                f"another CA than the server of {line}, on one port, and the policy names no trust"
            )
            write = "trust: {NAME: {ca: …}}   (in policy.yaml, and in each location)"
            findings.append(Finding("session-shared", block.file, block.line, what, write))

"""Read sidecar.yaml, the settings of the daemon.  They are read once, at the start."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

from sidecar.core.errors import Diagnostic

from .fleet_settings import FleetSettings, check_fleet
from .schema import (
    Choice,
    Count,
    ListOf,
    Record,
    Report,
    Text,
    key,
    read_with_report,
)
from .yaml_tree import parse


@dataclass(frozen=True, slots=True)
class Address:
    """An address to listen on: a unix socket's `path`, `host` and `port`, or none (`off`)."""

    path: str = ""
    host: str = ""
    port: int = 0

    def __bool__(self) -> bool:
        return bool(self.path or self.host)

    def __str__(self) -> str:
        if self.path:
            return f"unix:{self.path}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}" if self.host else "off"


def parse_address(text: str) -> Address:
    """Parse `unix:/path`, `host:port` or `[v6]:port`.  Raises ValueError."""
    hint = "write unix:/run/mtls-sidecar/authz.sock or 127.0.0.1:9640"
    if text.startswith("unix:"):
        return Address(path=parse_socket_path(text.removeprefix("unix:")))
    found = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9.-]+)):(\d{1,5})", text)
    if not found or not _is_host(found[1], found[2]):
        raise ValueError(f"{text!r} is not an address", hint)
    if not 0 < int(found[3]) < 65536:
        raise ValueError(f"{text!r} has no port from 1 to 65535", hint)
    return Address(host=found[1] or found[2], port=int(found[3]))


def _is_host(literal: str | None, host: str) -> bool:
    """Return whether a host is an IPv6 address in brackets, an IPv4 address or a name."""
    try:
        if literal is not None or re.fullmatch("[0-9.]+", host):
            return ipaddress.ip_address(literal or host).version == (4 if literal is None else 6)
    except ValueError:
        return False
    return not host.startswith(("-", ".")) and ".." not in host


def parse_socket_path(text: str) -> str:
    """Check the path of a unix socket.  Raises ValueError."""
    if text.startswith("unix:"):
        raise ValueError(f"{text!r} is not a path", f"write {text.removeprefix('unix:')}")
    if text.startswith("@") or "\0" in text:
        raise ValueError(
            "an abstract unix socket has no mode and no group: everyone on the machine could ask",
            "write a path: unix:/run/mtls-sidecar/authz.sock",
        )
    if not text or text.endswith("/"):
        raise ValueError(f"{text!r} names no socket", "write unix:/run/mtls-sidecar/authz.sock")
    octets = text.encode("utf-8", "surrogatepass")
    directory, _, _ = octets.rpartition(b"/")
    if max(len(octets), len(directory) + len("/.ffffff")) > MAX_SOCKET_PATH:
        raise ValueError("a unix socket's path has at most 107 bytes", "choose a shorter one")
    return text


MAX_SOCKET_PATH = 107
"""Maximum length in bytes (sockaddr_un).  The socket is bound under a temporary name as long."""


def _admin(text: str) -> Address:
    return Address() if text == "off" else parse_address(text)


def _mode(text: str) -> int:
    """Parse a socket's mode, in octal.  Raises ValueError."""
    if not re.fullmatch("0?[0-7]{3}", text):
        raise ValueError(f"{text!r} is not a mode", "write 0660")
    if not int(text, 8) & 0o222:
        raise ValueError(f"with mode {text} nobody can connect: it needs w", "write 0660")
    return int(text, 8)


def _group(text: str) -> str:
    """Check a group's name or number.  Raises ValueError."""
    number = text.isascii() and text.isdigit()
    if int(text) >= 2**32 - 1 if number else not re.fullmatch(r"[^\s:,/\x00-\x20]{1,64}", text):
        raise ValueError(f"{text!r} is not a group", "write nginx's group, such as www-data")
    return text


def _log_file(text: str) -> str:
    """Check the target of a log: `stderr` or a file's path.  Raises ValueError."""
    if text in ("stdout", "journal", "syslog", "off", "none", "-", "/dev/stdout"):
        raise ValueError(f"{text!r} is not a file", "write stderr (the journal), or a file's path")
    if text.endswith("/"):
        raise ValueError(f"{text!r} is a directory", "write stderr, or a file's path")
    return text


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits on the resources that peers can use."""

    max_connections: int = key(
        Count(1, 65536), "open connections on the authorization socket", default=4096
    )
    header_timeout: int = key(Count(1, 3600), "seconds for a whole request to arrive", default=10)
    idle_timeout: int = key(Count(1, 86400), "seconds a silent connection stays open", default=300)
    drain_timeout: int = key(Count(0, 600), "seconds for requests under way at SIGTERM", default=10)
    ocsp_timeout: int = key(Count(1, 60), "seconds a request waits for an OCSP answer", default=3)
    cache_entries: int = key(
        Count(0, 1_000_000), "decisions remembered (32 KiB each at most)", default=4096
    )
    logged_denials: int = key(
        Count(0, 1_000_000),
        "denials logged a second: of all strangers together, and of each known certificate; "
        "beyond them they are summarized (0: never)",
        default=50,
    )
    seen_clients: int = key(
        Count(0, 100_000),
        "certificates kept in the state directory of clients that were seen (4 KiB each at most; "
        "0: none)",
        default=10_000,
    )


_FILE = Text("a path")


@dataclass(frozen=True, slots=True)
class Settings:
    """All settings of sidecar.yaml."""

    listen: Address = key(
        Text("an address", check=parse_address),
        "where nginx asks: unix:PATH or HOST:PORT",
        default=Address(path="/run/mtls-sidecar/authz.sock"),
    )
    socket_mode: int = key(Text("a mode", check=_mode), "mode of the unix socket", default=0o660)
    socket_group: str = key(
        Text("a group's name", check=_group),
        "group of the unix socket: nginx's, such as www-data",
        default="",
    )
    admin: Address = key(
        Text("an address", check=_admin),
        "where metrics and health are: HOST:PORT, unix:PATH or off",
        default=Address(host="127.0.0.1", port=9641),
    )
    admin_hosts: tuple[str, ...] = key(
        ListOf(Text("a host name"), or_one=True),
        "host names under which the admin listener may be asked, beside addresses and names "
        "without a dot",
        default=(),
    )
    policy: str = key(_FILE, "the policy's file", default="/etc/mtls-sidecar/policy.yaml")
    decision_log: str = key(
        Choice(("all", "denied", "off")), "which decisions are logged", default="all"
    )
    decision_log_file: str = key(
        Text("a path", check=_log_file), "a file, or stderr", default="stderr"
    )
    log_format: str = key(Choice(("text", "json")), "form of the log's lines", default="text")
    state_dir: str = key(_FILE, "what is kept across restarts", default="/var/lib/mtls-sidecar")
    fetch_socket: str = key(
        Text("a path", check=parse_socket_path),
        "where the fetcher answers for OCSP",
        default="/run/mtls-sidecar-fetch/fetch.sock",
    )
    fetch_admin: Address = key(
        Text("an address", check=_admin), "where the fetcher's metrics are", default=Address()
    )
    allow_writable_policy: str = key(
        Choice(("true", "false")),
        "take policy files that others than their owner may write",
        default="false",
    )
    limits: Limits = key(Record(Limits), "bounds", default=Limits())
    fleet: FleetSettings | None = key(
        Record(FleetSettings), "the fleet that brings policy and revocations", default=None
    )


def read_settings(data: bytes, file: str) -> Settings:
    """Read sidecar.yaml; an empty file means all defaults.

    Raises `PolicyError` with every diagnostic.
    """
    if not re.search(rb"^[^#\s]", data, re.MULTILINE):
        return Settings()
    settings, report = read_with_report(Settings, data, file)
    _refuse_shared_addresses(settings, data, report)
    _check_fleet(settings, data, report)
    report.check()
    return settings


def _refuse_shared_addresses(settings: Settings, data: bytes, report: Report) -> None:
    """Report two keys with the same address: only one of them could listen there."""
    addresses = {
        "listen": settings.listen,
        "admin": settings.admin,
        "fetch_socket": Address(path=settings.fetch_socket),
        "fetch_admin": settings.fetch_admin,
    }
    written = {name.text: name for name, _ in parse(data, report.file)[0].pairs or ()}
    taken: dict[Address, str] = {}
    for name, address in addresses.items():
        if address and (first := taken.setdefault(address, name)) != name:
            node = written.get(name) or written[first]
            report.add(node, f"{address} is the address of {first} and of {name}", "choose another")


def _check_fleet(settings: Settings, data: bytes, report: Report) -> None:
    """Report what is wrong with the fleet as a whole; mistakes of its parts were reported."""
    if settings.fleet is None or report.diagnostics:
        return
    written = {name.text: name for name, _ in parse(data, report.file)[0].pairs or ()}
    for message, hint in check_fleet(settings.fleet):
        report.add(written["fleet"], message, hint)


def settings_warnings(settings: Settings, data: bytes, file: str) -> list[Diagnostic]:
    """What stands in a sidecar.yaml that was read, and is not used."""
    written = {name.text: name for name, _ in parse(data, file)[0].pairs or ()}
    return [
        Diagnostic(file, node.line, node.column, f"{name} {why}", hint)
        for name, (why, hint) in _without_effect(settings).items()
        if (node := written.get(name)) is not None
    ]


def _without_effect(settings: Settings) -> dict[str, tuple[str, str]]:
    """Return the keys that have no effect beside the others: why, and what to write instead."""
    found = {}
    if settings.fleet is not None:
        why = f"is not read: the releases of fleet {settings.fleet.name} are the policy"
        found["policy"] = (why, "remove the line, or the section fleet")
    if not settings.listen.path and not settings.admin.path:
        why = "has no effect: neither listen nor admin is a unix socket"
        hint = "remove it, or write listen: unix:/run/mtls-sidecar/authz.sock"
        found["socket_mode"] = found["socket_group"] = (why, hint)
    if not settings.admin.host:
        why = "has no effect: only an admin listener of HOST:PORT asks for a name"
        found["admin_hosts"] = (why, "remove it, or write admin: 127.0.0.1:9641")
    if settings.decision_log == "off":
        why = "gets no decision: decision_log is off"
        found["decision_log_file"] = (why, "remove it, or write decision_log: all")
    return found

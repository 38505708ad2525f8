"""sidecar.yaml: how the daemon runs.  Read once, at start."""

from __future__ import annotations

import re
from dataclasses import dataclass

from .schema import Choice, Count, ListOf, Record, Text, key, read_record


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen: a unix socket's `path`, or `host` and `port`, or nowhere (`off`)."""

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
    """`unix:/path`, `host:port`, `[v6]:port`.  Raises ValueError."""
    hint = "write unix:/run/mtls-sidecar/authz.sock or 127.0.0.1:9640"
    if text.startswith("unix:"):
        path = text.removeprefix("unix:")
        if not path.startswith(("/", "@")) and not path:
            raise ValueError(f"{text!r} names no socket", hint)
        if len(path.encode()) > 107:
            raise ValueError("a unix socket's path has at most 107 bytes", "choose a shorter one")
        return Address(path=path)
    found = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9.-]+)):(\d{1,5})", text)
    if not found or int(found[3]) > 65535:
        raise ValueError(f"{text!r} is no address", hint)
    return Address(host=found[1] or found[2], port=int(found[3]))


def _admin(text: str) -> Address:
    return Address() if text == "off" else parse_address(text)


def _mode(text: str) -> int:
    """A socket's mode, in octal.  Raises ValueError."""
    if not re.fullmatch("0?[0-7]{3}", text):
        raise ValueError(f"{text!r} is no mode", "write 0660")
    return int(text, 8)


@dataclass(frozen=True, slots=True)
class Limits:
    """What a peer may use up."""

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


_FILE = Text("a path")


@dataclass(frozen=True, slots=True)
class Settings:
    """The whole file."""

    listen: Address = key(
        Text("an address", check=parse_address),
        "where nginx asks: unix:PATH or HOST:PORT",
        default=Address(path="/run/mtls-sidecar/authz.sock"),
    )
    socket_mode: int = key(Text("a mode", check=_mode), "mode of the unix socket", default=0o660)
    socket_group: str = key(
        Text("a group's name"), "group of the unix socket: nginx's, such as www-data", default=""
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
    decision_log_file: str = key(_FILE, "a file, or stderr", default="stderr")
    log_format: str = key(Choice(("text", "json")), "form of the log's lines", default="text")
    state_dir: str = key(_FILE, "what is kept across restarts", default="/var/lib/mtls-sidecar")
    fetch_socket: str = key(
        _FILE, "where the fetcher answers for OCSP", default="/run/mtls-sidecar-fetch/fetch.sock"
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


def read_settings(data: bytes, file: str) -> Settings:
    """Read sidecar.yaml; one with nothing but comments is all defaults.

    Raises `PolicyError` with every diagnostic.
    """
    if not re.search(rb"^[^#\s]", data, re.MULTILINE):
        return Settings()
    return read_record(Settings, data, file)

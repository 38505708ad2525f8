"""The section `fleet:` of sidecar.yaml: which fleet this host belongs to, and whom it believes."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from sidecar.core.fleet.keys import PublicKey, parse_key, parse_name

from .schema import Choice, Count, ListOf, Record, Text, key
from .schema import key as described  # where a field of the record is named key

_FILE = Text("a path")


def _server(text: str) -> str:
    """The address of a NATS server.  Raises ValueError."""
    hint = "write tls://nats.example.com:4222"
    found = re.fullmatch(r"(tls|nats)://(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9.-]+)(:\d{1,5})?", text)
    if not found:
        raise ValueError(f"{text[:80]!r} is no NATS server", hint)
    try:
        if urlsplit(text).port == 0:
            raise ValueError
    except ValueError:
        raise ValueError(f"{text!r} names no port from 1 to 65535", hint) from None
    if found[1] == "nats" and not _is_here(found[2].strip("[]")):
        raise ValueError(f"{text!r} is not encrypted: only this machine's may be nats://", hint)
    return text


def _is_here(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


@dataclass(frozen=True, slots=True)
class FleetTls:
    """The fleet's own certificates; not those of nginx or of its clients."""

    ca: str = described(_FILE, "PEM of the authority of the NATS servers", default="")
    cert: str = described(_FILE, "PEM of this host's certificate for NATS", default="")
    key: str = described(_FILE, "PEM of its key", default="")


@dataclass(frozen=True, slots=True)
class FleetSigner:
    """What signs on the publisher's machine: a key file, or a command."""

    key: str = described(_FILE, "the file that `fleet keygen` wrote", default="")
    passphrase_file: str = described(_FILE, "the file of its passphrase", default="")
    command: tuple[str, ...] = described(
        ListOf(Text("a word")),
        "a command that reads octets and prints their Ed25519 signature in base64",
        default=(),
    )
    public: PublicKey | None = described(
        Text("a public key", check=parse_key), "the command's public key", default=None
    )


@dataclass(frozen=True, slots=True)
class FleetSettings:
    """The whole section."""

    name: str = key(Text("a name", check=parse_name), "the fleet's name", required=True, default="")
    servers: tuple[str, ...] = key(
        ListOf(Text("a NATS server", check=_server), or_one=True),
        "NATS servers: tls://HOST:PORT",
        default=(),
    )
    keys: tuple[PublicKey, ...] = key(
        ListOf(Text("a public key", check=parse_key), or_one=True),
        "keys that entries must be signed with: ed25519 BASE64, with `head` behind it for a "
        "keeper's",
        required=True,
        default=(),
    )
    tls: FleetTls = key(Record(FleetTls), "certificates for NATS", default=FleetTls())
    node_: str = key(
        Text("a name", check=parse_name),
        "this host's name in the fleet (default: its host name, `.` written as `_`)",
        default="",
    )
    labels: tuple[str, ...] = key(
        ListOf(Text("a label", check=parse_name), or_one=True),
        "labels by which a release may be meant for this host",
        default=(),
    )
    stale: str = key(
        Choice(("serve", "deny")),
        "what locations do that don't say, once the head is older than stale_after",
        default="serve",
    )
    stale_after: int = key(
        Count(1, 31_536_000), "seconds after which what is known counts as stale", default=60
    )
    epoch: int = key(
        Count(1, 1_000_000), "which of the fleet's logs counts; a higher one begins anew", default=1
    )
    signer: FleetSigner = key(
        Record(FleetSigner), "on a publisher's machine: what signs", default=FleetSigner()
    )


def node_name(fleet: FleetSettings, host_name: str) -> str:
    """This host's name in the fleet.  Raises ValueError where none can be made."""
    return fleet.node_ or parse_name(re.sub(r"\.", "_", host_name))


def check_fleet(fleet: FleetSettings) -> Sequence[tuple[str, str]]:
    """What is wrong with the section as a whole: messages, each with a hint."""
    found = []
    if fleet.keys and all(each.heads_only for each in fleet.keys):
        found.append(("no key of the fleet may sign a release", "add the publisher's key"))
    if not fleet.keys:
        found.append(("a fleet without keys believes nobody", "add what `fleet keygen` printed"))
    if bool(fleet.tls.cert) != bool(fleet.tls.key):
        found.append(("tls names one of cert and key", "name both, or neither"))
    return found

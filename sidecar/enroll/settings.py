"""enroll.yaml: who issues, what is issued, and where the service listens.  Read once, at start."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import urlsplit

from sidecar.core.config.schema import (
    Choice,
    Count,
    Flag,
    ListOf,
    MapOf,
    Record,
    Report,
    Text,
    key,
    read_with_report,
)
from sidecar.core.config.settings import Address, parse_address
from sidecar.core.config.yaml_tree import Node

from .durations import parse_duration
from .names import parse_device, parse_person
from .subject_templates import Template, parse_template

CONFIG = "/etc/mtls-sidecar/enroll.yaml"
STATE_DIR = "/var/lib/mtls-sidecar-enroll"

KEY_TYPES = ("ec-p256", "ec-p384", "rsa-2048", "rsa-3072", "rsa-4096")
"""Kinds of keys that are made here."""

FORMATS = ("mobileconfig", "p12", "p12-legacy", "csr")
"""What a holder can ask for."""

_DURATION = Text("a duration", check=parse_duration)
_TEMPLATES = ListOf(Text("a name or a template", check=parse_template), or_one=True)
_FILE = Text("a path")
_WORDS = ListOf(Text("a program and its arguments"), or_one=True)


def _credential(text: str) -> str:
    """A path, or `credential:NAME` of systemd.  Raises ValueError."""
    name = text.removeprefix("credential:")
    if name != text and not re.fullmatch("[A-Za-z0-9._-]{1,255}", name):
        raise ValueError(
            f"{name!r} is not the name of a credential", "write credential:enroll-passphrase"
        )
    return text


def _url(text: str) -> str:
    """What links begin with, without a slash at the end.  Raises ValueError."""
    hint = "write https://app.example.com/enroll"
    try:
        parts = urlsplit(text)
        parts.port  # noqa: B018 - reading it raises ValueError where it is not a number
    except ValueError:
        raise ValueError(f"{text!r} is not an address", hint) from None
    if parts.scheme not in ("https", "http") or not parts.hostname or "@" in parts.netloc:
        raise ValueError(f"{text!r} is not an https address", hint)
    if parts.query or parts.fragment or not re.fullmatch(r"(?:/[A-Za-z0-9._~-]+)*/?", parts.path):
        raise ValueError(f"{text!r} has more than a host and a path", hint)
    if parts.scheme == "http" and parts.hostname not in ("127.0.0.1", "localhost", "::1"):
        raise ValueError("links carry a secret, and http sends it unencrypted", hint)
    if (mistake := _unlike_browsers(parts.hostname)) is not None:
        raise ValueError(
            f"browsers write the host {parts.hostname} otherwise, and would be refused", mistake
        )
    if any(part in (".", "..") for part in parts.path.split("/")):
        raise ValueError(f"{text!r} has a path with dots", hint)
    return text.rstrip("/")


def _unlike_browsers(host: str) -> str | None:
    """What to write instead of a host that a browser's Origin has in another spelling, or None.

    Browsers take a name whose last label is a number for an IPv4 address (URL Standard, 3.5).
    """
    if not host.isascii():
        return "write its A-labels (xn--…)"
    if not re.fullmatch(r"[a-z0-9._-]+|[0-9a-f:]+", host):
        return "write a host name or an address"
    if ":" in host or re.search(r"(?:\A|\.)(?:[0-9]+|0x[0-9a-f]*)\.?\Z", host):
        try:
            found = str(ipaddress.ip_address(host))
        except ValueError:
            return "write the address in full"
        return None if found == host else f"write {found}"
    return None


@dataclass(frozen=True, slots=True)
class IssuerSettings:
    """Who signs: an own key, or a command that is given a CSR and prints the certificate."""

    cert: str = key(_FILE, "the issuing CA's certificate, and those above it", default="")
    key_: str = key(_FILE, "its private key, encrypted", default="")
    passphrase_file: str = key(
        Text("a path", check=_credential),
        "the key's passphrase: a file, or credential:NAME of systemd",
        default="",
    )
    command: tuple[str, ...] = key(
        _WORDS, "a program that reads a CSR and prints the certificate", default=()
    )
    timeout: int = key(_DURATION, "how long the command may take", default=60)


@dataclass(frozen=True, slots=True)
class Profile:
    """What is issued under one name.  `{name}` and `{device}` stand for those of an invitation."""

    validity: int = key(_DURATION, "how long a certificate is valid", default=365 * 86400)
    key_type: str = key(Choice(KEY_TYPES), "the kind of keys made here", default="ec-p256")
    o: str = key(Text("an organization", check=parse_person), "organization", default="")
    ou: tuple[str, ...] = key(
        ListOf(Text("a group's name", check=parse_person), or_one=True),
        "groups, as organizational units",
        default=(),
    )
    dns: tuple[Template, ...] = key(_TEMPLATES, "DNS names", default=())
    email: tuple[Template, ...] = key(_TEMPLATES, "mail addresses", default=())
    uri: tuple[Template, ...] = key(_TEMPLATES, "URIs", default=())
    max_devices: int = key(Count(1, 1000), "devices that a person may have at once", default=5)
    renew_before: int = key(
        _DURATION, "how long before its end a certificate can be renewed", default=30 * 86400
    )
    approve: bool = key(Flag(), "every invitation waits for `enroll approve`", default=False)
    formats: tuple[str, ...] = key(
        ListOf(Choice(FORMATS), or_one=True), "what a holder can ask for", default=FORMATS
    )
    name: str = "default"


@dataclass(frozen=True, slots=True)
class NotifySettings:
    """Who is told of certificates that end."""

    command: tuple[str, ...] = key(
        _WORDS, "a program that reads a notice as JSON", required=True, default=()
    )
    before: tuple[int, ...] = key(
        ListOf(_DURATION, or_one=True),
        "how long before the end a notice is given",
        default=(30 * 86400, 7 * 86400, 86400),
    )
    timeout: int = key(_DURATION, "how long the command may take", default=60)


@dataclass(frozen=True, slots=True)
class CrlSettings:
    """The CRL that `enroll crl` signs."""

    file: str = key(_FILE, "where it is written (default: STATE_DIR/crl.pem)", default="")
    validity: int = key(_DURATION, "how long until its nextUpdate", default=7 * 86400)


@dataclass(frozen=True, slots=True)
class SignSettings:
    """A TLS server's certificate that profiles for Apple devices are signed with."""

    cert: str = key(_FILE, "the server's certificate and those above it", required=True, default="")
    key_: str = key(_FILE, "its private key", required=True, default="")


@dataclass(frozen=True, slots=True)
class RateLimits:
    """How often one may ask, each a minute."""

    client: int = key(Count(1, 100_000), "requests of one client address", default=60)
    total: int = key(Count(1, 1_000_000), "requests that issue, of all together", default=60)
    unknown: int = key(Count(1, 100_000), "unknown links of one client address", default=10)


@dataclass(frozen=True, slots=True)
class EnrollSettings:
    """The whole file."""

    url: str = key(
        Text("an address", check=_url), "what links begin with", required=True, default=""
    )
    listen: Address = key(
        Text("an address", check=parse_address),
        "where nginx asks: unix:PATH",
        default=Address(path="/run/mtls-sidecar-enroll/enroll.sock"),
    )
    socket_mode: int = key(
        Text("a mode", check=lambda text: _mode(text)), "mode of the unix socket", default=0o660
    )
    socket_group: str = key(Text("a group's name"), "group of the unix socket", default="")
    state_dir: str = key(_FILE, "what is kept across restarts", default=STATE_DIR)
    issuer: IssuerSettings = key(Record(IssuerSettings), "who signs", default=IssuerSettings())
    profiles: dict[str, Profile] = key(
        MapOf(Record(Profile), "[A-Za-z0-9_-]{1,64}"), "what is issued", default_factory=dict
    )
    notify: NotifySettings | None = key(
        Record(NotifySettings), "who is told of certificates that end", default=None
    )
    crl: CrlSettings = key(Record(CrlSettings), "the CRL", default=CrlSettings())
    sign: SignSettings | None = key(
        Record(SignSettings), "signs profiles for Apple devices", default=None
    )
    limits: RateLimits = key(Record(RateLimits), "rates", default=RateLimits())
    default_device: str = key(
        Text("a device's name", check=parse_device), "where nobody names one", default="device"
    )
    node: Node | None = field(default=None, repr=False, compare=False)

    @property
    def origin(self) -> str:
        """The origin of the pages, as browsers write it."""
        parts = urlsplit(self.url)
        port = {"https": 443, "http": 80}[parts.scheme]
        shown = f":{parts.port}" if parts.port not in (None, port) else ""
        host = parts.hostname or ""
        return f"{parts.scheme}://{f'[{host}]' if ':' in host else host}{shown}"

    @property
    def host(self) -> str:
        """The host of the pages."""
        return urlsplit(self.url).hostname or ""

    @property
    def base_path(self) -> str:
        """The path that links begin with."""
        return urlsplit(self.url).path

    @property
    def database(self) -> Path:
        """Where the state is."""
        return Path(self.state_dir) / "enroll.db"

    def profile(self, name: str) -> Profile:
        """Return a profile by its name.  Raises ValueError."""
        if name not in self.profiles:
            there = ", ".join(self.profiles)
            raise ValueError(f"enroll.yaml has no profile {name!r}; it has: {there}")
        return self.profiles[name]


def _mode(text: str) -> int:
    """A socket's mode, in octal.  Raises ValueError."""
    if not re.fullmatch("0?[0-7]{3}", text) or int(text, 8) & 0o006:
        raise ValueError(
            f"{text!r} is not a mode for this socket", "write 0660: nginx alone may ask"
        )
    return int(text, 8)


def read_enroll_settings(data: bytes, file: str) -> EnrollSettings:
    """Read enroll.yaml.  Relative paths are relative to it.  Raises `PolicyError`."""
    settings, report = read_with_report(EnrollSettings, data, file)
    _refuse_half_issuer(settings, report)
    report.check()
    return _completed(settings, Path(file).absolute().parent)


def _refuse_half_issuer(settings: EnrollSettings, report: Report) -> None:
    """Report an issuer that is neither a key nor a command, or both."""
    issuer = settings.issuer
    nodes = dict[str | None, Node]()
    for name, value in (settings.node.pairs or ()) if settings.node else ():
        nodes[name.text] = value
    if "issuer" not in nodes:
        return
    hint = "write issuer: {cert: ca.crt, key: ca.key, passphrase_file: FILE}, or {command: […]}"
    if issuer.command and issuer.key_:
        report.add(nodes["issuer"], "a key and a command: only one of them signs", hint)
    elif not issuer.command and not (issuer.key_ and issuer.cert):
        report.add(nodes["issuer"], "an issuer without cert and key, and without command", hint)


def _completed(settings: EnrollSettings, base: Path) -> EnrollSettings:
    """Fill in what defaults depend on, and make paths absolute."""
    state = base / settings.state_dir
    issuer = settings.issuer
    if not issuer.command and not issuer.key_:
        ca = state / "ca"
        issuer = replace(
            issuer,
            cert=str(ca / "ca.crt"),
            key_=str(ca / "ca.key"),
            passphrase_file=issuer.passphrase_file or str(ca / "passphrase"),
        )
    passphrase = issuer.passphrase_file
    if passphrase and not passphrase.startswith("credential:"):
        passphrase = str(base / passphrase)
    sign = settings.sign
    profiles = {name: replace(each, name=name) for name, each in settings.profiles.items()}
    return replace(
        settings,
        state_dir=str(state),
        issuer=replace(
            issuer,
            cert=str(base / issuer.cert) if issuer.cert else "",
            key_=str(base / issuer.key_) if issuer.key_ else "",
            passphrase_file=passphrase,
        ),
        profiles=profiles or {"default": Profile()},
        crl=replace(settings.crl, file=str(base / (settings.crl.file or state / "crl.pem"))),
        sign=sign and replace(sign, cert=str(base / sign.cert), key_=str(base / sign.key_)),
    )

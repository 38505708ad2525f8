"""`mtls-sidecar enroll serve` in a process of its own, and a client on its socket as nginx is."""

from __future__ import annotations

import contextlib
import html
import http.client
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import urlencode

from cryptography import x509
from cryptography.hazmat.primitives.serialization import pkcs12
from daemon import ROOT
from forked import mtls_sidecar, start

from sidecar.cli import make_parser

URL = "https://app.example.com/enroll"
ORIGIN = "https://app.example.com"


@dataclass
class Response:
    """One answer: status, headers (lower-case names) and body."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""

    @property
    def text(self) -> str:
        return self.body.decode()

    @property
    def password(self) -> str:
        """What the page shows as the file's password."""
        found = re.search(r'id="password">([^<]+)<', self.text)
        assert found, self.text
        return html.unescape(found[1])


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=60)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


@dataclass
class Invited:
    """What `invite --json` prints."""

    id: str
    url: str
    expires: str

    @property
    def path(self) -> str:
        return self.url.removeprefix(ORIGIN)


class Enroll:
    """A directory with an enroll.yaml, its commands, and the service."""

    def __init__(self, directory: Path, more: str = "", *, init: bool = True) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self.socket = directory / "enroll.sock"
        self.config = directory / "enroll.yaml"
        self.state = directory / "enroll-state"
        self.log = directory / "enroll-log.txt"
        self.process: subprocess.Popen[bytes] | None = None
        self.under: list[str] = []
        self.environ: dict[str, str] = {}
        self.configure(more)
        if init:
            self.run("enroll", "init")

    def configure(self, more: str) -> None:
        """Write enroll.yaml."""
        base = f"url: {URL}\nlisten: unix:{self.socket}\nstate_dir: {self.state}\n"
        limits = "" if "limits:" in more else "limits: {client: 6000, total: 6000, unknown: 6000}\n"
        self.config.write_text(base + limits + more)

    @property
    def database(self) -> Path:
        return self.state / "enroll.db"

    @property
    def ca(self) -> x509.Certificate:
        return x509.load_pem_x509_certificate((self.state / "ca/ca.crt").read_bytes())

    # -- commands

    def _arguments(self, given: tuple[str, ...]) -> list[str]:
        """The arguments with `--config`, which stands before a `--`."""
        at = given.index("--") if "--" in given else len(given)
        return [*given[:at], "--config", str(self.config), *given[at:]]

    def try_run(
        self, *arguments: str, program: Sequence[str] = ("-m", "sidecar")
    ) -> subprocess.CompletedProcess[str]:
        """Run a command; `--config` is put behind it."""
        given = self._arguments(arguments)
        env = {**os.environ, **self.environ}
        if program == ("-m", "sidecar"):
            return mtls_sidecar(*given, cwd=self.directory, env=env)
        return subprocess.run(
            [sys.executable, *program, *given],
            cwd=self.directory,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env={"PYTHONPATH": str(ROOT), **env},
        )

    def run(self, *arguments: str) -> str:
        """What a command that succeeds prints; it runs in this process, which is fast."""
        options = make_parser().parse_args(self._arguments(arguments))
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            assert options.run(options) == 0
        return out.getvalue()

    def refused(self, *arguments: str, program: Sequence[str] = ("-m", "sidecar")) -> str:
        """What a command that fails says."""
        done = self.try_run(*arguments, program=program)
        assert done.returncode == 2, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        assert "('" not in done.stderr
        return done.stderr

    def invite(self, name: str, *options: str) -> Invited:
        return Invited(**json.loads(self.run("invite", name, "--json", *options)))

    def clients(self, *options: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(self.run("clients", "--json", *options))
        return found

    def invitations(self) -> dict[str, dict[str, Any]]:
        """Every invitation by its id."""
        return {each["id"]: each for each in json.loads(self.run("invite", "--list", "--json"))}

    # -- the service

    def start(self) -> Enroll:
        with self.log.open("ab") as log:
            self.process = start(
                *("enroll", "serve", "--config", self.config),
                cwd=self.directory,
                env={**os.environ, **self.environ},
                stdout=log.fileno(),
                stderr=log.fileno(),
                under=self.under,
            )
        self.until(lambda: "ready: invitations" in self.told[self._told_before :])
        return self

    _told_before = 0

    @property
    def told(self) -> str:
        return self.log.read_text() if self.log.exists() else ""

    def until(self, holds: Any, seconds: float = 60.0) -> None:
        """Wait until something holds; the log is shown where it never does."""
        end = time.monotonic() + seconds
        while not holds():
            gone = self.process is not None and self.process.poll() is not None
            if gone or time.monotonic() > end:
                raise AssertionError(f"it never came; the log:\n{self.told}")
            time.sleep(0.02)

    def stop(self) -> int:
        if self.process is None:
            return 0
        self.process.terminate()
        return self._ended()

    def kill(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self._ended()

    def _ended(self) -> int:
        assert self.process is not None
        code = self.process.wait(60)
        self.process = None
        self._told_before = len(self.told)
        return code

    def __enter__(self) -> Enroll:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        code = self.stop()
        if kind is None:
            assert code == 0, self.told

    # -- asking as nginx

    def ask(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str] | Iterable[tuple[str, str]] = (),
        body: bytes = b"",
    ) -> Response:
        """One request on a connection of its own."""
        pairs = list(headers.items() if isinstance(headers, Mapping) else headers)
        connection = UnixConnection(self.socket)
        try:
            connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
            names = {name.lower() for name, _ in pairs}
            for name, value in (("Host", "app.example.com"), ("X-Real-IP", "192.0.2.7")):
                if name.lower() not in names:
                    connection.putheader(name, value)
            for name, value in pairs:
                connection.putheader(name, value)
            if body or method == "POST":
                connection.putheader("Content-Length", str(len(body)))
            connection.endheaders(body)
            found = connection.getresponse()
            answer = {name.lower(): value for name, value in found.getheaders()}
            return Response(found.status, answer, found.read())
        finally:
            connection.close()

    def get(self, invited: Invited | str, **headers: str) -> Response:
        path = invited if isinstance(invited, str) else invited.path
        return self.ask("GET", path, _named(headers))

    def post(
        self,
        invited: Invited | str,
        wanted: str = "p12",
        fields: Mapping[str, str] | None = None,
        **headers: str,
    ) -> Response:
        """Send the form of a page, as a browser does; an empty header is left out."""
        path = invited if isinstance(invited, str) else invited.path
        given = {"Origin": ORIGIN, "Sec-Fetch-Site": "same-origin", **_named(headers)}
        given = {name: value for name, value in given.items() if value}
        given["Content-Type"] = "application/x-www-form-urlencoded"
        body = urlencode({"format": wanted, **(fields or {})}).encode()
        return self.ask("POST", path, given, body)


def _named(headers: Mapping[str, str]) -> dict[str, str]:
    return {name.replace("_", "-"): value for name, value in headers.items()}


def opened(data: bytes, password: str) -> pkcs12.PKCS12KeyAndCertificates:
    """A PKCS #12 file, opened."""
    return pkcs12.load_pkcs12(data, password.encode())

"""A real daemon in a process of its own, and a plain client for its authorization socket."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from forked import end_servers, start
from nginx import free_port
from pki import Leaf

ROOT = Path(__file__).resolve().parents[2]


@dataclass
class Answer:
    """One answer: status and headers (lower-case names)."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""

    @property
    def reason(self) -> str:
        return self.headers.get("x-auth-reason", "")


class Client:
    """One connection to an authorization socket."""

    def __init__(self, path: Path, timeout: float = 5.0) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.settimeout(timeout)
        try:
            self.socket.connect(str(path))
        except OSError:
            self.socket.close()  # or the warning that it wasn't would fail a later test
            raise
        self._buffer = b""

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def receive(self) -> Answer | None:
        """The next answer; None where the peer closed the connection instead."""
        while b"\r\n\r\n" not in self._buffer:
            try:
                data = self.socket.recv(65536)
            except ConnectionResetError:
                data = b""
            if not data:
                return None
            self._buffer += data
        head, self._buffer = self._buffer.split(b"\r\n\r\n", 1)
        first, *lines = head.decode("latin-1").split("\r\n")
        pairs = (line.split(": ", 1) for line in lines)
        headers = {name.lower(): value for name, value in pairs}
        return Answer(int(first.split()[1]), headers)

    def ask(
        self,
        location: str = "site",
        leaf: Leaf | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """What nginx would ask about this certificate."""
        self.send(question(location, leaf, headers))
        answer = self.receive()
        assert answer is not None, "the sidecar closed the connection"
        return answer

    def closed(self) -> bool:
        """Whether the peer closes without a further word."""
        return self.receive() is None

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()


def question(
    location: str | None, leaf: Leaf | None = None, headers: Mapping[str, str] | None = None
) -> bytes:
    """The bytes of a request as nginx sends it."""
    fields = {
        "Host": "app.example.com",
        "SSL-Client-Verify": "SUCCESS" if leaf else "NONE",
        "X-Original-URI": "/",
        "X-Original-Method": "GET",
        "X-Real-IP": "192.0.2.1",
        "X-Request-ID": "0123456789abcdef" * 2,
    }
    if leaf is not None:
        fields["SSL-Client-Cert"] = leaf.escaped.decode()
    fields.update(headers or {})
    target = "/authz" if location is None else f"/authz/{location}"
    lines = [f"GET {target} HTTP/1.1", *(f"{k}: {v}" for k, v in fields.items())]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


UNMEASURED = {"COVERAGE_PROCESS_CONFIG": ""}
"""The environment of a daemon whose coverage isn't measured, which nearly doubles what a start
costs, and makes of long work several times as much.  For ways through it that other tests take."""

_STARTED: list[subprocess.Popen[bytes]] = []
"""Every daemon of this run of tests."""


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()


def end_all() -> None:
    """Kill what tests that failed have left behind."""
    for process in _STARTED:
        if process.poll() is None:
            _end(process)
    _STARTED.clear()
    end_servers()


class Daemon:
    """`mtls-sidecar serve` with a policy in a directory of its own."""

    def __init__(self, directory: Path, policy: str, settings: str = "", **files: bytes) -> None:
        self.directory = directory
        self.policy = directory / "policy.yaml"
        self.socket = directory / "authz.sock"
        self.log = directory / "log.txt"
        self.port = free_port()
        for name, data in files.items():
            (directory / name.replace("_", ".")).write_bytes(data)
        self.policy.write_text(policy)
        self.config = directory / "sidecar.yaml"
        self.config.write_text(
            f"listen: unix:{self.socket}\nadmin: 127.0.0.1:{self.port}\n"
            f"policy: {self.policy}\nstate_dir: {directory / 'state'}\n"
            f"fetch_socket: {directory / 'fetch.sock'}\n{settings}"
        )
        self.process: subprocess.Popen[bytes] | None = None
        self.environ: dict[str, str] = {}
        self.under: list[str] = []
        """A command that runs the daemon, such as `prlimit`."""
        self.stderr: int | None = None
        """A descriptor for its log, if not the file."""

    def start(self, *, wait: bool = True, pass_fds: tuple[int, ...] = ()) -> Daemon:
        with self.log.open("ab") as log:
            self.process = start(
                "serve",
                "--config",
                self.config,
                env={**os.environ, **self.environ},
                stdout=log.fileno(),
                stderr=log.fileno() if self.stderr is None else self.stderr,
                under=self.under,
                pass_fds=pass_fds,
            )
        _STARTED.append(self.process)
        if wait:
            try:
                self.until(lambda: self.status("/readyz") == 200)
            except BaseException:  # `with` would not end it
                _end(self.process)
                raise
        return self

    def client(self) -> Client:
        return Client(self.socket)

    def ask(self, location: str = "site", leaf: Leaf | None = None, **headers: str) -> Answer:
        """One question on a connection of its own; `x_real_ip=…` is a header."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        with self.client() as client:
            return client.ask(location, leaf, named)

    def get(self, path: str) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as found:
                return found.status, found.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def status(self, path: str) -> int:
        try:
            return self.get(path)[0]
        except OSError:
            return 0

    def metric(self, name: str) -> float:
        """The value of one line of /metrics, 0 where there is none."""
        for line in self.get("/metrics")[1].splitlines():
            if line.startswith(name + " "):
                return float(line.rpartition(" ")[2])
        return 0.0

    def rss(self) -> int:
        """Its resident memory, in bytes."""
        assert self.process is not None
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0]) * 1024

    def peak(self) -> int:
        """The most resident memory that it has had, in bytes."""
        assert self.process is not None
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) * 1024

    def has_failed(self, times: int) -> bool:
        """Whether so many reloads were refused."""
        return self.metric('mtls_sidecar_policy_reloads_total{result="error"}') == times

    def write(self, name: str, data: bytes | str) -> None:
        """Replace a file by rename."""
        aside = self.directory / f".{name}.new"
        aside.write_bytes(data.encode() if isinstance(data, str) else data)
        aside.rename(self.directory / name)

    def until(self, holds: Callable[[], bool], seconds: float = 30.0) -> None:
        """Wait until something holds; the log is shown where it never does."""
        end = time.monotonic() + seconds
        while not holds():
            if time.monotonic() > end or (self.process and self.process.poll() is not None):
                raise AssertionError(f"it never came; the log:\n{self.log.read_text()}")
            time.sleep(0.02)

    def signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def stop(self) -> int:
        """SIGTERM, which one that hangs (SIGSTOP) gets as well.  The exit code."""
        if self.process is None:
            return 0
        with contextlib.suppress(ProcessLookupError):
            self.process.terminate()
            self.process.send_signal(signal.SIGCONT)
        try:
            return self.process.wait(15)
        except subprocess.TimeoutExpired:
            _end(self.process)
            raise

    def __enter__(self) -> Daemon:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        code = self.stop()
        if kind is None:
            assert code == 0, self.log.read_text()

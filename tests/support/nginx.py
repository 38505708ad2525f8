"""A real nginx for one test: its own directory, ports, logs and processes.

with Nginx(binary, f"http {{ server {{ listen 127.0.0.1:{port}; }} }}", tmp_path) as nginx:
    ...
    nginx.reload()
    assert "403" in nginx.access_log
"""

from __future__ import annotations

import os
import random
import re
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

from tools import NginxBinary

PATIENCE = 20.0
"""Seconds until a start, a reload or a stop that does not come about is an error."""

TEMP_PATHS = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")


class NginxError(AssertionError):
    """nginx refused its configuration, died, or did not answer in time."""


_given: set[int] = set()


def free_port() -> int:
    """A port on 127.0.0.1 that nobody listens on, never the same twice.

    It is below the range that Linux takes for outgoing connections (32768 and up), so that no
    client takes it meanwhile.
    """
    while True:
        port = random.SystemRandom().randrange(10240, 32768)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            if port not in _given:
                _given.add(port)
                return port


class Nginx:
    """nginx with `conf_text`, a whole nginx.conf; what every test needs is added where missing.

    Added: load_module, pid, error_log, user (as root: root, so that it reaches the test's files),
    events, and within http the access log and the temporary paths.  Listens are awaited.
    """

    def __init__(self, binary: NginxBinary, conf_text: str, directory: Path) -> None:
        self.binary, self.directory = binary, directory
        self._given = conf_text
        self._process: subprocess.Popen[bytes] | None = None

    # -- files

    @property
    def conf(self) -> Path:
        return self.directory / "nginx.conf"

    @property
    def error_log(self) -> str:
        return _text(self.directory / "error.log")

    @property
    def access_log(self) -> str:
        return _text(self.directory / "access.log")

    @property
    def pid(self) -> int:
        """The master's."""
        assert self._process is not None
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def write(self, conf_text: str) -> None:
        """Another configuration; `reload` puts it into force."""
        self._given = conf_text
        self.directory.mkdir(parents=True, exist_ok=True)
        self.conf.write_text(complete(conf_text, self.binary, self.directory))

    # -- life

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.stop()

    def test(self) -> subprocess.CompletedProcess[str]:
        """`nginx -t`."""
        self.write(self._given)
        return self.binary.run(*self._arguments("-t"))

    def start(self) -> None:
        """Start, and wait until it listens.  Raises NginxError with what nginx said."""
        self.write(self._given)
        with (self.directory / "stderr").open("wb") as stderr:
            self._process = subprocess.Popen(
                [self.binary.path, *self._arguments("-g", "daemon off;")],
                env=self.binary.env,
                stdin=subprocess.DEVNULL,
                stdout=stderr,
                stderr=stderr,
                start_new_session=True,
            )
        try:
            self._await(self.workers, "workers")
            for address in listens(self._given):
                self._await(partial(_listening, address), f"{address} to listen")
        except BaseException:
            self.stop()
            raise

    def reload(self) -> None:
        """SIGHUP, and wait until new workers serve and the old ones accept no more."""
        before, seen = self.workers(), len(self.error_log)
        os.kill(self.pid, signal.SIGHUP)

        def done() -> bool:
            said = self.error_log[seen:]
            if "[emerg]" in said:
                raise NginxError(f"reload refused:\n{said}")
            return bool(self.workers() - before) and not any(map(_accepts, before))

        self._await(done, "new workers")

    def stop(self) -> None:
        """Fast shutdown; whatever is left after that is killed."""
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)

    def workers(self) -> set[int]:
        """The worker processes, also those that are shutting down."""
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children")
        return set(map(int, _text(children).split()))

    # -- inside

    def _arguments(self, *more: str) -> list[str]:
        log = str(self.directory / "error.log")
        return ["-p", f"{self.directory}/", "-c", str(self.conf), "-e", log, *more]

    def _await(self, holds: Callable[[], object], what: str) -> None:
        end = time.monotonic() + PATIENCE
        while not holds():
            assert self._process is not None
            if (code := self._process.poll()) is not None:
                raise NginxError(f"nginx ended with {code}:\n{self._said()}")
            if time.monotonic() > end:
                raise NginxError(f"waited {PATIENCE} s in vain for {what}:\n{self._said()}")
            time.sleep(0.01)

    def _said(self) -> str:
        return _text(self.directory / "stderr") + self.error_log


# -- the configuration


def complete(text: str, binary: NginxBinary, directory: Path) -> str:
    """The configuration with what every test needs, where it says nothing of its own."""
    head = [] if "load_module" in text else [binary.load_modules]
    wanted = {
        "pid": f'pid "{directory}/nginx.pid";',
        "error_log": f'error_log "{directory}/error.log" notice;',
        "user": "user root root;" if os.geteuid() == 0 else "",
        "events": "events {}",
    }
    head += [line for name, line in wanted.items() if not _has(text, name)]
    inside = "".join(
        f'{name}_temp_path "{directory}/{name}_temp";\n'
        for name in TEMP_PATHS
        if not _has(text, f"{name}_temp_path")
    )
    if not _has(text, "access_log(?! off)"):  # a location without a log needs one around it
        inside += f'access_log "{directory}/access.log";\n'
    text = re.sub(r"(?m)^\s*http\s*\{", lambda found: f"{found[0]}\n{inside}", text, count=1)
    return "\n".join([each for each in head if each] + [text])


def listens(text: str) -> list[str]:
    """The addresses of `listen` that can be waited for: 127.0.0.1:PORT, or unix:PATH."""
    found: dict[str, None] = {}
    for value, rest in re.findall(r"(?m)^[^#\n]*?\blisten\s+([^\s;]+)([^;]*);", text):
        if "udp" in rest or "quic" in rest or value.startswith("["):
            continue
        port = value.rpartition(":")[2]
        found[value if value.startswith("unix:") else f"127.0.0.1:{port}"] = None
    return list(found)


def _has(text: str, directive: str) -> bool:
    return re.search(rf"(?m)(^|[;{{}}])\s*{directive}\b", text) is not None


def _listening(address: str) -> bool:
    try:
        if address.startswith("unix:"):
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(address.removeprefix("unix:"))
            return True
        host, _, port = address.rpartition(":")
        socket.create_connection((host, int(port)), timeout=1).close()
    except OSError:
        return False
    return True


def _accepts(pid: int) -> bool:
    """Whether this worker lives and is not shutting down."""
    title = _text(Path(f"/proc/{pid}/cmdline"))
    return "nginx" in title and "shutting down" not in title


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""

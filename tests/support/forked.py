"""`mtls-sidecar`, forked from a process that has imported it.

Importing costs several times what a daemon or a command does in most tests, and starting to measure
its coverage as much again.  How an interpreter begins is tested where one is started.
"""

from __future__ import annotations

import gc
import json
import os
import select
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from pkgutil import walk_packages

ROOT = Path(__file__).resolve().parents[2]

AT_ONCE = ("LANG", "LC_", "LD_", "PYTHON", "TZ")
"""How variables begin that take effect as an interpreter begins, or never."""


def start(
    *arguments: str | Path,
    cwd: Path = ROOT,
    env: Mapping[str, str] | None = None,
    stdout: int,
    stderr: int,
    under: Sequence[str] = (),
    pass_fds: Sequence[int] = (),
) -> subprocess.Popen[bytes]:
    """Start `mtls-sidecar ARGUMENTS`, without input; `under` is a command that runs it.

    It is forked, unless it takes a new interpreter.
    """
    env = {"PYTHONPATH": str(ROOT), **(os.environ if env is None else env)}
    given = list(map(str, arguments))
    if not (under or pass_fds) and _at_once(env) == _HERE:
        return Forked(given, cwd, env, stdout, stderr)
    return subprocess.Popen(
        [*under, sys.executable, "-m", "sidecar", *given],
        cwd=cwd,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=stderr,
        pass_fds=pass_fds,
    )


def _at_once(env: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in env.items() if name.startswith(AT_ONCE)}


_HERE = _at_once({"PYTHONPATH": str(ROOT), **os.environ})


class Forked(subprocess.Popen[bytes]):
    """What was forked, and is waited for by the process that forks."""

    def __init__(
        self, arguments: list[str], cwd: Path, env: Mapping[str, str], stdout: int, stderr: int
    ) -> None:
        self._child_created = False  # by Popen, whose destructor has nothing to do
        self.returncode = None
        self.args = arguments
        server = _server(measured=bool(env.get("COVERAGE_PROCESS_CONFIG")))
        self._told, tell = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with tell, open(os.devnull, "rb") as nothing:
            request = json.dumps([arguments, str(cwd), env]).encode()
            streams = [nothing.fileno(), stdout, stderr]
            socket.send_fds(server, [request], [*streams, tell.fileno()])
        self.pid = int(self._told.recv(32))

    def poll(self) -> int | None:
        try:
            return self.wait(0)
        except subprocess.TimeoutExpired:
            return None

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            if not select.select([self._told], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(self.args, timeout or 0)
            self.returncode = int(self._told.recv(32))
            self._told.close()
        return self.returncode


def mtls_sidecar(
    *arguments: str | Path,
    cwd: Path = ROOT,
    env: Mapping[str, str] | None = None,
    stderr: int | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, as an operator types it in that directory."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        stderr = err.fileno() if stderr is None else stderr
        process = start(*arguments, cwd=cwd, env=env, stdout=out.fileno(), stderr=stderr)
        try:
            code = process.wait(60)
        except BaseException:
            process.kill()
            process.wait()
            raise
        texts = []
        for each in out, err:
            each.seek(0)
            texts.append(each.read().decode())
    return subprocess.CompletedProcess(arguments, code, *texts)


_SERVERS: dict[bool, tuple[socket.socket, subprocess.Popen[bytes]]] = {}
"""The processes that fork, by whether they are measured, and connections with which they end."""


def _server(*, measured: bool) -> socket.socket:
    if measured not in _SERVERS:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            number = theirs.fileno()
            command = [sys.executable, "-m", "tests.support.forked", str(number)]
            env = {**os.environ, **({} if measured else {"COVERAGE_PROCESS_CONFIG": ""})}
            process = subprocess.Popen(command, cwd=ROOT, pass_fds=[number], env=env)
        _SERVERS[measured] = ours, process
    return _SERVERS[measured][0]


def end_servers() -> None:
    while _SERVERS:
        connection, process = _SERVERS.popitem()[1]
        connection.close()
        process.wait()


# -- in the process that forks


def _main() -> int:
    requests = socket.socket(fileno=int(sys.argv[1]))
    for module in walk_packages(import_module("sidecar").__path__, "sidecar."):
        if module.name != "sidecar.__main__":
            import_module(module.name)
    gc.freeze()
    arguments = _fork(requests)
    return 0 if arguments is None else sys.modules["sidecar.cli"].main(arguments)


def _fork(requests: socket.socket) -> list[str] | None:
    """Serve until the connection ends.  Returns the arguments in each process that is forked."""
    while True:
        request, descriptors, _, _ = socket.recv_fds(requests, 1 << 20, 4)
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        if not request:
            return None
        if not os.fork():
            requests.close()
            arguments, cwd, env = json.loads(request)
            return _begin(arguments, cwd, env, descriptors)
        for each in descriptors:
            os.close(each)


def _begin(
    arguments: list[str], cwd: str, env: dict[str, str], descriptors: list[int]
) -> list[str]:
    """Become what was asked for, below a process that tells its id and how it ended."""
    *streams, tell = descriptors
    if pid := os.fork():
        for each in streams:
            os.close(each)
        with suppress(OSError):  # nobody waits for it any more
            os.write(tell, str(pid).encode())
            status = os.waitpid(pid, 0)[1]
            os.write(tell, str(os.waitstatus_to_exitcode(status)).encode())
        os._exit(0)
    for number, each in enumerate(streams):
        os.dup2(each, number)
        os.close(each)
    os.close(tell)
    os.chdir(cwd)
    os.environ.clear()
    os.environ |= env
    sys.argv[1:] = arguments
    return arguments


if __name__ == "__main__":
    raise SystemExit(_main())

"""Run a command of the administrator: with bounded output, and never longer than allowed."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sidecar.core.errors import printable

MOST_SAID = 4096
"""Octets that are kept of what a command writes to stderr, the last ones."""

LOOK_SECONDS = 0.05
"""How often it is looked whether the command has ended."""


class CommandFailed(Exception):
    """The command can't be started, took too long, or printed too much; the argument says which."""


@dataclass(frozen=True, slots=True)
class Finished:
    """A command that has ended: its exit code, its output, and the end of what it said."""

    code: int
    output: bytes
    said: str


def run_command(
    command: Sequence[str],
    given: bytes,
    timeout: float,
    *,
    limit: int = 0,
    environ: Mapping[str, str] | None = None,
    own_session: bool = True,
) -> Finished:
    """Run a command that reads `given`; its output, of at most `limit` octets.

    It has ended when its own process has, whatever children it leaves.  One that takes too long or
    prints too much is killed with its children, but for those in a session of their own.

    Without `own_session` the command can ask at the terminal, for a PIN say, and is killed without
    its children.

    Raises `CommandFailed`.
    """
    try:
        process = subprocess.Popen(
            command,
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE if limit else subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env=environ,
            start_new_session=own_session,
        )
    except OSError as error:
        why = f"{command[0]}: {error.strerror or error}"
        raise CommandFailed(f"can't be started: {why}") from None
    with process:
        try:
            return _talk(process, given, timeout, limit)
        except BaseException:
            if not own_session:
                process.kill()
            else:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
            raise


def _talk(process: subprocess.Popen[bytes], given: bytes, timeout: float, limit: int) -> Finished:
    end = time.monotonic() + timeout
    pipes = _Pipes(process, given)
    with pipes.selector:
        while True:
            code = process.poll()
            read = pipes.move(0 if code is not None else LOOK_SECONDS)
            if len(pipes.output) > limit:
                raise CommandFailed(f"printed more than {limit} octets")
            if code is not None and not read:
                said = printable(pipes.said.decode("utf-8", "replace").strip()[-500:])
                return Finished(code, bytes(pipes.output), said)
            if time.monotonic() >= end:
                raise CommandFailed(f"took more than {timeout:g} s")


class _Pipes:
    """What goes to a process and comes from it, without waiting for either."""

    def __init__(self, process: subprocess.Popen[bytes], given: bytes) -> None:
        self.output, self.said = bytearray(), bytearray()
        self._rest = memoryview(given)
        self._buffers = {process.stdout: self.output, process.stderr: self.said}
        self._stdin = process.stdin
        self.selector = selectors.DefaultSelector()
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe is not None:
                os.set_blocking(pipe.fileno(), False)
                event = selectors.EVENT_WRITE if pipe is self._stdin else selectors.EVENT_READ
                self.selector.register(pipe, event)

    def move(self, seconds: float) -> bool:
        """Move what can be moved within some seconds; whether anything was read."""
        found = False
        for key, _ in self.selector.select(seconds):
            pipe = key.fileobj
            if pipe is self._stdin:
                self._write(key.fd)
            elif data := os.read(key.fd, 65536):
                self._buffers[pipe] += data  # type: ignore[index]  # one of the two
                found = True
            else:
                self.selector.unregister(pipe)
        del self.said[:-MOST_SAID]
        return found

    def _write(self, descriptor: int) -> None:
        try:
            self._rest = self._rest[os.write(descriptor, self._rest) :]
        except BrokenPipeError:  # it doesn't read
            self._rest = self._rest[:0]
        if not self._rest and self._stdin is not None:
            self.selector.unregister(self._stdin)
            self._stdin.close()

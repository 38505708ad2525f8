"""Open and ask the control socket."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import re
import socket
import stat
import threading
import time
from pathlib import Path

import pytest

from sidecar.runtime import control_socket
from sidecar.runtime.control_socket import (
    LOCK,
    NAME,
    NoDaemon,
    ask_all,
    open_control,
    remove_control,
)
from sidecar.runtime.listen import refuse_descriptors, takes_descriptors


def answering(listener: socket.socket, *parts: bytes) -> threading.Thread:
    """Serve one question with these parts, then close; who only looks asks nothing."""

    def serve() -> None:
        listener.setblocking(True)
        asked = b""
        while not asked:
            peer, _ = listener.accept()
            with peer:
                asked = peer.recv(65536)
                for part in parts if asked else ():
                    peer.sendall(part)

    thread = threading.Thread(target=serve)
    thread.start()
    return thread


def test_only_the_owner_can_connect(tmp_path: Path) -> None:
    """The socket is accessible only to its user, with any length of the directory's path."""
    deep = tmp_path / ("x" * 100) / ("y" * 100)
    with open_control(deep):
        assert stat.S_IMODE((deep / NAME).stat().st_mode) == 0o600
        assert stat.S_IMODE(deep.stat().st_mode) == 0o700
    remove_control(deep)
    assert not (deep / NAME).exists()


def test_an_answer_in_pieces_is_one_answer(tmp_path: Path) -> None:
    """An answer ends at its line end, also in several pieces."""
    data = json.dumps({"policy": "p"}).encode() + b"\n"
    with open_control(tmp_path) as listener:
        thread = answering(listener, data[:5], data[5:])
        assert ask_all(tmp_path, {"kind": "sha256"}, 30) == [{"policy": "p"}]
        thread.join(30)
    remove_control(tmp_path)


def test_a_daemon_passes_no_descriptor_beside_its_answer(tmp_path: Path) -> None:
    """The kernel would close it in the process that asks, root's, for as long as a daemon that was
    taken over wishes."""
    refused: list[int | None] = []

    def serve(listener: socket.socket) -> None:
        listener.setblocking(True)
        peer, _ = listener.accept()
        with peer:
            peer.recv(65536)
            try:
                socket.send_fds(peer, [b" "], [0])
            except PermissionError as error:
                refused.append(error.errno)
            peer.sendall(b"{}\n")

    with open_control(tmp_path) as listener, socket.socket(socket.AF_UNIX) as own:
        refuse_descriptors(own)
        if takes_descriptors(own):
            pytest.skip("this kernel can't refuse descriptors")
        thread = threading.Thread(target=serve, args=(listener,))
        thread.start()
        assert ask_all(tmp_path, {}, 30) == [{}]
        thread.join(30)
    assert refused == [errno.EPERM]


def test_a_daemon_that_ends_is_no_answer(tmp_path: Path) -> None:
    """A connection that closes before the line end is an OSError."""
    with open_control(tmp_path) as listener:
        thread = answering(listener, b'{"policy"')
        with pytest.raises(ConnectionResetError, match="ended before it answered"):
            ask_all(tmp_path, {}, 30)
        thread.join(30)


@pytest.mark.parametrize("answer", [b"[]", b"5", b"[" * 200_000, b"{"], ids=len)
def test_an_answer_is_an_object(tmp_path: Path, answer: bytes) -> None:
    """Anything else is a ValueError, also where it is nested too deep to be read."""
    with open_control(tmp_path) as listener:
        thread = answering(listener, answer + b"\n")
        with pytest.raises(ValueError, match=r"Expecting|than an object"):
            ask_all(tmp_path, {}, 30)
        thread.join(30)


def talking(listener: socket.socket, pause: float) -> threading.Thread:
    """Answer one question without an end."""

    def serve() -> None:
        listener.setblocking(True)
        peer, _ = listener.accept()
        with peer, contextlib.suppress(OSError):
            while True:
                peer.sendall(b"x" * 65536)
                time.sleep(pause)

    thread = threading.Thread(target=serve)
    thread.start()
    return thread


def test_an_answer_without_an_end_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By its size, and by the time that is left, though some of it comes all the time."""
    for pause, error, why in ((0.0, ValueError, "more than 1 MiB"), (0.01, TimeoutError, "answer")):
        monkeypatch.setattr(control_socket, "MAX_ANSWER", 2**20 if pause == 0.0 else 2**40)
        with open_control(tmp_path) as listener:
            thread = talking(listener, pause)
            with pytest.raises(error, match=why):
                ask_all(tmp_path, {}, 30 if pause == 0.0 else 0.5)
            thread.join(30)
        remove_control(tmp_path)


@pytest.mark.parametrize("stale", [False, True])
def test_no_daemon_is_known_by_its_socket(tmp_path: Path, stale: bool) -> None:
    """Without a socket, or with one that nobody serves, there is no daemon."""
    if stale:
        open_control(tmp_path).close()
    with pytest.raises(NoDaemon, match="nothing answers in"):
        ask_all(tmp_path, {}, 30)
    with pytest.raises(NoDaemon):
        ask_all(tmp_path / "missing", {}, 30)
    remove_control(tmp_path / "missing")


def test_every_instance_is_asked(tmp_path: Path) -> None:
    """Each has a socket of its own; one that has ended is left out, and its socket removed."""
    ended = open_control(tmp_path)
    with open_control(tmp_path) as second, open_control(tmp_path) as third:
        ended.close()
        threads = [answering(each, b'{"n": 1}\n') for each in (second, third)]
        assert ask_all(tmp_path, {}, 30) == [{"n": 1}] * 2
        for thread in threads:
            thread.join(30)
        with open_control(tmp_path):
            assert len(list(tmp_path.glob("control*.sock"))) == 3
            remove_control(tmp_path)
            assert len(list(tmp_path.glob("control*.sock"))) == 3
    remove_control(tmp_path)
    assert not list(tmp_path.glob("control*.sock"))


def test_one_instance_that_hangs_leaves_no_answer(tmp_path: Path) -> None:
    """Who doesn't answer in time may be without the revocation, and is named; the others are asked
    meanwhile."""
    with open_control(tmp_path) as first, open_control(tmp_path), open_control(tmp_path) as third:
        threads = [answering(each, b"{}\n") for each in (first, third)]
        with pytest.raises(TimeoutError) as told:
            ask_all(tmp_path, {}, 0.3)
        for thread in threads:
            thread.join(30)
    [name] = re.findall(r"control-[0-9a-f]{8}\.sock", str(told.value))
    assert f"the instance of {name} (process {os.getpid()}) did not answer" in str(told.value)


def test_opening_waits_for_nobody(tmp_path: Path) -> None:
    """An instance that was stopped while it opened its socket holds no other up: it tries again."""
    with (tmp_path / LOCK).open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(BlockingIOError):
            open_control(tmp_path)

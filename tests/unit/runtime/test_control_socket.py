"""Open and ask the control socket."""

from __future__ import annotations

import json
import socket
import stat
import threading
from pathlib import Path

import pytest

from sidecar.runtime.control_socket import NAME, NoDaemon, ask, open_control, remove_control


def answering(listener: socket.socket, *parts: bytes) -> threading.Thread:
    """Serve one question with these parts, then close."""

    def serve() -> None:
        listener.setblocking(True)
        peer, _ = listener.accept()
        with peer:
            peer.recv(65536)
            for part in parts:
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
        assert ask(tmp_path, {"kind": "sha256"}, 30) == {"policy": "p"}
        thread.join(30)
    remove_control(tmp_path)


def test_a_daemon_that_ends_is_no_answer(tmp_path: Path) -> None:
    """A connection that closes before the line end is an OSError."""
    with open_control(tmp_path) as listener:
        thread = answering(listener, b'{"policy"')
        with pytest.raises(ConnectionResetError, match="ended before it answered"):
            ask(tmp_path, {}, 30)
        thread.join(30)


@pytest.mark.parametrize("stale", [False, True])
def test_no_daemon_is_known_by_its_socket(tmp_path: Path, stale: bool) -> None:
    """Without a socket, or with one that nobody serves, there is no daemon."""
    if stale:
        open_control(tmp_path).close()
    with pytest.raises(NoDaemon, match="nothing answers in"):
        ask(tmp_path, {}, 30)
    with pytest.raises(NoDaemon):
        ask(tmp_path / "missing", {}, 30)
    remove_control(tmp_path / "missing")

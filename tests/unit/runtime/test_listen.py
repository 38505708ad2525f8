"""Open listening sockets with their mode, and never take a path in use."""

from __future__ import annotations

import errno
import os
import platform
import re
import socket
import stat
from pathlib import Path

import pytest

from sidecar.core.config.settings import Address
from sidecar.runtime.listen import (
    ListenError,
    open_listener,
    refuse_descriptors,
    remove_socket,
    takes_descriptors,
)


def at(path: Path) -> Address:
    return Address(path=str(path))


def test_a_unix_socket_has_its_mode_and_replaces_a_stale_one(tmp_path: Path) -> None:
    """The socket has its mode from the beginning, and replaces one that nobody serves."""
    path = tmp_path / "s.sock"
    open_listener(at(path), 0o660, "").close()
    with open_listener(at(path), 0o600, str(os.getgid())) as listener:
        found = path.stat()
        assert stat.S_IMODE(found.st_mode) == 0o600
        assert found.st_gid == os.getgid()
        assert not listener.getblocking()
    assert [each.name for each in tmp_path.iterdir()] == ["s.sock"]


def passes(peer: socket.socket) -> bool:
    """Whether a descriptor can be passed; octets always can."""
    try:
        socket.send_fds(peer, [b"x"], [0])
    except PermissionError:
        return not peer.send(b"x")
    return True


def kernel() -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", platform.release())[:2]))


def test_nobody_passes_descriptors(tmp_path: Path) -> None:
    """The kernel would close them in this process, for as long as the sender wishes: refused, also
    before the connection is accepted, wherever the kernel can (Linux 6.16)."""
    path = tmp_path / "s.sock"
    with open_listener(at(path), 0o600, "") as listener, socket.socket(socket.AF_UNIX) as peer:
        peer.connect(str(path))
        assert passes(peer) == takes_descriptors(listener) == (kernel() < (6, 16))
        with listener.accept()[0] as accepted:
            assert accepted.recv(9) == b"x"
    with socket.socket() as tcp:
        refuse_descriptors(tcp)  # there none can be passed anyway
        assert not takes_descriptors(tcp)


def test_a_path_in_use_is_refused(tmp_path: Path) -> None:
    """A served socket, another file and a missing directory are errors."""
    path = tmp_path / "s.sock"
    with open_listener(at(path), 0o600, ""), pytest.raises(ListenError, match="another process"):
        open_listener(at(path), 0o600, "")
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ListenError, match="is not a socket; remove it"):
        open_listener(at(tmp_path / "file"), 0o600, "")
    assert (tmp_path / "file").read_text() == "mine"
    with pytest.raises(ListenError, match=f"make {tmp_path}/gone"):
        open_listener(at(tmp_path / "gone" / "s.sock"), 0o600, "")


def test_a_probe_that_fails_leaves_the_path_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If it is unknown whether a socket is served, it counts as served."""
    path = tmp_path / "s.sock"
    open_listener(at(path), 0o600, "").close()

    class Probe(socket.socket):
        def connect(self, address: object) -> None:
            raise OSError(errno.EAGAIN, "its queue is full")

    monkeypatch.setattr(socket, "socket", Probe)
    with pytest.raises(ListenError, match="may be in use"):
        open_listener(at(path), 0o600, "")
    remove_socket(str(path))
    assert path.exists()


def test_an_unknown_group_is_told(tmp_path: Path) -> None:
    """The message names the key of sidecar.yaml and the group; nothing is left behind."""
    with pytest.raises(ListenError, match="socket_group: no group 'nosuchgroup'"):
        open_listener(at(tmp_path / "s.sock"), 0o600, "nosuchgroup")
    assert not list(tmp_path.iterdir())


def test_a_failure_while_binding_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error is told with the address, and the temporary socket is removed."""

    def refuse(*_: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "rename", refuse)
    with pytest.raises(ListenError, match=r"can't listen on unix:.*Operation not permitted"):
        open_listener(at(tmp_path / "s.sock"), 0o600, "")
    assert not list(tmp_path.iterdir())


def test_a_tcp_address() -> None:
    """A port is opened without blocking; one in use is an error with the address."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ListenError, match=f"can't listen on 127.0.0.1:{port}: "):
            open_listener(Address(host="127.0.0.1", port=port), 0, "")
    with open_listener(Address(host="127.0.0.1", port=port), 0, "") as listener:
        assert not listener.getblocking()


def test_a_socket_is_removed_only_if_nobody_serves_it(tmp_path: Path) -> None:
    """At the end the file is removed, unless a newer process serves it already."""
    path = tmp_path / "s.sock"
    with open_listener(at(path), 0o600, ""):
        remove_socket(str(path))
        assert path.exists()
    remove_socket(str(path))
    assert not path.exists()
    remove_socket(str(path))

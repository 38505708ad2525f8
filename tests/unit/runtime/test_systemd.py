"""Take sockets of the service manager, and notify it."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from stalled_manager import stalled_manager

from sidecar.runtime import systemd
from sidecar.runtime.systemd import Notifier, is_journal, listen_fds, watchdog_seconds

PID = 4711


@pytest.fixture
def first_fd(monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """A listening socket whose descriptor stands for the manager's first one."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        monkeypatch.setattr(systemd, "FIRST_FD", os.dup(listener.fileno()))
        yield listener


def env(**more: str) -> dict[str, str]:
    return {"LISTEN_PID": str(PID), "LISTEN_FDS": "1", **more}


def test_sockets_of_another_process_are_left_alone() -> None:
    """A process that inherits the variables does not take the sockets, nor the variables."""
    environ = env(LISTEN_FDNAMES="authz")
    assert listen_fds(environ, PID + 1) == {}
    assert environ == env(LISTEN_FDNAMES="authz")


@pytest.mark.usefixtures("first_fd")
@pytest.mark.parametrize(("names", "label"), [("authz", "authz"), ("", "unknown")])
def test_a_socket_is_taken_by_its_name(names: str, label: str) -> None:
    """Sockets are keyed by `FileDescriptorName=`, non-blocking, and the variables are removed."""
    environ = env(LISTEN_FDNAMES=names)
    found = listen_fds(environ, PID)
    [listener] = found[label]
    assert not listener.getblocking()
    assert not os.get_inheritable(listener.fileno())
    listener.close()
    assert environ == {}


@pytest.mark.usefixtures("first_fd")
def test_nobody_passes_descriptors_to_a_socket_of_the_manager(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is set up as one that this process opens itself."""
    set_up: list[socket.socket] = []
    monkeypatch.setattr(systemd, "refuse_descriptors", set_up.append)
    [listener] = listen_fds(env(LISTEN_FDNAMES="authz"), PID)["authz"]
    assert set_up == [listener]
    listener.close()


@pytest.mark.parametrize("count", ["x", "-1", "65", "²"])
def test_a_count_that_is_no_small_number_is_refused(count: str) -> None:
    """An invalid LISTEN_FDS is an error that shows its value."""
    with pytest.raises(ValueError, match="LISTEN_FDS is"):
        listen_fds(env(LISTEN_FDS=count), PID)


def test_a_descriptor_that_is_no_listening_socket_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A file, a closed descriptor and a socket that doesn't listen are errors with the name."""
    file = os.open(tmp_path, os.O_RDONLY)
    monkeypatch.setattr(systemd, "FIRST_FD", file)
    with pytest.raises(ValueError, match=r"\(authz\) is not a socket"):
        listen_fds(env(LISTEN_FDNAMES="authz"), PID)
    os.close(file)
    with pytest.raises(ValueError, match=r"\(authz\): .*Bad file descriptor"):
        listen_fds(env(LISTEN_FDNAMES="authz"), PID)
    with socket.socket() as deaf:
        monkeypatch.setattr(systemd, "FIRST_FD", os.dup(deaf.fileno()))
        with pytest.raises(ValueError, match=r"\(authz\) does not listen"):
            listen_fds(env(LISTEN_FDNAMES="authz"), PID)


def test_the_journal_is_known_by_its_stream(tmp_path: Path) -> None:
    """A descriptor is the journal's if device and inode equal those of JOURNAL_STREAM."""
    with open(tmp_path / "log", "w") as file:
        found = os.fstat(file.fileno())
        stream = {"JOURNAL_STREAM": f"{found.st_dev}:{found.st_ino}"}
        assert is_journal(stream, file.fileno())
        assert not is_journal({"JOURNAL_STREAM": f"{found.st_dev}:1"}, file.fileno())
        assert not is_journal({}, file.fileno())
        closed = os.dup(file.fileno())
    os.close(closed)
    assert not is_journal(stream, closed)


@pytest.mark.parametrize(
    ("environ", "seconds"),
    [
        ({"WATCHDOG_USEC": "30000000"}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(PID)}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(PID + 1)}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "x"}, None),
        ({}, None),
    ],
)
def test_the_watchdog_of_this_process(environ: dict[str, str], seconds: float | None) -> None:
    """There is a watchdog only with an interval, and only if it watches this process."""
    assert watchdog_seconds(environ, PID) == seconds


@pytest.mark.parametrize("abstract", [False, True])
def test_each_notification_says_what_the_manager_expects(tmp_path: Path, abstract: bool) -> None:
    """READY, STATUS, RELOADING, STOPPING and WATCHDOG are sent to paths and abstract addresses."""
    name = f"@sidecar-{os.getpid()}-{tmp_path.name}" if abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind("\0" + name[1:] if abstract else name)
        manager.settimeout(20)
        notifier = Notifier({"NOTIFY_SOCKET": name})
        notifier.ready("serving")
        notifier.status("waiting")
        notifier.reloading()
        notifier.stopping()
        notifier.alive()
        notifier.extend(1.5)
        got = [manager.recv(4096).decode() for _ in range(6)]
    assert got[0] == "READY=1\nSTATUS=serving"
    assert got[1] == "STATUS=waiting"
    assert got[2].startswith("RELOADING=1\nMONOTONIC_USEC=")
    assert got[3:5] == ["STOPPING=1\nSTATUS=draining", "WATCHDOG=1"]
    assert got[5] == "EXTEND_TIMEOUT_USEC=1500000"


def test_of_each_kind_of_message_the_last_waits_for_room(tmp_path: Path) -> None:
    """What is told while the manager reads nothing doesn't add up; the sender never waits."""
    with stalled_manager(tmp_path / "notify") as (manager, fill):
        fill()
        notifier = Notifier({"NOTIFY_SOCKET": str(tmp_path / "notify")})
        for number in range(100):
            notifier.ready(f"{number}")
        notifier.alive()
        said: list[str] = []
        while "WATCHDOG=1" not in said:
            said.append(manager.recv(4096).decode())
    ready = [each for each in said if each.startswith("READY=1")]
    assert ready[-1] == "READY=1\nSTATUS=99"
    assert len(ready) <= 2  # one was being sent


def test_a_manager_that_is_gone_is_no_error(tmp_path: Path) -> None:
    """Without a manager, or with a removed socket, notifications do nothing."""
    Notifier({}).ready("serving")
    Notifier({"NOTIFY_SOCKET": str(tmp_path / "gone")}).ready("serving")

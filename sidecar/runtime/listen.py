"""Open listening sockets.  A unix socket gets its mode and group before anyone can connect."""

from __future__ import annotations

import contextlib
import errno
import grp
import os
import socket
import stat
from pathlib import Path

from sidecar.core.config.settings import Address

BACKLOG = 4096

_SO_PASSRIGHTS = 83  # Linux 6.16 (asm-generic/socket.h); Python has no name for it


class ListenError(Exception):
    """Listening on the address is impossible; the argument says why and what to do."""


def open_listener(address: Address, mode: int, group: str) -> socket.socket:
    """Open a listening, non-blocking socket.  Raises `ListenError`."""
    try:
        return _unix(address.path, mode, group) if address.path else _tcp(address)
    except OSError as error:
        raise ListenError(f"can't listen on {address}: {_why(error)}") from None


def _why(error: OSError) -> str:
    if error.errno == errno.EAFNOSUPPORT:  # RestrictAddressFamilies=AF_UNIX
        return (
            "systemd leaves this service no network, and has not handed the socket over; see "
            "`systemctl status mtls-sidecar-admin.socket`, and what took the address (`ss -ltnp`), "
            "then `systemctl restart mtls-sidecar`"
        )
    return str(error.strerror or error)


def _tcp(address: Address) -> socket.socket:
    found = socket.getaddrinfo(
        address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )
    family, kind, protocol, _, place = found[0]
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(place)
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    listener.setblocking(False)
    return listener


def _unix(path: str, mode: int, group: str) -> socket.socket:
    """Bind under a private name with no permissions, listen, then rename it into place."""
    _refuse_live(path)
    gid = _gid(group)
    aside = str(
        Path(path).with_name(f".{os.getpid():x}")
    )  # no longer than `parse_socket_path` counts
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(aside)
        umask = os.umask(0o777)
        try:
            listener.bind(aside)
        finally:
            os.umask(umask)
        if gid is not None:
            os.chown(aside, -1, gid)
        os.chmod(aside, mode)
        refuse_descriptors(listener)
        listener.listen(BACKLOG)
        os.rename(aside, path)
    except OSError:
        listener.close()
        with contextlib.suppress(OSError):
            os.unlink(aside)
        raise
    listener.setblocking(False)
    return listener


def refuse_descriptors(own: socket.socket) -> None:
    """Let nobody pass descriptors to this socket, or what it accepts (SCM_RIGHTS, unix(7)).

    The kernel closes them in the process that reads, for as long as the sender wishes.  Kernels
    before Linux 6.16 can't refuse them: `guarded_server`.
    """
    with contextlib.suppress(OSError):
        own.setsockopt(socket.SOL_SOCKET, _SO_PASSRIGHTS, 0)


def takes_descriptors(listener: socket.socket) -> bool:
    """Return whether peers can pass descriptors to what this socket accepts."""
    if listener.family != socket.AF_UNIX:
        return False
    try:
        return bool(listener.getsockopt(socket.SOL_SOCKET, _SO_PASSRIGHTS))
    except OSError:
        return True


def _gid(group: str) -> int | None:
    if not group:
        return None
    try:
        return int(group) if group.isdigit() else grp.getgrnam(group).gr_gid
    except KeyError:
        raise ListenError(f"socket_group: no group {group!r} on this machine") from None


def _refuse_live(path: str) -> None:
    """Check that a path may be replaced: nothing, or a socket that no process serves.

    Raises `ListenError`.
    """
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        if not Path(path).parent.is_dir():
            raise ListenError(f"no directory for {path}; make {Path(path).parent}") from None
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise ListenError(f"{path} is there and is not a socket; remove it or choose another path")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)
        try:
            probe.connect(path)
        except (ConnectionRefusedError, FileNotFoundError):
            return
        except OSError as error:
            raise ListenError(
                f"{path} may be in use ({error.strerror or error}); stop its process"
            ) from None
    raise ListenError(f"{path} is served by another process; stop that first")


def remove_socket(path: str) -> None:
    """Remove a unix socket's file after its listener was closed, unless it is in use again."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(0)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            with contextlib.suppress(OSError):
                os.unlink(path)
        except OSError:
            return

"""The daemon's listening sockets: its own, or those of the service manager."""

from __future__ import annotations

import socket
from dataclasses import dataclass

from sidecar.core.config.settings import Settings
from sidecar.runtime.listen import open_listener


@dataclass(slots=True)
class Sockets:
    """The listening sockets.  `made` are the paths of unix sockets to remove at the end."""

    authz: list[socket.socket]
    made: list[str]


def open_sockets(settings: Settings, handed: dict[str, list[socket.socket]]) -> Sockets:
    """Return the sockets of the service manager, or else open own ones.

    Raises `ListenError`, OSError and ValueError.
    """
    found = Sockets(handed.get("authz", []), [])
    unknown = set(handed) - {"authz", "admin"}
    if unknown:
        raise ValueError(
            f"sockets named {', '.join(sorted(unknown))} were handed over; "
            "set FileDescriptorName=authz or admin"
        )
    if not found.authz:
        found.authz = [open_listener(settings.listen, settings.socket_mode, settings.socket_group)]
        found.made += [settings.listen.path] if settings.listen.path else []
    return found

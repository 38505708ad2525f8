"""Open the daemon's sockets, or take those of the service manager."""

from __future__ import annotations

import socket
from dataclasses import replace
from pathlib import Path

import pytest

from sidecar.authorizer.sockets import open_sockets
from sidecar.core.config.settings import Settings
from sidecar.runtime.listen import remove_socket


def test_those_of_the_service_manager_win(tmp_path: Path) -> None:
    """No path is opened, nor removed at the end."""
    with socket.socket() as handed:
        found = open_sockets(settings(tmp_path), {"authz": [handed]})
        assert (found.authz, found.made) == ([handed], [])
        with pytest.raises(ValueError, match="FileDescriptorName=authz or admin"):
            open_sockets(settings(tmp_path), {"authz": [handed], "other": [handed]})


def test_an_own_one_is_to_be_removed(tmp_path: Path) -> None:
    """Its path stays until the end."""
    found = open_sockets(settings(tmp_path), {})
    [listener] = found.authz
    with listener:
        assert found.made == [str(tmp_path / "authz.sock")]
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(found.made[0])
    remove_socket(found.made[0])
    assert not (tmp_path / "authz.sock").exists()


def settings(place: Path) -> Settings:
    found = Settings()
    return replace(found, listen=replace(found.listen, path=str(place / "authz.sock")))

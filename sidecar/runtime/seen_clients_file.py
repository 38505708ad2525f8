"""The file in which the daemon keeps the clients that it has seen, and its reader for commands."""

from __future__ import annotations

from pathlib import Path

from sidecar.core.seen_clients import SeenClient, SeenClients

from .files import read_file

NAME = "clients.jsonl"

MAX_SIZE = 1280 * 2**20
"""Largest file that is read, in bytes: of the most clients that `limits.seen_clients` allows."""


def seen_clients_path(state_dir: str | Path) -> Path:
    """Where the clients of this state directory are."""
    return Path(state_dir) / NAME


def seen_clients(state_dir: str | Path) -> dict[str, SeenClient]:
    """Every client seen, by the SHA-256 of its certificate in lower-case hex; none without a file.

    What was decided within the last minute may be missing.  Broken lines are left out.
    Raises OSError where the file can't be read, such as PermissionError.
    """
    found = SeenClients(0)
    try:
        found.read(read_file(seen_clients_path(state_dir), MAX_SIZE).splitlines())
    except (FileNotFoundError, NotADirectoryError):
        return {}
    return {sha256: client for sha256, client in found.by_sha256.items() if client.visits}

"""The units of systemd, and the lock under which they are tried."""

from __future__ import annotations

import stat
from pathlib import Path

from container import BOOT_LOCK

ROOT = Path(__file__).resolve().parents[2]
AUTHORIZER = {"mtls-sidecar.service", "mtls-sidecar@.service"}


def test_only_the_authorizer_may_tell_systemd_anything() -> None:
    """A unit whose process may notify systemd is one that, taken over, extends its own stop: those
    that talk to strangers or hold keys have none of it."""
    found = {
        unit.name
        for unit in (ROOT / "deploy").glob("mtls-sidecar*.service")
        if any(
            line.startswith(("Type=notify", "NotifyAccess=", "WatchdogSec="))
            for line in unit.read_text().splitlines()
        )
    }
    assert found == AUTHORIZER


def test_what_asks_for_owners_sees_them() -> None:
    """`PrivateUsers=` makes every user but root and the service's own one user, nobody: who could
    replace a file can't be told.  The fleet's agent and keeper read what is signed, or theirs."""
    found = {
        unit.name
        for unit in (ROOT / "deploy").glob("mtls-sidecar*.service")
        if "PrivateUsers=yes" in unit.read_text().splitlines()
    }
    assert found == {"mtls-sidecar-fleet.service", "mtls-sidecar-fleet-keeper.service"}


def test_nobody_but_root_can_hold_the_lock_of_booted_tests() -> None:
    """The lock stands in a directory in which root alone makes files: another user who held it
    would have every booted test wait."""
    place = BOOT_LOCK.parent.stat()
    assert place.st_uid == 0
    assert not place.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    assert not BOOT_LOCK.exists() or not BOOT_LOCK.stat().st_mode & 0o077

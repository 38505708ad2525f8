"""Ask each running daemon repeatedly, within a time limit, whether a line is in force."""

from __future__ import annotations

import contextlib
import glob
import math
import os
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sidecar.core.config.settings import Address, Settings
from sidecar.core.errors import brief
from sidecar.core.revocation.denylist import DenylistEntry
from sidecar.runtime.control_socket import NoDaemon, ask_all

from .lists import ListedTrust

PATIENCE = 5.0
"""Seconds that a daemon has to put a line into force."""

PAUSE = 0.05
"""Seconds between two questions."""


@dataclass(frozen=True, slots=True)
class Confirmation:
    """The daemon's confirmation: `done`, and a text.  Without a daemon, `done` is true."""

    done: bool
    text: str


def in_force(
    settings: Settings, policy: Path, trusts: Sequence[str], entry: DenylistEntry
) -> Confirmation:
    """Wait until every trust denies the entry, and at least as long as intended."""

    def lacking(told: dict[str, Any]) -> list[str]:
        return [
            name
            for name in trusts
            if not any(
                _until(line) >= entry.until
                for line in told["trusts"].get(name, {"lines": ()})["lines"]
            )
        ]

    return _wait(settings, policy, entry, lacking, "in force", "once it starts")


def gone(
    settings: Settings, policy: Path, places: Sequence[Path], entry: DenylistEntry
) -> Confirmation:
    """Wait until no line of these files denies the entry."""
    meant = {str(each.resolve()) for each in places}

    def still(told: dict[str, Any]) -> list[str]:
        return [
            name
            for name, trust in told["trusts"].items()
            if any(str(Path(line["file"]).resolve()) in meant for line in trust["lines"])
        ]

    return _wait(settings, policy, entry, still, "undone", "once it starts")


def _until(line: dict[str, Any]) -> float:
    return math.inf if line["until"] is None else float(line["until"])


def _wait(
    settings: Settings,
    policy: Path,
    entry: DenylistEntry,
    missing: Callable[[dict[str, Any]], list[str]],
    done: str,
    later: str,
) -> Confirmation:
    """Ask until no trust is missing, or explain why there is no confirmation in time."""
    state_dir, meant = Path(settings.state_dir), policy.resolve()
    end = time.monotonic() + PATIENCE
    while True:
        try:
            answers = questions(state_dir, entry, max(0.1, end - time.monotonic()))
            others = [a["policy"] for a in answers if Path(a["policy"]).resolve() != meant]
            names = list(dict.fromkeys(name for told in answers for name in missing(told)))
        except NoDaemon as error:
            answering = next(filter(_answers, _served(settings.listen)), None)
            if answering is None:
                return Confirmation(True, f"no daemon is running ({error}): {done} {later}")
            why = (
                f"something answers at {answering}, but no daemon says that it serves with "
                f"state_dir {state_dir}: give its --config, or see its log"
            )
        except TimeoutError as error:
            why = (
                f"{brief(error)}, and may hang: restart it; until it confirms, don't lose the "
                "denylist"
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
            said = brief(error)
            why = f"the daemon can't be asked ({said}): run this as root or as the daemon's user"
            if isinstance(error, PermissionError):
                return Confirmation(False, why)
        else:
            if others:
                why = f"the daemon serves another policy, {others[0]}: say --policy, --config"
                return Confirmation(False, why)
            if not names:
                return Confirmation(True, f"{done}: {_confirmed(answers, state_dir)}")
            why = (
                f"the daemon has not taken it over for trust {', '.join(map(repr, names))}: see "
                "its log, and what `mtls-sidecar check` says"
            )
        if time.monotonic() > end:
            return Confirmation(False, why)
        time.sleep(PAUSE)


def _confirmed(answers: Sequence[dict[str, Any]], state_dir: Path) -> str:
    """Say who confirmed, and whether the next start knows of it."""
    daemon = "the daemon of" if len(answers) == 1 else f"all {len(answers)} instances of"
    kept = all(told.get("kept", True) for told in answers)
    verb = "confirms" if len(answers) == 1 else "confirm"
    return f"{daemon} {answers[0]['policy']} {verb} it{'' if kept else f'; {_not_kept(state_dir)}'}"


def _not_kept(state_dir: Path) -> str:
    return (
        f"but it can't copy that to {state_dir} for its next start: until it can (see its log), "
        "don't lose the denylist"
    )


def questions(state_dir: Path, entry: DenylistEntry, patience: float) -> list[dict[str, Any]]:
    """Ask each running instance about an entry.  Raises `NoDaemon`, OSError, ValueError."""
    answers = ask_all(state_dir, {"kind": entry.kind, "value": entry.value}, patience)
    for told in answers:
        if "trusts" not in told:
            raise ValueError(str(told.get("error", "no answer")))
    return answers


def trusts_in_force(settings: Settings, entry: DenylistEntry) -> list[ListedTrust]:
    """Return the trusts and denylists of every running instance; none if they can't be asked."""
    try:
        answers = questions(Path(settings.state_dir), entry, 2.0)
        daemon, policy = os.stat(settings.state_dir).st_uid, Path(settings.policy).resolve()
        found = [
            ListedTrust(name, tuple(map(Path, each["denylists"])), told_by=daemon)
            for told in answers
            if Path(told["policy"]).resolve() == policy
            for name, each in told["trusts"].items()
        ]
        return list(dict.fromkeys(found))
    except (NoDaemon, OSError, ValueError, KeyError, TypeError, AttributeError):
        return []


def _served(address: Address) -> list[Address]:
    """Return the authorization socket, and those of instances that systemd has beside it."""
    path = Path(address.path)
    if not address.path:
        return [address]
    beside = sorted(path.parent.glob(f"{glob.escape(path.stem)}-*{glob.escape(path.suffix)}"))
    return [address, *(Address(path=str(each)) for each in beside)]


def _answers(address: Address) -> bool:
    """Return whether a process serves the authorization socket, or possibly does."""
    family = socket.AF_UNIX if address.path else socket.AF_INET
    if ":" in address.host:
        family = socket.AF_INET6
    with contextlib.suppress(FileNotFoundError, ConnectionRefusedError, socket.gaierror):
        with socket.socket(family, socket.SOCK_STREAM) as peer:
            peer.settimeout(1)
            try:
                peer.connect(address.path or (address.host, address.port))
            except TimeoutError:
                return True
            except OSError as error:
                if isinstance(error, PermissionError):
                    return True
                raise
        return True
    return False

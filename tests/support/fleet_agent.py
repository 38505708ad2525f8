"""An agent's directory as its user could fill it, and the daemon's follower beside it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

from fleet_entries import ISSUED, Author

from sidecar.authorizer.fleet_follower import FleetFollower
from sidecar.authorizer.policy_store import Reload, Store
from sidecar.core.config.fleet_settings import FleetSettings
from sidecar.core.errors import PolicyError
from sidecar.core.fleet.entry import SignedEntry
from sidecar.runtime.fleet_places import FleetPlaces

NOW = ISSUED / 1000 + 1


class Clock:
    """A clock that stands until it is moved."""

    def __init__(self, now: float = NOW) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class Agent:
    """Writes what an agent would, or what somebody would who has taken it over."""

    def __init__(self, state_dir: Path, author: Author) -> None:
        self.author = author
        self.directory = FleetPlaces(state_dir).agent
        (self.directory / "releases").mkdir(parents=True)

    @property
    def log(self) -> Path:
        return self.directory / "log.1"

    def write(self, *signed: SignedEntry | bytes) -> None:
        """Append to the log."""
        with self.log.open("ab") as file:
            for each in signed:
                file.write((each if isinstance(each, bytes) else each.line()) + b"\n")

    def replace_log(self, *signed: SignedEntry) -> None:
        """Put another log in its place."""
        aside = self.directory / "aside"
        aside.write_bytes(b"".join(each.line() + b"\n" for each in signed))
        aside.rename(self.log)

    def head(self, signed: SignedEntry) -> None:
        (self.directory / "head").write_bytes(signed.line())

    def publish(self, files: Mapping[str, bytes], **more: object) -> SignedEntry:
        """A release with its files in place."""
        signed = self.author.release(files, **more)  # type: ignore[arg-type]  # as given
        self.bring(signed, files)
        self.write(signed)
        return signed

    def bring(self, signed: SignedEntry, files: Mapping[str, bytes]) -> Path:
        """Put a release's files into place."""
        place = self.place(signed)
        for name, data in files.items():
            path = place / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        return place

    def place(self, signed: SignedEntry) -> Path:
        name = f"{signed.entry.sequence}-{signed.entry.hash[:16]}"
        return self.directory / "releases" / name


class Host:
    """The daemon's side: a store with its follower."""

    def __init__(self, state_dir: Path, author: Author, **settings: object) -> None:
        self.settings = FleetSettings(name=author.fleet, keys=(author.public,), **settings)  # type: ignore[arg-type]  # as given
        self.state_dir = state_dir
        self.clock = Clock()
        self.ticks = Clock(1000.0)
        self.start()

    def start(self) -> None:
        """Start, as after a restart."""
        self.follower = FleetFollower(self.settings, "web1", self.state_dir, self.clock, self.ticks)
        self.reloads: list[Reload] = []
        self.store = Store(
            FleetPlaces(self.state_dir).policy,
            self.state_dir,
            trusted_only=False,
            changed=self.reloads.append,
            fleet=self.follower,
        )

    def load(self) -> None:
        """Look until everything was read."""
        end = time.monotonic() + 20
        while time.monotonic() < end:
            try:
                self.store.load()
            except PolicyError:
                if not self.follower.is_busy:
                    raise
            if not (self.store._readings.pending or self.follower.is_busy):
                return
            time.sleep(0.01)

    def policy(self) -> bytes:
        """The text of the policy in force."""
        return FleetPlaces(self.state_dir).policy.read_bytes()

    def denies(self, value: str = "ab" * 32) -> bool:
        found = [d.lookup(1, value, "0" * 64, self.clock()) for d in self.follower.denylists]
        return any(found)

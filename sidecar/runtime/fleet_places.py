"""Where the node agent and the daemon keep what they know of the fleet."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class FleetPlaces:
    """Paths below the state directory.

    `agent` belongs to the agent's user, and the daemon believes nothing in it unverified; the
    others are the daemon's own.
    """

    state_dir: Path

    @property
    def agent(self) -> Path:
        """What the agent received."""
        return self.state_dir / "fleet"

    @property
    def daemon(self) -> Path:
        """What the daemon verified and took."""
        return self.state_dir / "fleet-in-force"

    @property
    def policy(self) -> Path:
        """The policy in force."""
        return self.daemon / "current" / "policy.yaml"

    @property
    def status(self) -> Path:
        """What each daemon on this host tells the agent, which reports it."""
        return self.state_dir / "fleet-status"


HEAD = "head"
"""The file of the last head."""


def log_name(epoch: int) -> str:
    """Return the file of an epoch's log."""
    return f"log.{epoch}"

"""Names on the NATS servers: two streams a fleet, and the subjects in them.

The log is a subject for each entry.  The server stores at most one message of a subject and
refuses a second, so of two publishers of the same number one is told so; nodes subscribe to what
the server sends on after it has stored it, never to what a publisher sends.
"""

from __future__ import annotations

from dataclasses import dataclass

CHUNK = 256 * 1024
"""Octets of a file in one message."""


@dataclass(frozen=True, slots=True)
class Subjects:
    """The subjects of one epoch of a fleet."""

    fleet: str
    epoch: int = 1

    @property
    def log_stream(self) -> str:
        """The stream of signed entries: nothing in it is ever replaced or removed."""
        return f"FLEET-{self.fleet}-{self.epoch}"

    @property
    def data_stream(self) -> str:
        """The stream of heads, reports and files: of each subject the last."""
        return f"FLEET-{self.fleet}-data"

    @property
    def _root(self) -> str:
        return f"fleet.{self.fleet}"

    def put(self, sequence: int | str) -> str:
        """Where an entry is published and stored."""
        return f"{self._root}.put.{self.epoch}.{sequence}"

    @property
    def stored(self) -> str:
        """What nodes subscribe to: entries, sent on by the server once they are stored."""
        return f"{self._root}.log.{self.epoch}.*"

    @property
    def republished(self) -> str:
        """`stored`, as the stream's configuration has it."""
        return f"{self._root}.log.{self.epoch}.{{{{wildcard(1)}}}}"

    @property
    def head(self) -> str:
        """The last head."""
        return f"{self._root}.head.{self.epoch}"

    @property
    def alive(self) -> str:
        """What a keeper has stored before it signs a head; nobody reads it."""
        return f"{self._root}.head.alive"

    def report(self, node: str) -> str:
        """What a node says of itself; its own subject."""
        return f"{self._root}.report.{node}"

    def blob(self, sha256: str, number: int) -> str:
        """One chunk of a file."""
        return f"{self._root}.blob.{sha256}.{number}"

    @property
    def data(self) -> list[str]:
        """All subjects of the data stream."""
        return [
            f"{self._root}.head.*",
            f"{self._root}.report.*",
            f"{self._root}.blob.*.*",
        ]


def chunks(size: int) -> int:
    """How many messages a file of so many octets takes."""
    return max(1, -(-size // CHUNK))

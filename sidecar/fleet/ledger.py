"""The verified log on this machine: of a node's agent, a publisher or a keeper."""

from __future__ import annotations

import fcntl
import logging
import os
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from sidecar.core.config.fleet_settings import FleetSettings
from sidecar.core.errors import printable
from sidecar.core.fleet.chain import Chain
from sidecar.core.fleet.entry import Refused, parse_line
from sidecar.runtime.fleet_log import LogReader, LogWriter
from sidecar.runtime.fleet_places import log_name

log = logging.getLogger("mtls-sidecar")


QUIET_SECONDS = 1.0
"""Between two lines of the log about what was refused."""


class Ledger:
    """A chain, and the file that holds its entries.

    What was verified is written, and only that; what can't be written is kept and written later.
    """

    def __init__(self, directory: Path, fleet: FleetSettings, *, only_copy: bool = False) -> None:
        """Verify what an earlier process wrote; what doesn't hold is cut off, and fetched again.

        `only_copy`: it may be all that is left of the log, and is refused instead.  Raises
        OSError, and ValueError also where another process uses it.
        """
        directory.mkdir(mode=0o750, parents=True, exist_ok=True)
        self.directory = directory
        self.path = directory / log_name(fleet.epoch)
        self.chain = Chain(fleet.name, fleet.keys, fleet.epoch)
        self.refused: Counter[str] = Counter()
        self._lock = _locked(directory / ".lock")
        self._writer = LogWriter(self.path)
        self._unwritten: list[bytes] = []
        self._unlogged, self._quiet_until = 0, 0.0
        self._load(only_copy)

    def _load(self, only_copy: bool) -> None:
        reader = LogReader(self.path)
        end = 0
        for line in reader.new_lines():
            before = self.chain.sequence
            try:
                self.chain.accept(parse_line(line))
            except Refused as error:
                if self.chain.sequence == before:
                    if only_copy:
                        self.close()
                        raise ValueError(
                            f"{self.path} does not fit the fleet's keys: {error.detail}",
                            "move it away if it is another fleet's",
                        ) from None
                    log.error("%s is cut at octet %d: %s", self.path, end, printable(error.detail))
                    self._writer.cut(end)
                    return
            end += len(line) + 1

    def take(self, lines: Iterable[bytes]) -> bool:
        """Take entries in turn, and write those that hold; whether some are missing in between.

        Those that are refused are counted and logged.  Raises OSError where they can't be
        written; then `write` is to be called again.
        """
        gap = False
        for line in lines:
            before = self.chain.sequence
            try:
                if self.chain.accept(parse_line(line)):
                    self._unwritten.append(line)
            except Refused as error:
                if error.why == "gap":
                    gap = True
                    continue
                self.refuse(error)
                if self.chain.sequence > before:  # passed over
                    self._unwritten.append(line)
        self.write()
        return gap

    def write(self) -> None:
        """Write what is not written yet.  Raises OSError."""
        if self._unwritten:
            self._writer.append(self._unwritten)
            self._unwritten = []

    def refuse(self, error: Refused) -> None:
        """Count what isn't taken; log it, but not a flood of it."""
        self.refused[error.why] += 1
        self._unlogged += 1
        if time.monotonic() >= self._quiet_until:
            more = f" ({self._unlogged} since the last line)" if self._unlogged > 1 else ""
            log.error("refused (%s): %s%s", error.why, printable(error.detail), more)
            self._unlogged, self._quiet_until = 0, time.monotonic() + QUIET_SECONDS

    def lines(self, first: int = 1) -> list[tuple[int, bytes]]:
        """The entries with their numbers, from one on."""
        found = [
            (parse_line(line).entry.sequence, line) for line in LogReader(self.path).new_lines()
        ]
        return [each for each in found if each[0] >= first]

    def close(self) -> None:
        """Release the files."""
        self._writer.close()
        os.close(self._lock)


def _locked(path: Path) -> int:
    """A lock that ends with the process.  Raises ValueError where another process has it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise ValueError(f"{path.parent} is in use by another process") from None
    return descriptor

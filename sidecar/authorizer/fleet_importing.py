"""Import one release after the other on a thread of its own."""

from __future__ import annotations

import threading
from collections.abc import Callable

from sidecar.core.fleet.bodies import Release


class Importing:
    """At most one import at a time, and how the last one ended."""

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._ended: tuple[Release, Exception | None] | None = None

    @property
    def is_running(self) -> bool:
        """Whether one was started whose end was not asked for."""
        return self._thread is not None

    def start(self, release: Release, work: Callable[[], None]) -> None:
        """Start one.  Raises RuntimeError where there is no thread to be had."""

        def run() -> None:
            error: Exception | None = None
            try:
                work()
            except Exception as raised:  # noqa: BLE001 - whoever started it is told
                error = raised
            self._ended = release, error

        thread = threading.Thread(target=run, name="import", daemon=True)
        thread.start()
        self._thread = thread

    def is_ready(self) -> bool:
        """Whether one has ended."""
        return self._ended is not None

    def result(self) -> tuple[Release, Exception | None]:
        """Which one has ended, and how; once."""
        assert self._ended is not None
        ended, self._ended, self._thread = self._ended, None, None
        return ended

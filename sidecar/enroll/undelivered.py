"""Files whose holder was gone before they could be sent: a button pressed twice, a lost connection.

Such a file is kept in memory for a minute, for the next request with the same link that asks for
the same.  So a certificate is still made once, and given out once.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from .bundles import File
from .issuance import Wanted

SECONDS = 60.0
"""How long a file is kept."""

MOST = 32
"""Most files kept; the oldest gives way."""


class UndeliveredFiles:
    """The files by their token."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._files: dict[str, tuple[Wanted, File, float]] = {}

    def put(self, token: str, wanted: Wanted, file: File) -> None:
        """Keep a file that couldn't be sent."""
        self._forget_old()
        if len(self._files) >= MOST:
            del self._files[next(iter(self._files))]
        self._files[token] = (wanted, file, self._clock() + SECONDS)

    def has(self, token: str) -> bool:
        """Whether there is a file for this link."""
        self._forget_old()
        return token in self._files

    def take(self, token: str, wanted: Wanted) -> File | None:
        """Hand out the file of a link, once, to whoever asks for the same."""
        if not self.has(token) or self._files[token][0] != wanted:
            return None
        return self._files.pop(token)[1]

    def _forget_old(self) -> None:
        now = self._clock()
        for token in [each for each, (_, _, end) in self._files.items() if end <= now]:
            del self._files[token]

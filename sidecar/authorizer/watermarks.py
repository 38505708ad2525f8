"""Remember the newest CRL in force for each issuer and scope, also across restarts.

While a clock is ahead, a CRL from the future comes into force and is noted.  Once the clock is
right, it must not bar the right ones: so earlier marks are remembered too, and a mark from the
future doesn't count.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable
from pathlib import Path

from sidecar.core.revocation.crl.index import Crl, Watermark, goes_back, scope_key, watermark
from sidecar.runtime.files import may_pass, read_file, rename_broken, write_file

log = logging.getLogger("mtls-sidecar")

MOST_OCTETS = 16 * 1024 * 1024

MAX_MARKS = 8
"""Maximum number of marks of one issuer and scope: the newest."""


class Watermarks:
    """The watermarks: a CRL that is older than its watermark is refused.

    `path` None keeps them only in memory.  An invalid file is renamed to NAME.broken and logged as
    an error: it must never prevent a start.  One that can't be read for now stays, and must be read
    again (`read`).
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self._marks: dict[str, tuple[Watermark, ...]] = {}  # oldest first
        self._dirty = False
        self._is_read = path is None
        self.read()

    def read(self) -> BaseException | None:
        """Read the file, unless that is done; return an error that may pass."""
        if self._is_read or self.path is None:
            return None
        try:
            self._marks = _read(self.path)
        except FileNotFoundError:
            pass
        except Exception as error:  # noqa: BLE001 - any invalid content is renamed to .broken
            if may_pass(error):
                return error
            log.error(
                "%s is set aside, and CRLs may go back once: %s; put a backup there if there "
                "is one, and restart",
                self.path,
                getattr(error, "strerror", None) or error,
            )
            rename_broken(self.path)
        self._is_read = True
        return None

    def refuses(self, crl: Crl, latest: float) -> str | None:
        """Explain why a CRL is older than its watermark; None if it isn't.

        Marks later than `latest` (seconds since the epoch) are from the future and don't count.
        """
        marks = [m for m in self._marks.get(scope_key(crl), ()) if m.this_update <= latest]
        return goes_back(marks[-1] if marks else None, crl)

    def note(self, crls: Iterable[Crl], latest: float) -> None:
        """Raise the watermarks to CRLs that came into force; `latest` as in `refuses`."""
        for crl in crls:
            if self.refuses(crl, latest) is not None:
                continue
            key, mark = scope_key(crl), watermark(crl)
            marks = self._marks.get(key, ())
            if mark not in marks:
                before = [m for m in marks if m.this_update < mark.this_update]
                after = [m for m in marks if m.this_update > mark.this_update and _leads(m, mark)]
                self._marks[key] = (*before, mark, *after)[-MAX_MARKS:]
                self._dirty = True

    def save(self) -> None:
        """Write changed watermarks atomically.  Raises OSError."""
        if not self._dirty or self.path is None or not self._is_read:
            return
        self._dirty = False
        found = {
            key if n == 0 else f"{key} {n}": (mark.number, mark.this_update)
            for key, marks in list(self._marks.items())
            for n, mark in enumerate(reversed(marks))
        }
        try:
            write_file(self.path, json.dumps(found).encode())
        except OSError:
            self._dirty = True
            raise


def _leads(future: Watermark, mark: Watermark) -> bool:
    """Return whether a mark from the future is still ahead of one that came after it."""
    return None not in (future.number, mark.number) and (future.number or 0) > (mark.number or 0)


def _read(path: Path) -> dict[str, tuple[Watermark, ...]]:
    """Read the watermarks of a file.  Raises OSError, and any error for invalid content.

    `KEY` is the newest mark of a scope, `KEY 1` the one before it.
    """

    found = json.loads(read_file(path, MOST_OCTETS))
    marks: dict[str, tuple[Watermark, ...]] = {}
    for name, (number, time) in found.items():
        if number is not None and (type(number) is not int or not 0 <= number < 1 << 160):
            raise ValueError(f"{str(number)[:40]} is not a CRL number")
        key = name.partition(" ")[0]
        marks[key] = (*marks.get(key, ()), Watermark(number, float(time)))
    return {key: tuple(sorted(each, key=lambda m: m.this_update)) for key, each in marks.items()}

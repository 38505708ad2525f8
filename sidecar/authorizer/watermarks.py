"""Remember the newest CRL in force for each issuer and scope, also across restarts."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable
from pathlib import Path

from sidecar.core.revocation.crl.index import Crl, Watermark, goes_back, scope_key, watermark
from sidecar.runtime.files import may_pass, read_file, rename_broken, write_file

log = logging.getLogger("mtls-sidecar")

MOST_OCTETS = 16 * 1024 * 1024


class Watermarks:
    """The watermarks: a CRL that is older than its watermark is refused.

    `path` None keeps them only in memory.  An invalid file is renamed to NAME.broken and logged as
    an error: it must never prevent a start.  One that can't be read for now stays, and must be read
    again (`read`).
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self._marks: dict[str, Watermark] = {}
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

    def refuses(self, crl: Crl) -> str | None:
        """Explain why a CRL is older than its watermark; None if it isn't."""
        return goes_back(self._marks.get(scope_key(crl)), crl)

    def note(self, crls: Iterable[Crl]) -> None:
        """Raise the watermarks to CRLs that came into force."""
        for crl in crls:
            key, mark = scope_key(crl), watermark(crl)
            if self._marks.get(key) != mark and self.refuses(crl) is None:
                self._marks[key] = mark
                self._dirty = True

    def save(self) -> None:
        """Write changed watermarks atomically.  Raises OSError."""
        if not self._dirty or self.path is None or not self._is_read:
            return
        self._dirty = False
        found = {key: (mark.number, mark.this_update) for key, mark in list(self._marks.items())}
        try:
            write_file(self.path, json.dumps(found).encode())
        except OSError:
            self._dirty = True
            raise


def _read(path: Path) -> dict[str, Watermark]:
    """Read the watermarks of a file.  Raises OSError, and any error for invalid content."""

    found = json.loads(read_file(path, MOST_OCTETS))
    marks = {}
    for key, (number, time) in found.items():
        if number is not None and (type(number) is not int or not 0 <= number < 1 << 160):
            raise ValueError(f"{str(number)[:40]} is not a CRL number")
        marks[key] = Watermark(number, float(time))
    return marks

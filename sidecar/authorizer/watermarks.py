"""The newest CRL in force for each issuer and scope, kept across restarts."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable
from pathlib import Path

from sidecar.core.revocation.crl.index import Crl, Watermark, goes_back, scope_key, watermark
from sidecar.runtime.files import read_file, set_aside, write_file

log = logging.getLogger("mtls-sidecar")

MOST_OCTETS = 16 * 1024 * 1024


class Watermarks:
    """What a CRL must not go back behind.  `path` None: kept in memory alone.

    A file that can't be used is set aside, loudly: nothing that a local user or a full disk puts
    there keeps the daemon from starting.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._marks: dict[str, Watermark] = {}
        self._dirty = False
        if path is not None:
            try:
                self._marks = _read(path)
            except FileNotFoundError:
                pass
            except Exception as error:  # noqa: BLE001 - whatever stands there is set aside
                log.error(
                    "%s is set aside, and CRLs may go back once: %s; put a backup there if there "
                    "is one, and restart",
                    path,
                    getattr(error, "strerror", None) or error,
                )
                set_aside(path)

    def refuses(self, crl: Crl) -> str | None:
        """Why a CRL is older than what was in force, or None."""
        return goes_back(self._marks.get(scope_key(crl)), crl)

    def note(self, crls: Iterable[Crl]) -> None:
        """Remember CRLs that came into force."""
        for crl in crls:
            key, mark = scope_key(crl), watermark(crl)
            if self._marks.get(key) != mark and self.refuses(crl) is None:
                self._marks[key] = mark
                self._dirty = True

    def save(self) -> None:
        """Write what changed, atomically.  Raises OSError."""
        if not self._dirty or self._path is None:
            return
        self._dirty = False
        found = {key: (mark.number, mark.this_update) for key, mark in list(self._marks.items())}
        try:
            write_file(self._path, json.dumps(found).encode())
        except OSError:
            self._dirty = True
            raise


def _read(path: Path) -> dict[str, Watermark]:
    """The marks in a file.  Raises OSError, and whatever wrong content raises."""
    found = json.loads(read_file(path, MOST_OCTETS))
    marks = {}
    for key, (number, time) in found.items():
        if number is not None and (type(number) is not int or not 0 <= number < 1 << 160):
            raise ValueError(f"{str(number)[:40]} is no CRL number")
        marks[key] = Watermark(number, float(time))
    return marks

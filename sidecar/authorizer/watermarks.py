"""Remember the newest CRL in force of each place, issuer and scope, also across restarts.

Each place of a trust counts for itself: an older file beside a newer one, in another trust or in
the same, doesn't go backwards.  At a place that is new, a CRL must not be older than those of
places that the policy no longer names: it may be one of these, renamed.

While a clock is ahead, a CRL from the future comes into force and is noted.  Once the clock is
right, it must not bar the right ones: so earlier marks are remembered too, and a mark from the
future doesn't count.

A CA can sign CRLs of ever new scopes.  Of more than `MAX_SCOPES` of one signer at one place, the
oldest are forgotten; what remains of them is the signer's floor: a CRL of a scope without marks
must not be older than what was forgotten.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import logging
import threading
from collections.abc import Iterable
from pathlib import Path

from sidecar.core.revocation.crl.index import Crl, Watermark, goes_back, watermark
from sidecar.runtime.files import (
    FileVersion,
    alone,
    file_version,
    may_pass,
    read_file,
    rename_broken,
    write_file,
)

log = logging.getLogger("mtls-sidecar")

MOST_OCTETS = 16 * 1024 * 1024

MAX_MARKS = 8
"""Maximum number of marks of one place, issuer and scope: the newest."""

MAX_SCOPES = 256
"""Maximum number of scopes of one signer at one place: four times as many as a file's CRLs."""

Marks = dict[str, dict[str, tuple[Watermark, ...]]]
"""For each `Crl.key` and each place its marks, oldest first.

The place "" stands for an unknown one: earlier versions noted none.  The key of a floor is
`_floor`'s.
"""


def place_name(trust: str, place: str) -> str:
    """Return the name of a place of a trust; it contains no password of an address."""
    return hashlib.sha256(f"{trust}\n{place}".encode()).hexdigest()[:32]


class Watermarks:
    """The watermarks: a CRL that is older than its watermark is refused.

    `path` None keeps them only in memory.  An invalid file is renamed to NAME.broken and logged as
    an error: it must never prevent a start.  One that can't be read for now stays, and must be read
    again (`read`).  `named` are the `place_name`s of the policy.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.named: frozenset[str] = frozenset()
        self._marks: Marks = {}
        self._signers: dict[str, str] = {}
        self._dirty = False
        self._is_read = path is None
        self._version: FileVersion | None = None
        self._lock = threading.RLock()
        self.read()

    def read(self) -> BaseException | None:
        """Read the file, unless that is done; return an error that may pass."""
        if self._is_read or self.path is None:
            return None
        version = file_version(self.path)
        try:
            self._marks, self._signers = _read(self.path)
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
        self._is_read, self._version = True, version
        return None

    def look_again(self) -> None:
        """Take over the marks that another instance has noted since the file was read or written.

        A file that can't be used changes nothing.
        """
        if not self._is_read or self.path is None:
            return
        version = file_version(self.path)
        if version is None or version == self._version:
            return
        with contextlib.suppress(Exception):
            found, signers = _read(self.path)
            with self._lock:
                self._signers |= signers
                for key, places in found.items():
                    own = self._marks.setdefault(key, {})
                    for place, marks in places.items():
                        own[place] = _newest({*own.get(place, ()), *marks})
                for signer, place in {(s, p) for k, s in signers.items() for p in found[k]}:
                    self._forget_oldest(signer, place)
        self._version = version

    def refuses(
        self, crl: Crl, latest: float, place: str = "", *, former: bool = True
    ) -> str | None:
        """Explain why a CRL is older than its watermark at a place; None if it isn't.

        Where a place has none, those of places no longer named count, unless `former` is false.
        Marks later than `latest` (seconds since the epoch) are from the future and don't count.
        """
        with self._lock:
            own, floors = (dict(self._marks.get(k, {})) for k in (crl.key, _floor(_signer(crl))))
        if place in own:
            counting = [own[place]]
        else:
            known = [*own.items(), *floors.items()]
            counting = [
                marks
                for name, marks in known
                if name == place or (former and name not in self.named)
            ]
        for marks in counting:
            past = [mark for mark in marks if mark.this_update <= latest]
            why = goes_back(past[-1] if past else None, crl)
            if why is not None:
                return why
        return None

    def note(self, crls: Iterable[Crl], latest: float, place: str = "") -> None:
        """Raise a place's watermarks to CRLs that came into force; `latest` as in `refuses`."""
        for crl in crls:
            with self._lock:
                self._note(crl, latest, place)

    def _note(self, crl: Crl, latest: float, place: str) -> None:
        if self.refuses(crl, latest, place, former=False) is not None:
            return
        places, signer = self._marks.setdefault(crl.key, {}), _signer(crl)
        mark, marks = watermark(crl), places.get(place, ())
        if mark not in marks:
            before = [m for m in marks if m.this_update < mark.this_update]
            after = [m for m in marks if m.this_update > mark.this_update and _leads(m, mark)]
            places[place] = _newest((*before, mark, *after))
            self._signers[crl.key] = signer
            self._dirty = True
        unknown = places.get("")
        if place and unknown and goes_back(unknown[-1], crl) is None:
            del places[""]  # they go on as this place's
            self._dirty = True
        if not marks:
            self._forget_oldest(signer, place)

    def _forget_oldest(self, signer: str, place: str) -> None:
        """Forget a signer's oldest scopes at a place if there are too many; raise its floor."""
        scopes = [k for k, s in self._signers.items() if s == signer and place in self._marks[k]]
        scopes.sort(key=lambda key: self._marks[key][place][-1].this_update)
        for key in scopes[: max(0, len(scopes) - MAX_SCOPES)]:
            floors = self._marks.setdefault(_floor(signer), {})
            forgotten = (Watermark(None, m.this_update) for m in self._marks[key].pop(place))
            floors[place] = _newest({*floors.get(place, ()), *forgotten})
            if not self._marks[key]:
                del self._marks[key], self._signers[key]

    def save(self) -> None:
        """Write changed watermarks atomically, and other instances'.  Raises OSError."""
        if not self._dirty or self.path is None or not self._is_read:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with alone(self.path):
            self.look_again()
            self._save(self.path)

    def _save(self, path: Path) -> None:
        self._dirty = False
        with self._lock:
            found = {
                _name(key, n, place, self._signers.get(key, "")): (mark.number, mark.this_update)
                for key, places in self._marks.items()
                for place, marks in places.items()
                for n, mark in enumerate(reversed(marks))
            }
        try:
            data = json.dumps(found).encode()
            if len(data) > MOST_OCTETS:  # it couldn't be read any more
                raise OSError(errno.EFBIG, "they are too many", str(path))
            write_file(path, data)
        except OSError:
            self._dirty = True
            raise
        self._version = file_version(path)


def _signer(crl: Crl) -> str:
    return crl.signer_key.hex()[:32]


def _floor(signer: str) -> str:
    return f"below:{signer}"


def _name(key: str, number: int, place: str, signer: str) -> str:
    if place:
        return f"{key} {number} {place} {signer}".rstrip()
    return f"{key} {number}" if number else key


def _newest(marks: Iterable[Watermark]) -> tuple[Watermark, ...]:
    ages = {mark: (mark.this_update, -1 if mark.number is None else mark.number) for mark in marks}
    return tuple(sorted(ages, key=ages.__getitem__))[-MAX_MARKS:]


def _leads(future: Watermark, mark: Watermark) -> bool:
    """Return whether a mark from the future is still ahead of one that came after it."""
    return None not in (future.number, mark.number) and (future.number or 0) > (mark.number or 0)


def _read(path: Path) -> tuple[Marks, dict[str, str]]:
    """Read the watermarks of a file, and the signer of each key that names one.

    `KEY 0 PLACE SIGNER` is the newest mark of a scope at a place, `KEY 1 PLACE SIGNER` the one
    before it.  Earlier versions wrote no signer: their marks stay.  Raises OSError, and any error
    for invalid content.
    """

    found = json.loads(read_file(path, MOST_OCTETS))
    marks: Marks = {}
    signers: dict[str, str] = {}
    for name, (number, time) in found.items():
        if number is not None and (type(number) is not int or not 0 <= number < 1 << 160):
            raise ValueError(f"{str(number)[:40]} is not a CRL number")
        key, _, place, signer = (*name.split(" ", 3), "", "", "")[:4]
        if signer:
            signers[key] = signer
        places = marks.setdefault(key, {})
        places[place] = (*places.get(place, ()), Watermark(number, float(time)))
    for places in marks.values():
        for place, each in places.items():
            places[place] = _newest(each)
    return marks, signers

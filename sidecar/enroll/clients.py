"""Certificates that were issued: who has which, on which device, until when."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

NEVER_GIVEN_OUT = "never given out"
"""Why a certificate is revoked that another CA has made and nobody got."""


@dataclass(frozen=True, slots=True)
class IssuedCertificate:
    """One certificate.  Moments in seconds since the epoch; `revoked` is when, or None."""

    sha256: str
    serial: str
    spki_sha256: str
    der: bytes
    name: str
    device: str
    profile: str
    invitation: str | None
    renewed_from: str | None
    issued: float
    not_before: float
    not_after: float
    revoked: float | None = None
    reason: str = ""

    def holds_at(self, now: float) -> bool:
        """Whether it is neither revoked nor ended."""
        return self.revoked is None and now < self.not_after


_COLUMNS = (
    "sha256, serial, spki_sha256, der, name, device, profile, invitation, renewed_from, issued, "
    "not_before, not_after, revoked, reason"
)


def add(connection: sqlite3.Connection, found: IssuedCertificate) -> None:
    """Store a certificate."""
    connection.execute(
        f"INSERT INTO certificates ({_COLUMNS}) VALUES (?{', ?' * 13})",
        (
            found.sha256,
            found.serial,
            found.spki_sha256,
            found.der,
            found.name,
            found.device,
            found.profile,
            found.invitation,
            found.renewed_from,
            found.issued,
            found.not_before,
            found.not_after,
            found.revoked,
            found.reason,
        ),
    )


def by_sha256(connection: sqlite3.Connection, sha256: str) -> IssuedCertificate | None:
    """Find a certificate by its fingerprint."""
    rows = connection.execute(f"SELECT {_COLUMNS} FROM certificates WHERE sha256 = ?", (sha256,))
    return next(map(_read, rows), None)


def all_of(connection: sqlite3.Connection) -> list[IssuedCertificate]:
    """List every certificate, by name, device and age."""
    rows = connection.execute(
        f"SELECT {_COLUMNS} FROM certificates ORDER BY name, device, issued, sha256"
    )
    return list(map(_read, rows))


def of_person(connection: sqlite3.Connection, name: str) -> list[IssuedCertificate]:
    """List a person's certificates."""
    rows = connection.execute(
        f"SELECT {_COLUMNS} FROM certificates WHERE name = ? ORDER BY device, issued, sha256",
        (name,),
    )
    return list(map(_read, rows))


def _read(row: sqlite3.Row) -> IssuedCertificate:
    return IssuedCertificate(**{name: row[name] for name in row.keys()})  # noqa: SIM118 - a Row


_DENIED_BY = {
    "serial": ("serial",),
    "sha256": ("sha256", "spki_sha256"),
    "spki_sha256": ("spki_sha256",),
}
"""The columns that a line of a denylist is compared with, by its kind."""


def denied_by(
    connection: sqlite3.Connection, kind: str, values: Sequence[str]
) -> list[IssuedCertificate]:
    """List the certificates that a line of a denylist with one of these values denies."""
    marks = ", ".join("?" * len(values))
    where = " OR ".join(f"{column} IN ({marks})" for column in _DENIED_BY[kind])
    rows = connection.execute(
        f"SELECT {_COLUMNS} FROM certificates WHERE {where}",
        [*values] * len(_DENIED_BY[kind]),
    )
    return list(map(_read, rows))


def names(connection: sqlite3.Connection) -> set[str]:
    """List the names of everybody who was invited or has a certificate."""
    rows = connection.execute("SELECT name FROM invitations UNION SELECT name FROM certificates")
    return {row["name"] for row in rows}


def devices_in_use(found: Iterable[IssuedCertificate], now: float) -> set[str]:
    """Return the devices with a certificate that holds."""
    return {each.device for each in found if each.holds_at(now)}


def mark_revoked(
    connection: sqlite3.Connection, sha256s: Iterable[str], now: float, reason: str
) -> None:
    """Note that certificates are revoked; the first moment stays."""
    for sha256 in sha256s:
        connection.execute(
            "UPDATE certificates SET revoked = ?, reason = ? WHERE sha256 = ? AND revoked IS NULL",
            (now, reason, sha256),
        )


def mark_valid(connection: sqlite3.Connection, sha256s: Iterable[str]) -> None:
    """Note that certificates are revoked no more."""
    for sha256 in sha256s:
        connection.execute(
            "UPDATE certificates SET revoked = NULL, reason = '' WHERE sha256 = ?", (sha256,)
        )


def is_revoked_key(connection: sqlite3.Connection, spki_sha256: str) -> bool:
    """Whether a certificate of this key was revoked: another may know the key."""
    row = connection.execute(
        "SELECT 1 FROM certificates WHERE spki_sha256 = ? AND revoked IS NOT NULL AND reason != ?",
        (spki_sha256, NEVER_GIVEN_OUT),
    ).fetchone()
    return row is not None


def renewals(connection: sqlite3.Connection, sha256: str) -> int:
    """Count the certificates that were issued in place of one."""
    (count,) = connection.execute(
        "SELECT count(*) FROM certificates WHERE renewed_from = ?", (sha256,)
    ).fetchone()
    return int(count)


def valid_on(connection: sqlite3.Connection, name: str, device: str, now: float) -> int:
    """Count a device's certificates that are neither revoked nor ended."""
    (count,) = connection.execute(
        "SELECT count(*) FROM certificates"
        " WHERE name = ? AND device = ? AND revoked IS NULL AND not_after > ?",
        (name, device, now),
    ).fetchone()
    return int(count)

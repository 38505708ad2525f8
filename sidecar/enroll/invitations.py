"""Invitations: a secret link each, good for one certificate until it ends.

Of a link's token only the SHA-256 is stored.  The lookup is by that hash, so how long it takes says
nothing about how much of a token was right.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

TOKEN_BYTES = 16
"""Random octets of a token: 128 bits."""

TOKEN = re.compile("[A-Za-z0-9_-]{22}")
"""What a token looks like in a link."""

PASSWORD_LETTERS = "abcdefghjkmnpqrstuvwxyz23456789"
"""Letters that nobody mistakes for another one."""

GROUPS, GROUP_LENGTH = 4, 5
"""Shape of a password: `abcde-fghjk-mnpqr-stuvw`, 99 bits."""


class InvitationState(Enum):
    """What can become of an invitation now."""

    OPEN = "open"
    WAITING = "waiting"
    APPROVED = "approved"
    ISSUING = "issuing"
    USED = "used"
    CANCELLED = "cancelled"
    EXPIRED = "expired"


ENDED = frozenset({InvitationState.USED, InvitationState.CANCELLED, InvitationState.EXPIRED})


class InvitationError(Exception):
    """The invitation can't be used in this way; the argument is for people."""


@dataclass(frozen=True, slots=True)
class Invitation:
    """One invitation as it is stored.  Moments in seconds since the epoch."""

    id: str
    name: str
    device: str | None
    profile: str
    created: float
    expires: float
    state: InvitationState
    approve: bool
    salt: bytes
    request: bytes
    request_format: str
    request_device: str

    @property
    def ready(self) -> bool:
        """Whether the next request gets a certificate."""
        wanted = InvitationState.APPROVED if self.approve else InvitationState.OPEN
        return self.state is wanted

    @property
    def request_key(self) -> str:
        """SHA-256 of the public key that waits for approval, in hex; empty where there is none."""
        return hashlib.sha256(self.request).hexdigest() if self.request else ""


def new_token() -> str:
    """Make a token of 128 random bits, fit for a URL."""
    return base64.urlsafe_b64encode(secrets.token_bytes(TOKEN_BYTES)).rstrip(b"=").decode()


def token_hash(token: str) -> bytes:
    """Return what is stored of a token."""
    return hashlib.sha256(token.encode()).digest()


def new_id() -> str:
    """Make an invitation's public name, such as `k7m2pqxd`."""
    return "".join(secrets.choice(PASSWORD_LETTERS) for _ in range(8))


def password(secret: bytes, *parts: bytes) -> str:
    """Derive a file's password; without the secret nobody can, whatever they know of the rest.

    The page that shows it and the request that uses it come to the same one, and nothing of it is
    stored.
    """
    lengths = b"".join(len(part).to_bytes(4, "big") + part for part in parts)
    number = int.from_bytes(hmac.digest(secret, b"password" + lengths, "sha256"), "big")
    letters = []
    for _ in range(GROUPS * GROUP_LENGTH):
        number, index = divmod(number, len(PASSWORD_LETTERS))
        letters.append(PASSWORD_LETTERS[index])
    text = "".join(letters)
    return "-".join(text[at : at + GROUP_LENGTH] for at in range(0, len(text), GROUP_LENGTH))


# -- in a transaction of the store


def add(
    connection: sqlite3.Connection,
    *,
    token: str,
    name: str,
    device: str | None,
    profile: str,
    now: float,
    expires: float,
    approve: bool,
) -> str:
    """Store a new invitation; its id."""
    identifier = new_id()
    connection.execute(
        "INSERT INTO invitations (id, token_hash, salt, name, device, profile, created, expires,"
        " state, approve) VALUES (?, ?, ?, ?, ?, ?, ?, ?, 'open', ?)",
        (
            identifier,
            token_hash(token),
            secrets.token_bytes(16),
            name,
            device,
            profile,
            now,
            expires,
            approve,
        ),
    )
    return identifier


def by_token(connection: sqlite3.Connection, token: str, now: float) -> Invitation | None:
    """Find the invitation of a link; None for a token that never was."""
    row = connection.execute(
        "SELECT * FROM invitations WHERE token_hash = ?", (token_hash(token),)
    ).fetchone()
    return _read(row, now) if row else None


def by_id(connection: sqlite3.Connection, identifier: str, now: float) -> Invitation:
    """Find an invitation by its id.  Raises `InvitationError`."""
    row = connection.execute("SELECT * FROM invitations WHERE id = ?", (identifier,)).fetchone()
    if row is None:
        raise InvitationError(f"no invitation {identifier!r}; `invite --list` has them")
    return _read(row, now)


def all_of(connection: sqlite3.Connection, now: float) -> list[Invitation]:
    """List every invitation, the newest last."""
    rows = connection.execute("SELECT * FROM invitations ORDER BY created, id")
    return [_read(row, now) for row in rows]


def _read(row: sqlite3.Row, now: float) -> Invitation:
    state = InvitationState(row["state"])
    # A clock that goes back before the creation is wrong: fail closed.
    out_of_time = now >= row["expires"] or now < row["created"] - CLOCK_SLACK
    if state not in ENDED and state is not InvitationState.ISSUING and out_of_time:
        state = InvitationState.EXPIRED
    return Invitation(
        id=row["id"],
        name=row["name"],
        device=row["device"],
        profile=row["profile"],
        created=row["created"],
        expires=row["expires"],
        state=state,
        approve=bool(row["approve"]),
        salt=bytes(row["salt"] or b""),
        request=bytes(row["request"] or b""),
        request_format=row["request_format"] or "",
        request_device=row["request_device"] or "",
    )


CLOCK_SLACK = 300.0
"""Seconds by which the clock may go back after an invitation was made."""


def cancel(connection: sqlite3.Connection, identifier: str, now: float) -> Invitation:
    """End an invitation, also one that is being used: no certificate comes of it.

    Raises `InvitationError` where it has ended already.
    """
    found = by_id(connection, identifier, now)
    if found.state in ENDED:
        raise InvitationError(f"invitation {identifier} is {found.state.value}: nothing to cancel")
    _end(connection, identifier, "cancelled", now)
    return found


def cancel_all_of(
    connection: sqlite3.Connection, name: str, device: str | None, now: float
) -> list[str]:
    """End every invitation of a person, or with `device` of that device alone; their ids."""
    found = [
        each.id
        for each in all_of(connection, now)
        if each.name == name
        and each.state not in ENDED
        and device in (None, each.device, each.request_device)
    ]
    for identifier in found:
        _end(connection, identifier, "cancelled", now)
    return found


def _end(connection: sqlite3.Connection, identifier: str, state: str, now: float) -> None:
    connection.execute(
        "UPDATE invitations SET state = ?, ended = ?, salt = NULL, request = NULL WHERE id = ?",
        (state, now, identifier),
    )


def file_request(
    connection: sqlite3.Connection,
    found: Invitation,
    request: bytes,
    wanted_format: str,
    device: str,
) -> None:
    """Keep what a holder asks for until somebody approves it."""
    connection.execute(
        "UPDATE invitations SET state = 'waiting', request = ?, request_format = ?,"
        " request_device = ? WHERE id = ?",
        (request, wanted_format, device, found.id),
    )


def approve(connection: sqlite3.Connection, identifier: str, now: float) -> Invitation:
    """Let a waiting request have its certificate.  Raises `InvitationError`."""
    found = by_id(connection, identifier, now)
    if found.state is not InvitationState.WAITING:
        why = "nobody has asked yet" if found.state is InvitationState.OPEN else found.state.value
        raise InvitationError(f"invitation {identifier} isn't waiting for approval: {why}")
    connection.execute("UPDATE invitations SET state = 'approved' WHERE id = ?", (identifier,))
    return found


# -- one certificate an invitation


def reserve(connection: sqlite3.Connection, found: Invitation, holder: str) -> None:
    """Take the invitation for one issuance: from now on nobody else can."""
    connection.execute(
        "UPDATE invitations SET state = 'issuing', state_before = ?, holder = ? WHERE id = ?",
        (found.state.value, holder, found.id),
    )


def give_back(connection: sqlite3.Connection, identifier: str) -> None:
    """Undo `reserve` after an issuance that failed."""
    connection.execute(
        "UPDATE invitations SET state = state_before, state_before = NULL, holder = NULL"
        " WHERE id = ? AND state = 'issuing'",
        (identifier,),
    )


def use_up(connection: sqlite3.Connection, identifier: str, now: float) -> None:
    """End a reserved invitation, whose certificate is stored in the same transaction."""
    _end(connection, identifier, "used", now)


def give_back_all(
    connection: sqlite3.Connection, holder: str, active: Sequence[str] = ()
) -> list[str]:
    """Undo reservations of processes that are gone, and of this one but for `active`; their ids."""
    rows = connection.execute("SELECT id, holder FROM invitations WHERE state = 'issuing'")
    gone = [row["id"] for row in rows if row["holder"] != holder or row["id"] not in active]
    for identifier in gone:
        give_back(connection, identifier)
    return gone

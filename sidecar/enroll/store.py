"""The service's state: one SQLite database, changed by transactions that last milliseconds.

Every transaction opens a connection of its own, so that a command and the service never share one,
and is durable when it returns (WAL, synchronous=FULL).  Whatever SQLite complains about becomes a
`StoreError` that says what to do.
"""

from __future__ import annotations

import contextlib
import math
import os
import secrets
import sqlite3
import stat
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from sidecar.core.errors import brief

PATIENCE = 5.0
"""Seconds that a transaction waits for another one."""

MAX_SECONDS = 20.0
"""Seconds that one transaction may take, with all that it reads."""

MAX_VALUE = 1024 * 1024
"""Maximum octets of one value: many more than a certificate."""

MAX_DATABASE = 1024 * 1024 * 1024
"""Maximum octets of the database: some 300,000 certificates."""

STEPS = 10_000
"""Steps of SQLite's machine between two looks at the clock."""

MIGRATIONS = (
    """
    CREATE TABLE settings (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
    CREATE TABLE invitations (
        id TEXT PRIMARY KEY,
        token_hash BLOB NOT NULL UNIQUE,
        salt BLOB,
        name TEXT NOT NULL,
        device TEXT,
        profile TEXT NOT NULL,
        created REAL NOT NULL,
        expires REAL NOT NULL,
        state TEXT NOT NULL CHECK (state IN
            ('open', 'waiting', 'approved', 'issuing', 'used', 'cancelled')),
        approve INTEGER NOT NULL,
        state_before TEXT,
        holder TEXT,
        ended REAL,
        request BLOB,
        request_format TEXT,
        request_device TEXT
    );
    CREATE TABLE certificates (
        sha256 TEXT PRIMARY KEY,
        serial TEXT NOT NULL,
        spki_sha256 TEXT NOT NULL,
        der BLOB NOT NULL,
        name TEXT NOT NULL,
        device TEXT NOT NULL,
        profile TEXT NOT NULL,
        invitation TEXT REFERENCES invitations (id),
        renewed_from TEXT REFERENCES certificates (sha256),
        issued REAL NOT NULL,
        not_before REAL NOT NULL,
        not_after REAL NOT NULL,
        revoked REAL,
        reason TEXT NOT NULL DEFAULT ''
    );
    CREATE INDEX certificates_by_name ON certificates (name, device);
    CREATE INDEX certificates_by_end ON certificates (not_after);
    CREATE TABLE attempts (
        id TEXT PRIMARY KEY,
        spki_sha256 TEXT NOT NULL,
        name TEXT NOT NULL,
        device TEXT NOT NULL,
        profile TEXT NOT NULL,
        invitation TEXT,
        holder TEXT NOT NULL,
        started REAL NOT NULL,
        lost TEXT NOT NULL DEFAULT ''
    );
    CREATE TABLE notices (
        sha256 TEXT NOT NULL REFERENCES certificates (sha256),
        before INTEGER NOT NULL,
        state TEXT NOT NULL CHECK (state IN ('started', 'given')),
        moment REAL NOT NULL,
        PRIMARY KEY (sha256, before)
    ) WITHOUT ROWID;
    """,
)
"""What makes each version of the schema out of the one before."""


INDEXES = (
    "CREATE INDEX IF NOT EXISTS certificates_by_key ON certificates (spki_sha256)",
    "CREATE INDEX IF NOT EXISTS certificates_by_former ON certificates (renewed_from)",
)
"""What each renewal looks up.  An earlier version, to which one may go back, leaves them alone."""


class StoreError(Exception):
    """The database can't be used now; the argument says why and what to do."""


class Store:
    """The database at a path.  `open_or_create` comes before everything else."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def open_or_create(self) -> None:
        """Create the database, or bring an older one up to date; check that it is sound.

        Raises `StoreError`.
        """
        with self._errors():
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            os.close(descriptor)
            with contextlib.closing(self._connect()) as connection:
                connection.execute("PRAGMA journal_mode = WAL")
                self._migrate(connection)
                for index in INDEXES:
                    connection.execute(index)
                (found,) = connection.execute("PRAGMA quick_check(1)").fetchone()
                if found != "ok":
                    raise sqlite3.DatabaseError(found)

    def require(self) -> None:
        """Check that there is a database of this version.  Raises `StoreError`."""
        if not self.path.exists():
            raise StoreError(f"{self.path}: no such file; run `mtls-sidecar enroll init` first")
        self.open_or_create()

    @contextlib.contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """Yield a connection whose statements see one state.  Raises `StoreError`."""
        with self._errors(), contextlib.closing(self._connect()) as connection:
            connection.execute("BEGIN")
            self._check_schema(connection)
            yield connection
            connection.execute("ROLLBACK")

    @contextlib.contextmanager
    def changing(self) -> Iterator[sqlite3.Connection]:
        """Yield a connection whose changes are kept as a whole when the block ends, or not at all.

        They are on disk when this returns.  Raises `StoreError`.
        """
        with self._errors(), contextlib.closing(self._connect()) as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                self._check_schema(connection)
                yield connection
            except BaseException:
                with contextlib.suppress(sqlite3.Error):  # SQLite may have rolled back itself
                    connection.execute("ROLLBACK")
                raise
            connection.execute("COMMIT")

    def copy(self) -> bytes:
        """Return a consistent copy while others use the database.  Raises `StoreError`."""
        with (
            self._errors(),
            contextlib.closing(self._connect()) as source,
            contextlib.closing(sqlite3.connect(":memory:")) as copy,
        ):
            source.backup(copy)
            (found,) = copy.execute("PRAGMA integrity_check(1)").fetchone()
            if found != "ok":
                raise sqlite3.DatabaseError(found)
            return copy.serialize()

    def secret(self) -> bytes:
        """Return 32 secret bytes of this database, made with it."""
        with self.reading() as connection:
            return setting(connection, "secret")

    def _connect(self) -> sqlite3.Connection:
        """Open the database, whose content may be hostile to a command of root."""
        self._refuse_special_files()
        if self.path.stat().st_size > MAX_DATABASE:
            raise StoreError(f"{self.path}: it is larger than {MAX_DATABASE >> 20} MiB")
        uri = f"{self.path.absolute().as_uri()}?mode=rw"
        connection = sqlite3.connect(uri, uri=True, timeout=PATIENCE, isolation_level=None)
        end = time.monotonic() + MAX_SECONDS
        try:
            connection.row_factory = _checked_row
            connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MAX_VALUE)
            connection.set_progress_handler(lambda: time.monotonic() > end, STEPS)
            connection.execute("PRAGMA foreign_keys = ON")
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA trusted_schema = OFF")
        except BaseException:
            connection.close()
            raise
        return connection

    def _refuse_special_files(self) -> None:
        """Refuse what SQLite would open and wait for, such as a FIFO in a journal's place.

        Raises `StoreError` and OSError.
        """
        for suffix in ("", "-journal", "-wal", "-shm"):
            place = self.path.with_name(self.path.name + suffix)
            with contextlib.suppress(FileNotFoundError):
                if not stat.S_ISREG(place.stat().st_mode):
                    raise StoreError(
                        f"{place}: it is not a regular file; see who made it, remove it"
                    )

    def _check_schema(self, connection: sqlite3.Connection) -> None:
        """Refuse what could run for ever or write elsewhere: views, triggers, other tables.

        Raises `StoreError`.
        """
        rows = connection.execute("SELECT type, name, sql FROM sqlite_schema")
        found = {(kind, name): sql for kind, name, sql in map(tuple, rows)}
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        made = _tables(MIGRATIONS[:version])
        odd = {key for key in found if key[0] in ("view", "trigger")}
        odd |= {key for key, sql in made.items() if found.get(key) != sql}
        if odd:
            kind, name = min(odd)
            raise StoreError(
                f"{self.path}: its {kind} {name[:80]!r} is not of mtls-sidecar's making; put a "
                "backup in its place"
            )

    def _migrate(self, connection: sqlite3.Connection) -> None:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version > len(MIGRATIONS):
            raise StoreError(
                f"{self.path}: it is of a newer mtls-sidecar (schema {version}, this one knows "
                f"{len(MIGRATIONS)}); install that version again"
            )
        if version == len(MIGRATIONS):
            return
        connection.execute("BEGIN IMMEDIATE")
        try:
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            for number in range(version, len(MIGRATIONS)):
                for statement in MIGRATIONS[number].split(";\n"):
                    connection.execute(statement)
            if version == 0:
                values = ("secret", secrets.token_bytes(32))
                connection.execute("INSERT INTO settings VALUES (?, ?)", values)
            connection.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")
            connection.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):
                connection.execute("ROLLBACK")
            raise

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise StoreError(f"{self.path}: {_said(error, self.path)}") from error
        except OSError as error:
            place = error.filename or self.path
            raise StoreError(f"{place}: {error.strerror or error}") from error


@cache
def _tables(migrations: tuple[str, ...]) -> dict[tuple[str, str], str]:
    """The SQL of each table that these migrations make, by `table` and name."""
    with contextlib.closing(_new_database(migrations)) as made:
        rows = made.execute("SELECT type, name, sql FROM sqlite_schema WHERE type = 'table'")
        return {(kind, name): sql for kind, name, sql in rows}


def _new_database(migrations: tuple[str, ...]) -> sqlite3.Connection:
    made = sqlite3.connect(":memory:")
    for script in migrations:
        made.executescript(script)
    return made


_TYPES = {"TEXT": str, "REAL": float, "BLOB": bytes, "INTEGER": int}


@cache
def _types() -> dict[str, type]:
    """The Python type of each column; columns of one name have one type in all tables."""
    with contextlib.closing(_new_database(MIGRATIONS)) as made:
        names = [name for _, name in _tables(MIGRATIONS)]
        columns = [each for name in names for each in made.execute(f"PRAGMA table_info({name})")]
        return {name: _TYPES[kind] for _, name, kind, *_ in columns}


def _checked_row(cursor: sqlite3.Cursor, values: tuple[Any, ...]) -> sqlite3.Row:
    """Make a row whose values are of their columns' types, which SQLite doesn't see to.

    Raises `sqlite3.DatabaseError`.
    """
    types = _types()
    for (name, *_), value in zip(cursor.description, values, strict=True):
        is_right = value is None or isinstance(value, types.get(name, object))
        if not is_right or (isinstance(value, float) and not math.isfinite(value)):
            raise sqlite3.DatabaseError(f"a value of {name} is no {types[name].__name__}")
    return sqlite3.Row(cursor, values)


def setting(connection: sqlite3.Connection, name: str) -> bytes:
    """Return a value of the table `settings`; empty where there is none."""
    found = connection.execute("SELECT value FROM settings WHERE name = ?", (name,)).fetchone()
    return bytes(found[0]) if found else b""


def put_setting(connection: sqlite3.Connection, name: str, value: bytes) -> None:
    """Replace a value of the table `settings`."""
    connection.execute("INSERT OR REPLACE INTO settings VALUES (?, ?)", (name, value))


def _said(error: sqlite3.Error, path: Path) -> str:
    """Say what SQLite's error means for an administrator."""
    if isinstance(error, sqlite3.OperationalError) and str(error) == "interrupted":
        return f"reading it takes longer than {MAX_SECONDS:.0f} s; put a backup in its place"
    code = (getattr(error, "sqlite_errorcode", 0) or 0) & 0xFF
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return f"another process holds it; see which: fuser {path}"
    if code == sqlite3.SQLITE_FULL:
        return "the disk is full; make room, then try again"
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return f"it is damaged ({brief(error)}); put a backup in its place"
    if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM):
        return f"it can't be opened or written ({brief(error)}); see who owns it: ls -l {path}*"
    if isinstance(error, sqlite3.DatabaseError) and not code:
        return f"it is damaged ({brief(error)}); put a backup in its place"
    return brief(error)

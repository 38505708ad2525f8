"""The database: created, migrated, copied, and what is said where it can't be used."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
from pathlib import Path

import pytest

from sidecar.enroll import clients
from sidecar.enroll import store as module
from sidecar.enroll.store import MIGRATIONS, Store, StoreError, put_setting, setting


@pytest.fixture
def store(tmp_path: Path) -> Store:
    found = Store(tmp_path / "state/enroll.db")
    found.open_or_create()
    return found


def version(store: Store) -> int:
    with store.reading() as connection:
        (found,) = connection.execute("PRAGMA user_version").fetchone()
    return int(found)


def test_a_database_is_made_private_and_keeps_its_secret(store: Store) -> None:
    """Nobody else may read it; its secret is made once."""
    assert (store.path.stat().st_mode & 0o777, version(store)) == (0o600, len(MIGRATIONS))
    secret = store.secret()
    store.open_or_create()
    assert store.secret() == secret
    assert len(secret) == 32


def test_an_older_database_is_brought_up_to_date_once(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each migration runs in a transaction; a broken one leaves the old version."""
    with store.changing() as connection:
        put_setting(connection, "kept", b"yes")
    more = "ALTER TABLE invitations ADD COLUMN note TEXT;\n"
    monkeypatch.setattr(module, "MIGRATIONS", (*MIGRATIONS, more + "NONSENSE;\n"))
    with pytest.raises(StoreError):
        store.open_or_create()
    assert version(store) == len(MIGRATIONS)
    monkeypatch.setattr(module, "MIGRATIONS", (*MIGRATIONS, more))
    for _ in range(2):
        store.open_or_create()
    assert version(store) == len(MIGRATIONS) + 1
    with store.reading() as connection:
        assert connection.execute("SELECT note FROM invitations").fetchall() == []
        assert setting(connection, "kept") == b"yes"


def test_two_that_make_a_database_at_once_make_one(tmp_path: Path) -> None:
    """Each finds the same secret."""
    stores = [Store(tmp_path / "enroll.db") for _ in range(4)]
    threads = [threading.Thread(target=each.open_or_create) for each in stores]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({each.secret() for each in stores}) == 1


def test_a_newer_database_is_left_alone(store: Store) -> None:
    """Whoever went back to an older version is told."""
    with store.changing() as connection:
        connection.execute("PRAGMA user_version = 99")
    with pytest.raises(StoreError, match="newer mtls-sidecar"):
        store.require()


def test_a_transaction_that_fails_changes_nothing(store: Store) -> None:
    """All or nothing."""

    def fail() -> None:
        with store.changing() as connection:
            put_setting(connection, "half", b"done")
            connection.execute("NONSENSE")

    with pytest.raises(StoreError):
        fail()
    with store.reading() as connection:
        assert setting(connection, "half") == b""


@pytest.mark.parametrize("content", [b"nonsense" * 1000, b"SQLite format 3\0" + b"\xff" * 5000])
def test_a_damaged_database_is_told(store: Store, content: bytes) -> None:
    """The message says what to do."""
    store.path.write_bytes(content)
    with pytest.raises(StoreError, match="put a backup in its place"):
        store.require()


def test_a_page_that_is_damaged_is_found_at_the_start(store: Store) -> None:
    """Not only the head of the file is looked at."""
    with store.changing() as connection:
        put_setting(connection, "long", b"x" * 20000)
    data = bytearray(store.path.read_bytes())
    data[4096:8192] = b"\xff" * 4096
    store.path.write_bytes(bytes(data))
    with pytest.raises(StoreError, match="damaged"):
        store.require()


def test_a_locked_database_is_told(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process that holds it for too long is named as the reason."""
    monkeypatch.setattr(module, "PATIENCE", 0.05)
    with contextlib.closing(sqlite3.connect(store.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError, match="another process holds it"), store.changing():
            pass
        other.execute("ROLLBACK")
    with store.changing():
        pass


def test_a_full_disk_is_told_and_changes_nothing(store: Store) -> None:
    """SQLite's own `database or disk is full`."""

    class Full(Store):
        def _connect(self) -> sqlite3.Connection:
            connection = super()._connect()
            (pages,) = connection.execute("PRAGMA page_count").fetchone()
            connection.execute(f"PRAGMA max_page_count = {pages}")
            return connection

    full = Full(store.path)

    def fill() -> None:
        with full.changing() as connection:
            put_setting(connection, "large", b"x" * 100_000)

    with pytest.raises(StoreError, match="disk is full"):
        fill()
    with full.reading() as connection:
        assert setting(connection, "large") == b""


def test_a_copy_is_a_whole_database(store: Store, tmp_path: Path) -> None:
    """It can take the database's place; of a damaged one there is none."""
    target = tmp_path / "copy.db"
    with store.changing() as connection:
        put_setting(connection, "kept", b"yes")
    with contextlib.closing(sqlite3.connect(store.path)) as busy:
        busy.execute("SELECT * FROM settings").fetchone()
        target.write_bytes(store.copy())
    copy = Store(target)
    copy.require()
    assert copy.secret() == store.secret()
    with copy.reading() as connection:
        assert setting(connection, "kept") == b"yes"
    store.path.write_bytes(b"nonsense" * 1000)
    with pytest.raises(StoreError):
        store.copy()


def test_a_database_that_is_not_there_is_not_made_by_looking(tmp_path: Path) -> None:
    """`require` makes none: the message names the command that does."""
    with pytest.raises(StoreError, match="enroll init"):
        Store(tmp_path / "none.db").require()
    assert list(tmp_path.iterdir()) == []


def edit(store: Store, *statements: str) -> None:
    """Change the database as its user's other programs could."""
    with contextlib.closing(sqlite3.connect(store.path)) as connection:
        for statement in statements:
            connection.execute(statement)
        connection.commit()


CERTIFICATE = """INSERT INTO certificates
    (sha256, serial, spki_sha256, der, name, device, profile, issued, not_before, not_after)
    VALUES ('ab', '01', 'cd', x'30', 'alice', 'phone', 'p', 1.0, 1.0, 9e9)"""


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("not_after = 'soon'", "a value of not_after is no float"),
        ("not_after = 9e999", "a value of not_after is no float"),
        ("sha256 = x'00'", "a value of sha256 is no str"),
        ("der = 'text'", "a value of der is no bytes"),
        ("der = zeroblob(2000000)", "too big"),
    ],
)
def test_values_of_other_types_are_damage(store: Store, change: str, said: str) -> None:
    """Whoever can write the database can't have commands of root stumble over a value."""
    edit(store, CERTIFICATE, f"UPDATE certificates SET {change}")
    with pytest.raises(StoreError, match=said), store.reading() as connection:
        clients.all_of(connection)


ENDLESS = "WITH RECURSIVE q(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM q) SELECT n FROM q"


@pytest.mark.parametrize(
    ("statements", "said"),
    [
        (["ALTER TABLE notices RENAME TO n", f"CREATE VIEW notices AS {ENDLESS}"], "table 'notic"),
        ([f"CREATE VIEW other AS {ENDLESS}"], "view 'other'"),
        (["CREATE TRIGGER t AFTER UPDATE ON certificates BEGIN SELECT 1; END"], "trigger 't'"),
        (["ALTER TABLE certificates ADD COLUMN more TEXT"], "table 'certificates'"),
    ],
)
def test_what_is_not_of_its_making_is_refused(
    store: Store, statements: list[str], said: str
) -> None:
    """A view that never ends, a trigger that runs with a change, a table of another form."""
    edit(store, *statements)
    for opened in (store.reading, store.changing):
        with pytest.raises(StoreError, match=f"{said}.* is not of mtls-sidecar's making"), opened():
            pass


def test_what_takes_too_long_ends(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """However it is brought about."""
    monkeypatch.setattr(module, "MAX_SECONDS", 0.2)
    with pytest.raises(StoreError, match="takes longer than"), store.reading() as connection:
        connection.execute(ENDLESS).fetchall()


def test_a_huge_database_is_not_read(store: Store) -> None:
    """A sparse file of 9 GiB takes no memory."""
    with store.path.open("r+b") as file:
        file.truncate(9 << 30)
    with pytest.raises(StoreError, match="larger than 1024 MiB"):
        store.require()


@pytest.mark.parametrize("suffix", ["", "-journal", "-wal", "-shm"])
def test_a_fifo_in_the_place_of_one_of_its_files_is_not_waited_for(
    store: Store, suffix: str
) -> None:
    """SQLite would open a journal that is one, and wait for ever for a writer."""
    place = store.path.with_name(store.path.name + suffix)
    place.unlink(missing_ok=True)
    os.mkfifo(place)
    with pytest.raises(StoreError, match=f"{place}: it is not a regular file"):
        store.require()


@pytest.mark.parametrize("column", ["spki_sha256", "renewed_from"])
def test_what_a_renewal_looks_up_has_an_index(store: Store, column: str) -> None:
    """A renewal reads no other client's certificate, in a database of an earlier version, too."""
    with store.changing() as connection:
        for (name,) in connection.execute(
            "SELECT name FROM sqlite_schema WHERE type = 'index' AND sql IS NOT NULL"
        ).fetchall():
            connection.execute(f"DROP INDEX {name}")
    store.open_or_create()
    asked = f"EXPLAIN QUERY PLAN SELECT count(*) FROM certificates WHERE {column} = ''"
    with contextlib.closing(sqlite3.connect(store.path)) as plain:
        (*_, how) = plain.execute(asked).fetchone()
    assert how.startswith("SEARCH certificates USING")

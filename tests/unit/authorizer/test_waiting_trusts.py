"""A start while a copy of what revoked takes long to read: one trust waits, the others serve."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from asking import request
from pki import CA, Leaf

from sidecar.authorizer import readings
from sidecar.authorizer.policy_store import Store
from sidecar.authorizer.readiness import locked_out, shut_out
from sidecar.core.decision import Decision, Reason
from sidecar.core.evaluate import evaluate
from sidecar.core.revocation.denylist import DenylistReader
from sidecar.runtime.crl_worker import CrlWorkers
from sidecar.runtime.files import crl_state_path, revoking_path

URL, NEXT_URL = "http://127.0.0.1/a.crl", "http://127.0.0.1/b.crl"
READERS: dict[Path, CrlWorkers] = {}
STAFF, OTHER = CA("Staff"), CA("Other")
ALICE, BOB = STAFF.issue("alice"), STAFF.issue("bob")
MALLORY, OLIVIA = OTHER.issue("mallory"), OTHER.issue("olivia")
POLICY = f"""\
version: 1
trust:
  staff: {{ca: staff.crt, denylist: denied.txt}}
  other:
    {{ca: other.crt, crl: ["{URL}"], denylist: others.txt, revocation: best_effort,
     ocsp: "http://127.0.0.1/ocsp"}}
locations:
  - {{name: site, trust: staff, allow: verified}}
  - {{name: others, trust: other, allow: verified}}
"""


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """Write a valid policy and its files."""
    (tmp_path / "policy.yaml").write_text(POLICY)
    (tmp_path / "staff.crt").write_bytes(STAFF.pem)
    (tmp_path / "other.crt").write_bytes(OTHER.pem)
    (tmp_path / "denied.txt").write_text("")
    (tmp_path / "others.txt").write_text("")
    _place(tmp_path).parent.mkdir(parents=True)
    _place(tmp_path).write_bytes(OTHER.crl(number=3))
    return tmp_path


@pytest.fixture
def goes_on(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Let every copy, and the address's file, be parsed only when this is set."""
    event = threading.Event()
    event.set()
    read, lines = CrlWorkers.read_file, DenylistReader.read

    def slowly(self: CrlWorkers, path: Path, *given: Any, **settings: Any) -> Any:
        READERS[path] = self
        event.wait()
        return read(self, path, *given, **settings)

    def line_by_line(self: DenylistReader, data: bytes) -> Any:
        if b"slow" in data:
            event.wait()
        return lines(self, data)

    monkeypatch.setattr(CrlWorkers, "read_file", slowly)
    monkeypatch.setattr(DenylistReader, "read", line_by_line)
    yield event
    event.set()


def _place(directory: Path, url: str = URL) -> Path:
    return crl_state_path(directory / "state", "other", url)


def _store(directory: Path) -> Store:
    path, state = directory / "policy.yaml", directory / "state"
    return Store(path, state, trusted_only=False, changed=lambda _: None)


def _decision(store: Store, leaf: Leaf, location: str) -> Decision:
    assert store.current is not None
    return evaluate(store.current, request(leaf, location), time.time())


def _until(store: Store, holds: Callable[[], bool]) -> None:
    while not holds():
        store.load()


def _put(store: Store, file: Path, content: bytes) -> None:
    """Put a file into force, and keep its copy."""
    file.write_bytes(content)
    _until(store, store.moved)
    store.load()
    _until(store, lambda: not store.is_reading)
    store.keep()


def _names(directory: Path) -> dict[str, str]:
    found: dict[str, str] = json.loads((directory / "state/last-good/manifest.json").read_bytes())
    return found


def _its_own(files: Path, store: Store) -> None:
    """The address's CRL itself: both the file and its copy take long."""
    _put(store, _place(files), OTHER.crl([MALLORY], number=5))


def _destroyed(files: Path, store: Store) -> None:
    """That of an address whose file is garbage by now."""
    _put(store, _place(files), OTHER.crl([MALLORY], number=5))
    _place(files).write_bytes(b"garbage")


def _refused(files: Path, store: Store) -> None:
    """What the address gave, and took away again."""
    revoking = revoking_path(_place(files))
    _put(store, revoking, OTHER.crl([MALLORY], number=7))
    revoking.unlink()
    _until(store, store.moved)
    store.load()
    store.keep()


def _former(files: Path, store: Store) -> None:
    """That of an address which has another name in the policy of the next start."""
    _put(store, _place(files), OTHER.crl([MALLORY], number=5))
    (files / "policy.yaml").write_text(POLICY.replace(URL, NEXT_URL))


def _lines(files: Path, store: Store) -> None:
    """The lines of a denylist that is destroyed by now."""
    line = f"serial {MALLORY.serial:x} # slow\n"
    _put(store, files / "others.txt", line.encode())
    (files / "others.txt").write_text("garbage\n")


@pytest.mark.parametrize("before", [_its_own, _destroyed, _refused, _former, _lines])
def test_a_copy_that_takes_long_to_read_keeps_one_trust_waiting(
    files: Path,
    goes_on: threading.Event,
    before: Callable[[Path, Store], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The start serves.  Whoever needs that trust is denied until the copy is read, also under
    `best_effort`; then what it revokes is in force, without a restart.  No copy is dropped,
    and it holds up no file."""
    first = _store(files)
    first.load()
    before(files, first)
    first.keep()
    kept = _names(files)
    goes_on.clear()
    monkeypatch.setattr(readings, "FETCHED_PATIENCE", 0.2)
    monkeypatch.setattr(readings, "COPY_PATIENCE", 0.4)
    store = _store(files)
    store.load()
    for _ in range(2):
        assert _decision(store, ALICE, "site").granted
        for leaf in (MALLORY, OLIVIA):
            found = _decision(store, leaf, "others")
            assert found.reason == Reason.REVOCATION_UNKNOWN, found
        assert store.current is not None
        held = store.current
        assert "still being read" in shut_out(held, time.time())[1]
        assert list(locked_out(held, time.time())) == ["other"]
        assert held.trusts["other"].ocsp
        store.load()
        assert store.current is held  # nothing that was remembered is forgotten again and again
    (files / "denied.txt").write_text(f"serial {ALICE.serial:x}\n")
    _until(store, lambda: _decision(store, ALICE, "site").reason == Reason.REVOKED)
    store.keep()
    own = (store._sources.workers, store._sources.fetched)
    assert not any(READERS.get(files / "state/last-good" / each) in own for each in kept.values())
    assert kept.keys() <= _names(files).keys()
    goes_on.set()
    _until(store, lambda: _decision(store, MALLORY, "others").reason == Reason.REVOKED)
    _until(store, lambda: not _decision(store, OLIVIA, "others").detail.startswith("revocation"))
    assert _decision(store, OLIVIA, "others").granted
    assert store.current is not None
    assert not locked_out(store.current, time.time())
    store.keep()
    again = _store(files)
    again.load()
    assert _decision(again, MALLORY, "others").reason == Reason.REVOKED

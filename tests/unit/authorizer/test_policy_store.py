"""The store puts every usable part of a policy's files into force, and reports the others."""

from __future__ import annotations

import asyncio
import errno
import json
import threading
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from asking import request
from cryptography import x509
from large_crl import large_crl
from pki import CA, Leaf, now

from sidecar.authorizer import policy_store
from sidecar.authorizer.lanes import LARGE, SMALL
from sidecar.authorizer.last_good import LastGood
from sidecar.authorizer.policy_store import Reload, Store
from sidecar.core.decision import Reason
from sidecar.core.errors import PolicyError
from sidecar.core.evaluate import evaluate
from sidecar.runtime.crl_worker import HERE, OCTETS_AT_ONCE, CrlWorkers, read_crl_file
from sidecar.runtime.files import MAX_CRL, crl_place, crl_state_path, revoking_path

STAFF = CA("Staff")
POLICY = """\
version: 1
trust:
  staff: {ca: staff.crt, denylist: denied.txt}
locations:
  - {name: site, trust: staff, allow: verified}
"""


def _store(directory: Path, ahead: float = 0.0) -> Store:
    """A store whose clock is `ahead` by some seconds."""
    return Store(
        directory / "policy.yaml",
        directory / "state",
        trusted_only=False,
        changed=lambda _: None,
        clock=lambda: time.time() + ahead,
    )


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """Write a valid policy and its files."""
    (tmp_path / "policy.yaml").write_text(POLICY)
    (tmp_path / "staff.crt").write_bytes(STAFF.pem)
    (tmp_path / "denied.txt").write_text("serial 01\n")
    return tmp_path


def test_of_a_file_that_is_no_policy_nothing_is_told(files: Path) -> None:
    """The policy's owner made it a link to what others may not read: `/readyz`, the status page and
    systemd's status would tell its words.  Of a policy each mistake is told."""
    path = files / "policy.yaml"
    for text in ("hidden: secret\n", "- hidden\n", "&hidden a\n", "hidden: 1\nhidden: 2\n", ""):
        path.write_text(text)
        with pytest.raises(PolicyError) as told:
            _store(files).load()
        expected = f"{path}: it is no policy: it has no line `version: 1`; run mtls-sidecar check"
        assert str(told.value) == expected
    for text in (
        "version: 1\nhidden: 2\n",
        '{"version": 1,\n "hidden": 2}',
        "hidden: 2\nversion: '1'",
    ):
        path.write_text(text)
        with pytest.raises(PolicyError, match="unknown key 'hidden'"):
            _store(files).load()


def _after(store: Store, holds: Callable[[Reload], bool]) -> Reload:
    """Load until the files have been read and the condition is true."""
    deadline = time.monotonic() + 30.0
    while not holds(found := store.load()):
        assert time.monotonic() < deadline, found.diagnostics
        time.sleep(0.02)
    return found


def _authorities(found: Reload) -> list[str]:
    return [cert.cn[0] for cert in found.policy.trusts["staff"].anchors.certificates]


def test_a_valid_policy_comes_into_force_at_once(files: Path) -> None:
    """The first load waits for every file, and reports nothing."""
    store = _store(files)
    found = store.load()
    assert found.ok
    assert found.policy is store.current
    assert not store.moved()


def test_a_start_without_a_usable_policy_names_the_mistake(files: Path) -> None:
    """A missing policy and an invalid one are refused with the file and the reason."""
    (files / "policy.yaml").write_text(POLICY.replace("verified", "nobody"))
    with pytest.raises(PolicyError, match="nobody"):
        _store(files).load()
    (files / "policy.yaml").unlink()
    with pytest.raises(PolicyError, match="can't be read: No such file"):
        _store(files).load()


def test_an_invalid_policy_leaves_the_older_one_in_force(files: Path) -> None:
    """The mistake is reported at every load; the older policy decides until it is corrected."""
    store = _store(files)
    store.load()
    older = store.current
    (files / "policy.yaml").write_text(POLICY + "typo\n")
    assert _after(store, lambda found: not found.ok).policy is older
    (files / "policy.yaml").write_text(POLICY.replace("name: site", "name: shop"))
    _after(store, lambda found: found.ok and list(found.policy.locations) == ["shop"])


def test_a_policy_that_fails_its_own_test_is_refused(files: Path) -> None:
    """The tests in a policy run before it comes into force."""
    case = "tests:\n  - {location: site, cert: {cn: alice}, expect: deny}\n"
    (files / "policy.yaml").write_text(POLICY + case)
    with pytest.raises(PolicyError, match="expected deny, got allow"):
        _store(files).load()


def test_an_internal_error_is_a_diagnostic(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An unexpected exception while a policy comes into force is reported, and is no traceback."""
    store = _store(files)

    def fail(*_: object) -> None:
        raise ZeroDivisionError("by accident")

    monkeypatch.setattr(store, "_put_into_force", fail)
    with pytest.raises(PolicyError, match="it can't be used: ZeroDivisionError: by accident"):
        store.load()


def test_a_load_without_changes_keeps_the_policy_object(files: Path) -> None:
    """Caches that belong to a policy stay valid while nothing changes."""
    store = _store(files)
    assert store.load().policy is store.load().policy


def test_the_next_process_starts_with_the_kept_files(files: Path) -> None:
    """A new process uses the kept copies while the policy and the CA file are invalid."""
    store = _store(files)
    store.load()
    store.keep()
    (files / "policy.yaml").write_text("typo\n")
    (files / "staff.crt").write_text("typo\n")
    found = _store(files).load()
    assert not found.ok
    assert _authorities(found) == ["Staff"]


def test_copies_are_written_before_a_line_comes_into_force(files: Path) -> None:
    """Whoever was seen denied stays so, if the process is killed at that very moment and the
    denylist is broken afterwards."""
    path = files / "denied.txt"
    found = _store(files)
    found.load()
    path.write_text("serial 02\n")
    _settled(found)
    assert _serials(found) == {2}
    path.write_text("garbage\n")
    again = _store(files)
    again.load()
    assert _serials(again) == {2}


def test_a_line_that_is_gone_before_it_is_copied_is_kept(
    files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its octets are written instead of the file's."""
    path = files / "denied.txt"
    path.write_text("serial 01\n")
    found = _store(files)
    has = LastGood.lacks

    def lacks(self: LastGood, given: Any) -> bool:
        path.write_text("garbage\n")
        return has(self, given)

    with monkeypatch.context() as patched:
        patched.setattr(LastGood, "lacks", lacks)
        found.load()
    again = _store(files)
    again.load()
    assert _serials(again) == {1}


def test_a_disk_that_hangs_delays_no_line(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is waited for a moment, and only once."""
    found = _store(files)
    found.load()
    hangs = threading.Event()

    def hang(self: LastGood, path: Any) -> bool:
        hangs.wait()
        return False

    monkeypatch.setattr(LastGood, "_copy", hang)
    try:
        start = time.monotonic()
        for number in (3, 4):
            (files / "denied.txt").write_text(f"serial 0{number}\n")
            _settled(found)
            assert _serials(found) == {number}
        assert time.monotonic() - start < 10 * policy_store.KEEPING_BEFORE_SECONDS
    finally:
        hangs.set()


def _settled(found: Store) -> None:
    found.load()
    while found._readings.pending:
        found.load()


def _serials(found: Store) -> set[int]:
    assert found.current is not None
    (denylist,) = found.current.trusts["staff"].denylists
    return {number for _, number in denylist.entries}


def test_an_older_crl_is_refused_and_counted_once(files: Path) -> None:
    """A CRL with a lower number doesn't replace the one in force; a repeated load counts none."""
    (files / "policy.yaml").write_text(POLICY.replace("denylist: denied.txt", "crl: staff.crl"))
    (files / "staff.crl").write_bytes(STAFF.crl(number=2))
    store = _store(files)
    assert store.load().ok
    (files / "staff.crl").write_bytes(STAFF.crl(number=1))
    assert _after(store, lambda found: not found.ok).backwards == 1
    assert store.load().backwards == 0


WITH_CRL = POLICY.replace("denylist: denied.txt", "crl: staff.crl, revocation: best_effort")
BROKEN_BLOCK = b"-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n"


def _put(file: Path, content: bytes) -> None:
    aside = file.with_name("aside")
    aside.write_bytes(content)
    aside.replace(file)


def _reason(store: Store, leaf: Leaf, at: float = 0.0) -> str:
    assert store.current is not None
    return evaluate(store.current, request(leaf, "site"), time.time() + at).reason


def _until_revoked(store: Store, leaf: Leaf) -> None:
    _until_reason(store, leaf, Reason.REVOKED)


def _until_reason(store: Store, leaf: Leaf, reason: Reason) -> None:
    _after(store, lambda _: _reason(store, leaf) == reason)


def test_a_crl_that_is_gone_before_it_is_copied_is_kept(
    files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever it revoked is denied by a start, too, where the process is killed at that moment."""
    eve = STAFF.issue("eve")
    (files / "policy.yaml").write_text(WITH_CRL)
    _put(files / "staff.crl", STAFF.crl(number=1))
    found = _store(files)
    assert found.load().ok
    _put(files / "staff.crl", STAFF.crl([eve], number=2))
    has = LastGood.lacks

    def lacks(self: LastGood, given: Any) -> bool:
        if any(key[0] == "crl" and file.digest != first for key, file in given.items()):
            _put(files / "staff.crl", BROKEN_BLOCK)
        return has(self, given)

    first = found._last_good.copy_of("crl", "staff", "staff.crl")[1]  # type: ignore[index]
    with monkeypatch.context() as patched:
        patched.setattr(LastGood, "lacks", lacks)
        _until_revoked(found, eve)
    again = _store(files)
    again.load()
    assert _reason(again, eve) == Reason.REVOKED


def test_what_stood_beside_a_broken_block_is_in_force_after_a_restart(files: Path) -> None:
    """Also where an older CRL has taken the place of its file meanwhile, and is broken at last."""
    (files / "policy.yaml").write_text(WITH_CRL)
    alice, bob, carol = (STAFF.issue(name) for name in ("alice", "bob", "carol"))
    _put(files / "staff.crl", STAFF.crl(number=12))
    store = _store(files)
    for content, leaf in (
        (STAFF.crl([alice], number=15) + BROKEN_BLOCK, alice),
        (STAFF.crl([bob], number=5), bob),
    ):
        store.load()
        store.keep()
        _put(files / "staff.crl", content)
        _until_revoked(store, leaf)
        store.keep()
    for content in (STAFF.crl([bob], number=5), b"garbage"):
        _put(files / "staff.crl", content)
        store = _store(files)
        store.load()
        found = [_reason(store, leaf) for leaf in (alice, bob, carol)]
        assert found == [Reason.REVOKED, Reason.REVOKED, Reason.ALLOWED]
        store.keep()


def test_what_goes_on_with_a_removed_authoritys_crl_starts_again(files: Path) -> None:
    """A CA was taken out, whose CRL alone is in force, and an older one of the other CA, which is
    refused, came in its place: the trust goes on, and starts again.  Else no trust would."""
    leaver = CA("Leaver")
    (files / "policy.yaml").write_text(WITH_CRL)
    (files / "staff.crt").write_bytes(STAFF.pem + leaver.pem)
    (files / "staff.crl").write_bytes(STAFF.crl(number=20))
    store = _store(files)
    store.load()
    for name, data in (
        ("staff.crl", leaver.crl()),
        ("staff.crt", STAFF.pem),
        ("staff.crl", STAFF.crl(number=9, this_update=now() - timedelta(days=1))),
    ):
        _put(files / name, data)
        _after(store, lambda _: not store.is_reading and not store.moved())
        store.keep()
    assert _authorities(_store(files).load()) == ["Staff"]


@pytest.mark.parametrize("revocation", ["best_effort", "required"])
def test_a_clock_that_is_not_set_yet_locks_nobody_out_for_good(
    files: Path, revocation: str
) -> None:
    """A start before the time is known (no battery), while the CRL's file is broken: the kept one
    is of the future; it revokes at once, and says good when the clock is right."""
    (files / "policy.yaml").write_text(WITH_CRL.replace("best_effort", revocation))
    alice, bob = STAFF.issue("alice"), STAFF.issue("bob")
    _put(files / "staff.crl", STAFF.crl([alice], number=12))
    store = _store(files)
    store.load()
    store.keep()
    _put(files / "staff.crl", b"garbage")
    store = _store(files, ahead=-7200)
    store.load()
    assert _reason(store, alice, -7200) == Reason.REVOKED
    wanted = Reason.ALLOWED if revocation == "best_effort" else Reason.REVOCATION_UNKNOWN
    assert _reason(store, bob, -7200) == wanted
    assert [_reason(store, leaf) for leaf in (alice, bob)] == [Reason.REVOKED, Reason.ALLOWED]


def test_a_mistake_is_told_until_the_saved_file_has_been_read(files: Path) -> None:
    """A file that is still being written counts neither as mended nor as broken."""
    store = _store(files)
    (files / "policy.yaml").write_text(POLICY)
    asyncio.run(store.reload())
    (files / "policy.yaml").write_text(POLICY.replace("trust:", "turst:"))
    asyncio.run(store.reload())
    (files / "policy.yaml").write_text(POLICY)
    assert not store.load().ok
    assert _after(store, lambda found: found.ok).policy is store.current


def test_an_asked_reload_tells_of_what_is_saved(files: Path) -> None:
    """Its one report is about the file as it is now, though that was written just before."""
    told: list[Reload] = []
    store = _store(files)
    store._changed = told.append
    store.load()
    (files / "policy.yaml").write_text(POLICY.replace("trust:", "turst:"))
    asyncio.run(store.reload())
    assert [each.ok for each in told] == [False]


def _told_by_a_busy_loop(store: Store, told: list[Reload]) -> None:
    """Wait, as the event loop's only callback, until a reload has ended; nothing is told yet."""
    before, end = store.current, time.monotonic() + 10
    while store.current is before:
        assert time.monotonic() < end, "the reload waits for the loop"
        time.sleep(0.01)
    with store._lock:
        assert not told


def test_a_revocation_needs_one_turn_of_the_loop(files: Path) -> None:
    """A file is seen, read and put together without the event loop, which may be busy with floods;
    the loop takes over the result in its next turn."""
    told: list[Reload] = []
    store = _store(files)
    store._changed = told.append
    store.load()

    async def watch() -> None:
        watching = asyncio.create_task(store.watch())
        await asyncio.sleep(0)
        _put(files / "denied.txt", b"serial 01\nserial 02\n")
        _told_by_a_busy_loop(store, told)
        await asyncio.sleep(0)
        assert [each.policy for each in told] == [store.current]
        watching.cancel()

    asyncio.run(watch())


def test_an_older_policy_is_never_told_after_a_newer_one(
    files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loop takes over the result of a reload that was asked for, and then that of a file which
    has changed since, also where it was too busy for both."""
    told: list[Reload] = []
    store = _store(files)
    store._changed = told.append
    store.load()
    ended, load = threading.Event(), store._loaded

    def loaded(asked: bool) -> Reload:
        result = load(asked)
        if asked:
            ended.set()
        return result

    monkeypatch.setattr(store, "_loaded", loaded)

    async def ask_and_watch() -> None:
        asked = asyncio.create_task(store.reload())
        await asyncio.sleep(0)
        assert ended.wait(10)
        _put(files / "denied.txt", b"serial 01\nserial 02\n")
        store._start_watching(asyncio.get_running_loop())
        _told_by_a_busy_loop(store, told)
        await asked
        assert len(told) == 2
        assert told[-1].policy is store.current
        store._closing.set()

    asyncio.run(ask_and_watch())


def test_a_result_that_can_not_be_taken_over_ends_the_watch(files: Path) -> None:
    """Else an older policy would be in force without a word: the daemon starts anew."""
    store = _store(files)
    store.load()

    def fails(_: Reload) -> None:
        raise MemoryError

    store._changed = fails

    async def watch() -> None:
        _put(files / "denied.txt", b"serial 01\nserial 02\n")
        with pytest.raises(MemoryError):
            await asyncio.wait_for(store.watch(), 10)

    asyncio.run(watch())


URL = "http://127.0.0.1/staff.crl"
FETCHED = POLICY.replace(
    "denylist:", f'crl: ["{URL}", other.crl], revocation: best_effort, denylist:'
)


@pytest.mark.parametrize("before", [None, b"no CRL"], ids=["not-fetched", "unusable"])
def test_what_revokes_waits_for_no_first_download(
    files: Path, monkeypatch: pytest.MonkeyPatch, before: bytes | None
) -> None:
    """A line of the denylist and a CRL of another place come into force while the first usable
    CRL of an address is still being read, however long that takes."""
    alice = STAFF.issue("alice")
    (files / "policy.yaml").write_text(FETCHED)
    (files / "other.crl").write_bytes(STAFF.crl(number=1))
    fetched = crl_state_path(files / "state", "staff", URL)
    fetched.parent.mkdir(parents=True)
    if before is not None:
        fetched.write_bytes(before)
    store = _store(files)
    store.load()
    read, goes_on = CrlWorkers.read_file, threading.Event()

    def slowly(self: CrlWorkers, path: Path, *given: Any, **settings: Any) -> Any:
        if path == fetched:
            goes_on.wait()
        return read(self, path, *given, **settings)

    monkeypatch.setattr(CrlWorkers, "read_file", slowly)
    try:
        _put(fetched, STAFF.crl(number=5, this_update=now() + timedelta(minutes=1)))
        (files / "denied.txt").write_text("serial 07\n")
        _after(store, lambda _: _serials(store) == {7})
        _put(files / "other.crl", STAFF.crl([alice], number=2))
        _until_revoked(store, alice)
    finally:
        goes_on.set()
    _after(store, lambda found: not found.policy.trusts["staff"].missing)


def test_what_was_refused_revokes_while_a_first_download_is_read(
    files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A CRL beside a broken one, which only revokes, does so until the next version is read."""
    alice = STAFF.issue("alice")
    (files / "policy.yaml").write_text(FETCHED.replace(", other.crl", ""))
    fetched = crl_state_path(files / "state", "staff", URL)
    fetched.parent.mkdir(parents=True)
    fetched.write_bytes(STAFF.crl([alice], number=1) + BROKEN_BLOCK)
    store = _store(files)
    store.load()
    assert _reason(store, alice) == Reason.REVOKED
    goes_on = threading.Event()

    def slowly(*_: Any, **__: Any) -> Any:
        goes_on.wait()
        raise OSError(errno.EIO, "it can't be read")

    monkeypatch.setattr(CrlWorkers, "read_file", slowly)
    try:
        _put(fetched, b"anything")
        (files / "denied.txt").write_text("serial 07\n")
        _after(store, lambda _: _serials(store) == {7})
        assert _reason(store, alice) == Reason.REVOKED
    finally:
        goes_on.set()


def test_a_fetched_file_that_is_parsed_for_long_holds_up_no_other_crl(
    files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However large what the fetcher brought is: a large CRL that is a file has its turn."""
    alice = STAFF.issue("alice")
    (files / "policy.yaml").write_text(FETCHED)
    (files / "other.crl").write_bytes(STAFF.crl(number=1))
    fetched = crl_state_path(files / "state", "staff", URL)
    fetched.parent.mkdir(parents=True)
    store = _store(files)
    store.load()
    run, goes_on = CrlWorkers._run, threading.Event()

    def slowly(self: CrlWorkers, question: bytes, shared: Sequence[int]) -> bytes:
        if str(fetched).encode() in question:
            goes_on.wait()
        return run(self, question, shared)

    monkeypatch.setattr(CrlWorkers, "_run", slowly)
    try:
        with fetched.open("wb") as file:
            file.truncate(OCTETS_AT_ONCE + 1)  # parsed alone
        _after(store, lambda _: bool(store._sources.fetched._sizes))
        _put(files / "other.crl", large_crl(STAFF, 30_000, [alice.serial]))
        assert (files / "other.crl").stat().st_size > HERE
        _until_revoked(store, alice)
    finally:
        goes_on.set()
        store._sources.fetched.close()


def test_many_fetched_files_take_few_threads(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The service may have 64 threads and processes: however many large files the fetcher brings
    at once, a few threads wait for them, and a denylist has one."""
    urls = [f"http://127.0.0.1/{number}.crl" for number in range(40)]
    several = f"crl: {json.dumps(urls)}, revocation: best_effort, denylist:"
    (files / "policy.yaml").write_text(POLICY.replace("denylist:", several))
    store = _store(files)
    store.load()
    goes_on = threading.Event()

    def slowly(*_: Any) -> bytes:
        goes_on.wait()
        raise EOFError

    monkeypatch.setattr(CrlWorkers, "_run", slowly)
    before = threading.active_count()
    (files / "state" / "crl").mkdir(parents=True, exist_ok=True)
    try:
        for url in urls:
            fetched = crl_state_path(files / "state", "staff", url)
            for path in (fetched, revoking_path(fetched)):
                with path.open("wb") as file:
                    file.truncate(HERE + 1)
        (files / "denied.txt").write_text("serial 07\n")
        _after(store, lambda _: _serials(store) == {7})
        assert threading.active_count() - before <= sum(n for n, _ in (SMALL, LARGE))
    finally:
        goes_on.set()


def test_a_fetched_file_takes_no_room_of_those_that_are_files(files: Path) -> None:
    """A CRL that is a file comes into force beside a fetched one of the greatest size, whatever
    that holds and whichever the policy names first."""
    alice = STAFF.issue("alice")
    (files / "policy.yaml").write_text(FETCHED)
    (files / "other.crl").write_bytes(STAFF.crl(number=1))
    store = _store(files)
    store.load()
    fetched = crl_state_path(files / "state", "staff", URL)
    fetched.parent.mkdir(parents=True)
    with fetched.open("wb") as file:
        file.truncate(MAX_CRL)
    _after(store, lambda found: "more than 256 MiB" in str(found.diagnostics))
    _put(files / "other.crl", STAFF.crl([alice], number=2))
    _until_revoked(store, alice)


class _Fleet:
    """A fleet without entries, which notes what it is told."""

    denylists = ()

    def __init__(self) -> None:
        self.settled: list[bool] = []

    def look(self) -> None:
        pass

    def confirm(self, _policy: str, _denylists: object, *, settled: bool) -> None:
        self.settled.append(settled)


@pytest.mark.parametrize("place", ["http://127.0.0.1/a.crl", "a.crl"])
def test_a_fleet_does_not_wait_for_a_fetched_crl_that_is_being_read(
    files: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """A release is in force without it; a file beside the policy is waited for."""
    policy = POLICY.replace("denylist", f'crl: ["{place}"], denylist')
    (files / "policy.yaml").write_text(policy)
    file = crl_place(files, files / "state", "staff", place)
    if place == "a.crl":
        file.write_bytes(STAFF.crl())
    store = _store(files)
    fleet: Any = _Fleet()
    store.fleet = fleet
    store.load()
    ended = threading.Event()

    def read_late(*args: Any, **settings: Any) -> Any:
        ended.wait(30)
        return read_crl_file(*args, **settings)

    monkeypatch.setattr("sidecar.runtime.crl_worker.read_crl_file", read_late)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(STAFF.crl(number=2))
    store.load()
    assert fleet.settled == [True, place != "a.crl"]
    ended.set()


TWO = """\
version: 1
trust:
  x: {ca: staff.crt, crl: [x.crl, beside.crl]}
  y: {ca: staff.crt, crl: [y.crl]}
locations: [{name: site, trust: y, allow: verified}]
"""


def _earlier_version(files: Path) -> None:
    """Leave the watermarks as a version did that knew no places."""
    marks = files / "state" / "crl-watermarks.json"
    found = json.loads(marks.read_bytes())
    newest = {name.partition(" ")[0]: mark for name, mark in sorted(found.items())}
    for name, (number, moment) in found.items():
        key = name.partition(" ")[0]
        newest[key] = max(newest[key], [number, moment])
    marks.write_text(json.dumps(newest))


@pytest.mark.parametrize("upgraded", [False, True])
def test_crls_of_different_age_at_two_places_stay_in_force(files: Path, upgraded: bool) -> None:
    """In another trust or in the same: no reload refuses the older one, and no start, also after
    an upgrade; but each is refused once it is set back."""
    bob = STAFF.issue("bob")
    (files / "policy.yaml").write_text(TWO)
    for name, number in (("x.crl", 5), ("beside.crl", 6), ("y.crl", 7)):
        (files / name).write_bytes(STAFF.crl([bob] if number == 7 else [], number=number))
    store = _store(files)
    assert store.load().ok
    store.keep()
    (files / "policy.yaml").write_text(TWO + "\n")
    assert _after(store, lambda found: store._is_settled).ok
    if upgraded:
        _earlier_version(files)
    store = _store(files)
    assert store.load().ok
    store.keep()
    for name, number in (("x.crl", 4), ("y.crl", 6)):
        _put(files / name, STAFF.crl(number=number))
        told = _after(store, lambda found: store._is_settled and not found.ok)
        assert [f"{name}: refused: its CRL number is {number}" in str(told.diagnostics)] == [True]
    assert _reason(store, bob) == Reason.REVOKED


def test_a_place_under_another_name_can_not_set_a_crl_back(files: Path) -> None:
    """A trust that is renamed, or that was removed and comes back, goes on from its last CRL; one
    that is new beside them begins with what it has."""
    (files / "policy.yaml").write_text(TWO)
    for name, number in (("x.crl", 5), ("beside.crl", 5), ("y.crl", 7), ("z.crl", 6)):
        (files / name).write_bytes(STAFF.crl(number=number))
    store = _store(files)
    assert store.load().ok
    also = TWO.replace("  y:", "  z: {ca: staff.crt, crl: [z.crl]}\n  y:")
    (files / "policy.yaml").write_text(also)
    assert _after(store, lambda found: store._is_settled).ok
    renamed = also.replace("y:", "new:").replace("trust: y", "trust: new")
    _put(files / "y.crl", STAFF.crl(number=6))
    (files / "policy.yaml").write_text(renamed)
    told = _after(store, lambda found: store._is_settled and not found.ok)
    assert "y.crl: refused: its CRL number is 6, the one accepted before has 7" in str(
        told.diagnostics
    )
    without = also.replace("  y: {ca: staff.crt, crl: [y.crl]}\n", "").replace(
        "trust: y", "trust: z"
    )
    (files / "policy.yaml").write_text(without)
    assert _after(store, lambda found: store._is_settled and "y" not in found.policy.trusts).ok
    (files / "policy.yaml").write_text(also)
    told = _after(store, lambda found: store._is_settled and not found.ok)
    assert "the one accepted before has 7" in str(told.diagnostics)


OTHER = CA("Other")
USERS = x509.IssuingDistributionPoint(None, None, True, False, None, False, False)


def _of_others(how: str) -> bytes:
    """A sound CRL that says nothing about those of the CRL that was there before."""
    if how == "another issuer":
        return OTHER.crl(number=1)
    if how == "another scope":
        return STAFF.crl(number=7, idp=USERS)
    return STAFF.crl(number=7, delta_base=1)


@pytest.mark.parametrize("how", ["another issuer", "another scope", "a delta"])
def test_an_instance_that_hung_revokes_by_a_crl_that_the_file_lacks_now(
    files: Path, how: str
) -> None:
    """Another instance had it in force meanwhile, and goes by it; so do starts of both."""
    bob = STAFF.issue("bob")
    (files / "policy.yaml").write_text(WITH_CRL)
    (files / "staff.crt").write_bytes(STAFF.pem + OTHER.pem)
    (files / "staff.crl").write_bytes(STAFF.crl(number=5))
    first, second = stores = [_store(files), _store(files)]
    for store in stores:
        assert store.load().ok
        store.keep()
    _put(files / "staff.crl", STAFF.crl([bob], number=6))
    _until_revoked(first, bob)
    first.keep()
    _put(files / "staff.crl", _of_others(how))
    _settled(first)
    first.keep()
    for each in (second, first, second, _store(files), _store(files)):
        each.load()
        _settled(each)
        each.keep()
        assert _reason(each, bob) == Reason.REVOKED
    _put(files / "staff.crl", STAFF.crl(number=8))
    for each in stores:
        _after(each, lambda found: found.ok)
        _settled(each)
        assert _reason(each, bob) == Reason.ALLOWED


@pytest.mark.parametrize("file", ["staff.crl", "denied.txt"])
def test_instances_come_to_the_same_copies(files: Path, file: str) -> None:
    """Where one hung and the file is broken since, neither writes over the other's for ever."""
    (files / "policy.yaml").write_text(WITH_CRL.replace("crl:", "denylist: denied.txt, crl:"))
    _put(files / "denied.txt", b"serial 02 # two\n")
    _put(files / "staff.crl", STAFF.crl(number=5))
    stores = [_store(files), _store(files)]
    for store in stores:
        store.load()
        store.keep()
    bob = STAFF.issue("bob")
    _put(files / "staff.crl", STAFF.crl([bob], number=6))
    _put(files / "denied.txt", b"serial 02 # 2\nserial 01 # one\n")
    _until_revoked(stores[0], bob)
    _settled(stores[0])
    stores[0].keep()
    _put(files / file, b"garbage\nserial 01 # 1\n")
    seen = set()
    for turn in range(20):
        for store in stores:
            _settled(store)
            store.keep()
            if turn >= 10:
                seen.add((files / "state" / "last-good" / "manifest.json").stat().st_mtime_ns)
    assert len(seen) == 1


@pytest.mark.parametrize("how", ["garbage", "removed", "older"])
def test_an_instance_that_hung_revokes_by_the_crl_that_another_had(files: Path, how: str) -> None:
    """The CRL is destroyed, or set back, before it goes on: it takes the other one's copy and
    marks; so do starts of both, until a newer CRL is there."""
    bob = STAFF.issue("bob")
    (files / "policy.yaml").write_text(POLICY.replace("denylist", "crl: a.crl, denylist"))
    older = STAFF.crl(number=5)
    (files / "a.crl").write_bytes(older)
    stores = [_store(files), _store(files)]
    for store in stores:
        assert store.load().ok
        store.keep()
    first, second = stores
    _put(files / "a.crl", STAFF.crl([bob], number=6))
    _until_revoked(first, bob)
    first.keep()
    if how == "removed":
        (files / "a.crl").unlink()
    else:
        _put(files / "a.crl", b"garbage" if how == "garbage" else older)
    _until_revoked(second, bob)
    for each in (first, second, first):
        _settled(each)
        each.keep()
        assert _reason(each, bob) == Reason.REVOKED
    for each in (_store(files), _store(files)):
        each.load()
        assert _reason(each, bob) == Reason.REVOKED
        each.keep()
    _put(files / "a.crl", STAFF.crl(number=7))
    for each in (first, second):
        _after(each, lambda found: found.ok)
        _settled(each)
        assert _reason(each, bob) != Reason.REVOKED


def test_an_instance_that_hung_takes_the_policy_that_another_had(files: Path) -> None:
    """The policy is broken, or gone, before it goes on: what the other one has in force it has,
    too.  What it had in force itself, or is of another policy's instance, it doesn't take."""
    policy, bob = files / "policy.yaml", STAFF.issue("bob")
    denies = POLICY.replace("verified", "verified, deny: [{cn: bob}]")
    allows = POLICY.replace("verified", "[{cn: bob}]")
    stores = first, second, _ = [_store(files), _store(files), _stranger(files, allows)]
    for store in stores:
        assert store.load().ok
        store.keep()
    for text, reason in (denies, Reason.DENIED_BY_RULE), (POLICY, Reason.ALLOWED):
        _put(policy, text.encode())
        _until_reason(first, bob, reason)
        first.keep()
        _put(policy, b"garbage")
        if text is denies:
            _until_reason(second, bob, reason)
        _settled(second)
        assert not second.load().ok
        assert _reason(second, bob) == Reason.DENIED_BY_RULE


def _stranger(files: Path, text: str) -> Store:
    """An instance of another policy, with the same state directory."""
    (files / "other.yaml").write_text(text)
    return Store(files / "other.yaml", files / "state", trusted_only=False, changed=lambda _: None)

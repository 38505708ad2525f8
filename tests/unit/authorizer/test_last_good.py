"""Keep copies of the files in force for the next start."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import logging
import os
import signal
import socket
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from sidecar.authorizer import last_good
from sidecar.authorizer.last_good import GRACE, InForce, LastGood, beside
from sidecar.runtime.files import write_file

KEY = ("denylist", "denylist.txt")


def in_force(path: Path) -> InForce:
    return InForce(path, hashlib.sha256(path.read_bytes()).hexdigest())


def test_a_copy_is_found_by_the_next_process(tmp_path: Path) -> None:
    """The next process finds a copy with the same octets under the same key."""
    (tmp_path / "denylist.txt").write_bytes(b"serial 01\n")
    file = in_force(tmp_path / "denylist.txt")
    LastGood(tmp_path / "copies").save({KEY: file}, [KEY])
    found = LastGood(tmp_path / "copies").copy_of(*KEY)
    assert found is not None
    assert (found[0].read_bytes(), found[1]) == (b"serial 01\n", file.digest)
    assert LastGood(tmp_path / "copies").copy_of(*beside(KEY)) is None


def test_the_octets_in_force_stand_for_a_file_with_a_bad_line(tmp_path: Path) -> None:
    """Of a partly invalid file, the valid part is kept instead of the file."""
    data = b"serial 01\n"
    file = InForce(tmp_path / "gone", hashlib.sha256(data).hexdigest(), data)
    good = LastGood(tmp_path / "copies")
    good.save({KEY: file}, [KEY])
    found = good.copy_of(*KEY)
    assert found is not None
    assert found[0].read_bytes() == data


def test_a_file_that_has_changed_meanwhile_keeps_its_last_copy(tmp_path: Path) -> None:
    """A changed or removed file doesn't replace the copy."""
    path = tmp_path / "denylist.txt"
    path.write_bytes(b"serial 01\n")
    good = LastGood(tmp_path / "copies")
    first = in_force(path)
    good.save({KEY: first}, [KEY])
    path.write_bytes(b"serial 02\n")
    second = in_force(path)
    path.write_bytes(b"serial 03\n")
    good.save({KEY: second}, [KEY])
    path.unlink()
    good.save({KEY: second}, [KEY])
    found = good.copy_of(*KEY)
    assert found is not None
    assert found[1] == first.digest


@pytest.mark.parametrize("taken", ["socket", "memory", "lease"])
def test_the_octets_that_were_read_stand_for_a_file_that_its_owner_withholds(
    taken: str, tmp_path: Path
) -> None:
    """What came into force is kept, though no copy of its file can be read any more.

    The fetcher's user can put a socket into its place, or a link to what can't be read (EIO), or
    hold a lease on it.
    """
    path = tmp_path / "fetched.crl"
    path.write_bytes(b"what revokes")
    octets = path.read_bytes()
    file = InForce(path, in_force(path).digest, substitute=lambda: octets)
    with contextlib.ExitStack() as stack:
        if taken == "socket":
            path.unlink()
            listener = stack.enter_context(socket.socket(socket.AF_UNIX))
            listener.bind(str(path))
        elif taken == "memory":
            path.unlink()
            path.symlink_to("/proc/self/mem")
        else:
            held = stack.enter_context(path.open("r+b"))
            before = signal.signal(signal.SIGIO, signal.SIG_IGN)
            stack.callback(signal.signal, signal.SIGIO, before)
            fcntl.fcntl(held, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        good = LastGood(tmp_path / "copies")
        assert good.save({("crl", "staff", "x"): file}, [("crl", "staff", "x")])
    found = good.copy_of("crl", "staff", "x")
    assert found is not None
    assert found[0].read_bytes() == b"what revokes"


def test_copies_of_a_file_that_is_exchanged_again_and_again_are_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of copies that nothing names the newest stay, up to a number of octets."""
    monkeypatch.setattr(last_good, "MAX_LEFT", 2500)
    path, copies = tmp_path / "fetched.crl", tmp_path / "copies"
    good = LastGood(copies)
    for number in range(8):
        path.write_bytes(b"%d" % number + bytes(999))
        assert good.save({KEY: in_force(path)}, [KEY])
    assert len([each for each in copies.iterdir() if each != good.manifest]) <= 4
    found = good.copy_of(*KEY)
    assert found is not None
    assert found[0].read_bytes() == path.read_bytes()


def test_nothing_is_copied_of_a_device_in_a_files_place(tmp_path: Path) -> None:
    """Whoever wrote the file can put a link there once it is read: /dev/zero would have no end."""
    crl = tmp_path / "a.crl"
    crl.symlink_to("/dev/zero")
    file = InForce(crl, hashlib.sha256(b"read before").hexdigest())
    with pytest.raises(last_good._ChangedError):
        next(last_good._octets_of(file))


def test_what_the_policy_does_not_name_is_removed_later(tmp_path: Path) -> None:
    """An unnamed copy is removed after a while, because another process may just have written
    it."""
    path = tmp_path / "denylist.txt"
    path.write_bytes(b"serial 01\n")
    good = LastGood(tmp_path / "copies")
    file = in_force(path)
    good.save({KEY: file}, [KEY])
    copy = tmp_path / "copies" / file.digest
    path.write_bytes(b"serial 02\n")
    other = in_force(path)
    good.save({KEY: other}, [KEY])
    assert copy.exists()
    old = time.time() - 2 * GRACE
    os.utime(copy, (old, old))
    good.save({}, [])
    assert good.copy_of(*KEY) is None
    assert not copy.exists()
    assert (tmp_path / "copies" / other.digest).exists()


@pytest.mark.parametrize("content", ["{", "[]", '{"k": "../../etc/shadow"}', '{"k": 1}'])
def test_a_spoilt_manifest_names_nothing(
    tmp_path: Path, content: str, caplog: pytest.LogCaptureFixture
) -> None:
    """An invalid manifest is renamed and logged; a name that isn't a SHA-256 is never opened."""
    (tmp_path / "manifest.json").write_text(content)
    with caplog.at_level(logging.ERROR):
        good = LastGood(tmp_path)
    assert "is set aside" in caplog.text
    assert good.copy_of("k") is None
    assert (tmp_path / "manifest.json.broken").read_text() == content


def test_a_directory_that_can_not_be_written_is_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The daemon continues, and logs the same error only once."""
    (tmp_path / "file").write_text("in the way")
    good = LastGood(tmp_path / "file" / "copies")
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            good.save({}, [])
    assert len(caplog.records) == 1
    assert "aren't kept for the next start" in caplog.text


def test_what_another_instance_has_copied_is_known_and_stays(tmp_path: Path) -> None:
    """It is found by who looks again, and not written over by who hasn't looked."""
    one, other = LastGood(tmp_path / "kept"), LastGood(tmp_path / "kept")
    octets = b"serial 01"
    key, file = ("denylist", "a"), InForce(tmp_path / "a", _digest(octets), octets)
    one.save({key: file}, [key])
    assert other.copy_of(*key) is None
    other.look_again()
    found = other.copy_of(*key)
    assert found is not None
    assert found[0].read_bytes() == octets
    newer = b"serial 01\nserial 02"
    one.save({key: InForce(tmp_path / "a", _digest(newer), newer)}, [key])
    also = ("ca", "b")
    ours = InForce(tmp_path / "b", _digest(b"ca"), b"ca")
    assert (other.save({also: ours}, [also]), other.is_behind) == (False, True)
    assert LastGood(tmp_path / "kept").copy_of(*also) is None
    other.look_again()
    assert (other.save({also: ours}, [key, also]), other.is_behind) == (True, False)
    assert LastGood(tmp_path / "kept").copy_of(*key) == one.copy_of(*key)
    one.manifest.write_text("{")
    one.look_again()
    assert one.copy_of(*key) is not None


def _denylist(name: str, octets: bytes) -> tuple[tuple[str, str], InForce]:
    return ("denylist", name), InForce(Path(name), _digest(octets), octets)


def test_what_is_taken_over_while_copies_are_written_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another thread looks at what another instance has just kept: the manifest that is being
    made doesn't know it, and isn't written."""
    one, other = LastGood(tmp_path / "kept"), LastGood(tmp_path / "kept")
    (mine, my_file), (theirs, their_file) = _denylist("a", b"serial 01"), _denylist("b", b"x")
    copy_all = LastGood._copy_all

    def copy_slowly(each: LastGood, *args: Any) -> BaseException | None:
        if each is one and other.save({theirs: their_file}, [theirs]):
            one.look_again()
        return copy_all(each, *args)

    with monkeypatch.context() as slow:
        slow.setattr(LastGood, "_copy_all", copy_slowly)
        assert not one.save({mine: my_file}, [mine, theirs])
    one.look_again()
    assert one.save({mine: my_file}, [mine, theirs])
    for key in (mine, theirs):
        assert LastGood(tmp_path / "kept").copy_of(*key) is not None


def test_two_instances_that_write_at_once_forget_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who comes second waits for the first, and then looks at what that one has written."""
    one, other = LastGood(tmp_path / "kept"), LastGood(tmp_path / "kept")
    (mine, my_file), (theirs, their_file) = _denylist("a", b"serial 01"), _denylist("b", b"x")
    done: list[bool] = []
    second = threading.Thread(
        target=lambda: done.append(other.save({theirs: their_file}, [mine, theirs]))
    )

    def write_late(*args: Any) -> None:
        if threading.current_thread() is not second:
            second.start()
            second.join(0.2)  # without a lock it is done by then
        write_file(*args)

    monkeypatch.setattr(last_good, "write_file", write_late)
    assert one.save({mine: my_file}, [mine, theirs])
    second.join()
    kept = LastGood(tmp_path / "kept")
    assert kept.copy_of(*mine) is not None
    assert done == [kept.copy_of(*theirs) is not None]


def test_instances_that_disagree_do_not_write_in_turns_for_ever(tmp_path: Path) -> None:
    """As those of different policies, whose files the other one doesn't name: each writes again
    what the other has written over, and then not for a while."""
    kept, written = [LastGood(tmp_path / "kept") for _ in range(2)], set()
    for _ in range(10):
        for number, each in enumerate(kept):
            octets = b"serial %d" % number
            key, file = ("denylist", f"{number}"), InForce(tmp_path / "a", _digest(octets), octets)
            each.look_again()
            each.save({key: file}, [key])
            written.add(each.manifest.stat().st_mtime_ns)
    assert len(written) <= 4


def _digest(octets: bytes) -> str:
    return hashlib.sha256(octets).hexdigest()

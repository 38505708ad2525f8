"""Starting beside broken files, CRLs of the future, and one source that is slow: a real daemon."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
from datetime import timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from broken_files import KINDS
from daemon import UNMEASURED, Daemon
from large_crl import large_crl
from pki import CA, now

from sidecar.runtime.files import crl_state_path, revoking_path

staff = CA("Staff")
alice, bob, carol = (staff.issue(name) for name in ("alice", "bob", "carol"))
POLICY = """\
version: 1
trust:
  staff: {ca: ca.crt, crl: [ca.crl], denylist: [first.txt, second.txt]}
locations:
  - {name: site, allow: verified}
"""
STALE = "mtls_sidecar_policy_stale"


def daemon_in(directory: Path, policy: str = POLICY, **files: bytes) -> Daemon:
    found: dict[str, Any] = {
        "ca_crt": staff.pem,
        "ca_crl": staff.crl([carol], number=5),
        "first_txt": f"sha256 {alice.sha256}\n".encode(),
        "second_txt": b"",
    }
    return Daemon(directory, policy, **{**found, **files})


def kept(daemon: Daemon, *names: str) -> bool:
    """Whether these files, or all, have been copied into the state directory as they are."""
    manifest = daemon.directory / "state" / "last-good" / "manifest.json"
    names = names or ("policy.yaml", "ca.crt", "ca.crl", "first.txt", "second.txt")
    wanted = {sha256((daemon.directory / name).read_bytes()).hexdigest() for name in names}
    return manifest.is_file() and wanted <= set(json.loads(manifest.read_bytes()).values())


def stand(daemon: Daemon) -> list[str]:
    return [daemon.ask("site", leaf).reason for leaf in (alice, bob, carol)]


@pytest.mark.parametrize("name", ["policy.yaml", "ca.crt", "ca.crl", "first.txt"])
def test_a_start_beside_a_broken_file_is_by_the_last_good_one(tmp_path: Path, name: str) -> None:
    """The copy serves, loudly; revocations saved meanwhile count; and it ends, once mended."""
    with daemon_in(tmp_path) as daemon:
        assert stand(daemon) == ["revoked", "allowed", "revoked"]
        daemon.until(lambda: kept(daemon))
    sound = (tmp_path / name).read_bytes()
    for kind in ("gone", "garbage", "a directory", "a FIFO", "500 MiB", "writable by all"):
        KINDS[kind](tmp_path / name)
        with daemon:
            assert stand(daemon) == ["revoked", "allowed", "revoked"]
            assert daemon.metric(STALE) == 1
            assert "warning: an older version serves" in daemon.get("/readyz")[1]
            assert "in force since the start, by its last good copy" in daemon.get("/")[1]
            daemon.write("second.txt", f"sha256 {bob.sha256}\n")
            daemon.until(lambda: daemon.ask("site", bob).reason == "revoked")
            if (tmp_path / name).is_dir():
                (tmp_path / name).rmdir()
            daemon.write("second.txt", b"")
            daemon.write(name, sound)
            daemon.until(lambda: daemon.metric(STALE) == 0)
            daemon.until(lambda: daemon.ask("site", bob).status == 204)


def test_a_bad_line_at_a_start_hides_nobody(tmp_path: Path) -> None:
    """Whoever was denied before the file was spoilt is denied still; new lines count, too."""
    with daemon_in(tmp_path) as daemon:
        daemon.until(lambda: kept(daemon))
    daemon.write("first.txt", f"sha25 {alice.sha256}\nsha256 {bob.sha256}\n")
    with daemon:
        assert stand(daemon) == ["revoked", "revoked", "revoked"]
        assert (
            "first.txt:1:1: a word of 5 characters, and no kind of entry" in daemon.log.read_text()
        )


def test_a_bad_line_that_was_good_denies_on(tmp_path: Path) -> None:
    """A typo in alice's line, in a running daemon, doesn't let her in; taking it out does."""
    with daemon_in(tmp_path) as daemon:
        daemon.write("first.txt", f"sha25 {alice.sha256}\nsha256 {bob.sha256}\n")
        daemon.until(lambda: daemon.ask("site", bob).reason == "revoked")
        assert daemon.ask("site", alice).reason == "revoked"
        daemon.write("first.txt", f"sha256 {bob.sha256}\n")
        daemon.until(lambda: daemon.ask("site", alice).status == 204)


def test_without_a_last_good_file_a_start_waits(tmp_path: Path) -> None:
    """A broken CRL, and no copy: nothing is served, `/readyz` says why; mended, it serves."""
    daemon = daemon_in(tmp_path, ca_crl=b"garbage")
    daemon.start(wait=False)
    daemon.until(lambda: daemon.status("/readyz") == 503)
    assert "neither PEM nor DER of a CRL" in daemon.get("/readyz")[1]
    assert not daemon.socket.exists()
    daemon.write("ca.crl", staff.crl([carol], number=5))
    daemon.until(lambda: daemon.status("/readyz") == 200)
    assert stand(daemon) == ["revoked", "allowed", "revoked"]
    assert daemon.stop() == 0


def spoil(path: Path, how: str) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    if how == "a FIFO":
        os.mkfifo(path)
    elif how == "a directory":
        path.mkdir()
    elif how == "a broken link":
        path.symlink_to("/nonexistent/x")
    elif how == "500 MiB":
        with path.open("wb") as file:
            file.truncate(500 << 20)
    else:
        path.write_bytes(how.encode())


SPOILT = ("a FIFO", "a directory", "a broken link", "500 MiB", "", "garbage", "[]", "null", "7",
          '{"a": 1}', '{"a": [1]}', '{"a": [9e999, "x"]}', '{"a": [' + "9" * 5000 + ", 1]}",
          "[" * 100_000)  # fmt: skip


def test_spoilt_state_never_keeps_a_daemon_from_starting(tmp_path: Path) -> None:
    """Watermarks, and the manifest of the copies: set aside, told of, written anew."""
    daemon = daemon_in(tmp_path)
    state = tmp_path / "state"
    (state / "last-good").mkdir(parents=True)
    marks = state / "crl-watermarks.json"
    for how in SPOILT:
        daemon.log.write_bytes(b"")
        spoil(marks, how)
        spoil(state / "last-good" / "manifest.json", how)
        with daemon:
            assert stand(daemon) == ["revoked", "allowed", "revoked"], how
            if how != "a broken link":
                assert "crl-watermarks.json is set aside" in daemon.log.read_text(), how
            daemon.until(lambda: marks.exists() and marks.stat().st_size < 1000)
            daemon.until(lambda: (state / "last-good" / "manifest.json").stat().st_size < 1000)
    daemon.write("ca.crl", staff.crl(number=4))
    with daemon:
        assert daemon.metric("mtls_sidecar_crl_backwards_total") == 1


def test_a_spoilt_copy_is_not_taken(tmp_path: Path) -> None:
    """A copy that isn't what the manifest names is as good as none."""
    with daemon_in(tmp_path) as daemon:
        daemon.until(lambda: kept(daemon))
    for copy in (tmp_path / "state" / "last-good").glob("?" * 64):
        copy.write_bytes(POLICY.replace("site", "other").encode())
    daemon.write("policy.yaml", "junk")
    daemon.start(wait=False)
    daemon.until(lambda: daemon.status("/readyz") == 503)
    assert daemon.stop() == 0


BEST = POLICY.replace("crl: [ca.crl]", "crl: [ca.crl], revocation: best_effort")


def test_a_crl_that_goes_backwards_still_revokes(tmp_path: Path) -> None:
    """Number 4 beside the mark of 5, after a restart without copies: whom it lists is revoked."""
    with daemon_in(tmp_path, BEST) as daemon:
        daemon.until(lambda: (tmp_path / "state" / "crl-watermarks.json").exists())
        daemon.until(lambda: kept(daemon))
    shutil.rmtree(tmp_path / "state" / "last-good")
    daemon.write("ca.crl", staff.crl([carol], number=4))
    daemon.start(wait=False)
    daemon.until(lambda: daemon.status("/readyz") == 503)  # it waits for one that isn't older
    daemon.stop()
    url = "http://crl.example.com/ca.crl"
    daemon.policy.write_text(BEST.replace("ca.crl", f'"{url}"'))
    place = crl_state_path(tmp_path / "state", "staff", url)
    place.parent.mkdir()
    place.write_bytes(staff.crl([carol], number=4))
    with daemon:
        assert stand(daemon) == ["revoked", "allowed", "revoked"]


def test_without_the_marks_an_older_crl_is_taken(tmp_path: Path) -> None:
    """Its marks removed while it runs, restarted: a CRL of a lower number says good again."""
    marks = tmp_path / "state" / "crl-watermarks.json"
    with daemon_in(tmp_path) as daemon:
        daemon.until(lambda: marks.exists())
        daemon.write("ca.crl", staff.crl([carol], number=1))
        daemon.until(lambda: daemon.metric("mtls_sidecar_crl_backwards_total") > 0)
        assert daemon.metric(STALE) == 1
        marks.unlink()
    assert not marks.exists()
    with daemon:
        assert daemon.metric(STALE) == 0
        assert daemon.ask("site", bob).status == 204
        assert daemon.ask("site", carol).reason == "revoked"


def test_a_crl_of_the_future_locks_nobody_out(tmp_path: Path) -> None:
    """The CRL in force serves on beside it; the right one that follows is taken; and so again."""
    with daemon_in(tmp_path) as daemon:
        ahead = staff.crl([bob], number=99, this_update=now() + timedelta(hours=1))
        daemon.write("ca.crl", ahead)
        daemon.until(lambda: daemon.ask("site", bob).reason == "revoked")  # it lists her already
        assert daemon.ask("site", staff.issue("dave")).status == 204
        daemon.write("ca.crl", staff.crl(number=6))
        daemon.until(lambda: daemon.ask("site", carol).status == 204)
        assert daemon.ask("site", bob).status == 204
        assert daemon.metric(STALE) == 0
        daemon.until(lambda: kept(daemon))
        daemon.write("ca.crl", ahead)
        daemon.until(lambda: daemon.ask("site", bob).reason == "revoked")
    with daemon:  # and across a restart
        assert daemon.ask("site", carol).status == 204
        assert daemon.ask("site", bob).reason == "revoked"


def test_a_crl_marks_once_it_comes_into_force(tmp_path: Path) -> None:
    """A CRL two seconds ahead is no mark; when its time has come it is one."""
    policy = POLICY.replace("ca: ca.crt", "ca: ca.crt, clock_tolerance: 0")
    with daemon_in(tmp_path, policy) as daemon:
        marks = tmp_path / "state" / "crl-watermarks.json"
        daemon.until(lambda: marks.exists())
        daemon.write("ca.crl", staff.crl([bob], number=9, this_update=now() + timedelta(seconds=3)))
        daemon.until(lambda: daemon.ask("site", bob).reason == "revoked")
        assert "[9," not in marks.read_text()
        daemon.until(lambda: "[9," in marks.read_text())


def test_two_crls_in_one_file_with_text_around(tmp_path: Path) -> None:
    """As nginx's ssl_crl takes them: each counts for what its authority issued."""
    other = CA("Other")
    erin, frank = other.issue("erin"), other.issue("frank")
    crls = b"a\n" + staff.crl([carol]) + b"b\n" + other.crl([erin]) + b"c\n"
    with daemon_in(tmp_path, ca_crt=staff.pem + other.pem, ca_crl=crls) as daemon:
        assert stand(daemon) == ["revoked", "allowed", "revoked"]
        assert daemon.ask("site", erin).reason == "revoked"
        assert daemon.ask("site", frank).status == 204


def readers(daemon: Daemon) -> list[int]:
    """The processes of a daemon that read CRLs."""
    assert daemon.process is not None
    found: list[int] = []
    for task in Path(f"/proc/{daemon.process.pid}/task").iterdir():
        with contextlib.suppress(FileNotFoundError):  # a thread, or a reader, that has just ended
            pids = map(int, (task / "children").read_text().split())
            found += [p for p in pids if b"crl_worker" in Path(f"/proc/{p}/cmdline").read_bytes()]
    return found


def test_a_denial_does_not_wait_for_a_large_crl(tmp_path: Path) -> None:
    """While a CRL of megabytes is being read, however slowly, lines take effect; then it does."""
    with daemon_in(tmp_path) as daemon:
        assert daemon.ask("site", bob).status == 204
        daemon.write("ca.crl", large_crl(staff, 250_000, [bob.serial, carol.serial]))
        daemon.until(lambda: bool(readers(daemon)))
        (reader,) = readers(daemon)
        os.kill(reader, signal.SIGSTOP)
        daemon.write("second.txt", f"sha256 {bob.sha256}\n")
        daemon.until(lambda: daemon.ask("site", bob).reason == "revoked", 3)
        daemon.write("second.txt", b"")
        daemon.until(lambda: daemon.ask("site", bob).status == 204, 3)
        daemon.write("policy.yaml", POLICY.replace("site", "other"))
        daemon.until(lambda: daemon.ask("other", bob).status == 204, 3)
        assert daemon.metric(STALE) == 0
        os.kill(reader, signal.SIGCONT)
        daemon.until(lambda: daemon.ask("other", bob).reason == "revoked", 60)
        assert daemon.metric('mtls_sidecar_crl_entries{source="ca.crl",trust="staff"}') == 250_002


def test_a_large_crl_costs_the_daemon_little_at_start_too(tmp_path: Path) -> None:
    """It is read by a process of its own: what the daemon keeps is about the serials' size."""
    daemon = daemon_in(tmp_path)
    daemon.environ = UNMEASURED
    with daemon:
        small = daemon.rss()
    daemon.write("ca.crl", large_crl(staff, 1_000_000, [carol.serial]))
    with daemon:
        assert stand(daemon) == ["revoked", "allowed", "revoked"]
        assert daemon.peak() - small < 60 << 20


def test_a_trust_of_huge_crls_harms_no_other(tmp_path: Path) -> None:
    """Tens of megabytes of issuers, in two indirect CRLs, take little memory here."""
    other = CA("Other")
    erin = other.issue("erin")
    policy = POLICY + "  - {name: other, trust: other, allow: verified}\n"
    policy = policy.replace(
        "trust:\n", "trust:\n  other: {ca: other.crt, crl: [one.crl, two.crl]}\n"
    ).replace("name: site", "name: site, trust: staff")
    huge = large_crl(other, 200_000, [erin.serial], issuers=True)
    daemon = daemon_in(
        tmp_path, policy, other_crt=other.pem, one_crl=other.crl(), two_crl=other.crl()
    )
    daemon.environ = UNMEASURED
    with daemon:
        small = daemon.rss()
        daemon.write("one.crl", huge)
        daemon.write("two.crl", huge)
        daemon.until(lambda: daemon.ask("other", erin).reason == "revoked", 90)
        assert daemon.peak() - small < 60 << 20
        assert stand(daemon) == ["revoked", "allowed", "revoked"]


URL = "http://crl.example.com/ca.crl"


@pytest.mark.parametrize(
    "how", ["garbage", "500 MiB", "a FIFO", "a directory", "a broken link", ""]
)
def test_what_a_fetcher_taken_over_leaves_keeps_no_daemon_from_starting(
    tmp_path: Path, how: str
) -> None:
    """It is told of, and as good as not fetched yet: its trust is unknown, the others serve."""
    other = CA("Other")
    erin = other.issue("erin")
    policy = POLICY.replace("[ca.crl]", f'"{URL}"').replace(
        "name: site", "name: site, trust: staff"
    )
    policy = policy.replace("trust:\n", "trust:\n  other: {ca: other.crt}\n")
    policy += "  - {name: other, trust: other, allow: verified}\n"
    place = crl_state_path(tmp_path / "state", "staff", URL)
    place.parent.mkdir(parents=True)
    spoil(place, how)
    with daemon_in(tmp_path, policy, other_crt=other.pem) as daemon:
        assert daemon.ask("other", erin).status == 204
        assert daemon.ask("site", alice).reason == "revoked"
        assert daemon.ask("site", bob).reason == "revocation_unknown"
        assert "warning: trust staff: no CRL is in force" in daemon.get("/readyz")[1]
        if place.is_dir():
            place.rmdir()
        place.with_suffix(".new").write_bytes(staff.crl([carol], number=5))
        place.with_suffix(".new").rename(place)
        daemon.until(lambda: daemon.ask("site", bob).status == 204)
        daemon.until(lambda: kept(daemon, str(place)))
        spoil(place, how)
        daemon.until(lambda: daemon.metric(STALE) == 1)
        assert stand(daemon) == ["revoked", "allowed", "revoked"]
    with daemon:
        assert stand(daemon) == ["revoked", "allowed", "revoked"]


@pytest.mark.parametrize("revocation", ["required", "best_effort"])
def test_a_fetched_crl_that_is_being_read_holds_up_nothing_else(
    tmp_path: Path, revocation: str
) -> None:
    """It counts as not fetched yet, however long reading it takes: lines, CRLs of its own trust and
    of others, and a changed policy come into force.  A trust that is named anew with such a CRL
    waits a few seconds for it."""
    other = CA("Other")
    erin = other.issue("erin")
    fetched = f"{{ca: other.crt, crl: [other.crl, '{URL}'], revocation: {revocation}}}"
    policy = POLICY.replace("trust:\n", f"trust:\n  other: {fetched}\n").replace(
        "name: site", "name: site, trust: staff"
    )
    policy += "  - {name: other, trust: other, allow: verified}\n"
    large, before = large_crl(other, 100_000, [erin.serial], number=7), now() - timedelta(hours=2)
    for trust in ("other", "anew"):
        place = crl_state_path(tmp_path / "state", trust, URL)
        place.parent.mkdir(parents=True, exist_ok=True)
    files = {"other_crt": other.pem, "other_crl": other.crl(number=1, this_update=before)}
    with daemon_in(tmp_path, policy, **files) as daemon:
        assert daemon.ask("other", erin).status == 204
        place = crl_state_path(tmp_path / "state", "other", URL)
        stopped = [stopped_reader(daemon, place, large)]
        daemon.write("second.txt", f"sha256 {bob.sha256}\n")
        daemon.until(lambda: daemon.ask("site", bob).reason == "revoked", 3)
        daemon.write("other.crl", other.crl([erin], number=2, this_update=before))
        daemon.until(lambda: daemon.ask("other", erin).reason == "revoked", 3)
        daemon.write("policy.yaml", policy.replace("name: site", "name: place"))
        daemon.until(lambda: daemon.ask("place", alice).reason == "revoked", 3)
        assert daemon.metric(STALE) == 0
        place = crl_state_path(tmp_path / "state", "anew", URL)
        place.write_bytes(large)
        anew = policy.replace("  staff:", f"  anew: {fetched}\n  staff:")
        daemon.write("policy.yaml", anew.replace("name: site", "name: last"))
        daemon.until(lambda: len(readers(daemon)) == 2)
        stopped += [pid for pid in readers(daemon) if pid not in stopped]
        os.kill(stopped[-1], signal.SIGSTOP)
        daemon.until(lambda: daemon.ask("last", alice).reason == "revoked", 20)
        for reader in stopped:
            os.kill(reader, signal.SIGCONT)
        entries = 'mtls_sidecar_crl_entries{source="' + URL + '",trust="anew"}'
        daemon.until(lambda: daemon.metric(entries) == 100_001, 60)
        assert daemon.ask("other", erin).reason == "revoked"


def stopped_reader(daemon: Daemon, place: Path, data: bytes) -> int:
    """Write a large CRL, and stop the process that reads it."""
    place.write_bytes(data)
    daemon.until(lambda: bool(readers(daemon)))
    (reader,) = readers(daemon)
    os.kill(reader, signal.SIGSTOP)
    return reader


def test_what_the_fetcher_was_refused_revokes(tmp_path: Path) -> None:
    """The file beside a fetched CRL revokes whom it lists within a second, says good of nobody,
    and one that is older counts no longer once it is gone; what is broken there takes nobody off.
    """
    policy = POLICY.replace("[ca.crl]", f'"{URL}"')
    place = crl_state_path(tmp_path / "state", "staff", URL)
    place.parent.mkdir(parents=True)
    place.write_bytes(staff.crl([carol], number=5))
    beside = revoking_path(place)
    older = staff.crl([bob], number=4, this_update=now() - timedelta(hours=2))
    with daemon_in(tmp_path, policy) as daemon:
        assert stand(daemon) == ["revoked", "allowed", "revoked"]
        beside.write_bytes(older)
        daemon.until(lambda: daemon.ask("site", bob).reason == "revoked")
        assert daemon.metric(STALE) == 0
        beside.unlink()
        beside.mkdir()
        daemon.until(lambda: daemon.metric(STALE) == 1)
        assert daemon.ask("site", bob).reason == "revoked"
        beside.rmdir()
        daemon.until(lambda: daemon.ask("site", bob).status == 204)
        beside.write_bytes(older)
    with daemon:
        assert daemon.ask("site", bob).reason == "revoked"
        place.unlink()
        assert daemon.ask("site", bob).reason == "revoked"


@pytest.mark.parametrize("how", ["garbage", "500 MiB", "a FIFO", "a directory"])
def test_what_is_planted_beside_a_fetched_crl_takes_nothing_away(tmp_path: Path, how: str) -> None:
    """Where the fetcher was taken over: the daemon starts, and the good CRL counts as ever."""
    place = crl_state_path(tmp_path / "state", "staff", URL)
    place.parent.mkdir(parents=True)
    place.write_bytes(staff.crl([carol], number=5))
    spoil(revoking_path(place), how)
    with daemon_in(tmp_path, POLICY.replace("[ca.crl]", f'"{URL}"')) as daemon:
        assert stand(daemon) == ["revoked", "allowed", "revoked"]


def test_nobody_can_get_in_is_not_ready(tmp_path: Path) -> None:
    """A CRL that has ended, under `required`: 503 and why; a newer one, and it is ready."""
    start, end = now() - timedelta(days=3), now() - timedelta(days=2)
    ended = staff.crl([carol], number=5, this_update=start, next_update=end)
    daemon = daemon_in(tmp_path, ca_crl=ended)
    daemon.start(wait=False)
    daemon.until(lambda: daemon.status("/readyz") == 503)
    daemon.until(daemon.socket.exists)
    assert (
        "trust staff: no CRL is in force (ca.crl: its nextUpdate has passed)"
        in (daemon.get("/readyz")[1])
    )
    assert stand(daemon) == ["revoked", "revocation_unknown", "revoked"]
    daemon.write("ca.crl", staff.crl([carol], number=6))
    # What stands is looked at every second: the warning may outlive the 503 by that.
    daemon.until(lambda: daemon.get("/readyz") == (200, "ok\n"))
    assert daemon.stop() == 0

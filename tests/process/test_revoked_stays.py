"""Whoever was denied stays so: a real daemon, files broken at random, saves and restarts between.

Every sound version of a file lists whom the versions before it listed.  So whoever was seen denied
must be denied for good, whatever is broken since and however often the daemon is started anew.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from broken_files import KINDS
from daemon import Daemon
from pki import CA, Leaf, now

from sidecar.runtime.files import crl_state_path

STAFF, PARTNER, OTHER = CA("Staff"), CA("Partner"), CA("Other")
BOB, CAROL = STAFF.issue("bob"), PARTNER.issue("carol")
URL = "http://crl.example.com/partner.crl"
POLICY = f"""\
version: 1
trust:
  staff: {{ca: staff.crt, crl: [staff.crl], denylist: [a.txt, b.txt], revocation: best_effort}}
  partner: {{ca: partner.crt, crl: ["{URL}"], denylist: c.txt, revocation: best_effort}}
locations:
  - {{name: staff, trust: staff, allow: verified}}
  - {{name: partner, trust: partner, allow: verified}}
"""
BROKEN_BLOCK = b"-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n"
SEEDS = int(os.environ.get("MTLS_SIDECAR_MATRIX_SEEDS", "3"))
STEPS = 14


class Files:
    """A daemon's files, each of which lists more people with each sound version."""

    def __init__(self, directory: Path, seed: int) -> None:
        self.random = random.Random(seed)
        self.daemon = Daemon(directory, POLICY)
        self.listed: dict[str, list[Leaf]] = {n: [] for n in ("a.txt", "b.txt", "c.txt")}
        self.number = {"staff.crl": 100, "fetched": 100}
        self.listed.update({name: [] for name in self.number})
        self.denied: list[tuple[str, Leaf]] = []
        self.past: list[str] = []
        for name in ("policy.yaml", "staff.crt", "partner.crt", *self.listed):
            self.put(name, self.sound(name))

    def place(self, name: str) -> Path:
        if name == "fetched":
            return crl_state_path(self.daemon.directory / "state", "partner", URL)
        return self.daemon.directory / name

    def put(self, name: str, data: bytes) -> None:
        place = self.place(name)
        place.parent.mkdir(parents=True, exist_ok=True)
        if place.is_dir():
            shutil.rmtree(place)
        aside = place.with_name(f".{place.name}.new")
        aside.write_bytes(data)
        aside.rename(place)

    def sound(self, name: str) -> bytes:
        whole = {"policy.yaml": POLICY.encode(), "staff.crt": STAFF.pem, "partner.crt": PARTNER.pem}
        if name in whole:
            return whole[name]
        if name in self.number:
            self.number[name] += 1
            return self.crl(name, number=self.number[name])
        return self.lines(name)

    def lines(self, name: str) -> bytes:
        return "".join(f"sha256 {leaf.sha256}\n" for leaf in self.listed[name]).encode()

    def crl(self, name: str, number: int, ahead: bool = False) -> bytes:
        moment = now() + timedelta(hours=1) if ahead else None
        ca = STAFF if name == "staff.crl" else PARTNER
        return ca.crl(self.listed[name], number=number, this_update=moment)

    # -- what may happen

    def revoke(self) -> None:
        """Save a version that lists somebody more, sound or in part only."""
        name = self.random.choice(list(self.listed))
        trust = "partner" if name in ("c.txt", "fetched") else "staff"
        leaf = (PARTNER if trust == "partner" else STAFF).issue(f"victim{len(self.denied)}")
        assert self.daemon.ask(trust, leaf).status == 204
        self.listed[name].append(leaf)
        how = self.random.choice(self.ways(name))
        self.past.append(f"{how.__name__} {name}")
        self.put(name, how(name))
        self.daemon.until(lambda: self.daemon.ask(trust, leaf).reason == "revoked")
        self.denied.append((trust, leaf))

    def ways(self, name: str) -> list[Callable[[str], bytes]]:
        def beside_a_bad_line(name: str) -> bytes:
            return b"serial what\n" + self.lines(name)

        def backwards(name: str) -> bytes:
            return self.crl(name, number=1)

        def ahead(name: str) -> bytes:
            return self.crl(name, number=9999, ahead=True)

        def beside_a_broken_block(name: str) -> bytes:
            return self.sound(name) + BROKEN_BLOCK

        if name in self.number:
            return [self.sound, backwards, ahead, beside_a_broken_block]
        return [self.sound, beside_a_bad_line]

    def spoil(self) -> None:
        """Break a file."""
        name = self.random.choice(["policy.yaml", "staff.crt", "partner.crt", *self.listed])
        kinds = set(KINDS) - ({"empty", "half"} if name not in self.number else set())
        kind = self.random.choice(sorted(kinds))
        place = self.place(name)
        if place.is_file() and not place.is_symlink():
            self.past.append(f"{kind} {name}")
            KINDS[kind](place)

    def mend(self) -> None:
        """Make a file sound again."""
        name = self.random.choice(["policy.yaml", "staff.crt", "partner.crt", *self.listed])
        self.past.append(f"mend {name}")
        self.put(name, self.sound(name))

    def restart(self) -> None:
        """End the daemon, gently or not, once it has kept what is in force, and start it."""
        how = self.random.choice([signal.SIGTERM, signal.SIGKILL])
        self.past.append(how.name)
        self.rest()
        self.daemon.signal(how)
        assert self.daemon.process is not None
        self.daemon.process.wait(15)
        self.daemon.start()

    def rest(self) -> None:
        """Wait until nothing is written to the state directory any more."""
        seen: list[object] = []
        self.daemon.until(lambda: _is_quiet(self.daemon.directory / "state", seen))

    def check(self) -> None:
        """Nobody who was denied is let in, and the others are."""
        assert self.daemon.ask("staff", BOB).status == 204
        assert self.daemon.ask("partner", CAROL).status == 204
        for trust, leaf in self.denied:
            assert self.daemon.ask(trust, leaf).reason == "revoked", leaf.name


def _is_quiet(state: Path, seen: list[object]) -> bool:
    found = []
    for path in (state / "crl-watermarks.json", state / "last-good" / "manifest.json"):
        with contextlib.suppress(FileNotFoundError):
            found.append(path.stat().st_mtime_ns)
    seen.append(found)
    return len(seen) > 30 and all(each == found for each in seen[-30:])


@pytest.fixture
def stopped() -> Iterator[list[Daemon]]:
    """Daemons that are to be stopped at the end."""
    daemons: list[Daemon] = []
    yield daemons
    for daemon in daemons:
        daemon.stop()


@pytest.mark.parametrize("seed", range(SEEDS))
def test_nobody_denied_is_let_in_again(tmp_path: Path, stopped: list[Daemon], seed: int) -> None:
    """Revocations in every form, files broken in every way, mended, restarts: denied is denied."""
    files = Files(tmp_path, seed)
    files.daemon.start()
    stopped.append(files.daemon)
    steps = [files.revoke, files.spoil, files.spoil, files.mend, files.restart]
    try:
        for step in [files.revoke, *files.random.choices(steps, k=STEPS), files.restart]:
            step()
            files.check()
    except AssertionError as error:
        raise AssertionError(f"seed {seed}: {'; '.join(files.past)}: {error}") from error


def test_a_line_beside_a_bad_one_outlives_both(tmp_path: Path, stopped: list[Daemon]) -> None:
    """Bob's line stands beside a typo; then the file is destroyed; then a restart."""
    files = Files(tmp_path, 0)
    stopped.append(files.daemon.start())
    files.listed["a.txt"].append(BOB)
    files.put("a.txt", b"typo\n" + files.lines("a.txt"))
    _outlives(files, "a.txt")


@pytest.mark.parametrize("way", ["backwards", "ahead", "beside_a_broken_block"])
def test_a_crl_that_only_revokes_outlives_its_file(
    tmp_path: Path, stopped: list[Daemon], way: str
) -> None:
    """Bob is listed by a CRL that isn't taken whole; then the file is destroyed; then a restart."""
    files = Files(tmp_path, 0)
    stopped.append(files.daemon.start())
    files.listed["staff.crl"].append(BOB)
    (how,) = (how for how in files.ways("staff.crl") if how.__name__ == way)
    files.put("staff.crl", how("staff.crl"))
    _outlives(files, "staff.crl")


def _outlives(files: Files, name: str) -> None:
    daemon = files.daemon
    daemon.until(lambda: daemon.ask("staff", BOB).reason == "revoked")
    files.rest()
    failed = daemon.metric(FAILED)
    files.put(name, b"\0garbage")
    daemon.until(lambda: daemon.metric(FAILED) > failed)
    assert daemon.ask("staff", BOB).reason == "revoked"
    files.restart()
    assert daemon.ask("staff", BOB).reason == "revoked"
    files.listed[name].clear()
    files.put(name, files.sound(name))
    daemon.until(lambda: daemon.ask("staff", BOB).status == 204)
    files.rest()
    files.put(name, b"\0garbage")
    files.restart()
    assert daemon.ask("staff", BOB).status == 204


FAILED = 'mtls_sidecar_policy_reloads_total{result="error"}'


def test_an_authority_taken_out_is_trusted_no_longer(tmp_path: Path, stopped: list[Daemon]) -> None:
    """Its CRL stays behind, so that the new CA file doesn't fit: its clients are denied all the
    same, also when the CA file is destroyed after, and after a restart; the others go on, and
    both files' revocations count."""
    files = Files(tmp_path, 0)
    erin, frank = OTHER.issue("erin"), STAFF.issue("frank")
    files.put("staff.crt", STAFF.pem + OTHER.pem)
    files.put("staff.crl", STAFF.crl(number=5) + OTHER.crl(number=5))
    daemon = files.daemon.start()
    stopped.append(daemon)
    assert daemon.ask("staff", erin).status == 204
    files.rest()
    files.put("staff.crt", STAFF.pem)
    daemon.until(lambda: daemon.ask("staff", erin).reason == "untrusted_issuer")
    assert "1 authorities that its files no longer list" in daemon.log.read_text()
    files.put("staff.crl", STAFF.crl([frank], number=6) + OTHER.crl(number=6))
    daemon.until(lambda: daemon.ask("staff", frank).reason == "revoked")
    for content in (STAFF.pem, b"garbage", STAFF.pem):
        files.put("staff.crt", content)
        for _ in range(2):
            daemon.until(lambda: daemon.ask("staff", BOB).status == 204)
            assert daemon.ask("staff", erin).reason == "untrusted_issuer"
            assert daemon.ask("staff", frank).reason == "revoked"
            files.restart()
    files.put("staff.crt", STAFF.pem + OTHER.pem)
    daemon.until(lambda: daemon.ask("staff", erin).status == 204)

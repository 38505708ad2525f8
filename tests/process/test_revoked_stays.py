"""Whoever was denied stays so: a real daemon, files broken at random, saves and restarts between.

Every sound version of a file lists whom the versions before it listed, and a responder's newest
answer never takes a revocation back.  So whoever was seen denied must be denied for good, whatever
is broken since, however often the daemon is started anew, and wherever its clock is set to.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from types import TracebackType

import ocsp_pki
import pytest
from aiohttp import web
from broken_files import KINDS
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp
from daemon import Daemon
from fetch_server import serving
from forked import mtls_sidecar
from pki import CA, Leaf, now
from tools import faketime, need

from sidecar.fetcher.service import FetchOptions, run_fetcher
from sidecar.runtime.files import crl_state_path

LONG_AGO = now() - timedelta(days=30)
STAFF, PARTNER = (CA(name, not_before=LONG_AGO) for name in ("Staff", "Partner"))
OTHER, ONLINE = CA("Other"), ocsp_pki.issue("Online", ca=True, days=(-30, 30))
BOB, CAROL = STAFF.issue("bob", not_before=LONG_AGO), PARTNER.issue("carol", not_before=LONG_AGO)
URL = "http://127.0.0.1:1/partner.crl"
POLICY = f"""\
version: 1
trust:
  staff: {{ca: staff.crt, crl: [staff.crl], denylist: [a.txt, b.txt], revocation: best_effort}}
  partner: {{ca: partner.crt, crl: ["{URL}"], denylist: c.txt, revocation: best_effort}}
locations:
  - {{name: staff, trust: staff, allow: verified}}
  - {{name: partner, trust: partner, allow: verified}}
"""
ASKED = """\
  online: {{ca: online.crt, ocsp: "{}", revocation: best_effort}}
locations:
  - {{name: online, trust: online, allow: verified}}
"""
BROKEN_BLOCK = b"-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n"
SEED = int(os.environ.get("MTLS_SIDECAR_SEED", "0")) or random.SystemRandom().getrandbits(32)
SEEDS = int(os.environ.get("MTLS_SIDECAR_MATRIX_SEEDS", "1"))
STEPS = int(os.environ.get("MTLS_SIDECAR_MATRIX_STEPS", "5"))


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
        ca = PARTNER if trust == "partner" else STAFF
        leaf = ca.issue(f"victim{len(self.denied)}", not_before=LONG_AGO)
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
        self._end(how)
        self.daemon.start()

    def _end(self, how: signal.Signals) -> None:
        self.daemon.signal(how)
        assert self.daemon.process is not None
        self.daemon.process.wait(15)

    def rest(self) -> None:
        """Wait until nothing is written to the state directory any more."""
        self.daemon.until(_Quiet(self.daemon.directory / "state"), 120.0)

    def check(self) -> None:
        """Nobody who was denied is let in, and the others are."""
        assert self.daemon.ask("staff", BOB).status == 204
        assert self.daemon.ask("partner", CAROL).status == 204
        for trust, leaf in self.denied:
            assert self.daemon.ask(trust, leaf).reason == "revoked", leaf.name


class Responder:
    """An OCSP responder and the fetcher, in a thread; `mode` says what the responder does."""

    def __init__(self, directory: Path) -> None:
        self.revoked: set[int] = set()
        self.mode = "right"
        self.url = ""
        self._options = FetchOptions(
            directory / "policy.yaml", directory / "state", directory / "fetch.sock"
        )
        self._known: dict[int, ocsp_pki.Pair] = {}
        self._loop = asyncio.new_event_loop()
        self._end = asyncio.Event()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._run(),))

    def __enter__(self) -> Responder:
        self._thread.start()
        assert self._ready.wait(20)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join(20)
        self._loop.close()

    def issue(self, name: str) -> Leaf:
        pair = ocsp_pki.issue(name, ONLINE, days=(-30, 30))
        self._known[pair.cert.serial_number] = pair
        return Leaf(name, pair.der, pair.key)

    async def _run(self) -> None:
        async with serving(self._answer) as server:
            self.url = server.url
            self._ready.set()
            while not self._options.policy.is_file() and not self._end.is_set():
                await asyncio.sleep(0.02)
            await run_fetcher(self._options, self._end)

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        pair = self._known[ocsp.load_der_ocsp_request(await request.read()).serial_number]
        revoked = pair.cert.serial_number in self.revoked
        if self.mode == "error" or (not revoked and self.mode != "right"):
            return web.Response(status=500)
        if self.mode == "garbage":
            return web.Response(body=b"\x30\x03\x0a\x01\x06")  # unauthorized
        start, end = -60.0, 3600.0 if revoked else 2.0
        if self.mode == "replay":  # what was good until a moment ago
            revoked, start, end = False, -7200.0, 7200.0
        status = SINCE_JANUARY if revoked else b"\x80\x00"
        one = ocsp_pki.single(pair.cert, ONLINE.cert, status=status, start=start, end=end)
        return web.Response(body=ocsp_pki.craft(ONLINE, [one], produced=start))


SINCE_JANUARY = b"\xa1\x11\x18\x0f20260101000000Z"
"""CertStatus: revoked."""

CLOCKS = (-86_400, -3600, -400, 600, 7200, 43_200)
"""Seconds by which the daemon's clock is off."""


class World(Files):
    """The files, a responder, and a clock that is set back and forth."""

    def __init__(self, directory: Path, seed: int, responder: Responder) -> None:
        self.responder = responder
        asked = ASKED.format(responder.url).removesuffix("\n")
        self.text = POLICY.replace("locations:", asked)
        self.off = 0
        self.clock = directory / "clock"
        self.clock.write_text("+0")
        super().__init__(directory, seed)
        self.put("online.crt", ONLINE.cert.public_bytes(Encoding.PEM))
        with self.daemon.config.open("a") as settings:
            settings.write("limits: {ocsp_timeout: 1}\n")
        self.turns = seed % 2 == 1
        """Whether the clock is set, by libfaketime, below which everything takes longer."""
        if self.turns:
            self.daemon.environ = {
                "LD_PRELOAD": str(need(faketime()).path),
                "FAKETIME_TIMESTAMP_FILE": str(self.clock),
                "FAKETIME_CACHE_DURATION": "1",
                "FAKETIME_DONT_FAKE_MONOTONIC": "1",
                "NO_FAKE_STAT": "1",
            }

    def sound(self, name: str) -> bytes:
        return self.text.encode() if name == "policy.yaml" else super().sound(name)

    def revoke(self) -> None:
        self.set_clock(0)
        super().revoke()

    def revoke_online(self) -> None:
        """The responder says that somebody is revoked, who was good a moment ago or never asked."""
        self.set_clock(0)
        self.responder.mode = "right"
        leaf = self.responder.issue(f"victim{len(self.denied)}")
        known = self.random.random() < 0.5
        self.past.append(f"ocsp revokes {'one known' if known else 'one unknown'}")
        if known:
            self.daemon.until(lambda: self.daemon.ask("online", leaf).status == 204)
        self.responder.revoked.add(leaf.serial)
        self.daemon.until(lambda: self.daemon.ask("online", leaf).reason == "revoked")
        self.denied.append(("online", leaf))

    def answer_otherwise(self) -> None:
        """The responder fails, or replays what was good once."""
        self.responder.mode = self.random.choice(["right", "error", "garbage", "replay"])
        self.past.append(f"responder: {self.responder.mode}")

    def confirm_and_kill(self) -> None:
        """`revoke` confirms; the daemon is killed at once, and the list destroyed before it starts.

        What else is in force was kept before.
        """
        self.set_clock(0)
        self.put("policy.yaml", self.sound("policy.yaml"))
        self.put("c.txt", self.sound("c.txt"))
        self.rest()
        leaf = PARTNER.issue(f"victim{len(self.denied)}", not_before=LONG_AGO)
        self.listed["c.txt"].append(leaf)
        command = ["revoke", "-c", str(self.daemon.config), "--trust", "partner", leaf.sha256]

        def confirmed() -> bool:  # on a busy machine it may take longer than `revoke` waits
            return mtls_sidecar(*command).returncode == 0

        self.daemon.until(confirmed, 120.0)
        self.past.append("revoke, SIGKILL, c.txt destroyed")
        self._end(signal.SIGKILL)
        self.put("c.txt", b"\0garbage")
        self.daemon.start()
        self.denied.append(("partner", leaf))

    def step_clock(self) -> None:
        self.set_clock(self.random.choice(CLOCKS))

    def set_clock(self, seconds: int) -> None:
        """Set the daemon's clock, while it runs; a start sees it so, too."""
        if seconds != self.off:
            self.past.append(f"clock {seconds:+d}")
            aside = self.clock.with_name(".clock.new")
            aside.write_text(f"{seconds:+d}")
            aside.rename(self.clock)
            self.off = seconds
            time.sleep(1.5)  # until the library has read it

    def check(self) -> None:
        if self.off == 0:
            super().check()
        for trust, leaf in self.denied:
            assert self.daemon.ask(trust, leaf).status != 204, leaf.name


class _Quiet:
    """Whether nothing was written to a state directory for a while."""

    def __init__(self, state: Path) -> None:
        self._state = state
        self._seen: list[int] = []
        self._since = time.monotonic()

    def __call__(self) -> bool:
        found = []
        for name in ("crl-watermarks.json", "last-good/manifest.json", "ocsp-answers.jsonl"):
            with contextlib.suppress(FileNotFoundError):
                found.append((self._state / name).stat().st_mtime_ns)
        if found != self._seen:
            self._seen, self._since = found, time.monotonic()
        return time.monotonic() > self._since + QUIET


QUIET = 2.0
"""Seconds; each kind of memory is written within one of a change."""


@pytest.fixture
def stopped() -> Iterator[list[Daemon]]:
    """Daemons that are to be stopped at the end."""
    daemons: list[Daemon] = []
    yield daemons
    for daemon in daemons:
        daemon.stop()


@pytest.mark.parametrize("number", range(SEEDS))
def test_nobody_denied_is_let_in_again(tmp_path: Path, stopped: list[Daemon], number: int) -> None:
    """Revocations by denylists, CRLs and OCSP in every form, files and a responder broken in every
    way, mended, restarts, kill -9, clocks set back and ahead: denied is denied."""
    seed = SEED + number
    with Responder(tmp_path) as responder:
        files = World(tmp_path, seed, responder)
        files.daemon.start()
        stopped.append(files.daemon)
        steps = [files.revoke, files.revoke_online, files.spoil, files.spoil, files.mend]
        steps += [files.restart, files.answer_otherwise]
        steps.append(files.step_clock if files.turns else files.confirm_and_kill)
        first = files.random.choice([files.revoke, files.revoke_online])
        try:
            for step in [first, *files.random.choices(steps, k=STEPS), files.restart]:
                step()
                files.check()
            files.set_clock(0)
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
    dropped = "1 authorities that its files no longer list"
    daemon.until(lambda: dropped in daemon.log.read_text())
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

"""What a CRL in force revoked stays revoked until a newer one of its scope says otherwise."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import random
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from compared import compared_entries
from cryptography import x509
from pki import CA, Leaf, now

from sidecar.authorizer import readings, trust_crls, trust_sources
from sidecar.authorizer.policy_store import Reload, Store
from sidecar.authorizer.trust_sources import MAX_EARLIER, MAX_LAPSED
from sidecar.core.revocation.crl import succession
from sidecar.core.revocation.crl.index import crl_facts
from sidecar.core.x509.certificate import from_der
from sidecar.runtime.crl_worker import HERE, CrlReading, CrlWorkers
from sidecar.runtime.files import crl_state_path, revoking_path

STAFF, OTHER, THIRD = CA("Staff"), CA("Other"), CA("Third")
ALICE, BOB, DAVE = (STAFF.issue(name) for name in ("alice", "bob", "dave"))
ERIN = OTHER.issue("erin")
START = now() - timedelta(hours=1)
CAS = x509.IssuingDistributionPoint(None, None, False, True, None, False, False)
USERS = x509.IssuingDistributionPoint(None, None, True, False, None, False, False)
URL, ELSEWHERE = "http://127.0.0.1/a.crl", "http://127.0.0.1/b.crl"


class Place:
    """A policy with one trust, its store, and the state that a restart finds."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.store: Store | None = None
        self.ahead = 0.0
        self.write("ca.crt", STAFF.pem + OTHER.pem)
        self.policy("[a.crl]")

    def write(self, name: str, data: bytes) -> None:
        self.replace(self.directory / name, data)

    def fetched(self, url: str, data: bytes, trust: str = "staff") -> None:
        self.replace(crl_state_path(self.directory / "state", trust, url), data)

    def replace(self, path: Path, data: bytes) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_name("aside")
        aside.write_bytes(data)
        aside.rename(path)

    def policy(self, crl: str, trust: str = "staff", ca: str = "ca.crt") -> None:
        key = f"crl: {crl}, " if crl else ""
        self.write(
            "policy.yaml",
            f"version: 1\ntrust:\n  {trust}: {{ca: {ca}, {key}revocation: best_effort}}\n"
            "locations: [{name: site, allow: verified}]\n".encode(),
        )

    def load(self) -> Reload:
        """Reload, and keep what is in force."""
        if self.store is None:
            self.store = Store(
                self.directory / "policy.yaml",
                self.directory / "state",
                trusted_only=False,
                changed=lambda _: None,
                clock=lambda: time.time() + self.ahead,
            )
        found = self.store.load()
        while self.store._readings.pending:
            found = self.store.load()
        self.store.keep()
        return found

    def restart(self) -> None:
        self.store = None

    def twice(self, restarts: bool) -> Iterator[None]:
        """Two times to look, each after a restart if `restarts`."""
        for _ in range(2):
            if restarts:
                self.restart()
            yield

    def revoked(self, *leaves: Leaf) -> list[str]:
        """Who is revoked now."""
        return self.with_status("revoked", leaves or (ALICE, BOB, ERIN))

    def good(self, *leaves: Leaf) -> list[str]:
        """Of whom a CRL says good now."""
        return self.with_status("good", leaves)

    def with_status(self, status: str, leaves: Sequence[Leaf]) -> list[str]:
        (trust,) = self.load().policy.trusts.values()
        found = []
        for leaf in leaves:
            issuer = leaf.issuer
            assert issuer is not None
            assert trust.crls is not None
            answer = trust.crls.status(
                crl_facts(leaf.cert), from_der(issuer.der), now().timestamp()
            )
            if answer.status.value == status:
                found.append(leaf.name)
        return found

    def crl(self, revoked: list[Leaf], number: int | None = 5, hours: int = 0) -> bytes:
        """A CRL of one moment, or some hours later."""
        start = START + timedelta(hours=hours) / 10
        return STAFF.crl(revoked, number=number, this_update=start)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    """Return a directory whose files may change without a pause."""
    monkeypatch.setattr(readings, "SETTLE_SECONDS", 0.0)
    return Place(tmp_path)


RESTARTS = pytest.mark.parametrize("restarts", [False, True])


@RESTARTS
@pytest.mark.parametrize("number", [5, None])
def test_a_level_crl_that_lists_fewer_takes_nobody_off(
    place: Place, restarts: bool, number: int | None
) -> None:
    """Of the same number and thisUpdate: it revokes, and what was in force does too."""
    place.write("a.crl", place.crl([ALICE], number))
    assert place.revoked() == ["alice"]
    place.write("a.crl", place.crl([BOB], number))
    for _ in range(3):
        if restarts:
            place.restart()
        result = place.load()
        assert "doesn't list all that it lists" in str(result.diagnostics[0])
        assert place.revoked() == ["alice", "bob"]
    place.write("a.crl", b"garbage")
    assert place.revoked() == ["alice", "bob"]
    place.write("a.crl", place.crl([ALICE, BOB, DAVE], number))
    assert place.load().ok
    assert place.revoked() == ["alice", "bob"]
    place.write("a.crl", place.crl([ALICE, BOB], number))
    assert place.revoked(ALICE, BOB, DAVE) == ["alice", "bob", "dave"]
    place.write("a.crl", place.crl([BOB], number, hours=1))
    assert place.revoked() == ["bob"]
    assert place.load().ok


def test_a_level_crl_is_taken_if_its_number_is_higher(place: Place) -> None:
    """A CA that rounds thisUpdate, and counts: the higher number is newer."""
    place.write("a.crl", place.crl([ALICE], 5))
    place.load()
    place.write("a.crl", place.crl([], 6))
    assert place.revoked() == []


def test_a_level_crl_that_is_replaced_while_the_daemon_is_down_takes_nobody_off(
    place: Place,
) -> None:
    """It is compared with the copy of what was in force."""
    place.write("a.crl", place.crl([ALICE]))
    place.load()
    place.restart()
    place.write("a.crl", place.crl([BOB]))
    assert place.revoked() == ["alice", "bob"]


@RESTARTS
def test_a_level_crl_takes_nobody_off_though_the_authorities_change(
    place: Place, restarts: bool
) -> None:
    """Neither at the same time, nor after it."""
    place.write("a.crl", place.crl([ALICE]))
    place.load()
    place.write("a.crl", place.crl([]))
    place.write("ca.crt", STAFF.pem + OTHER.pem + THIRD.pem)
    if restarts:
        place.restart()
    assert place.revoked() == ["alice"]
    place.write("ca.crt", STAFF.pem + OTHER.pem)
    if restarts:
        place.restart()
    assert place.revoked() == ["alice"]


@RESTARTS
def test_a_crl_that_the_file_lacks_now_revokes_on(place: Place, restarts: bool) -> None:
    """A CRL of another issuer, of another scope, or a delta in its place says nothing of it."""
    own, other = place.crl([ALICE]), OTHER.crl([ERIN], this_update=START, number=3)
    place.write("a.crl", own + other)
    assert place.revoked() == ["alice", "erin"]
    users = STAFF.crl([BOB], number=6, idp=USERS, this_update=START + timedelta(minutes=1))
    delta = STAFF.crl([BOB], number=6, delta_base=5, this_update=START + timedelta(minutes=1))
    steps = [
        (own, ["alice", "erin"]),
        (place.crl([ALICE, BOB], 6, hours=1), ["alice", "bob", "erin"]),
        (users, ["alice", "bob", "erin"]),
        (delta, ["alice", "bob", "erin"]),
        (b"garbage", ["alice", "bob", "erin"]),
        (OTHER.crl(number=4), ["alice", "bob"]),
        (place.crl([], 7, hours=2), ["bob"]),  # by the CRL for users
        (STAFF.crl([], number=8, idp=USERS, this_update=START + timedelta(minutes=2)), []),
    ]
    for data, revoked in steps:
        place.write("a.crl", data)
        for _ in place.twice(restarts):
            assert place.revoked() == revoked


@RESTARTS
def test_a_delta_whose_base_has_not_come_yet_takes_nobody_off(place: Place, restarts: bool) -> None:
    """Alice is in its base, and was in the delta before it; a delta comes oftener than a base."""
    place.policy("[a.crl, b.crl]")
    place.write("a.crl", place.crl([], 100))

    def delta(revoked: list[Leaf], number: int, base: int) -> bytes:
        start = START + timedelta(minutes=number - 100)
        return STAFF.crl(revoked, number=number, this_update=start, delta_base=base)

    steps = [
        ("b.crl", delta([ALICE], 101, 100), ["alice"]),
        ("b.crl", delta([ALICE, BOB], 102, 100), ["alice", "bob"]),
        ("b.crl", delta([BOB], 103, 100), ["bob"]),
        ("b.crl", delta([], 105, 104), ["bob"]),
        ("b.crl", b"garbage", ["bob"]),
        ("b.crl", delta([], 106, 104), ["bob"]),
        ("a.crl", place.crl([BOB], 104, hours=1), ["bob"]),
        ("a.crl", place.crl([], 107, hours=2), []),
    ]
    for name, data, revoked in steps:
        place.write(name, data)
        for _ in place.twice(restarts):
            assert place.revoked() == revoked, name


@RESTARTS
def test_deltas_of_two_bases_in_a_file_both_revoke(place: Place, restarts: bool) -> None:
    """Until the later one's base is there, also if their file is broken."""
    place.policy("[a.crl, b.crl]")
    deltas = b"".join(
        STAFF.crl(
            revoked,
            number=number,
            delta_base=number - 1,
            this_update=START + timedelta(minutes=number),
        )
        for revoked, number in (([BOB], 7), ([], 9))
    )
    complete = [
        STAFF.crl([], number=number, this_update=START + timedelta(minutes=number))
        for number in (5, 6, 8)
    ]
    for base, delta, revoked in (
        (complete[0], deltas, ["bob"]),
        (complete[0], b"garbage", ["bob"]),
        (complete[1], b"garbage", ["bob"]),
        (complete[2], b"garbage", []),
    ):
        place.write("a.crl", base)
        place.write("b.crl", delta)
        for _ in place.twice(restarts):
            assert place.revoked() == revoked


@RESTARTS
@pytest.mark.parametrize("is_given", [True, False])
def test_the_crl_of_another_key_takes_nobody_off(
    place: Place, restarts: bool, is_given: bool
) -> None:
    """A CA with a CRL for each of its keys: the other one is given at an address, or the address is
    another one from now on."""
    old, new = CA("Issuing", issuer=STAFF), CA("Issuing", issuer=STAFF)
    carol = old.issue("carol")
    place.write("ca.crt", STAFF.pem + old.pem + new.pem)
    place.policy(f"[{URL}, a.crl]")
    other = new.crl([], number=3, this_update=START + timedelta(minutes=1))
    place.write("a.crl", other)
    place.fetched(URL, old.crl([carol], number=7, this_update=START))
    assert place.revoked(carol) == ["carol"]
    if is_given:
        place.fetched(URL, other)
    else:
        place.policy(f"[{ELSEWHERE}, a.crl]")
    for _ in place.twice(restarts):
        assert place.revoked(carol) == ["carol"]


@RESTARTS
def test_a_crl_that_the_file_lacks_now_revokes_on_with_other_authorities(
    place: Place, restarts: bool
) -> None:
    """Another authority comes in; then the CRL's own is taken out, and it no longer counts."""
    place.write("a.crl", place.crl([ALICE]) + OTHER.crl([ERIN]))
    place.load()
    place.write("a.crl", place.crl([ALICE]))
    place.load()
    for ca in (STAFF.pem + OTHER.pem + THIRD.pem, STAFF.pem + OTHER.pem):
        place.write("ca.crt", ca)
        if restarts:
            place.restart()
        assert place.revoked() == ["alice", "erin"]
    place.write("ca.crt", STAFF.pem)
    place.load()
    assert place.revoked(ALICE, ERIN) == ["alice"]


def scoped(number: int, revoked: Sequence[Leaf | int], minutes: int = 0) -> bytes:
    """A CRL of one of many scopes of an authority."""
    name: list[x509.GeneralName] = [x509.UniformResourceIdentifier(f"http://x/{number}")]
    idp = x509.IssuingDistributionPoint(name, None, False, False, None, False, False)
    return STAFF.crl(revoked, idp=idp, this_update=START + timedelta(minutes=minutes))


def test_crls_of_ever_other_scopes_are_kept_in_bounds(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that would leave no room for what has revoked is refused, and revokes beside."""
    monkeypatch.setattr(trust_crls, "MAX_LAPSED", 2)
    for number in range(5):
        place.write("a.crl", scoped(number, [STAFF_LEAVES[number]], minutes=number))
        told = place.load().diagnostics
        assert ("leaves this one no room" in "".join(map(str, told))) == (number > 2)
    assert place.revoked(*STAFF_LEAVES) == ["0", "1", "2", "4"]


@RESTARTS
def test_crls_of_other_scopes_push_out_none_that_revokes(
    place: Place, monkeypatch: pytest.MonkeyPatch, restarts: bool
) -> None:
    """A fetcher brings the CRLs of all other addresses at one alone, and takes them away there."""
    monkeypatch.setattr(trust_crls, "MAX_LAPSED", 3)
    urls = [f"http://127.0.0.1/{number}.crl" for number in range(6)]
    place.policy(f"[{', '.join(urls)}]")
    for number, url in enumerate(urls):
        place.fetched(url, scoped(number, [] if number else [BOB]))
    assert place.revoked(BOB) == ["bob"]
    place.fetched(urls[0], b"".join(scoped(number, [], 1) for number in range(1, 6)))
    for _ in place.twice(restarts):
        assert place.revoked(BOB) == ["bob"]
    place.fetched(urls[0], scoped(1, [], 2))
    for _ in place.twice(restarts):
        assert place.revoked(BOB) == ["bob"]


@RESTARTS
def test_crls_of_many_moments_push_out_none_that_revokes(place: Place, restarts: bool) -> None:
    """A file with all that an authority has ever signed counts by the newest of them."""
    place.write("a.crl", OTHER.crl([ERIN], this_update=START - timedelta(hours=1)))
    assert place.revoked() == ["erin"]
    history = [place.crl([], number, hours=number) for number in range(5, 5 + MAX_LAPSED)]
    for joined in (history, [STAFF.crl([], idp=USERS, this_update=START)]):
        place.write("a.crl", b"".join(joined))
        for _ in place.twice(restarts):
            assert place.revoked() == ["erin"]


@RESTARTS
def test_repeated_crls_push_out_none_that_revokes(place: Place, restarts: bool) -> None:
    """Copies are of whole files: the same CRL in each of them is one."""
    place.write("a.crl", OTHER.crl([ERIN], this_update=START - timedelta(hours=1)))
    assert place.revoked() == ["erin"]
    same = b"".join(scoped(number, []) for number in range(MAX_LAPSED // 2))
    for number in (-1, -2):
        place.write("a.crl", same + scoped(number, []))
        place.load()
    place.write("a.crl", scoped(-3, []))
    for _ in place.twice(restarts):
        assert place.revoked() == ["erin"]


def test_entries_of_other_places_push_out_none_that_revokes(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One large CRL at all addresses of a trust leaves what lapses no room: it doesn't."""
    monkeypatch.setattr(trust_crls, "MAX_ENTRIES", 10)
    place.policy(f"[{URL}, {ELSEWHERE}]")
    place.fetched(URL, place.crl([ALICE, BOB, DAVE, *STAFF_LEAVES]))
    place.fetched(ELSEWHERE, scoped(1, []))
    assert place.revoked() == ["alice", "bob"]
    place.fetched(ELSEWHERE, STAFF.crl([ALICE, DAVE, *STAFF_LEAVES], number=4, idp=USERS))
    place.load()
    place.fetched(URL, scoped(2, []))
    for _ in place.twice(False):
        assert place.revoked() == ["alice", "bob"]


@pytest.mark.parametrize("is_address", [False, True])
def test_what_lapsed_takes_no_room_of_another_authoritys_new_crl(
    place: Place, monkeypatch: pytest.MonkeyPatch, is_address: bool
) -> None:
    """Whoever has a CA of a trust gives a huge CRL, and one of another scope in its place."""
    ours, theirs = (URL, ELSEWHERE) if is_address else ("a.crl", "b.crl")
    write = place.fetched if is_address else place.write
    monkeypatch.setattr(trust_crls, "MAX_ENTRIES", 300)
    place.policy(f"[{theirs}, {ours}]")
    write(ours, place.crl([], 5))
    write(theirs, OTHER.crl([ERIN, *range(1, 299)], number=1))
    assert place.revoked() == ["erin"]
    write(theirs, OTHER.crl([], number=1, idp=USERS))
    assert place.revoked() == ["erin"]
    write(ours, place.crl([ALICE, BOB, DAVE], 6))
    assert place.revoked() == ["alice", "bob", "erin"]


@RESTARTS
def test_entries_of_what_was_refused_are_kept_in_bounds(
    place: Place, monkeypatch: pytest.MonkeyPatch, restarts: bool
) -> None:
    """Who signs large CRLs of ever other scopes, and gives them by many addresses: no memory is
    filled, and a start reads no more than that."""
    monkeypatch.setattr(trust_crls, "MAX_ENTRIES", 100)
    urls = [f"http://127.0.0.1/{number}.crl" for number in range(3)]
    place.policy(f"[{', '.join(urls)}]")
    for url in urls:
        place.fetched(url, place.crl([]))
    for number in range(6):
        path = crl_state_path(place.directory / "state", "staff", urls[-number % 3])
        place.replace(revoking_path(path), scoped(number, [BOB, *range(1, 80)]))
        place.load()
        revoking_path(path).unlink()
        for _ in place.twice(restarts):
            (trust,) = place.load().policy.trusts.values()
            assert sum(crl.entry_count for crl in trust.revoking) == 80
            assert place.revoked(BOB) == ["bob"]


@RESTARTS
def test_refused_crls_push_out_none_that_was_refused(
    place: Place, monkeypatch: pytest.MonkeyPatch, restarts: bool
) -> None:
    """What an address gave, and what only revokes, stays however many come after it."""
    monkeypatch.setattr(trust_crls, "MAX_LAPSED", 3)
    place.policy(f"[{URL}]")
    place.fetched(URL, place.crl([]))
    beside = revoking_path(crl_state_path(place.directory / "state", "staff", URL))
    place.replace(beside, scoped(0, [BOB]))
    assert place.revoked(BOB) == ["bob"]
    for number in (1, 3, 5):
        place.replace(beside, scoped(number, [], 1) + scoped(number + 1, [], 1))
        for _ in place.twice(restarts):
            assert place.revoked(BOB) == ["bob"]


def of_other(number: int, revoked: Sequence[Leaf | int] = ()) -> bytes:
    """A CRL of one of many scopes of another authority."""
    name: list[x509.GeneralName] = [x509.UniformResourceIdentifier(f"http://x/{number}")]
    idp = x509.IssuingDistributionPoint(name, None, False, False, None, False, False)
    return OTHER.crl(revoked, number=number, idp=idp)


@RESTARTS
def test_crls_of_an_authority_at_anothers_address_lock_nobody_out(
    place: Place, monkeypatch: pytest.MonkeyPatch, restarts: bool
) -> None:
    """A fetcher puts more of them there than go on to revoke: the newer CRLs that come there later
    are in force all the same."""
    monkeypatch.setattr(trust_crls, "MAX_LAPSED", 2)
    place.policy(f"[{URL}]")
    place.fetched(URL, place.crl([], 5))
    for number in range(4):
        place.fetched(URL, of_other(number, [ERIN]))
        place.load()
    for number in (6, 7):
        place.fetched(URL, place.crl([BOB], number, hours=number))
        for _ in place.twice(restarts):
            told = str(place.load().diagnostics)
            assert "leaves this one no room" in told
            assert place.good(ALICE, BOB) == ["alice"]
            assert place.revoked() == ["bob", "erin"]
    copies = place.directory / "state" / "last-good"
    place.fetched(URL, b"garbage")
    assert place.good(ALICE) == ["alice"]
    assert len(list(copies.iterdir())) < 20


@RESTARTS
def test_crls_of_many_scopes_at_one_address_lock_nobody_out(
    place: Place, monkeypatch: pytest.MonkeyPatch, restarts: bool
) -> None:
    """The same of an authority with a CRL for each of many scopes: each follows its own."""
    monkeypatch.setattr(trust_crls, "MAX_LAPSED", 2)
    place.policy(f"[{URL}]")
    place.fetched(URL, place.crl([], 5))
    place.load()
    for number in range(4):
        place.fetched(URL, scoped(number, [BOB]))
        place.load()
    place.fetched(URL, place.crl([BOB], 6, hours=1))
    for _ in place.twice(restarts):
        assert place.good(ALICE) == ["alice"]
        assert place.revoked() == ["bob"]


@RESTARTS
def test_an_authoritys_refused_crls_push_out_none_of_another(
    place: Place, monkeypatch: pytest.MonkeyPatch, restarts: bool
) -> None:
    """However many of them an address gave before: what comes there, and only revokes, stays."""
    monkeypatch.setattr(trust_crls, "MAX_LAPSED", 2)
    place.policy(f"[{URL}]")
    place.fetched(URL, place.crl([], 5))
    beside = revoking_path(crl_state_path(place.directory / "state", "staff", URL))
    place.replace(beside, b"".join(of_other(number, [ERIN]) for number in range(4)))
    place.load()
    beside.unlink()
    place.fetched(URL, STAFF.crl([ALICE], number=6, this_update=now() + timedelta(hours=1)))
    for _ in place.twice(restarts):
        assert place.revoked() == ["alice", "erin"]
    place.fetched(URL, place.crl([], 5))
    for _ in place.twice(restarts):
        assert place.revoked() == ["alice", "erin"]


def test_many_authorities_refused_crls_push_out_none_of_another(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor at the next start: all copies that are kept are found again."""
    for module in (trust_crls, trust_sources):
        monkeypatch.setattr(module, "MAX_LAPSED", 4)
        monkeypatch.setattr(module, "MAX_EARLIER", MAX_EARLIER // MAX_LAPSED * 4)
    others = [CA(f"Other {number}") for number in range(4)]
    place.write("ca.crt", STAFF.pem + b"".join(ca.pem for ca in others))
    place.policy(f"[{URL}]")
    place.fetched(URL, place.crl([], 5))
    beside = revoking_path(crl_state_path(place.directory / "state", "staff", URL))
    for ca in others:
        for idp in (None, USERS, CAS):
            place.replace(beside, ca.crl([], idp=idp))
            place.load()
    beside.unlink()
    place.fetched(URL, STAFF.crl([ALICE], number=6, this_update=now() + timedelta(hours=1)))
    assert place.revoked() == ["alice"]
    place.fetched(URL, place.crl([], 5))
    before = _revoking(place)
    for _ in place.twice(True):
        assert place.revoked() == ["alice"]
        assert _revoking(place) == before


def _revoking(place: Place) -> int:
    (trust,) = place.load().policy.trusts.values()
    return len(trust.revoking)


@pytest.mark.parametrize(("limit", "value"), [("MAX_ENTRIES", 100), ("MAX_LAPSED", 2)])
def test_crls_beside_rubbish_are_kept_in_bounds(
    place: Place, monkeypatch: pytest.MonkeyPatch, limit: str, value: int
) -> None:
    """Those before such a file stay in force: at some point those of other scopes are refused."""
    place.write("a.crl", place.crl([]))
    place.load()
    monkeypatch.setattr(trust_crls, limit, value)
    found = []
    for number in range(8):
        place.write("a.crl", scoped(number, [BOB, *range(1, 80)]) + b"-----BEGIN X509 CRL-----")
        place.load()
        (trust,) = place.load().policy.trusts.values()
        assert trust.crls is not None
        groups = trust.crls._groups.values()
        found.append(sum(len(group.complete) for several in groups for group in several))
        assert place.revoked(BOB) == ["bob"]
    assert found[-1] <= 5


def test_copies_of_what_lapses_are_kept_in_bounds(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who signs large CRLs of ever other scopes fills no disk: at some point they are refused."""
    text = b"#" * 2000
    for number in range(6):
        place.write("a.crl", text + b"\n" + scoped(number, [], minutes=number))
        place.load()
        monkeypatch.setattr(trust_crls, "MAX_TRUST", 5000 + len(text))
    told = place.load().diagnostics
    assert "leaves this one no room" in str(told[0])
    copies = (place.directory / "state" / "last-good").glob("[0-9a-f]" * 64)
    assert sum(path.stat().st_size for path in copies) < 6 * 2000 + 6000


def test_copies_of_what_was_refused_are_kept_in_bounds(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same of large CRLs that an address gives, and that only revoke."""
    place.policy(f"[{URL}]")
    place.fetched(URL, place.crl([]))
    beside = revoking_path(crl_state_path(place.directory / "state", "staff", URL))
    for number in range(6):
        place.replace(beside, b"#" * 2000 + b"\n" + scoped(number, [STAFF_LEAVES[number % 5]]))
        place.load()
        monkeypatch.setattr(trust_crls, "MAX_TRUST", 7000)
    copies = place.directory / "state" / "last-good"
    named = set(json.loads((copies / "manifest.json").read_text()).values())
    assert sum((copies / name).stat().st_size > 2000 for name in named) == 4
    assert place.revoked(*STAFF_LEAVES)[:3] == ["0", "1", "2"]


def test_copies_have_no_padding(place: Place) -> None:
    """Behind a CRL, whoever writes its file can put a hole of any size: it fills no disk."""
    policy, copies = place.directory / "policy.yaml", place.directory / "state" / "last-good"
    for number, leaf in enumerate((ALICE, BOB)):
        (place.directory / "a.crl").write_bytes(scoped(number, [leaf]))
        os.truncate(place.directory / "a.crl", 3 * HERE + number)
        place.load()
    kept = [path.stat().st_size for path in copies.glob("[0-9a-f]" * 64)]
    assert sum(kept) < 4 * policy.stat().st_size + 8192
    place.write("a.crl", b"garbage")
    for _ in place.twice(True):
        assert place.revoked() == ["alice", "bob"]


STAFF_LEAVES = [STAFF.issue(str(number)) for number in range(5)]


@RESTARTS
def test_a_newer_crl_anywhere_follows_one_that_a_file_lacks_now(
    place: Place, restarts: bool
) -> None:
    """Two files of one trust: what one had goes on to revoke until the other has a newer CRL."""
    place.policy("[a.crl, b.crl]")
    place.write("a.crl", place.crl([ALICE]))
    place.write("b.crl", OTHER.crl([ERIN]))
    assert place.revoked() == ["alice", "erin"]
    other = OTHER.crl(number=2)
    for a, b, revoked in (
        (OTHER.crl([ERIN]), OTHER.crl([ERIN]), ["alice", "erin"]),
        (other, other + place.crl([BOB]), ["alice", "bob"]),
        (other, other + place.crl([BOB], 6), ["bob"]),
        (other, other, ["bob"]),
        (other + place.crl([], 7), other, []),
    ):
        place.write("a.crl", a)
        place.write("b.crl", b)
        if restarts:
            place.restart()
        assert place.revoked() == revoked


@RESTARTS
def test_a_crl_of_a_version_between_stays(place: Place, restarts: bool) -> None:
    """One version gives a CRL beside another that is refused, and the next gives neither."""
    place.write("a.crl", place.crl([ALICE]) + OTHER.crl(number=1, this_update=START))
    place.load()
    for data in (
        place.crl([]) + OTHER.crl([ERIN], number=2),
        place.crl([BOB]) + OTHER.crl([], number=1, this_update=START),
        b"garbage",
    ):
        place.write("a.crl", data)
        for _ in place.twice(restarts):
            assert {"alice", "erin"} <= {*place.revoked()}


# -- another place


@RESTARTS
@pytest.mark.parametrize("old", ["a.crl", URL])
def test_another_address_revokes_by_the_old_crl_until_it_has_its_own(
    place: Place, old: str, restarts: bool
) -> None:
    """Also if the policy is changed while the daemon is down, and over several changes."""
    place.policy(f'["{old}"]')
    place.write("a.crl", place.crl([ALICE]))
    place.fetched(URL, place.crl([ALICE]))
    assert place.revoked() == ["alice"]
    for address in (ELSEWHERE, "http://127.0.0.1/c.crl", ELSEWHERE):
        place.policy(f'["{address}"]')
        for _ in place.twice(restarts):
            assert place.revoked() == ["alice"]
    place.fetched(ELSEWHERE, place.crl([BOB]))  # level with the one that was in force
    assert place.revoked() == ["alice", "bob"]
    place.fetched(ELSEWHERE, place.crl([BOB], 6, hours=1))
    for _ in place.twice(restarts):
        assert place.revoked() == ["bob"]


@RESTARTS
@pytest.mark.parametrize("at_once", [False, True])
def test_another_address_that_gives_another_crl_forgets_nobody(
    place: Place, restarts: bool, at_once: bool
) -> None:
    """Another authority's CRL, given again there, also before the policy is read; then garbage."""
    place.policy(f'["{URL}"]')
    place.fetched(URL, place.crl([ALICE]))
    assert place.revoked() == ["alice"]
    place.policy(f'["{ELSEWHERE}"]')
    if not at_once:
        place.load()
    for data in (OTHER.crl(), place.crl([BOB]), b"garbage", OTHER.crl(number=2)):
        place.fetched(ELSEWHERE, data)
        for _ in place.twice(restarts):
            assert "alice" in place.revoked()
    place.fetched(ELSEWHERE, place.crl([], 6))
    assert place.revoked() == []


def test_many_crls_of_one_moment_cost_a_reload_no_more_than_one_effort(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A CA can sign as many as it likes; the denylists of other trusts wait for the reload.  So it
    is one effort for all trusts of the same authorities, and another one for those of others."""
    asked = compared_entries(monkeypatch)
    trusts = f"  one: {{ca: ca.crt, crl: '{URL}'}}\n  two: {{ca: ca.crt, crl: '{URL}'}}\n"
    trusts += "  other: {ca: other.crt, crl: other.crl}\n"
    text = f"version: 1\ntrust:\n{trusts}locations: [{{name: site, allow: verified}}]\n"
    place.write("policy.yaml", text.encode())
    place.write("other.crt", OTHER.pem)
    for first in range(2):
        for at, name in ((1000, "one"), (2000, "two")):
            several = (
                [x509.RevokedCertificateBuilder(n, moment).build() for n in listed]
                for own in range(1 + first, 37, 2)
                for listed in [[*range(1, 400), at + own]]
                for moment in [START - timedelta(days=own)]
            )
            data = b"".join(STAFF.crl(e, number=5, this_update=START) for e in several)
            place.fetched(URL, data, name)
        place.write("other.crl", OTHER.crl([1, 2, 3][: 2 + first], number=5, this_update=START))
        place.load()
    assert place.store is not None
    asked.clear()
    found = place.store.load()
    assert succession.MAX_COMPARED // 2 < len(asked) <= succession.MAX_COMPARED
    assert "other" not in str(found.diagnostics)  # its level CRL was compared, and taken


@RESTARTS
@pytest.mark.parametrize("second", ["level", "from the future"])
@pytest.mark.parametrize("edit", ["address", "trust"])
def test_another_address_forgets_nobody_beside_what_only_revoked_at_the_old_one(
    place: Place, restarts: bool, second: str, edit: str
) -> None:
    """What was in force there goes on to revoke beside a CRL of its file that only revokes."""

    def users(revoked: Leaf, ahead: bool = False) -> bytes:
        start = now() + timedelta(hours=3) if ahead else START
        return STAFF.crl([revoked], number=9 + ahead, this_update=start, idp=USERS)

    place.policy(f"[{URL}]")
    place.fetched(URL, users(BOB))
    place.load()
    place.fetched(URL, place.crl([ALICE], 7) + users(DAVE, second != "level"))
    assert place.revoked(ALICE, BOB, DAVE) == ["alice", "bob", "dave"]
    place.policy(
        f"[{ELSEWHERE if edit == 'address' else URL}]", "staff" if edit == "address" else "x"
    )
    for _ in range(3):
        if restarts:
            place.restart()
        assert place.revoked(ALICE, BOB, DAVE) == ["alice", "bob", "dave"]


@RESTARTS
def test_a_renamed_trust_revokes_by_what_was_fetched_before(place: Place, restarts: bool) -> None:
    """The fetcher's file is another one then; it has to be fetched anew."""
    place.policy(f'["{URL}"]')
    place.fetched(URL, place.crl([ALICE]))
    assert place.revoked() == ["alice"]
    place.policy(f'["{URL}"]', trust="people")
    for _ in place.twice(restarts):
        assert place.revoked() == ["alice"]
    place.fetched(URL, place.crl([], 6, hours=1), trust="people")
    assert place.revoked() == []


@RESTARTS
@pytest.mark.parametrize("edit", ["trust", "file"])
def test_another_place_of_a_file_forgets_nobody_whom_the_file_lacks_now(
    place: Place, restarts: bool, edit: str
) -> None:
    """A file was cut between its CRLs: what it lost goes on to revoke, also where its trust gets
    another name or the file another place, until a newer CRL of that scope is there."""
    whole = place.crl([ALICE]), STAFF.crl([BOB], number=6, idp=USERS, this_update=START)
    place.write("a.crl", b"".join(whole))
    assert place.revoked() == ["alice", "bob"]
    place.write("a.crl", whole[0])
    assert place.revoked() == ["alice", "bob"]
    place.write("b.crl", whole[0])
    name = "a.crl" if edit == "trust" else "b.crl"
    place.policy(f"[{name}]", trust="people" if edit == "trust" else "staff")
    for _ in range(3):
        if restarts:
            place.restart()
        assert place.revoked() == ["alice", "bob"]
    place.write(name, whole[0] + STAFF.crl([], number=7, idp=USERS))
    assert place.revoked() == ["alice"]


@RESTARTS
def test_another_address_and_other_authorities_at_once(place: Place, restarts: bool) -> None:
    """The copy of the old CRL is verified again."""
    place.policy(f'["{URL}"]')
    place.fetched(URL, place.crl([ALICE]))
    assert place.revoked() == ["alice"]
    place.write("more.crt", STAFF.pem + THIRD.pem)
    place.policy(f'["{ELSEWHERE}"]', ca="more.crt")
    for _ in place.twice(restarts):
        assert place.revoked(ALICE, BOB) == ["alice"]
    place.policy(f'["{URL}"]', ca="more.crt")
    assert place.revoked(ALICE, BOB) == ["alice"]


@RESTARTS
def test_another_file_that_is_level_is_no_way_round(place: Place, restarts: bool) -> None:
    """The policy in force stays, and says why."""
    place.write("a.crl", place.crl([ALICE]))
    place.load()
    place.write("b.crl", place.crl([]))
    place.policy("[b.crl]")
    if restarts:
        place.restart()
    assert "doesn't list all that it lists" in str(place.load().diagnostics)
    assert place.revoked() == ["alice"]
    place.write("b.crl", place.crl([], 6))
    assert place.revoked() == []


@RESTARTS
def test_a_crl_that_the_policy_removes_is_forgotten(place: Place, restarts: bool) -> None:
    """That is the administrator's word: nothing else is named, or the others have theirs."""
    place.write("a.crl", place.crl([ALICE]))
    place.write("b.crl", place.crl([BOB]))
    place.policy("[a.crl, b.crl]")
    assert place.revoked() == ["alice", "bob"]
    place.policy("[b.crl]")
    if restarts:
        place.restart()
    assert place.load().ok
    assert place.revoked() == ["bob"]
    place.policy("")
    place.load()
    place.policy(f'["{URL}"]')
    if restarts:
        place.restart()
    assert place.revoked() == []


@RESTARTS
@pytest.mark.parametrize("then", ["forgotten", "joined"])
def test_a_crl_that_the_policy_removes_revokes_while_another_place_is_broken(
    place: Place, restarts: bool, then: str
) -> None:
    """That one may be the file that it was joined into."""
    place.policy("[a.crl, b.crl]")
    users = STAFF.crl([BOB], number=6, idp=USERS, this_update=START)
    place.write("a.crl", place.crl([ALICE]))
    place.write("b.crl", users)
    assert place.revoked() == ["alice", "bob"]
    place.write("a.crl", b"garbage")
    place.policy("[a.crl]")
    for _ in range(3):
        if restarts:
            place.restart()
        assert place.revoked() == ["alice", "bob"]
    place.write("a.crl", place.crl([ALICE]) + (users if then == "joined" else b""))
    revoked = ["alice", "bob"] if then == "joined" else ["alice"]
    for data in (None, b"garbage"):
        if data is not None:
            place.write("a.crl", data)
        for _ in place.twice(restarts):
            assert place.revoked() == revoked


def test_a_crl_that_the_policy_removes_revokes_while_another_place_is_being_read(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A large file, that it was joined into, isn't read yet when the policy is in force."""
    place.policy("[a.crl, b.crl]")
    users = STAFF.crl([BOB], number=6, idp=USERS, this_update=START)
    place.write("a.crl", place.crl([ALICE]))
    place.write("b.crl", users)
    assert place.revoked() == ["alice", "bob"]
    may_read, read = threading.Event(), CrlWorkers.read_file

    def slowly(*given: Any, **settings: Any) -> CrlReading:
        may_read.wait(60)
        return read(*given, **settings)

    monkeypatch.setattr(CrlWorkers, "read_file", slowly)
    place.write("a.crl", place.crl([ALICE, DAVE], 6, hours=1) + users)
    place.policy("[a.crl]")
    assert place.store is not None
    try:
        found = place.store.load().policy.trusts["staff"]
        assert any(crl.find(crl.issuer, BOB.serial) for crl in found.revoking)
    finally:
        may_read.set()
    assert place.revoked(ALICE, BOB, DAVE) == ["alice", "bob", "dave"]


# -- chance

SEED = int(os.environ.get("MTLS_SIDECAR_SEED") or random.randrange(1 << 32))
RUNS = int(os.environ.get("MTLS_SIDECAR_CRL_RUNS", "4"))
MANY = {ca.name: [ca.issue(f"{ca.name} {number}") for number in range(4)] for ca in (STAFF, OTHER)}


class Model:
    """Per authority, the newest CRL that was given, and whom it lists: they must be revoked."""

    def __init__(self, place: Place, chance: random.Random) -> None:
        self.place, self.chance, self.name = place, chance, "a.crl"
        self.newest = {STAFF: (1, 0), OTHER: (1, 0)}
        self.owed: dict[CA, list[Leaf]] = {STAFF: [], OTHER: []}
        self.level = {STAFF: True, OTHER: True}
        self.past: list[str] = []

    def pair(self, ca: CA) -> bytes:
        """Two CRLs that contradict each other: both are owed until one is newer by both."""
        number, moment = self.newest[ca]
        self.newest[ca], self.level[ca], self.owed[ca] = (number + 2, moment + 2), False, []
        both = [(number + 2, moment + 1), (number + 1, moment + 2)]
        self.chance.shuffle(both)
        found = b""
        for number, moment in both:
            listed = self.chance.sample(MANY[ca.name], 2)
            self.owed[ca] += listed
            self.past.append(f"odd {ca.name} {number} {moment} {[leaf.name for leaf in listed]}")
            found += ca.crl(listed, number=number, this_update=START + timedelta(seconds=moment))
        return found

    def crl(self, ca: CA, how: str) -> bytes:
        if how == "odd":
            return self.pair(ca)
        if how == "level" and not self.level[ca]:
            how = "newer"
        number, moment = self.newest[ca]
        listed = self.chance.sample(MANY[ca.name], self.chance.randint(0, 3))
        if how == "newer":
            number, moment = number + 1, moment + self.chance.randint(0, 1)
            self.newest[ca], self.level[ca], self.owed[ca] = (number, moment), True, listed
        elif how == "backwards":
            number = 0
        self.past.append(f"{how} {ca.name} {number} {moment} {[leaf.name for leaf in listed]}")
        return ca.crl(listed, number=number, this_update=START + timedelta(seconds=moment))

    def put(self, data: bytes) -> None:
        if "/" in self.name:
            self.place.fetched(self.name, data)
        else:
            self.place.write(self.name, data)

    def move(self) -> None:
        """Name another address, from which nothing was fetched yet."""
        self.name = self.chance.choice([URL, ELSEWHERE, "http://127.0.0.1/c.crl"])
        crl_state_path(self.place.directory / "state", "staff", self.name).unlink(missing_ok=True)
        self.place.policy(f'["{self.name}"]')

    def step(self) -> None:
        if self.chance.random() < 0.3:
            self.past.append("restart")
            self.place.restart()
        how = self.chance.choice(
            ["newer", "newer", "odd", "level", "backwards", "move", "garbage", ""]
        )
        cas = self.chance.sample([STAFF, OTHER], self.chance.choice([1, 2, 2]))
        if how == "move":
            self.past.append("move")
            self.move()
        elif how:
            data = b"garbage" if how == "garbage" else b"".join(self.crl(ca, how) for ca in cas)
            self.put(data)


@pytest.mark.parametrize("run", range(RUNS))
def test_nobody_whom_the_newest_crl_lists_is_let_in(place: Place, run: int) -> None:
    """CRLs that are newer, level, backwards or contradict each other, of one authority or both,
    garbage, other addresses and restarts, at random."""
    model = Model(place, random.Random(SEED + run))
    model.put(STAFF.crl(this_update=START) + OTHER.crl(this_update=START))
    place.load()
    for _ in range(25):
        model.step()
        owed = {leaf.name for listed in model.owed.values() for leaf in listed}
        missed = owed - {*place.revoked(*(leaf for each in MANY.values() for leaf in each))}
        assert not missed, (SEED + run, missed, model.past)


KEYS = [CA("Issuing", issuer=STAFF) for _ in range(2)]


class Rolled:
    """A CA with a complete CRL and deltas for each of its two keys, and all that it ever published.

    Each certificate is good, then held, then good again or revoked for ever.
    """

    def __init__(self, chance: random.Random, *, same_serials: bool) -> None:
        self.chance, self.number = chance, 1
        self.good = [
            ca.issue(f"{n}{key}", serial=n if same_serials else None)
            for key, ca in zip("ab", KEYS, strict=True)
            for n in range(1, 7)
        ]
        self.held: list[Leaf] = []
        self.revoked: list[Leaf] = []
        self.released: list[Leaf] = []
        self.states: list[dict[Leaf, str]] = [{}, {}]
        self.published: list[tuple[str, bytes, frozenset[Leaf]]] = []

    def change(self) -> None:
        """Revoke, hold or release somebody: the next CRLs have a number of their own."""
        for source, target in self.chance.sample(
            [(self.good, self.held), (self.held, self.revoked), (self.held, self.released)], 2
        ):
            if source:
                target.append(source.pop(self.chance.randrange(len(source))))
        self.number += 1
        held = dict.fromkeys(self.held, "certificateHold")
        self.states.append(held | dict.fromkeys(self.revoked, "keyCompromise"))

    def crl(self, ca: CA, base: int | None) -> bytes:
        """A CRL of this moment: complete, or what has changed since a base."""
        state, before = self.states[-1], self.states[base or 0]
        new = [(leaf, why) for leaf, why in state.items() if why != before.get(leaf)]
        new += [(leaf, "removeFromCRL") for leaf in before if leaf not in state]
        listed = [(leaf, why) for leaf, why in new if leaf.issuer is ca]
        entries = [entry(leaf, why) for leaf, why in listed]
        moment = START + timedelta(seconds=self.number)
        data = ca.crl(entries, number=self.number, this_update=moment, delta_base=base)
        kind = f"{self.number} {base or ''} {[(leaf.name, why) for leaf, why in listed]}"
        lasting = frozenset(leaf for leaf, why in listed if why == "keyCompromise")
        self.published.append((kind, data, lasting))
        return data


def entry(leaf: Leaf, reason: str) -> x509.RevokedCertificate:
    builder = x509.RevokedCertificateBuilder().serial_number(leaf.serial).revocation_date(START)
    return builder.add_extension(x509.CRLReason(x509.ReasonFlags(reason)), critical=False).build()


@RESTARTS
def test_two_keys_certificates_of_one_number_are_told_apart(place: Place, restarts: bool) -> None:
    """Serial numbers begin anew with a key: its certificate 1 is revoked, then the other key's
    CRL comes in the place of that, which lists a certificate 1 that is on hold, and released."""
    old, new = (ca.issue("one", serial=1) for ca in KEYS)
    place.write("ca.crt", STAFF.pem + b"".join(key.pem for key in KEYS))
    place.policy(f"[{URL}]")
    place.fetched(URL, KEYS[1].crl([new], number=2, this_update=START, delta_base=1))
    assert place.revoked(new) == ["one"]
    for number, held in ((3, [entry(old, "certificateHold")]), (4, [])):
        moment = START + timedelta(seconds=number)
        place.fetched(URL, KEYS[0].crl(held, number=number, this_update=moment))
        for _ in place.twice(restarts):
            assert place.revoked(new) == ["one"]


@RESTARTS
@pytest.mark.parametrize("name", ["a.crl", URL])
def test_a_small_authority_that_changes_its_key_locks_nobody_out(
    place: Place, restarts: bool, name: str
) -> None:
    """Its numbers are short and go on, and its one CRL is signed with the new key, then: that says
    good of the clients of both keys, and whom the CRL before listed is revoked."""
    old, new = (
        [ca.issue(f"{n}", serial=n) for n in numbers]
        for ca, numbers in zip(KEYS, ((1, 2, 3), (4, 5)), strict=True)
    )
    place.write("ca.crt", STAFF.pem + b"".join(key.pem for key in KEYS))
    place.policy(f"['{name}']")
    put = place.write if name == "a.crl" else place.fetched
    put(name, KEYS[0].crl(old[:1], number=1, this_update=START))
    assert place.revoked(*old) == ["1"]
    for number, listed in ((2, old[:1]), (3, [*old[:2], new[0]])):
        moment = START + timedelta(seconds=number)
        put(name, KEYS[1].crl(listed, number=number, this_update=moment))
        for _ in place.twice(restarts):
            assert place.revoked(*old, *new) == [leaf.name for leaf in listed]
            assert place.load().ok
            assert place.good(*old, *new) == [
                leaf.name for leaf in (*old, *new) if leaf not in listed
            ]


@pytest.mark.parametrize("same_serials", [False, True])
@pytest.mark.parametrize("run", range(RUNS // 4))
def test_nobody_whom_a_key_revoked_for_ever_is_let_in(
    place: Place, run: int, same_serials: bool
) -> None:
    """Deltas of any base, before and after it, older CRLs and the other key's at each address,
    garbage, other addresses, another name of the trust, and restarts, at random."""
    chance = random.Random(SEED + run)
    ca, past = Rolled(chance, same_serials=same_serials), list[str]()
    addresses, trust, owed = [URL, ELSEWHERE], "staff", set[Leaf]()
    place.write("ca.crt", STAFF.pem + b"".join(key.pem for key in KEYS))
    place.policy(f"{addresses}", trust)
    for _ in range(25):
        ca.change()
        for key in chance.sample(KEYS, chance.randint(0, 2)):
            ca.crl(key, chance.choice([None, *range(max(1, ca.number - 4), ca.number)]))
        how = chance.choice(["new", "new", "new", "any", "any", "garbage", "move", "rename"])
        n = chance.randrange(2)
        if how in ("new", "any") and ca.published:
            kind, data, listed = chance.choice(ca.published[-3 if how == "new" else 0 :])
            past.append(f"{n}: {kind}")
            place.fetched(addresses[n], data, trust)
            owed |= listed
        elif how == "garbage":
            place.fetched(addresses[n], b"garbage", trust)
        elif how == "move":
            addresses[n] = f"http://127.0.0.1/{len(past)}.crl"
            place.policy(f"{addresses}", trust)
        elif how == "rename":
            trust = f"trust{len(past)}"
            place.policy(f"{addresses}", trust)
        if how in ("garbage", "move", "rename"):
            past.append(f"{how} {n}")
        if chance.random() < 0.3:
            past.append("restart")
            place.restart()
        missed = {each.name for each in owed} - {*place.revoked(*owed)} if owed else ()
        assert not missed, (SEED + run, missed, past)
    for n, key in enumerate(KEYS):
        place.fetched(addresses[n], ca.crl(key, None), trust)
    told = place.revoked(*ca.good, *ca.released, *ca.held, *ca.revoked)
    wanted = [each.name for each in (*ca.held, *ca.revoked)]
    assert told == wanted or (same_serials and {*wanted} < {*told}), (SEED + run, past)


@RESTARTS
def test_a_download_that_never_was_usable_revokes_on(place: Place, restarts: bool) -> None:
    """A CRL beside another one that doesn't verify, and then nothing that can be read."""
    place.policy(f'["{URL}"]')
    place.fetched(URL, place.crl([ALICE]) + CA("Foreign").crl())
    assert place.revoked() == ["alice"]
    place.fetched(URL, b"garbage")
    for _ in place.twice(restarts):
        assert place.revoked() == ["alice"]
    place.fetched(URL, place.crl([BOB], 6, hours=1))
    assert place.revoked() == ["bob"]


@RESTARTS
def test_a_fetched_crl_revokes_on_though_another_file_of_authorities_is_named(
    place: Place, restarts: bool
) -> None:
    """At the same time the download becomes garbage, and so counts as not fetched yet."""
    place.policy(f'["{URL}"]')
    place.fetched(URL, place.crl([ALICE]))
    assert place.revoked() == ["alice"]
    place.write("more.crt", THIRD.pem)
    place.policy(f'["{URL}"]', ca="[ca.crt, more.crt]")
    place.fetched(URL, b"garbage")
    for _ in place.twice(restarts):
        assert place.revoked() == ["alice"]


@pytest.mark.parametrize("newest_first", [False, True])
def test_an_older_crl_joined_with_a_newer_one_is_no_step_back(
    place: Place, newest_first: bool
) -> None:
    """`cat old.crl new.crl`: taken at each reload and start; whom the new one released is in."""
    blocks = [place.crl([ALICE], 5), place.crl([BOB], 6, hours=1)]
    joined = b"".join(reversed(blocks) if newest_first else blocks)
    place.write("a.crl", joined)
    for step in range(3):
        assert place.load().ok
        assert place.revoked() == ["bob"]
        if step:
            place.restart()
    place.write("a.crl", b"garbage")
    place.restart()
    assert place.revoked() == ["bob"]
    place.write("a.crl", place.crl([ALICE], 4) + place.crl([ALICE], 5))
    assert not place.load().ok
    assert place.revoked() == ["alice", "bob"]
    place.write("a.crl", joined)
    assert place.load().ok
    assert place.revoked() == ["bob"]


def test_a_newer_crl_from_the_future_excuses_no_older_one(place: Place) -> None:
    """It is refused as going backwards, and never says good."""
    place.write("a.crl", place.crl([ALICE], 7))
    assert place.load().ok
    place.write("a.crl", place.crl([], 6) + place.crl([BOB], 8, hours=10 * 24))
    assert not place.load().ok
    assert place.revoked() == ["alice", "bob"]


@RESTARTS
@pytest.mark.parametrize("gives", ["an older CRL", "none of the issuer"])
def test_a_start_with_a_clock_that_is_behind_forgets_no_crl(
    place: Place, restarts: bool, gives: str
) -> None:
    """As on a machine without a battery: the CRL in force is from the future, and is replaced by an
    older one before the clock is set."""
    older, other = place.crl([], 1), OTHER.crl(number=1, this_update=START)
    for crl in (older, place.crl([ALICE], 2, hours=1)):
        place.write("a.crl", crl + other)
        place.load()
    place.ahead = -7200.0
    if restarts:
        place.restart()
    assert place.revoked() == ["alice"]
    place.write("a.crl", (older if gives == "an older CRL" else b"") + other)
    assert place.revoked() == ["alice"]
    place.ahead = 0.0
    assert place.revoked() == ["alice"]
    assert place.load().ok == (gives != "an older CRL")


@RESTARTS
def test_a_download_that_was_refused_revokes_on_though_its_file_is_destroyed(
    place: Place, restarts: bool
) -> None:
    """Until the fetcher removes it, since the address gave one that is accepted."""
    place.policy(f'["{URL}"]')
    place.fetched(URL, place.crl([], 5))
    place.load()
    refused = revoking_path(crl_state_path(place.directory / "state", "staff", URL))
    place.replace(refused, place.crl([ALICE], 4))
    assert place.revoked() == ["alice"]
    for destroyed in (b"garbage", b""):
        place.replace(refused, destroyed)
        for _ in place.twice(restarts):
            assert place.revoked() == ["alice"]
    refused.unlink()
    assert place.revoked() == []


@RESTARTS
@pytest.mark.parametrize("gives", ["not understood", "newer", "level", "from the future"])
@pytest.mark.parametrize("then", ["an older one", "nothing"])
def test_what_an_address_gave_revokes_on_though_it_gives_what_was_before(
    place: Place, gives: str, then: str, restarts: bool
) -> None:
    """A newer CRL that was refused, as no part of it can say good, and a replay after it: whom it
    lists stays revoked until a newer one is in force."""
    place.policy(f'["{URL}"]')
    path = crl_state_path(place.directory / "state", "staff", URL)
    refused = path if gives == "from the future" else revoking_path(path)
    unknown = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\5\0")
    given = {
        "not understood": STAFF.crl([ALICE], number=7, extra_extensions=[(unknown, True)]),
        "newer": STAFF.crl([ALICE], number=7),
        "level": STAFF.crl([ALICE], number=5, this_update=START),
        "from the future": STAFF.crl([ALICE], number=7, this_update=now() + timedelta(hours=2)),
    }[gives]
    held = STAFF.crl([BOB], number=5, this_update=START)
    place.replace(path, held)
    assert place.revoked() == ["bob"]
    place.replace(refused, given)
    assert place.revoked() == ["alice", "bob"]
    if then == "an older one":
        older = STAFF.crl([DAVE], number=4, this_update=START - timedelta(minutes=1))
        place.replace(revoking_path(path), older)
    elif refused != path:
        refused.unlink()
    place.replace(path, held)
    for _ in range(3):
        if restarts:
            place.restart()
        assert "alice" in place.revoked()
    revoking_path(path).unlink(missing_ok=True)
    place.replace(path, STAFF.crl([BOB], number=8, this_update=now() - timedelta(minutes=1)))
    assert place.revoked() == (["alice", "bob"] if gives == "from the future" else ["bob"])
    place.ahead = 3 * 3600.0
    place.replace(path, STAFF.crl([BOB], number=9, this_update=now() + timedelta(hours=3)))
    assert place.revoked() == ["bob"]
    place.restart()
    assert place.revoked() == ["bob"]


@RESTARTS
def test_what_stood_beside_rubbish_at_an_address_revokes_on(place: Place, restarts: bool) -> None:
    """The first that it ever gave; then an older one, which is in force."""
    place.policy(f'["{URL}"]')
    rubbish = b"-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n"
    place.fetched(URL, place.crl([ALICE], 6) + rubbish)
    assert place.revoked() == ["alice"]
    if restarts:
        place.restart()
    place.fetched(URL, place.crl([BOB], 5))
    assert place.revoked() == ["alice", "bob"]
    place.fetched(URL, place.crl([BOB], 7))
    assert place.revoked() == ["bob"]


def test_a_refused_download_for_which_there_is_no_room_is_not_read(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its entries would take memory for each address of a trust; it is told, and read once it is
    smaller."""
    place.policy(f'["{URL}"]')
    path = crl_state_path(place.directory / "state", "staff", URL)
    place.replace(path, place.crl([BOB], 5))
    read: list[Path] = []
    reads = CrlWorkers.read_file

    def note(workers: CrlWorkers, at: Path, *given: Any, **more: Any) -> CrlReading:
        read.append(at)
        return reads(workers, at, *given, **more)

    monkeypatch.setattr(CrlWorkers, "read_file", note)
    refused = place.crl([ALICE], 4)
    monkeypatch.setattr(trust_crls, "MAX_TRUST", path.stat().st_size + len(refused))
    place.replace(revoking_path(path), refused + b"\n" * 9)
    assert place.revoked() == ["bob"]
    assert "no room" in str(place.load().diagnostics)
    assert read == [path]
    place.replace(revoking_path(path), refused)
    assert place.revoked() == ["alice", "bob"]


@pytest.mark.parametrize("limit", ["MAX_TRUST", "MAX_ENTRIES"])
@pytest.mark.parametrize("kind", ["file", "address", "refused"])
def test_an_authoritys_huge_crl_takes_no_room_of_the_others(
    place: Place, monkeypatch: pytest.MonkeyPatch, limit: str, kind: str
) -> None:
    """Whoever has a CA of a trust can't keep another one's revocations from coming into force."""
    both = ["b.crl", "a.crl"] if kind == "file" else [ELSEWHERE, URL]
    theirs, ours = (
        place.directory / each
        if kind == "file"
        else crl_state_path(place.directory / "state", "staff", each)
        for each in both
    )
    place.policy(f"{both}")
    place.replace(theirs, OTHER.crl([], number=1))
    place.replace(ours, place.crl([BOB], 5))
    assert place.revoked() == ["bob"]
    huge = OTHER.crl([ERIN, *range(1, 300)], number=2)
    monkeypatch.setattr(trust_crls, limit, len(huge) if limit == "MAX_TRUST" else 300)
    place.replace(theirs, huge)
    assert place.revoked() == ["bob"]
    place.replace(revoking_path(ours) if kind == "refused" else ours, place.crl([ALICE, BOB], 6))
    assert place.revoked() == ["alice", "bob"]
    assert "have more than" in str(place.load().diagnostics)
    place.replace(theirs, OTHER.crl([ERIN], number=3))
    assert place.store is not None
    assert place.store.moved()
    assert place.revoked() == ["alice", "bob", "erin"]


@pytest.mark.parametrize("loads", [False, True])
def test_another_address_forgets_nobody_though_another_trust_has_the_same_crl(
    place: Place, loads: bool
) -> None:
    """Two trusts of one CA, one of which names a new address, before a restart."""
    same = place.crl([ALICE])
    place.write("b.crl", same)
    place.fetched(URL, same)
    for url in (URL, ELSEWHERE):
        place.policy(f'["{url}"]')
        policy = place.directory / "policy.yaml"
        other = "  partner: {ca: ca.crt, crl: b.crl}\nlocations"
        place.write("policy.yaml", policy.read_text().replace("locations", other).encode())
        if loads or url == URL:
            place.load()
    for _ in range(2):
        place.restart()
        trust = place.load().policy.trusts["staff"]
        assert any(crl.find(crl.issuer, ALICE.serial) for crl in trust.revoking)


@pytest.mark.parametrize("withheld", ["lease", "memory", "written over"])
def test_a_large_crl_that_its_owner_withholds_revokes_after_a_restart(
    withheld: str, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever writes the file of a large CRL can take it away as soon as it was read, by a lease,
    a link to what can't be read (EIO) or other content; a copy is made nevertheless."""
    place.policy(f"[{URL}]")
    path = crl_state_path(place.directory / "state", "staff", URL)
    read = CrlWorkers.read_file
    with contextlib.ExitStack() as stack:
        before = signal.signal(signal.SIGIO, signal.SIG_IGN)
        stack.callback(signal.signal, signal.SIGIO, before)

        def read_and_withhold(*args: Any, **settings: Any) -> CrlReading:
            found = read(*args, **settings)
            if withheld == "lease":
                file = stack.enter_context(path.open("r+b"))
                fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_WRLCK)
            elif withheld == "memory":
                path.unlink()
                path.symlink_to("/proc/self/mem")
            else:
                place.fetched(URL, b"garbage")
            return found

        place.fetched(URL, place.crl([ALICE]) + b"#" * HERE)
        monkeypatch.setattr(CrlWorkers, "read_file", read_and_withhold)
        place.load()
        monkeypatch.undo()
        assert place.store is not None
        assert not place.store._last_good._spare
    place.fetched(URL, b"garbage")
    place.restart()
    assert place.revoked() == ["alice"]


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
@pytest.mark.parametrize("then", [(7, 1), (4, 4)])
def test_crls_of_one_file_that_contradict_each_other_revoke_until_one_is_newer_than_both(
    order: tuple[int, int], then: tuple[int, int], place: Place
) -> None:
    """Of two CRLs in force the one has the higher number, the other the later thisUpdate.

    A start with a broken file forgets neither, nor does the next file, which is newer than one of
    them alone.
    """
    crls = place.crl([ALICE], 5, hours=2), place.crl([BOB], 6)
    place.write("a.crl", b"".join(crls[n] for n in order))
    assert place.revoked() == ["alice", "bob"]
    place.write("a.crl", b"garbage")
    assert place.revoked() == ["alice", "bob"]
    place.restart()
    assert place.revoked() == ["alice", "bob"]
    number, hours = then
    place.write("a.crl", place.crl([], number, hours=hours))
    told = place.revoked()
    assert "alice" in told or (number >= 5 and hours >= 2)
    assert "bob" in told or (number >= 6 and hours >= 0)
    place.restart()
    assert place.revoked() == told
    place.write("a.crl", place.crl([], 8, hours=5))
    assert place.revoked() == []


def test_an_internal_error_takes_no_copy_away(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a file lacks now, a download that was refused and a CRL of a former address revoke on,
    when the trust couldn't be built meanwhile and the process has ended."""
    place.policy(f'[a.crl, "{ELSEWHERE}"]')
    place.write("a.crl", place.crl([]) + OTHER.crl([ERIN]))
    place.fetched(ELSEWHERE, STAFF.crl([ALICE], idp=USERS))
    place.load()
    place.write("a.crl", place.crl([]))
    place.policy(f'[a.crl, "{URL}"]')
    place.fetched(URL, place.crl([]))
    refused = revoking_path(crl_state_path(place.directory / "state", "staff", URL))
    place.replace(refused, place.crl([BOB], 4))
    assert place.revoked() == ["alice", "bob", "erin"]

    def fail(*_: object) -> None:
        raise ZeroDivisionError("by accident")

    with monkeypatch.context() as broken:
        broken.setattr(trust_crls.CrlPlaces, "verified_with", fail)
        assert "by accident" in str(place.load().diagnostics)
    place.replace(refused, b"garbage")
    place.restart()
    assert place.revoked() == ["alice", "bob", "erin"]


@pytest.mark.parametrize("moves_first", [False, True])
def test_another_address_forgets_nobody_whom_only_another_instance_knew(
    place: Place, moves_first: bool
) -> None:
    """One instance missed an update, since it hung; then the policy names another address."""
    other = Place(place.directory)
    place.policy(f'["{URL}"]')
    place.fetched(URL, place.crl([]))
    assert place.revoked() == other.revoked() == []
    place.fetched(URL, place.crl([ALICE], 6, hours=1))
    assert other.revoked() == ["alice"]
    crl_state_path(place.directory / "state", "staff", URL).unlink()
    place.policy(f'["{ELSEWHERE}"]')
    if moves_first:
        assert other.revoked() == ["alice"]
    assert place.revoked() == ["alice"]
    place.restart()
    assert place.revoked() == other.revoked() == ["alice"]
    place.fetched(ELSEWHERE, place.crl([], 7, hours=2))
    assert place.revoked() == other.revoked() == []
    place.restart()
    assert place.revoked() == []


@pytest.mark.parametrize("restarts", [False, True])
def test_what_only_revokes_in_one_instance_revokes_in_another_that_missed_it(
    place: Place, restarts: bool
) -> None:
    """It hung while an address gave a CRL that was refused; it knows of another such one."""
    other = Place(place.directory)
    place.policy(f"[{URL}]")
    refused = revoking_path(crl_state_path(place.directory / "state", "staff", URL))
    place.fetched(URL, place.crl([], 5))
    place.replace(refused, STAFF.crl([BOB], number=6, idp=USERS, this_update=START))
    assert place.revoked() == other.revoked() == ["bob"]
    place.replace(refused, place.crl([ALICE], 6, hours=1))
    assert other.revoked() == ["alice", "bob"]
    place.replace(refused, place.crl([], 4))
    assert place.revoked() == other.revoked() == ["alice", "bob"]
    for each in (place, other) if restarts else ():
        each.restart()
        assert each.revoked() == ["alice", "bob"]
    place.fetched(URL, place.crl([], 7, hours=2))
    for each in (place, other, place):
        assert each.revoked() == ["bob"]

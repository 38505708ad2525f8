"""An agent that was taken over, and servers that lie: what the daemon makes of their files."""

from __future__ import annotations

import json
import os
import random
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fleet_agent import Agent, Host
from fleet_entries import ISSUED, Author, listed

from sidecar.authorizer.fleet_release import import_release
from sidecar.core.errors import PolicyError
from sidecar.core.fleet.entry import SignedEntry

FILES = {"policy.yaml": b"version: 1\nlocations: [{name: site, allow: [{cn: alice}]}]\n"}
OTHER = {"policy.yaml": b"version: 1\nlocations: [{name: site, allow: [{cn: mallory}]}]\n"}


class Scene:
    """One host whose agent has brought a release and a revocation."""

    def __init__(self, directory: Path) -> None:
        self.author = Author()
        self.agent = Agent(directory, self.author)
        self.host = Host(directory, self.author)
        self.first = self.agent.publish(FILES)
        self.second = self.author.revocation()
        self.agent.write(self.second)
        self.host.load()
        assert self.host.follower.sequence == 2

    def unchanged(self, why: str) -> None:
        """What was in force still is, and what was refused is counted."""
        self.host.load()
        assert self.host.policy() == FILES["policy.yaml"]
        assert self.host.denies()
        assert self.host.follower.sequence == 2
        assert self.host.follower.refused[why] >= 1, self.host.follower.refused
        assert self.host.follower.problem


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    found = Scene(tmp_path)
    yield found
    found.host.follower.close()


def test_a_forged_release_is_not_taken(scene: Scene) -> None:
    """Signed by a stranger, with files that fit."""
    stranger = Author(sequence=2, previous=scene.author.previous)
    forged = stranger.release(OTHER)
    scene.agent.bring(forged, OTHER)
    scene.agent.write(forged)
    scene.unchanged("unknown_key")
    forged = replace(forged, key=scene.author.public.id)
    scene.agent.replace_log(scene.first, scene.second, forged)
    scene.unchanged("bad_signature")


def make_fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize(
    "tricked",
    [
        lambda place: (place / "policy.yaml").write_bytes(OTHER["policy.yaml"]),
        lambda place: (place / "policy.yaml").write_bytes(b""),
        lambda place: os.truncate(place / "policy.yaml", 20),
        lambda place: os.truncate(place / "policy.yaml", 50_000_000_000),
        lambda place: (place / "policy.yaml").unlink(),
        lambda place: make_fifo(place / "policy.yaml"),
        lambda place: [(place / "policy.yaml").unlink(), (place / "policy.yaml").mkdir()],
        lambda place: [
            (place / "policy.yaml").unlink(),
            (place / "policy.yaml").symlink_to("/etc/passwd"),
        ],
        lambda place: [
            (place / "policy.yaml").unlink(),
            (place / "policy.yaml").symlink_to("/dev/zero"),
        ],
        lambda place: [
            (place / "policy.yaml").unlink(),
            (place / "policy.yaml").symlink_to("policy.yaml"),
        ],
    ],
    ids="changed emptied truncated huge missing fifo directory link device loop".split(),
)
def test_a_file_that_is_not_as_signed_is_not_taken(scene: Scene, tricked: object) -> None:
    """Whatever stands in its place; the release before stays in force, and the mended one comes."""
    assert callable(tricked)
    files = {"policy.yaml": FILES["policy.yaml"] + b"# newer\n"}
    signed = scene.author.release(files)
    place = scene.agent.bring(signed, files)
    tricked(place)
    scene.agent.write(signed)
    scene.unchanged("file")
    if (place / "policy.yaml").is_dir() and not (place / "policy.yaml").is_symlink():
        (place / "policy.yaml").rmdir()
    (place / "policy.yaml").unlink(missing_ok=True)
    scene.agent.bring(signed, files)
    scene.host.ticks.now += 100
    scene.host.load()
    assert scene.host.policy() == files["policy.yaml"]
    assert scene.host.follower.sequence == 3


def test_a_release_in_force_is_out_of_the_agents_reach(scene: Scene) -> None:
    """The daemon has its own copy: the agent's may be changed, and a restart takes none of it."""
    (scene.agent.place(scene.first) / "policy.yaml").write_bytes(OTHER["policy.yaml"])
    scene.host.load()
    assert scene.host.policy() == FILES["policy.yaml"]
    scene.host.follower.close()
    scene.host.start()
    scene.host.load()
    assert scene.host.policy() == FILES["policy.yaml"]
    assert scene.host.follower.sequence == 2


def test_a_link_to_another_release_changes_nothing(scene: Scene) -> None:
    """`current` is the agent's word, and nobody asks it."""
    elsewhere = scene.agent.directory / "releases" / "9-aaaaaaaaaaaaaaaa"
    elsewhere.mkdir()
    (elsewhere / "policy.yaml").write_bytes(OTHER["policy.yaml"])
    (scene.agent.directory / "current").symlink_to(elsewhere)
    scene.host.load()
    assert scene.host.policy() == FILES["policy.yaml"]


def test_a_log_that_was_set_back_takes_nothing_back(scene: Scene) -> None:
    """Also over a restart: the daemon has a log of its own."""
    scene.agent.replace_log(scene.first)
    scene.unchanged("rollback")
    for gone in (scene.agent.log, scene.agent.place(scene.first) / "policy.yaml"):
        gone.unlink()
    scene.host.follower.close()
    scene.host.start()
    scene.host.load()
    assert scene.host.denies()
    assert scene.host.policy() == FILES["policy.yaml"]
    assert scene.host.follower.sequence == 2


def test_another_history_is_a_fork(scene: Scene) -> None:
    """Signed with the true key, as by a publisher whose machine was restored from a backup."""
    twin = Author(key=scene.author.key)
    log = [twin.release(FILES), twin.undo(1), twin.revocation("cd" * 32)]
    scene.agent.replace_log(*log)
    scene.unchanged("fork")
    assert not scene.host.denies("cd" * 32)


def test_entries_out_of_order_and_doubled_are_harmless(scene: Scene) -> None:
    """A gap stops; what is doubled is skipped; the right order goes on."""
    third, fourth = scene.author.revocation("cd" * 32), scene.author.revocation("ef" * 32)
    scene.agent.write(fourth)
    scene.unchanged("gap")
    log = [scene.first, scene.first, scene.second, third, second_time(third), fourth, fourth]
    scene.agent.replace_log(*log)
    scene.host.load()
    assert scene.host.follower.sequence == 4
    assert scene.host.denies("ef" * 32)


def second_time(signed: SignedEntry) -> SignedEntry:
    return replace(signed)


@pytest.mark.parametrize("seed", range(6))
def test_a_damaged_log_is_taken_up_to_the_damage(scene: Scene, seed: int) -> None:
    """Octets changed, lines cut or joined, anywhere: nothing is taken that was not signed."""
    chance = random.Random(seed)
    more = [scene.author.revocation(f"{n:064x}") for n in range(1, 20)]
    data = b"".join(e.line() + b"\n" for e in (scene.first, scene.second, *more))
    at = chance.randrange(len(data))
    damaged = [
        data[:at] + bytes([data[at] ^ 1 << chance.randrange(8)]) + data[at + 1 :],
        data[:at],
        data[:at] + data[at + chance.randrange(1, 200) :],
        data[:at] + chance.randbytes(40) + data[at:],
    ][seed % 4]
    (scene.agent.directory / "aside").write_bytes(damaged)
    (scene.agent.directory / "aside").rename(scene.agent.log)
    scene.host.load()
    taken = scene.host.follower.chain.sequence
    assert 2 <= taken <= 21
    for number in range(1, 20):
        assert scene.host.denies(f"{number:064x}") == (number + 2 <= taken)
    assert scene.host.policy() == FILES["policy.yaml"]


@pytest.mark.parametrize("line", [b"", b"\0" * 100, b"x" * 5_000_000, b"[" * 100_000, b"{}"])
def test_garbage_in_the_log_stops_it_and_nothing_else(scene: Scene, line: bytes) -> None:
    """Also a line without an end, and JSON that nests without one."""
    scene.agent.write(line)
    scene.unchanged("malformed")
    scene.agent.replace_log(scene.first, scene.second, scene.author.revocation("cd" * 32))
    scene.host.load()
    assert scene.host.denies("cd" * 32)


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda p: os.symlink("/dev/zero", p)])
def test_a_log_that_is_no_file_is_told(scene: Scene, make: object) -> None:
    """A FIFO, a directory, a device: the daemon neither waits nor reads without end."""
    assert callable(make)
    scene.agent.log.unlink()
    make(scene.agent.log)
    scene.host.load()
    assert scene.host.follower.problem
    assert scene.host.policy() == FILES["policy.yaml"]
    assert scene.host.denies()


@pytest.mark.parametrize(
    "name", ["../../escaped", "/tmp/escaped", "pki/../../escaped", ".ssh/keys", "a\\b", "a\nb"]
)
def test_a_release_with_a_tricky_name_is_passed_over(scene: Scene, name: str) -> None:
    """Though the true key signed it: no file appears outside, and revocations go on."""
    files = {"policy.yaml": FILES["policy.yaml"], name: b"x"}
    body = {"files": listed(files), "to": None, "comment": ""}
    scene.agent.write(scene.author.next("release", body), scene.author.revocation("cd" * 32))
    scene.unchanged("malformed")
    assert scene.host.denies("cd" * 32)
    assert not list(scene.host.state_dir.parent.rglob("escaped"))


def test_a_release_that_is_too_large_is_passed_over(scene: Scene) -> None:
    """By what it says of itself: nothing of it is read."""
    body = {
        "files": [{"name": "policy.yaml", "sha256": "ab" * 32, "size": 2**50}],
        "to": None,
        "comment": "",
    }
    scene.agent.write(scene.author.next("release", body))
    scene.unchanged("malformed")


def test_a_policy_that_cannot_be_used_here_is_not_taken(scene: Scene) -> None:
    """Mistakes and failing tests: the whole release before stays, not a mixture."""
    mistake = {"policy.yaml": b"version: 1\nlocations: [{name: site, allow: [nobody]}]\n"}
    scene.agent.publish(mistake)
    scene.unchanged("policy")
    failing = {
        "policy.yaml": FILES["policy.yaml"]
        + b"tests: [{location: site, cert: {cn: mallory}, expect: allow}]\n"
    }
    scene.agent.publish(failing)
    scene.unchanged("policy")


def test_a_release_that_has_ended_is_not_taken(scene: Scene) -> None:
    """One that was withheld until nobody wanted it any more."""
    old = scene.author.next(
        "release", {"files": listed(OTHER), "to": None, "comment": ""}, ISSUED // 1000
    )
    scene.agent.bring(old, OTHER)
    scene.agent.write(old)
    scene.unchanged("ended")


def test_a_withheld_release_shows(scene: Scene) -> None:
    """Its entry without its files: the sequence stays behind, revocations don't wait for it."""
    signed = scene.author.release(OTHER)
    scene.agent.write(signed, scene.author.revocation("cd" * 32))
    scene.host.load()
    assert scene.host.follower.sequence == 2
    assert scene.host.denies("cd" * 32)
    scene.agent.bring(signed, OTHER)
    scene.host.load()
    assert scene.host.follower.sequence == 4


def test_a_slow_import_holds_up_no_revocation(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A release that takes long to copy and compile: entries behind it count meanwhile."""
    go_on = threading.Event()

    def slow(*args: Any) -> None:
        assert go_on.wait(60)
        import_release(*args)

    monkeypatch.setattr("sidecar.authorizer.fleet_follower.import_release", slow)
    scene.agent.publish(OTHER)
    scene.host.store.load()
    assert scene.host.follower.is_busy
    scene.agent.write(scene.author.revocation("cd" * 32))
    scene.host.store.load()
    assert scene.host.denies("cd" * 32)
    assert scene.host.follower.sequence == 2
    go_on.set()
    scene.host.load()
    assert scene.host.policy() == OTHER["policy.yaml"]
    assert scene.host.follower.sequence == 4


def test_a_long_log_is_read_a_part_at_a_time(scene: Scene) -> None:
    """One of many repetitions, which costs time: the other files are looked at in between."""
    scene.agent.write(*[scene.second] * 5)
    scene.agent.write(scene.author.revocation("cd" * 32))
    ticks = iter(range(10_000))
    scene.host.follower._monotonic = lambda: float(next(ticks))
    scene.host.store.load()
    assert scene.host.follower.is_busy
    assert scene.host.store.moved()
    assert not scene.host.denies("cd" * 32)
    scene.host.follower._monotonic = scene.host.ticks
    scene.host.load()
    assert scene.host.denies("cd" * 32)


def test_a_frozen_head_shows(scene: Scene) -> None:
    """Without new heads what is known gets stale, also by a clock that was set back."""
    scene.agent.head(scene.author.head())
    scene.host.load()
    follower = scene.host.follower
    assert follower.freshness().until > scene.host.clock()
    scene.host.clock.now -= 3600
    scene.host.ticks.now += 61
    assert follower.head_age is not None
    assert follower.head_age >= 61
    assert follower.freshness().until < scene.host.clock()
    scene.agent.head(scene.author.head())  # the same again
    scene.host.load()
    assert follower.freshness().until < scene.host.clock()


def test_a_head_of_a_stranger_freshens_nothing(scene: Scene) -> None:
    """Nor one of the true key for another log, or an older one."""
    scene.agent.head(Author(sequence=2, previous=scene.author.previous).head())
    scene.unchanged("unknown_key")
    scene.agent.head(scene.author.head(previous="ab" * 32))
    scene.unchanged("fork")
    assert scene.host.follower.head_age is None


def test_a_head_is_no_word_on_what_is_missing_here(scene: Scene) -> None:
    """A new head beside a log that lacks its entries does not make it fresh."""
    third = scene.author.revocation("cd" * 32)
    scene.agent.head(scene.author.head())
    scene.host.load()
    assert scene.host.follower.head_age is None
    scene.agent.write(third)
    scene.host.load()
    assert scene.host.follower.head_age is not None


def test_another_fleets_files_are_refused(tmp_path: Path) -> None:
    """Of a fleet that trusts the same key."""
    author = Author("test")
    agent, host = Agent(tmp_path, author), Host(tmp_path, Author("prod", key=author.key))
    agent.publish(FILES)
    with pytest.raises(PolicyError, match="no release of fleet 'prod' has arrived"):
        host.load()
    assert host.follower.refused["wrong_fleet"] == 1
    host.follower.close()


def test_revocations_outlive_keys_that_are_not_pinned_any_more(scene: Scene) -> None:
    """After other keys were pinned the daemon's own log can't be verified; it still revokes."""
    scene.host.follower.close()
    fresh = Author()
    host = Host(scene.host.state_dir, fresh)
    host.load()
    assert host.denies()
    assert host.policy() == FILES["policy.yaml"]
    assert "does not fit the pinned keys" in host.follower.problem
    scene.agent.author = fresh
    scene.agent.replace_log(fresh.revocation("cd" * 32))
    host.load()
    host.follower.close()
    host.start()  # and again: the log of the new keys stands alone now
    host.load()
    assert host.denies()
    assert host.denies("cd" * 32)
    assert host.follower.chain.sequence == 1
    host.follower.close()


def test_a_new_epoch_keeps_what_was_revoked_until_it_has_a_release(scene: Scene) -> None:
    """A log that begins anew, as after a fork."""
    scene.host.follower.close()
    author = Author(epoch=2, key=scene.author.key)
    host = Host(scene.host.state_dir, author, epoch=2)
    host.load()
    assert host.denies()
    scene.agent.author = author
    signed = author.release(OTHER)
    scene.agent.bring(signed, OTHER)
    (scene.agent.directory / "log.2").write_bytes(signed.line() + b"\n")
    host.load()
    assert host.policy() == OTHER["policy.yaml"]
    assert not host.denies()
    host.follower.close()


def test_a_killed_daemon_leaves_nothing_half(scene: Scene) -> None:
    """Half a line in its own log, a release half copied, a link half swapped."""
    own = scene.host.follower.places.daemon
    scene.host.follower.close()
    with (own / "log.1").open("ab") as file:
        file.write(json.dumps({"entry": 1}).encode()[:9])
    half = own / "releases" / ".new.killed"
    half.mkdir()
    (half / "policy.yaml").write_bytes(b"version: ")
    (own / ".current.new").symlink_to("releases/none")
    signed = scene.agent.publish(OTHER)
    place = own / "releases" / scene.agent.place(signed).name
    place.mkdir()
    (place / "policy.yaml").write_bytes(b"half")
    scene.host.start()
    scene.host.load()
    assert scene.host.policy() == OTHER["policy.yaml"]
    assert scene.host.follower.sequence == 3
    assert not half.exists()
    assert (own / "log.1").read_bytes().count(b"\n") == 3


def test_a_daemon_with_a_long_log_follows_on_after_a_restart(scene: Scene) -> None:
    """However many entries it took before: all of the agent's log is known, none is refused.

    Also where the agent lost its log and fetched it again, or an older entry of it is another's.
    """
    more = [scene.author.revocation(f"{number:064x}") for number in range(3000)]
    scene.agent.write(*more)
    scene.host.load()
    assert scene.host.follower.sequence == 3002
    scene.host.follower.close()
    scene.host.start()
    scene.agent.write(scene.author.revocation("cd" * 32))
    scene.host.load()
    assert scene.host.denies("cd" * 32)
    last = [scene.author.revocation("cd" * 32), scene.author.revocation("ef" * 32)]
    scene.agent.log.write_bytes(scene.agent.log.read_bytes())
    again = scene.agent.log.read_bytes() + b"".join(each.line() + b"\n" for each in last)
    scene.agent.log.unlink()
    scene.agent.log.write_bytes(again)
    scene.host.load()
    assert scene.host.denies("ef" * 32)
    assert not scene.host.follower.refused.total()
    twin = Author(key=scene.author.key)
    scene.agent.replace_log(twin.release(OTHER))
    scene.host.load()
    assert scene.host.follower.refused["fork"] == 1
    assert scene.host.follower.sequence == 3005

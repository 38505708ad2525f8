"""When an entry counts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from fleet_entries import ISSUED, Author, listed, public_of

from sidecar.core.fleet.chain import Chain
from sidecar.core.fleet.entry import Refused, SignedEntry, parse_line
from sidecar.core.fleet.keys import PublicKey


def chain_of(author: Author, *keys: PublicKey) -> Chain:
    return Chain(author.fleet, (author.public, *keys), author.epoch)


def refused(chain: Chain, signed: SignedEntry) -> str:
    """Why an entry is refused, and that nothing has changed by it."""
    before = chain.sequence, chain.hash, list(chain.releases), dict(chain.revocations), chain.keys
    with pytest.raises(Refused) as error:
        chain.accept(signed)
    after = chain.sequence, chain.hash, list(chain.releases), dict(chain.revocations), chain.keys
    assert after == before
    return error.value.why


def test_entries_are_taken_in_their_order() -> None:
    """A release, a revocation and its undoing, through their lines."""
    author = Author()
    chain = chain_of(author)
    for signed in (author.release(), author.revocation(), author.revocation("cd" * 32)):
        assert chain.accept(parse_line(signed.line()))
    assert chain.sequence == 3
    assert chain.denylist.lookup(1, "ab" * 32, "0" * 64, 0.0) is not None
    chain.accept(author.undo(2))
    assert chain.denylist.lookup(1, "ab" * 32, "0" * 64, 0.0) is None
    assert chain.denylist.lookup(1, "cd" * 32, "0" * 64, 0.0) is not None


def test_a_forged_entry_is_refused() -> None:
    """Each field changed after signing, and a signature of another key under our key's name."""
    author, other = Author(), Author()
    chain = chain_of(author)
    good = author.sign(author.entry("revocation", {"deny": "serial", "value": "01", "comment": ""}))
    changes: list[dict[str, Any]] = [{"kind": "undo"}, {"body": {}}, {"not_after": 1}]
    for change in changes:
        assert refused(chain, replace(good, entry=replace(good.entry, **change))) == "bad_signature"
    forged = replace(other.sign(good.entry), key=author.public.id)
    assert refused(chain, forged) == "bad_signature"
    assert refused(chain, other.sign(good.entry)) == "unknown_key"
    assert chain.accept(good)


def test_another_fleets_entry_is_refused() -> None:
    """Though it is signed with a key that counts here too."""
    author = Author()
    elsewhere = Author("test", key=author.key)
    assert refused(chain_of(author), elsewhere.release()) == "wrong_fleet"


def test_order_is_kept() -> None:
    """A later entry is a gap, the same one again is nothing, an older epoch goes backwards."""
    author = Author(epoch=2)
    chain = chain_of(author)
    first, second, third = author.release(), author.revocation(), author.undo(2)
    assert refused(chain, second) == "gap"
    assert chain.accept(first)
    assert not chain.accept(first)
    assert refused(chain, third) == "gap"
    assert refused(chain, Author(epoch=1, key=author.key).release()) == "rollback"
    assert refused(chain, Author(epoch=3, key=author.key).release()) == "gap"


def test_a_second_entry_of_a_number_is_a_fork() -> None:
    """Whether its place is taken already or it follows another entry than ours."""
    author = Author()
    twin = Author(key=author.key)
    chain = chain_of(author)
    chain.accept(author.release())
    twin_first = twin.revocation()
    assert refused(chain, twin_first) == "fork"
    assert refused(chain, twin.revocation("cd" * 32)) == "fork"


def test_an_entry_is_known_again_however_old_it_is() -> None:
    """So is another in its place, a fork, and a head for it."""
    author, twin = Author(), Author()
    twin.key = author.key
    chain = chain_of(author)
    first, head = author.revocation(), author.head(1)
    chain.accept(first)
    for _ in range(2000):
        chain.accept(author.undo(1))
    assert not chain.accept(first)
    assert refused(chain, twin.revocation("cd" * 32)) == "fork"
    assert chain.take_head(head)


def test_an_entry_is_known_again_when_its_key_is_removed() -> None:
    """It was verified while the key counted; another entry of that key is refused."""
    author, new = Author(), Author()
    chain = chain_of(author)
    first = author.revocation()
    chain.accept(first)
    chain.accept(author.keys([new.public], [author.public.id]))
    assert not chain.accept(first)
    twin = Author(key=author.key)
    assert refused(chain, twin.revocation("cd" * 32)) == "unknown_key"


def test_a_keeper_signs_heads_and_nothing_else() -> None:
    """A key with `head` behind it."""
    author, keeper = Author(), Author()
    chain = chain_of(author, public_of(keeper.key, heads_only=True))
    entry = author.entry("revocation", {"deny": "serial", "value": "01", "comment": ""})
    assert refused(chain, author.sign(entry, keeper.key)) == "unknown_key"
    assert chain.take_head(author.head(key=keeper.key))


def test_keys_are_rolled_over_by_an_entry_of_the_old_key() -> None:
    """The new one counts behind it, the old one no longer; some key is always left."""
    author, new = Author(), Author()
    chain = chain_of(author)
    chain.accept(author.keys([new.public], [author.public.id]))
    old = author.key
    author.key = new.key
    entry = author.entry("undo", {"sequence": 1})
    assert refused(chain, author.sign(entry, old)) == "unknown_key"
    assert chain.accept(author.next("undo", {"sequence": 1}))
    with pytest.raises(Refused) as error:
        chain.accept(author.keys([public_of(old, heads_only=True)], [new.public.id]))
    assert error.value.why == "malformed"
    assert set(chain.keys) == {new.public.id}


PLAIN = listed({"policy.yaml": b""})
UPWARDS = listed({"../policy.yaml": b"", "policy.yaml": b""})


@pytest.mark.parametrize(
    ("kind", "body", "why"),
    [
        ("note", {}, "unknown_kind"),
        ("release", {"files": [], "to": None, "comment": ""}, "malformed"),
        (
            "release",
            {"files": listed({"policy.yaml": b""}), "to": "all", "comment": ""},
            "malformed",
        ),
        (
            "release",
            {
                "files": listed({"../policy.yaml": b"", "policy.yaml": b""}),
                "to": None,
                "comment": "",
            },
            "malformed",
        ),
        ("revocation", {"deny": "name", "value": "1", "comment": ""}, "malformed"),
        ("revocation", {"deny": "serial", "value": "zz", "comment": ""}, "malformed"),
        ("revocation", {"deny": "serial", "value": "0A until 1970", "comment": ""}, "malformed"),
        ("revocation", {"deny": "sha256", "value": "AB" * 32, "comment": ""}, "malformed"),
        ("revocation", {"deny": "serial", "value": "1", "comment": "a\nserial 2"}, "malformed"),
        ("undo", {"sequence": 0}, "malformed"),
        ("undo", {"sequence": 1, "issued": "now"}, "malformed"),
        ("key", {"add": ["ed25519 x"], "remove": []}, "malformed"),
        ("key", {"add": [], "remove": []} | {"more": 1}, "malformed"),
    ],
)
def test_what_is_not_understood_is_passed_over(
    kind: str, body: dict[str, object], why: str
) -> None:
    """It changes nothing, says so, and does not keep out the revocations behind it."""
    author = Author()
    chain = chain_of(author)
    chain.accept(author.release())
    with pytest.raises(Refused) as error:
        chain.accept(author.next(kind, body))
    assert error.value.why == why
    assert (chain.sequence, chain.not_understood, len(chain.releases)) == (2, 2, 1)
    assert chain.accept(author.revocation())
    assert chain.not_understood == 2
    assert chain.accept(author.release())
    assert chain.not_understood == 0


def test_a_head_tells_of_what_is_missing() -> None:
    """A gap where it is ahead; nothing new where it is older than the last."""
    author = Author()
    chain = chain_of(author)
    first = author.release()
    ahead = author.head()
    with pytest.raises(Refused) as error:
        chain.take_head(ahead)
    assert error.value.why == "gap"
    chain.accept(first)
    assert chain.take_head(ahead)
    assert not chain.take_head(ahead)
    assert not chain.take_head(author.head(ISSUED - 1))
    assert chain.take_head(author.head(ISSUED + 1))
    assert chain.head is not None
    assert chain.head.issued == (ISSUED + 1) / 1000


def test_a_head_of_a_keeper_that_lags_still_counts() -> None:
    """It was true when it was signed, and we have more since."""
    author = Author()
    chain = chain_of(author)
    chain.accept(author.release())
    lagging = author.head()
    chain.accept(author.revocation())
    assert chain.take_head(lagging)


@pytest.mark.parametrize(
    ("other", "why"),
    [
        ({"previous": "ab" * 32}, "fork"),
        ({"not_after": None}, "malformed"),
        ({"body": {"issued": ISSUED, "more": 1}}, "malformed"),
        ({"body": {}}, "malformed"),
        ({"kind": "undo"}, "malformed"),
        ({"fleet": "test"}, "wrong_fleet"),
    ],
)
def test_a_head_that_is_none_is_refused(other: dict[str, Any], why: str) -> None:
    """Another log's, without an end, with something to say, or no head at all."""
    author = Author()
    chain = chain_of(author)
    chain.accept(author.release())
    with pytest.raises(Refused) as error:
        chain.take_head(author.head(**other))
    assert error.value.why == why
    assert chain.head is None


def test_a_head_is_no_entry_of_the_log() -> None:
    """Else a keeper's key could push the log on."""
    author = Author()
    assert refused(chain_of(author), author.head(sequence=1)) == "malformed"


def test_a_release_for_some_leaves_the_others_as_they_were() -> None:
    """By label and by percentage; the next one for all ends it."""
    author = Author()
    chain = chain_of(author)
    chain.accept(author.release())
    chain.accept(author.release(to={"labels": ["canary"]}))
    chain.accept(author.release(to={"percent": 30}))
    nodes = [f"web{number}" for number in range(200)]

    def due(node: str, *labels: str) -> int:
        release = chain.release_for(node, labels)
        assert release is not None
        return release.sequence

    some = {node for node in nodes if due(node) == 3}
    assert 30 <= len(some) <= 90
    assert {due(node) for node in nodes if node not in some} == {1}
    assert {due(node, "canary") for node in nodes if node not in some} == {2}
    chain.accept(author.release())
    assert {due(node) for node in nodes} == {4}
    assert len(chain.releases) == 1


def test_a_higher_percentage_includes_the_lower_one() -> None:
    """A canary that is widened takes nothing from those that had it."""
    author = Author()
    chain = chain_of(author)
    chain.accept(author.release(to={"percent": 10}))
    nodes = [f"web{number}" for number in range(200)]
    first = {node for node in nodes if chain.release_for(node, ())}
    chain.accept(author.release(to={"percent": 40}))
    second = {n for n in nodes if (r := chain.release_for(n, ())) and r.sequence == 2}
    assert first < second


def test_a_revocation_ends_when_it_says() -> None:
    """`not_after` is the line's `until`."""
    author = Author()
    chain = chain_of(author)
    chain.accept(author.revocation(not_after=1000))
    assert chain.denylist.lookup(1, "ab" * 32, "0" * 64, 999.0) is not None
    assert chain.denylist.lookup(1, "ab" * 32, "0" * 64, 1000.0) is None

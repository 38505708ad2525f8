"""Which CRL takes the place of which."""

from __future__ import annotations

import os
import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from compared import compared_entries
from cryptography import x509
from hypothesis import given
from hypothesis import strategies as st
from pki import CA

from sidecar.core.revocation.crl import succession
from sidecar.core.revocation.crl.entries import REMOVE, Entries, Table, build_table
from sidecar.core.revocation.crl.index import Crl, read_crl
from sidecar.core.revocation.crl.points import Scope
from sidecar.core.revocation.crl.succession import (
    MAX_COMPARED,
    OMITS,
    Effort,
    follows,
    is_level,
    lists_all_of,
    omission,
    omitted,
    outdates,
)

T0 = datetime(2026, 3, 1, tzinfo=UTC)
DAY = timedelta(days=1)
YEARS: dict[str, Any] = {"not_before": T0 - 400 * DAY, "not_after": T0 + 4000 * DAY}
STAFF = CA("Staff", **YEARS)
RENEWED = CA("Staff", **YEARS)
USERS = x509.IssuingDistributionPoint(None, None, True, False, None, False, False)
UNKNOWN = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\5\0")

LONG = 1 << 120
"""A serial number as long as a random one."""


def crl(number: int | None = 5, days: float = 0, ca: CA = STAFF, **options: Any) -> Crl:
    authorities = options.pop("authorities", (STAFF, RENEWED))
    data = ca.crl(
        options.pop("revoked", ()),
        number=number,
        this_update=T0 + days * DAY,
        next_update=T0 + 9 * DAY,
        **options,
    )
    return read_crl(data, "crl.pem", [each.der for each in authorities])


def test_the_newer_follows_the_older_of_its_scope() -> None:
    """By number or thisUpdate, and never backwards in one of them."""
    old = crl()
    assert follows(crl(6), old)
    assert follows(crl(5, 1), old)
    assert follows(crl(), crl(None))
    for other in (crl(), crl(4, 1), crl(6, -1), crl(None, 1), crl(6, 1, idp=USERS)):
        assert not follows(other, old)


def test_a_delta_follows_no_complete_crl() -> None:
    """A complete one follows the deltas before it, and those that it includes."""
    delta = crl(6, 1, delta_base=5)
    assert not follows(delta, crl())
    assert follows(crl(6, 1), delta)
    assert not follows(crl(5, 1), delta)
    assert follows(crl(7, 2, delta_base=5), delta)


def test_a_delta_of_a_later_base_follows_none_of_an_earlier_one() -> None:
    """It says only what has changed since its own base, unless that is there."""
    old, new = crl(6, 1, delta_base=5), crl(9, 3, delta_base=8)
    assert not follows(new, old)
    unusable = crl(8, 2, extra_extensions=[(UNKNOWN, True)])
    assert not follows(new, old, [crl(7, 1), crl(8, 2, ca=RENEWED), crl(None, 2), unusable, new])
    assert follows(new, old, [crl(8, 2)])
    assert not outdates(new, old)
    assert outdates(crl(9, 3, delta_base=5), old)


def test_a_crl_that_never_says_good_follows_none_that_does() -> None:
    """But one of its kind."""
    unusable = crl(6, extra_extensions=[(UNKNOWN, True)])
    assert not follows(unusable, crl())
    assert follows(crl(7), unusable)
    assert follows(crl(7, extra_extensions=[(UNKNOWN, True)]), unusable)


def test_a_new_key_follows_the_old_one_under_one_anchor() -> None:
    """Its numbers may start again; it must cover what the old key issued."""
    root = CA("Root", **YEARS)
    old, new = (CA("Staff", issuer=root, **YEARS) for _ in range(2))
    known: dict[str, Any] = {"authorities": (root, old, new)}
    assert follows(crl(1, 1, ca=new, **known), crl(5, ca=old, **known))
    assert not follows(crl(9, 0, ca=new, **known), crl(5, ca=old, **known))
    assert not follows(crl(1, 1, ca=RENEWED), crl())


def test_a_new_key_follows_none_whose_clients_it_never_lists() -> None:
    """There are authorities with a CRL for each key; deltas of two keys have two bases."""
    root = CA("Root", **YEARS)
    old, new = (CA("Staff", issuer=root, **YEARS) for _ in range(2))
    known: dict[str, Any] = {"authorities": (root, old, new)}
    listed = crl(5, ca=old, revoked=[LONG, LONG + 1], **known)
    assert not follows(crl(1, 1, ca=new, revoked=[LONG + 2], **known), listed)
    assert follows(crl(1, 1, ca=new, revoked=[LONG + 1, LONG + 2], **known), listed)
    delta = crl(5, ca=old, revoked=[LONG], delta_base=4, **known)
    assert not follows(crl(6, 1, ca=new, revoked=[LONG], delta_base=4, **known), delta)
    assert follows(crl(6, 1, ca=new, revoked=[LONG], **known), delta)


def test_no_serial_number_that_may_begin_anew_shows_what_a_new_key_covers() -> None:
    """Number 1 is one certificate of each key; neither does the digest of another issuer's."""
    root = CA("Root", **YEARS)
    old, new = (CA("Staff", issuer=root, **YEARS) for _ in range(2))
    known: dict[str, Any] = {"authorities": (root, old, new)}
    listed = crl(5, ca=old, revoked=[1, 2], **known)
    newer = crl(1, 1, ca=new, revoked=[1, 2, LONG], **known)
    assert not follows(newer, listed)
    assert follows(newer, crl(5, ca=old, revoked=[1, LONG], **known))
    assert follows(newer, crl(5, ca=old, **known))
    indirect = Entries(others=listed.entries.own)
    assert not follows(replace(newer, entries=indirect), replace(listed, entries=indirect))


def test_a_delta_of_the_old_key_that_mostly_releases_revokes_on() -> None:
    """What is asked of its entries may all be of released certificates; but not if all are."""
    root = CA("Root", **YEARS)
    old, new = (CA("Staff", issuer=root, **YEARS) for _ in range(2))
    known: dict[str, Any] = {"authorities": (root, old, new)}
    delta, newer = crl(5, ca=old, delta_base=4, **known), crl(6, 1, ca=new, **known)
    released = table(dict.fromkeys(range(LONG, LONG + 600), REMOVE))
    data = bytearray(released.data)
    data[2 * (released.width + 3) - 1] = 0  # the second entry: only every other one is asked of
    one = Entries(own=replace(released, data=bytes(data)))
    assert not follows(newer, replace(delta, entries=one))
    assert follows(newer, replace(delta, entries=Entries(own=released)))


def test_whether_a_new_key_lists_the_old_ones_clients_is_told_by_a_sample(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A list of millions holds up no reload."""
    asked: list[bytes] = []

    def count(_: object, key: bytes) -> bool:
        asked.append(key)
        return False

    monkeypatch.setattr(succession, "_revokes", count)
    monkeypatch.setattr(succession, "_ASKED", 10)
    root = CA("Root", **YEARS)
    old, new = (CA("Staff", issuer=root, **YEARS) for _ in range(2))
    known: dict[str, Any] = {"authorities": (root, old, new)}
    listed = crl(5, ca=old, revoked=range(1, 200), **known)
    assert not follows(crl(1, 1, ca=new, revoked=[500], **known), listed)
    assert len(asked) < 20


def test_what_is_level_must_list_all() -> None:
    """Each CRL in force by one of the file, or else a newer one must be there."""
    one, other, both = crl(revoked=[1]), crl(revoked=[2]), crl(revoked=[1, 2, 3])
    assert is_level(one, other)
    assert not is_level(one, crl(6))
    assert omission(other, omitted([other], [one])) == OMITS
    assert omission(both, omitted([both], [one, other])) is None
    assert omission(other, omitted([other, crl(revoked=[1])], [one])) is None
    assert omission(one, omitted([one, other], [both])) == OMITS
    assert omission(other, omitted([other, crl(6)], [one])) is None
    assert omission(crl(6), omitted([crl(6)], [one])) is None
    assert omission(one, omitted([one], [one])) is None


def test_each_of_two_versions_is_compared_with_each_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A CA has 40 CRLs of one moment in a file, and then 40 others: a reload doesn't take seconds,
    for which other trusts' denylists would wait."""
    compared = []

    def count(one: Crl, other: Crl) -> bool:
        compared.append(one)
        return is_level(one, other)

    old, new = ([crl(revoked=[start + n]) for n in range(40)] for start in (1, 100))
    monkeypatch.setattr(succession, "is_level", count)
    left_out = omitted(new, old)
    assert all(omission(one, left_out) == OMITS for one in new)
    assert len(compared) <= 2 * 40 * 40


def table(entries: dict[int, int]) -> Table:
    rows = [n.to_bytes(20, "big") + bytes([0, 1, reason]) for n, reason in entries.items()]
    random.shuffle(rows)
    return build_table(rows)


ENTRIES = st.dictionaries(st.integers(0, 40) | st.integers(0, 1 << 159), st.sampled_from([0, 8]))


@given(ENTRIES, ENTRIES, st.booleans())
def test_tables_are_compared_like_sets(
    old: dict[int, int], new: dict[int, int], grown: bool
) -> None:
    """Whatever their order, width and number of buckets; what a delta removes isn't revoked."""
    new = {**new, **old} if grown else new
    revoked, newly = ({n for n, r in each.items() if r != REMOVE} for each in (old, new))
    for before, after in (
        (Entries(own=table(old)), Entries(own=table(new))),
        (Entries(others=table(old)), Entries(others=table(new))),
    ):
        assert lists_all_of(after, before) is (revoked <= newly)


@pytest.mark.parametrize("change", ["one more", "one less", "twice as many"])
def test_large_tables_are_compared(change: str) -> None:
    """By buckets that are equal, or one by one."""
    old = {int.from_bytes(os.urandom(16)): 0 for _ in range(5000)}
    new = dict(old)
    if change == "one less":
        new.popitem()
    else:
        new |= {n + 1: 0 for n in list(old)[: 1 if change == "one more" else None]}
    assert lists_all_of(Entries(own=table(new)), Entries(own=table(old))) is (change != "one less")


def test_what_is_too_much_to_compare_counts_as_not_listed() -> None:
    """So the older one revokes on; equal ones need no comparison, in whatever file they are."""
    old = Entries(own=table(dict.fromkeys(range(100), 0)))
    new = Entries(own=table(dict.fromkeys(range(101), 0)))
    other = Entries(own=table(dict.fromkeys(range(1 << 40, (1 << 40) + 100), 0)))
    assert lists_all_of(new, old)
    assert not lists_all_of(new, old, Effort(9))
    assert not lists_all_of(other, old, Effort(9))
    assert lists_all_of(old, old, Effort(0))
    effort = Effort(150)
    assert not lists_all_of(other, old, effort)
    assert not lists_all_of(other, old, effort)
    assert effort.left == 50


def test_what_two_trusts_have_is_compared_once() -> None:
    """In one reload, so that a long list of many trusts is as good as that of one."""
    old, new = (Entries(own=table(dict.fromkeys(range(n), 0))) for n in (100, 101))
    effort = Effort(300)
    assert all(lists_all_of(new, old, effort) for _ in range(9))


def test_many_crls_of_one_moment_or_of_two_keys_cost_no_more_than_one_effort(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each of them lists what no other one does: its authority can sign as many as it likes."""
    asked = compared_entries(monkeypatch)
    alone = STAFF.intermediate("Staff")
    known = crl()
    several = [
        replace(known, entries=Entries(own=table(dict.fromkeys(range(n, n + 700), 0))))
        for n in range(0, 40_000, 1000)
    ]
    other_key = [replace(each, signer_key=alone.der, this_update=0.0) for each in several]
    new = [replace(each, speaks_for=frozenset({alone.der})) for each in several]
    assert omitted(new[:20], new[20:]) == new[20:]
    assert 0 < len(asked) <= MAX_COMPARED
    effort, asked[:] = Effort(), []
    assert not any(
        follows(one, other, effort=effort) for one in new[:20] for other in other_key[20:]
    )
    assert 0 < len(asked) <= MAX_COMPARED


def test_a_scope_of_many_names_is_put_into_words_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """When its CRL is read: it is compared with many others, in each reload."""
    old, new = crl(idp=USERS), crl(6, idp=USERS)
    monkeypatch.delattr(Scope, "__str__")
    monkeypatch.delattr(Scope, "__repr__")
    assert follows(new, old)
    assert not follows(new, crl(5))

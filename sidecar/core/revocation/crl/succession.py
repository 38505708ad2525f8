"""Decide whether a CRL takes the place of an older one, so that the older one says nothing more.

Whom a CRL in force revoked stays revoked until its issuer says otherwise by a newer CRL.  Neither a
CRL of another scope nor one of the same number and the same `thisUpdate` says so: CAs may round
`thisUpdate`, so that the older of two such CRLs can be given again for the newer one.

An authority can sign many large CRLs of one moment.  So what they list is compared only as far as
an `Effort` goes, and what isn't compared counts as not listed: the older CRL revokes on.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from .entries import REMOVE, Entries, Table
from .parse import Crl, goes_back, watermark

OMITS = "it has the number and thisUpdate of the one in force, but doesn't list all that it lists"

_TAIL_SIZE = 3

MAX_COMPARED = 100_000
"""Maximum number of entries that are compared: a few tenths of a second."""


@dataclass(slots=True)
class Effort:
    """The number of entries that may still be compared, and the results for pairs of tables."""

    left: int = MAX_COMPARED
    known: dict[tuple[bytes, bytes], bool] = field(default_factory=dict)

    def allows(self, entries: int) -> bool:
        """Take the entries that are to be compared next; return whether they may be."""
        if entries > self.left:
            return False
        self.left -= entries
        return True


def follows(new: Crl, old: Crl, beside: Sequence[Crl] = (), effort: Effort | None = None) -> bool:
    """Return whether `new` is newer than `old` and covers what `old` covers.

    A complete CRL follows the deltas that it includes; a delta follows no complete CRL, and an
    older delta only if it begins at the same base: what has changed before its own base is in that
    complete CRL alone, which may still be missing.  `beside` are CRLs in force beside the new one.

    After a change of keys, a CRL of the new key follows one of the old key, if it surely covers the
    certificates that the old key issued (`covers_other_key`).  An unusable CRL follows unusable
    ones alone: it never says good.
    """
    if new.covers != old.covers:
        return False
    if (new.unusable and not old.unusable) or (_is_delta(new) and not _is_delta(old)):
        return False
    if new.signer_key != old.signer_key:
        return new.this_update > old.this_update and covers_other_key(new, old, effort or Effort())
    if _is_delta(old) and not _begins_early_enough(new, old, beside):
        return False
    if goes_back(watermark(old), new) is not None:
        return False
    return _age(new) > _age(old) or (_is_delta(old) and not _is_delta(new))


def _begins_early_enough(new: Crl, old: Crl, beside: Sequence[Crl]) -> bool:
    """Return whether a CRL says all that has changed since the base of a delta.

    A later delta does together with its own base.
    """
    if new.delta_base is None or old.delta_base is None or new.delta_base <= old.delta_base:
        return True
    return any(
        each.delta_base is None
        and not each.unusable
        and each.signer_key == new.signer_key
        and each.number is not None
        and each.number >= new.delta_base
        for each in beside
    )


_ASKED = 256
"""Maximum number of entries that are looked up to tell whether a CRL covers another key's."""

_RANDOM_OCTETS = 8
"""Minimum length of a serial number that no authority gives twice, not even with another key."""


def covers_other_key(new: Crl, old: Crl, effort: Effort, *, by_short: bool = False) -> bool:
    """Return whether a complete CRL covers the certificates that the old key issued.

    By RFC 5280, 5, it covers all of its issuer's.  But there are authorities with a CRL for each of
    their keys, under the same name and scope, of which neither lists the other's certificates
    (Windows).  So one is believed only if it lists certificates of the old key, too.

    One long serial number in both shows it.  A short one may begin anew with each key, and be two
    certificates'; of other issuers' entries the length isn't known.  With `by_short` it is believed
    also if it has all of these.
    """
    if old.signer_key not in new.speaks_for or _is_delta(new):
        return False
    mine, theirs = new.entries, old.entries
    if not by_short and not _revokes_nobody(theirs.others):
        return False
    return all(
        _revokes_nobody(listed) or _lists_same(own, listed, effort, by_short)
        for own, listed in ((mine.own, theirs.own), (mine.others, theirs.others))
    )


def _lists_same(new: Table, old: Table, effort: Effort, by_short: bool) -> bool:
    """Return whether one CRL lists certificates that another one lists, by some of the latter."""
    size = old.width + _TAIL_SIZE
    asked = range(0, len(old.data), max(1, len(old.data) // size // _ASKED) * size)
    if not effort.allows(len(asked)):
        return False
    has_all = by_short
    for at in asked:
        for key in _revoked(old, at, at + size):
            if not _revokes(new, key):
                has_all = False
            elif len(key.lstrip(b"\0")) >= _RANDOM_OCTETS:
                return True
    return has_all


def _revokes_nobody(table: Table) -> bool:
    """Return whether a table is empty, or that of a delta which only removes."""
    size = table.width + _TAIL_SIZE
    return not bytes(table.data[size - 1 :: size]).strip(bytes([REMOVE]))


def is_level(one: Crl, other: Crl) -> bool:
    """Return whether two CRLs of one `key` are equally old."""
    return _age(one) == _age(other) and one.key == other.key


def replaces(new: Crl, old: Crl, beside: Sequence[Crl] = (), effort: Effort | None = None) -> bool:
    """Return whether an accepted CRL takes the place of one that was in force.

    `beside` are accepted CRLs of the same issuer and scope.
    """
    if new is old or follows(new, old, beside, effort):
        return True
    if not is_level(new, old) or (new.unusable and not old.unusable):
        return False
    return lists_all_of(new.entries, old.entries, effort)


def omission(new: Crl, left_out: Sequence[Crl]) -> str | None:
    """Explain why a CRL can't replace those in force: it is not newer, and lists fewer.

    `left_out` are those in force that the new version leaves out (`omitted`).
    """
    return OMITS if any(is_level(new, one) for one in left_out) else None


def omitted(new: Sequence[Crl], old: Sequence[Crl], effort: Effort | None = None) -> list[Crl]:
    """Return the CRLs in force that a new version has anew, but neither newer nor as long.

    `new` are all CRLs of that version.
    """
    effort = effort or Effort()
    level = ((one, [crl for crl in new if is_level(crl, one)]) for one in old)
    return [one for one, alike in level if _is_omitted(one, alike, new, effort)]


def _is_omitted(one: Crl, level: Sequence[Crl], new: Sequence[Crl], effort: Effort) -> bool:
    if not level or any(follows(each, one, effort=effort) for each in new):
        return False
    return not any(each is one or lists_all_of(each.entries, one.entries, effort) for each in level)


def is_past(crl: Crl, beside: Sequence[Crl], latest: float) -> bool:
    """Return whether a file itself has a newer CRL, as if old and new ones were joined in it.

    `beside` are CRLs of the file; what is later than `latest` is from the future.
    """
    return any(
        each.this_update <= latest
        and each.key == crl.key
        and goes_back(watermark(each), crl) is not None
        for each in beside
    )


def outdates(new: Crl, old: Crl) -> bool:
    """Return whether a CRL of the same `key` is certainly newer: by nothing is it older."""
    if new.key != old.key or not _begins_early_enough(new, old, ()):
        return False
    return goes_back(watermark(new), old) is not None and goes_back(watermark(old), new) is None


def lists_all_of(new: Entries, old: Entries, effort: Effort | None = None) -> bool:
    """Return whether whoever is revoked by `old` is revoked by `new`; of one issuer both."""
    effort = effort or Effort()
    return _has_all_of(new.own, old.own, effort) and _has_all_of(new.others, old.others, effort)


def lists_the_same(one: Entries, other: Entries) -> bool:
    """Return whether two CRLs of one issuer have the same entries."""
    return one.own.digest == other.own.digest and one.others.digest == other.others.digest


def _is_delta(crl: Crl) -> bool:
    return crl.delta_base is not None


def _age(crl: Crl) -> tuple[float, int]:
    return crl.this_update, -1 if crl.number is None else crl.number


def _has_all_of(new: Table, old: Table, effort: Effort) -> bool:
    if len(old.data) == 0 or new.digest == old.digest:
        return True
    pair = new.digest, old.digest
    if pair not in effort.known:
        effort.known[pair] = _is_superset(new, old, effort)
    return effort.known[pair]


def _is_superset(new: Table, old: Table, effort: Effort) -> bool:
    """Compare bucket by bucket, since most buckets of two tables that are much alike are equal."""
    size = old.width + _TAIL_SIZE
    if old.width != new.width or len(old.starts) != len(new.starts):
        count = len(old.data) // size
        return effort.allows(count) and all(
            _revokes(new, key) for key in _revoked(old, 0, len(old.data))
        )
    if not effort.allows(len(old.starts) // 8):
        return False
    for (start, stop), (begin, end) in zip(_buckets(old), _buckets(new), strict=True):
        if old.data[start:stop] != new.data[begin:end]:
            if not effort.allows((stop - start + end - begin) // size):
                return False
            theirs = set(_revoked(new, begin, end))
            if not theirs.issuperset(_revoked(old, start, stop)):
                return False
    return True


def _buckets(table: Table) -> Iterator[tuple[int, int]]:
    starts = struct.unpack(f"<{len(table.starts) // 4}I", table.starts)
    return pairwise(starts)


def _revoked(table: Table, start: int, stop: int) -> Iterator[bytes]:
    """Yield the keys of a part of a table, but for those that a delta removes."""
    for at in range(start, stop, table.width + _TAIL_SIZE):
        if table.data[at + table.width + _TAIL_SIZE - 1] != REMOVE:
            yield bytes(table.data[at : at + table.width])


def _revokes(table: Table, key: bytes) -> bool:
    entry = table.find(int.from_bytes(key, "big"))
    return entry is not None and entry.reason != REMOVE

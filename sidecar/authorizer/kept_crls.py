"""Determine what revoked before: at a place of CRLs, and at places that the policy named before.

In a running process this is known; at a start, or with other authorities, it is read from copies.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Iterator, Sequence

from sidecar.core.revocation.crl.index import Crl
from sidecar.core.revocation.crl.succession import (
    Effort,
    is_level,
    lists_the_same,
    omission,
    omitted,
    outdates,
    replaces,
)

from .last_good import InForce
from .trust_sources import GoodCrls, KeptFile, Key, TrustSources
from .watermarks import place_name

Pair = tuple[Crl, InForce]


def kept_at(
    sources: TrustSources,
    trust: str,
    place: str,
    authorities: tuple[bytes, ...],
    latest: float,
    effort: Effort,
) -> GoodCrls | None:
    """Return the CRLs last in force at a place by its copies, and those that only revoke.

    What is later than `latest` (seconds since the epoch) is from the future.
    """
    kept = sources.kept_crls(trust, place, authorities)
    own = [pair for file in (kept.last, *kept.held) for pair in _pairs(file)]
    newer = _pairs(kept.beside)
    beside, known = [crl for crl, _ in newer], [crl for crl, _ in own]
    left_out = omitted(beside, known, effort)
    refused = [crl for crl in beside if not own or _is_refused(crl, known, left_out, latest)]
    pairs = [*own, *(pair for pair in newer if not _is_in(pair[0], refused))]
    name = place_name(trust, place)

    def is_older(crl: Crl, moment: float) -> bool:
        return sources.marks.refuses(crl, moment, name, former=False) is not None

    barred = [crl for crl, _ in pairs if crl.this_update > latest or is_older(crl, latest)]
    usable = [pair for pair in pairs if not _is_in(pair[0], barred)]
    good = _newest(usable)
    lapsed = [
        pair
        for file in kept.earlier
        for pair in _pairs(file)
        if not any(replaces(crl, pair[0], effort=effort) for crl, _ in good)
    ]
    scopes = {crl.key for crl, _ in good}
    # Where the clock isn't set yet, what was in force is from the future: it is again, then.
    newest = [pair for pair in own if not is_older(pair[0], math.inf)]
    waiting = [pair for pair in newest if _is_in(pair[0], barred)]
    good += [pair for pair in _newest(waiting) if pair[0].key not in scopes]
    served = [crl for crl, _ in good]
    past = [
        crl
        for file in filter(None, (kept.last, *kept.held))
        for crl in file.crls
        if any(outdates(each, crl) for each in file.crls if _is_in(each, served))
    ]
    barred = [crl for crl in barred if not _is_in(crl, [*served, *past])]
    # Of two that contradict each other in number and `thisUpdate`, one has no mark of its own: it
    # revokes until another one is newer by both.
    lapsed += [pair for pair in pairs if _is_in(pair[0], barred) and pair[0].this_update <= latest]
    barred = [crl for crl in barred if crl.this_update > latest]
    if not good and not barred and not refused and not lapsed:
        return None
    crls, versions = tuple(crl for crl, _ in good), tuple(file for _, file in good)
    files = dict.fromkeys(file for _, file in (*own, *newer, *lapsed))
    only = tuple(distinct(lapsed))
    return GoodCrls(authorities, crls, (*barred, *refused), versions, only, tuple(files))


def joined(own: GoodCrls, others: GoodCrls) -> GoodCrls:
    """Return what this process had in force at a place, and what another instance had there.

    It comes to the same in each of them; of what is equal, one's own is taken.
    """
    known = (*own.crls, *(crl for crl, _ in own.lapsed))
    new = [pair for pair in in_force(others) if not is_equal_to_any(pair[0], known)]
    good = _newest([*in_force(own), *new])
    lapsed = [pair for pair in others.lapsed if not is_equal_to_any(pair[0], known)]
    revoking = [crl for crl in others.revoking if not is_equal_to_any(crl, own.all)]
    return GoodCrls(
        own.authorities,
        tuple(crl for crl, _ in good),
        (*own.revoking, *revoking),
        tuple(file for _, file in good),
        (*own.lapsed, *lapsed),
        tuple(dict.fromkeys((*own.files, *others.files))),
    )


def in_force(good: GoodCrls | None) -> list[Pair]:
    """Return the CRLs in force at a place, each with its file."""
    return [] if good is None else list(zip(good.crls, good.versions, strict=True))


def formers(
    sources: TrustSources, authorities: tuple[bytes, ...]
) -> Iterator[tuple[Key, GoodCrls]]:
    """Yield what revoked at places that the policy no longer names.

    It is left out if these authorities don't verify it.
    """
    for key in sources.formers_of(authorities):
        good = sources.former[key]
        if good is not None and good.authorities == authorities:
            yield key, good
            continue
        digests = {str(key[-1])} if good is None else {file.digest for file in good.files}
        files = [sources.former_crls(digest, authorities) for digest in sorted(digests)]
        pairs = [pair for file in files for pair in _pairs(file)]
        if pairs:
            read = tuple(dict.fromkeys(file for _, file in pairs))
            yield key, GoodCrls(authorities, (), lapsed=tuple(pairs), files=read)


def is_equal_to_any(crl: Crl, others: Sequence[Crl]) -> bool:
    """Return whether one of these is as old as a CRL and lists the same."""
    return any(is_level(crl, each) and lists_the_same(crl.entries, each.entries) for each in others)


def identity(crl: Crl) -> Hashable:
    """Return what two CRLs share that revoke the same, for as long."""
    entries = crl.entries
    lists = entries.own.digest, entries.others.digest
    return (crl.key, crl.delta_base, crl.number, crl.this_update, crl.unusable, *lists)


def distinct(pairs: Iterable[Pair], latest: float = -math.inf) -> list[Pair]:
    """Leave out the repeated, and of those that were in force together the older ones.

    Copies are of whole files, and have all that a file had.  What is later than `latest` wasn't in
    force; by default it isn't known what was.
    """
    found: dict[Hashable, Pair] = {}
    for pair in pairs:
        found.setdefault(identity(pair[0]), pair)
    every = list(found.values())
    return _newest(every, [crl for crl in crls_of(every) if _was_in_force(crl, latest)])


def crls_of(pairs: Sequence[Pair]) -> list[Crl]:
    """Return the CRLs without their files."""
    return [crl for crl, _ in pairs]


def _pairs(file: KeptFile | None) -> list[Pair]:
    return [] if file is None else [(crl, file.version) for crl in file.crls]


def _is_refused(crl: Crl, own: Sequence[Crl], left_out: Sequence[Crl], latest: float) -> bool:
    """Return whether a CRL of the newer version was refused, or is from the future."""
    is_older = any(outdates(each, crl) for each in own)
    return is_older or crl.this_update > latest or omission(crl, left_out) is not None


def _was_in_force(crl: Crl, latest: float) -> bool:
    return crl.this_update <= latest and not crl.unusable


def _newest(pairs: Sequence[Pair], among: Sequence[Crl] | None = None) -> list[Pair]:
    """Leave out each CRL of which a newer one is there, or is `among` these."""
    alike: dict[str, list[Crl]] = {}
    for crl in crls_of(pairs) if among is None else among:
        alike.setdefault(crl.key, []).append(crl)
    return [
        pair
        for pair in pairs
        if not any(outdates(newer, pair[0]) for newer in alike.get(pair[0].key, ()))
    ]


def _is_in(crl: Crl, crls: Sequence[Crl]) -> bool:
    return any(crl is each for each in crls)

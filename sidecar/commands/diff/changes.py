"""Compare two policies: each location asked for by its name, and how locations are chosen."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from sidecar.core.policy.model import Location, Trust
from sidecar.core.policy.spec import TrustSpec

from ..asking import PolicyFile
from .choice import Chosen, choices
from .compare import Comparison, Pair, Shared, compare
from .example import Question
from .languages import OVER as VALUES

OVER = (
    f"certificates with any number of values of each kind ({VALUES}), requests of any method, "
    "address, host and moment. CRLs, OCSP, roles and unreadable certificates are not compared"
)
"""What a statement that there is no difference is about."""


@dataclass(frozen=True, slots=True)
class ByUri:
    """A host and URI for which another location is chosen, and who gains and loses by it."""

    chosen: Chosen
    comparison: Comparison


@dataclass(slots=True)
class Changes:
    """What the change means."""

    locations: dict[str, Comparison] = field(default_factory=dict)
    by_uri: list[ByUri] = field(default_factory=list)
    by_uri_exact: bool = True
    notes: list[str] = field(default_factory=list)
    trusts_differ: bool = False

    @property
    def differ(self) -> bool:
        """Whether anybody gains or loses, or an authority's certificates are others."""
        compared = [*self.locations.values(), *(each.comparison for each in self.by_uri)]
        return self.trusts_differ or any(each.differs for each in compared)


def changes(old: PolicyFile, new: PolicyFile, now: float) -> Changes:
    """Compare the policies; `now` is the moment of examples to which the moment doesn't matter."""
    result, shared = Changes(), Shared(now)
    doubts = {name: list(_trust_doubts(old, new, name)) for name in _both(old, new)}
    for name in dict.fromkeys((*old.policy.locations, *new.policy.locations)):
        before, after = (name if name in file.policy.locations else None for file in (old, new))
        pair = Pair(old, new, before, after, Question(name))
        result.locations[name] = _compared(pair, doubts, result, shared)
        result.notes += _notes(old, new, name)
    chosen = choices(old, new)
    result.by_uri_exact = chosen.exact
    for each in chosen.found:
        pair = Pair(old, new, each.old, each.new, Question("", each.host, each.uri))
        result.by_uri.append(ByUri(each, _compared(pair, doubts, result, shared)))
    return result


def _both(old: PolicyFile, new: PolicyFile) -> list[str]:
    return [name for name in old.policy.trusts if name in new.policy.trusts]


def _compared(
    pair: Pair,
    doubts: dict[str, list[str]],
    result: Changes,
    shared: Shared,
) -> Comparison:
    found = compare(pair, shared)
    here = [
        file.policy.locations.get(name or "")
        for file, name in ((pair.old, pair.old_name), (pair.new, pair.new_name))
    ]
    used = {trust.name for each in here if each for trust in each.trusts}
    mine = [doubt for name in sorted(used) for doubt in doubts.get(name, ())]
    asked = [each for each in here if each and not each.public]
    if mine and asked:
        found.doubts += mine
        result.trusts_differ |= any("certificates of its ca" in doubt for doubt in mine)
    return found


def _trust_doubts(old: PolicyFile, new: PolicyFile, name: str) -> Iterator[str]:
    """What is said otherwise of a trust, and isn't compared."""
    before, after = old.policy.trusts[name], new.policy.trusts[name]
    if set(before.anchors.der) != set(after.anchors.der):
        yield (
            f"trust {name}: the certificates of its ca or intermediates differ; a certificate is "
            "taken to be issued under both"
        )
    if _revocation(before, old.spec.trust[name]) != _revocation(after, new.spec.trust[name]):
        yield f"trust {name}: crl, ocsp, revocation or chain differ, and are not compared"


def _revocation(trust: Trust, spec: TrustSpec) -> tuple[object, ...]:
    places = tuple(place.text for place in spec.crl)
    times = (spec.clock_tolerance, spec.crl_grace)
    return (trust.revocation, trust.chain_all, trust.ocsp, places, times)


_BESIDE = ("cache_seconds", "forward_cert")
"""What a location says that has no part in a decision."""


def _notes(old: PolicyFile, new: PolicyFile, name: str) -> Iterator[str]:
    before: Location | None = old.policy.locations.get(name)
    after: Location | None = new.policy.locations.get(name)
    if before is None or after is None:
        return
    for key in _BESIDE:
        was, now = getattr(before, key), getattr(after, key)
        if was != now:
            yield f"{name}: {key} {_word(was)}, now {_word(now)}: it changes no decision"
    if before.monitor != after.monitor:
        modes = ["monitor" if each.monitor else "enforce" for each in (before, after)]
        yield f"{name}: mode {modes[0]}, now {modes[1]}"


def _word(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)

"""Changes of the keys that count, before they are signed."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from sidecar.core.fleet.chain import MAX_KEYS
from sidecar.core.fleet.keys import PublicKey


def changed_keys(
    keys: Mapping[str, PublicKey], add: Iterable[PublicKey], remove: Collection[str]
) -> dict[str, PublicKey]:
    """The keys after a change.  Raises ValueError for one that nodes would refuse, or that says
    nothing: a mistyped key would go on counting."""
    for name in remove:
        if name not in keys:
            raise ValueError(
                f"no key with the id {name[:80]!r} counts", "see `mtls-sidecar fleet keys`"
            )
    left = {name: key for name, key in keys.items() if name not in set(remove)}
    for key in add:
        if left.get(key.id) == key:
            raise ValueError(f"the key {key} counts already", "see `mtls-sidecar fleet keys`")
        left[key.id] = key
    if all(key.heads_only for key in left.values()):
        raise ValueError("no key would be left that signs releases", "add the new one first")
    if len(left) > MAX_KEYS:
        raise ValueError(f"there would be more than {MAX_KEYS} keys", "remove one first")
    return left

"""Determine, for `/readyz`, whether any client can be allowed."""

from __future__ import annotations

from sidecar.core.policy.model import Location, Policy, Trust

MAX_NAMED = 10
"""Maximum number of locations named in one message."""


def shut_out(policy: Policy, now: float) -> tuple[str, str]:
    """Explain why every location denies everybody, and name the trusts; "" if one doesn't."""
    shut = {name: why for name, trust in policy.trusts.items() if (why := _why_shut(trust, now))}
    if not shut:
        return "", ""
    asking = [each.trusts for each in policy.locations.values() if _asks(each)]
    lists = {id(trusts): trusts for trusts in asking}.values()  # many locations share one
    told = "; ".join(f"trust {name}: {why}" for name, why in shut.items())
    if asking and all(trust.name in shut for trusts in lists for trust in trusts):
        return told, ""
    return "", told


def locked_out(policy: Policy, now: float) -> dict[str, str]:
    """Return each trust whose clients are all denied, with the reason and the locations."""
    shut = {name: why for name, trust in policy.trusts.items() if (why := _why_shut(trust, now))}
    if not shut:
        return {}
    asking: dict[int, list[Location]] = {}  # by their list of trusts, which many share
    for location in policy.locations.values():
        if _asks(location):
            asking.setdefault(id(location.trusts), []).append(location)
    numbers = {name: number for number, name in enumerate(policy.locations)}
    found: dict[str, list[str]] = {name: [] for name in shut}
    for several in asking.values():
        for name in {trust.name for trust in several[0].trusts} & shut.keys():
            found[name] += [each.name for each in several[: MAX_NAMED + 1]]
    return {
        name: f"{why}: {_effect(sorted(found[name], key=numbers.__getitem__))}"
        for name, why in shut.items()
    }


def _effect(named: list[str]) -> str:
    shown = ", ".join(named[:MAX_NAMED]) + (", …" if len(named) > MAX_NAMED else "")
    return f"everyone whom it certified is denied at {shown or 'no location'}"


def _asks(location: Location) -> bool:
    """Return whether a location requires a certificate of a trust."""
    return bool(location.trusts) and not location.public and not location.monitor


def _why_shut(trust: Trust, now: float) -> str:
    """Explain why revocation denies all clients of a trust; "" if it doesn't."""
    if trust.unread:
        return f"what was in force before is still being read ({', '.join(trust.unread)})"
    if trust.revocation != "required" or trust.ocsp:
        return ""
    if trust.crls is None:
        return "revocation is required, and neither a crl nor ocsp is named"
    why = trust.crls.why_unfit(now)
    missing = f"not fetched yet: {', '.join(trust.missing)}" if trust.missing else ""
    told = ", ".join(filter(None, (why, missing)))
    return f"no CRL is in force ({told}), and revocation is required" if why else ""

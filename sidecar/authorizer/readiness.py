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
    asking = [each for each in policy.locations.values() if _asks(each)]
    told = "; ".join(f"trust {name}: {why}" for name, why in shut.items())
    if asking and all(trust.name in shut for each in asking for trust in each.trusts):
        return told, ""
    return "", told


def locked_out(policy: Policy, now: float) -> dict[str, str]:
    """Return each trust whose clients are all denied, with the reason and the locations."""
    shut = {name: why for name, trust in policy.trusts.items() if (why := _why_shut(trust, now))}
    return {name: f"{why}: {_effect(policy, name)}" for name, why in shut.items()}


def _effect(policy: Policy, trust: str) -> str:
    named = [
        location.name
        for location in policy.locations.values()
        if _asks(location) and any(each.name == trust for each in location.trusts)
    ]
    shown = ", ".join(named[:MAX_NAMED]) + (", …" if len(named) > MAX_NAMED else "")
    return f"everyone whom it certified is denied at {shown or 'no location'}"


def _asks(location: Location) -> bool:
    """Return whether a location requires a certificate of a trust."""
    return bool(location.trusts) and not location.public and not location.monitor


def _why_shut(trust: Trust, now: float) -> str:
    """Explain why revocation denies all clients of a trust; "" if it doesn't."""
    if trust.revocation != "required" or trust.ocsp:
        return ""
    if trust.crls is None:
        return "revocation is required, and neither a crl nor ocsp is named"
    why = trust.crls.why_unfit(now)
    missing = f"not fetched yet: {', '.join(trust.missing)}" if trust.missing else ""
    told = ", ".join(filter(None, (why, missing)))
    return f"no CRL is in force ({told}), and revocation is required" if why else ""

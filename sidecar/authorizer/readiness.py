"""Find out, for `/readyz`, whether anybody can be let in at all."""

from __future__ import annotations

from sidecar.core.policy.model import Location, Policy, Trust

MAX_NAMED = 10
"""Most locations that are named in one message."""


def shut_out(policy: Policy, now: float) -> tuple[str, str]:
    """Say why every location denies everybody, and which trusts do; empty if none does."""
    shut = {name: why for name, trust in policy.trusts.items() if (why := _why_shut(trust, now))}
    if not shut:
        return "", ""
    asking = [each for each in policy.locations.values() if _asks(each)]
    told = "; ".join(f"trust {name}: {why}" for name, why in shut.items())
    if asking and all(trust.name in shut for each in asking for trust in each.trusts):
        return told, ""
    return "", told


def locked_out(policy: Policy, now: float) -> dict[str, str]:
    """Each trust whose clients are all denied, with why and at which locations."""
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
    """Whether a location lets in nobody without a certificate of a trust."""
    return bool(location.trusts) and not location.public and not location.monitor


def _why_shut(trust: Trust, now: float) -> str:
    """Why revocation lets nobody of a trust in; empty where it lets somebody in."""
    if trust.revocation != "required" or trust.ocsp:
        return ""
    if trust.crls is None:
        return "revocation is required, and neither a crl nor ocsp is named"
    why = trust.crls.why_unfit(now)
    missing = f"not fetched yet: {', '.join(trust.missing)}" if trust.missing else ""
    told = ", ".join(filter(None, (why, missing)))
    return f"no CRL is in force ({told}), and revocation is required" if why else ""

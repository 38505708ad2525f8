"""Choose the denylists for a revocation, so that it reaches every trust concerned."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sidecar.core.policy.spec import PolicySpec, TrustSpec
from sidecar.core.x509.bundle import read_bundle
from sidecar.core.x509.certificate import ClientCert
from sidecar.core.x509.der import comparable_name
from sidecar.runtime.files import MAX_POLICY, read_file


@dataclass(frozen=True, slots=True)
class ListedTrust:
    """A trust of the policy, its denylists, and whether it may contain the target's issuer."""

    name: str
    denylists: tuple[Path, ...]
    concerned: bool = True


def trusts_of(spec: PolicySpec, base: Path, cert: ClientCert | None) -> list[ListedTrust]:
    """Return every trust of a policy; `concerned` are those that may accept the certificate."""
    knows = {name: cert is None or _knows(t, base, cert) for name, t in spec.trust.items()}
    nobody = not any(knows.values())  # perhaps issued by an intermediate that isn't in a file
    return [
        ListedTrust(name, tuple(base / each.text for each in t.denylist), nobody or knows[name])
        for name, t in spec.trust.items()
    ]


def _knows(trust: TrustSpec, base: Path, cert: ClientCert) -> bool:
    """Return whether one of the trust's authorities has the issuer's name, or is this certificate.

    Returns True, to be safe, if a file of authorities can't be read.
    """
    for place in (*trust.ca, *trust.intermediates):
        try:
            authorities = read_bundle(read_file(base / place.text, MAX_POLICY))
            issuer = comparable_name(cert.issuer_name)
            for each in authorities:
                if each.sha256 == cert.sha256 or comparable_name(each.subject_name) == issuer:
                    return True
        except (OSError, ValueError):
            return True
    return False


def choose(trusts: list[ListedTrust], named: str | None) -> list[ListedTrust]:
    """Return the trusts to revoke in: the one that is named, or all that have a denylist.

    Raises ValueError if a trust concerned has no denylist, since the target could still be allowed.
    """
    if named is not None:
        found = [each for each in trusts if each.name == named]
        if not found:
            there = ", ".join(each.name for each in trusts) or "none"
            raise ValueError(f"the policy has no trust {named!r}; it has: {there}")
        trusts = found
    if not trusts:
        raise ValueError(
            "the policy has no trust, and a denylist belongs to one; write: "
            "trust: {clients: {ca: ca.crt, denylist: denylist.txt}}"
        )
    chosen = [each for each in trusts if each.denylists]
    lacking = [each.name for each in trusts if not each.denylists and (named or each.concerned)]
    if lacking:
        others = ", ".join(f"--trust {each.name}" for each in chosen)
        raise ValueError(
            f"trust {', '.join(map(repr, lacking))} has no denylist, so nobody can be denied in "
            "it: add `denylist: denylist.txt` to it in the policy"
            + (f", or say {others} to revoke only there" if others else "")
        )
    return chosen


def only_file(trusts: list[ListedTrust], path: Path) -> Iterator[ListedTrust]:
    """Yield the trusts that name a file as a denylist, with that file alone."""
    for each in trusts:
        if any(one.resolve() == path.resolve() for one in each.denylists):
            yield ListedTrust(each.name, (path,))

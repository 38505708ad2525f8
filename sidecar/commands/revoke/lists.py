"""Choose the denylists for a revocation, so that it reaches every trust concerned."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from sidecar.core.policy.spec import PolicySpec, TrustSpec
from sidecar.core.x509.bundle import read_bundle
from sidecar.core.x509.certificate import ClientCert
from sidecar.core.x509.der import comparable_name
from sidecar.core.x509.equivalent_keys import equivalent_keys
from sidecar.core.x509.keys import UnusableKey, public_key
from sidecar.core.x509.signature import is_signed_by
from sidecar.runtime.files import MAX_POLICY, read_file

from .target import Target


@dataclass(frozen=True, slots=True)
class ListedTrust:
    """A trust of the policy, its denylists, and whether it may contain the target's issuer.

    `remains` says who below an authority is not denied by its line; "" if there is nobody.
    `told_by`: the user whose process has named the denylists, or 0 if the policy did.
    """

    name: str
    denylists: tuple[Path, ...]
    concerned: bool = True
    remains: str = ""
    told_by: int = 0


def trusts_of(spec: PolicySpec, base: Path, target: Target) -> list[ListedTrust]:
    """Return every trust of a policy; `concerned` are those that may accept the target."""
    certs = {name: _authorities(trust, base) for name, trust in spec.trust.items()}
    knows = {name: _knows(found, target.cert) for name, found in certs.items()}
    nobody = not any(knows.values())  # perhaps issued by an intermediate that isn't in a file
    return [
        ListedTrust(
            name,
            tuple(base / each.text for each in trust.denylist),
            nobody or knows[name],
            _remaining(certs[name] or [], target),
        )
        for name, trust in spec.trust.items()
    ]


def _authorities(trust: TrustSpec, base: Path) -> list[ClientCert] | None:
    """Return the authorities of a trust's files; None if one of them can't be read."""
    found: list[ClientCert] = []
    try:
        for place in (*trust.ca, *trust.intermediates):
            found += read_bundle(read_file(base / place.text, MAX_POLICY))
    except (OSError, ValueError):
        return None
    return found


def _knows(authorities: list[ClientCert] | None, cert: ClientCert | None) -> bool:
    """Return whether one of these has a certificate's issuer's name, or is this certificate.

    To be safe, it is true if that can't be told.
    """
    if cert is None or authorities is None:
        return True
    return any(each.sha256 == cert.sha256 or _is_issuer(each, cert) for each in authorities)


def _is_issuer(authority: ClientCert, cert: ClientCert) -> bool:
    try:
        return comparable_name(authority.subject_name) == comparable_name(cert.issuer_name)
    except ValueError:
        return True


def _remaining(authorities: list[ClientCert], target: Target) -> str:
    """Explain who below an authority is not denied, as the trust's files don't have it."""
    cert = target.cert
    if cert is None or any(each.sha256 == cert.sha256 for each in authorities):
        return ""
    keys = {cert.spki_sha256, *equivalent_keys(cert)}
    if any(each.spki_sha256 in keys for each in authorities):
        if target.kind == "spki_sha256":
            return ""
        return "has another certificate of that key, with which clients go on: say --key, too"
    try:
        key: object = public_key(cert.spki)
    except UnusableKey:
        key = None
    for each in authorities:
        signed = key is None or is_signed_by(key, each.signed, each.algorithm, each)
        if _is_issuer(cert, each) and signed:
            return (
                f"has {each.dn[:200]} below it, but not this authority itself, and clients of that "
                "one go on: revoke that one, or add this certificate to the trust's intermediates"
            )
    return ""


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
            yield replace(each, denylists=(path,))

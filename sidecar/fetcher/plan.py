"""What the fetcher is to bring, read from the policy.

Addresses come from the policy only: none is ever taken out of a certificate.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509

from sidecar.core.errors import Diagnostic, PolicyError
from sidecar.core.policy.spec import TrustSpec, is_address, read_policy
from sidecar.core.x509.bundle import read_bundle
from sidecar.runtime.files import MAX_POLICY, Signature, read_file, signature


@dataclass(frozen=True, slots=True)
class CrlSource:
    """One CRL to bring; `authorities`: DER of those of the trust, whose signatures count."""

    trust: str
    url: str
    authorities: tuple[bytes, ...] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Responder:
    """Where certificates of one trust are asked about, and under which issuers (by SHA-256)."""

    trust: str
    url: str
    issuers: Mapping[str, x509.Certificate] = field(repr=False)
    tolerance: float = 300.0


@dataclass(frozen=True, slots=True)
class FetchPlan:
    """All that the policy names for the fetcher."""

    crls: tuple[CrlSource, ...] = ()
    responders: Mapping[str, Responder] = field(default_factory=dict)


def fingerprint(der: bytes) -> str:
    """SHA-256 of a certificate, lower-case hex."""
    return hashlib.sha256(der).hexdigest()


@dataclass(slots=True)
class PlanReader:
    """Reads plans, and knows by `seen` how each file looked before it was read."""

    policy: Path
    trusted_only: bool = False
    seen: dict[Path, Signature | None] = field(default_factory=dict)

    def read(self) -> FetchPlan:
        """The policy's form and the authorities that it names.  Raises `PolicyError`, `OSError`.

        Rules and locations are not looked into beyond their form: a policy that `serve` refuses
        for them may still name the right CRLs.  With `trusted_only` files that others may write
        are refused.
        """
        self.seen.clear()
        spec = read_policy(self._take(self.policy), str(self.policy))
        crls: list[CrlSource] = []
        responders: dict[str, Responder] = {}
        for name, trust in spec.trust.items():
            urls = [crl.text for crl in trust.crl if is_address(crl.text)]
            if urls or trust.ocsp:
                authorities = self._authorities(trust)
                crls += [CrlSource(name, url, authorities) for url in dict.fromkeys(urls)]
            if trust.ocsp:
                responders[name] = _responder(name, trust, authorities)
        return FetchPlan(tuple(crls), responders)

    def changed(self) -> bool:
        """Whether a file that was read, or could not be, looks otherwise now."""
        return any(signature(path) != seen for path, seen in self.seen.items())

    def _take(self, path: Path) -> bytes:
        self.seen[path] = signature(path)
        return read_file(path, MAX_POLICY, trusted_only=self.trusted_only)

    def _authorities(self, trust: TrustSpec) -> tuple[bytes, ...]:
        """The DER of every authority of a trust."""
        found: list[bytes] = []
        for place in (*trust.ca, *trust.intermediates):
            path = self.policy.parent / place.text
            try:
                found += (cert.der for cert in read_bundle(self._take(path)))
            except ValueError as error:
                raise PolicyError([Diagnostic(str(path), 0, 0, str(error.args[0]))]) from None
        return tuple(dict.fromkeys(found))


def _responder(name: str, trust: TrustSpec, authorities: Iterable[bytes]) -> Responder:
    issuers = {}
    for der in authorities:
        with suppress(ValueError):  # of one that `cryptography` can't read nothing is asked
            issuers[fingerprint(der)] = x509.load_der_x509_certificate(der)
    return Responder(name, trust.ocsp, issuers, float(trust.clock_tolerance))

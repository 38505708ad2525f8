"""What the fetcher is to bring, read from the policy; and where it puts it.

Addresses come from the policy only: none is ever taken out of a certificate.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509

from sidecar.core.errors import Diagnostic, PolicyError
from sidecar.core.policy import read_bundle
from sidecar.core.spec import TrustSpec, is_address, read_policy

MAX_POLICY = 16 * 1024 * 1024
"""Longest policy and longest file of authorities that is read, in bytes."""


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
    """All that the policy names, and the files it was read from."""

    crls: tuple[CrlSource, ...] = ()
    responders: Mapping[str, Responder] = field(default_factory=dict)
    files: tuple[Path, ...] = ()


def crl_state_path(state_dir: Path, trust: str, url: str) -> Path:
    """The file in which the CRL of `trust` from `url` stands: the fetcher writes it, `serve` reads.

    `STATE_DIR/crl/<SHA-256 of the trust's name, a line feed and the address>.crl`.
    """
    digest = hashlib.sha256(f"{trust}\n{url}".encode()).hexdigest()
    return state_dir / "crl" / f"{digest}.crl"


def fingerprint(der: bytes) -> str:
    """SHA-256 of a certificate, lower-case hex."""
    return hashlib.sha256(der).hexdigest()


def read_plan(policy: Path) -> FetchPlan:
    """Read the policy's form and the authorities that it names.  Raises `PolicyError`, `OSError`.

    Rules and locations are not looked into beyond their form: a policy that `serve` refuses for
    them may still name the right CRLs.
    """
    spec = read_policy(_read(policy), str(policy))
    crls: list[CrlSource] = []
    responders: dict[str, Responder] = {}
    files = [policy]
    for name, trust in spec.trust.items():
        urls = [crl.text for crl in trust.crl if is_address(crl.text)]
        if not urls and not trust.ocsp:
            continue
        paths = [policy.parent / place.text for place in (*trust.ca, *trust.intermediates)]
        authorities = _authorities(paths)
        files += paths
        crls += [CrlSource(name, url, authorities) for url in dict.fromkeys(urls)]
        if trust.ocsp:
            responders[name] = _responder(name, trust, authorities)
    return FetchPlan(tuple(crls), responders, tuple(files))


def _responder(name: str, trust: TrustSpec, authorities: Iterable[bytes]) -> Responder:
    issuers = {fingerprint(der): x509.load_der_x509_certificate(der) for der in authorities}
    return Responder(name, trust.ocsp, issuers, float(trust.clock_tolerance))


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        data = file.read(MAX_POLICY + 1)
    if len(data) > MAX_POLICY:
        raise PolicyError([Diagnostic(str(path), 0, 0, f"longer than {MAX_POLICY} bytes")])
    return data


def _authorities(paths: Iterable[Path]) -> tuple[bytes, ...]:
    """The DER of every certificate in these files."""
    found: list[bytes] = []
    for path in paths:
        try:
            found += (cert.der for cert in read_bundle(_read(path)))
        except ValueError as error:
            raise PolicyError([Diagnostic(str(path), 0, 0, str(error.args[0]))]) from None
    return tuple(dict.fromkeys(found))

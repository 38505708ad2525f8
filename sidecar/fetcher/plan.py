"""Read the addresses that the fetcher downloads from the policy.

Addresses come only from the policy, never from a certificate.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from sidecar.core.config.crl_place import is_address
from sidecar.core.errors import Diagnostic, brief
from sidecar.core.policy.spec import TrustSpec, read_policy
from sidecar.core.x509.bundle import read_bundle
from sidecar.core.x509.certificate import ClientCert, from_der
from sidecar.runtime.files import (
    MAX_POLICY,
    FileVersion,
    file_version,
    may_pass,
    read_file,
    rename_broken,
    write_file,
)

AGAIN_SECONDS = 5.0
"""Seconds until a file that can't be read for now is read again."""


@dataclass(frozen=True, slots=True)
class CrlSource:
    """One CRL to download.  `authorities`: DER of the trust's authorities, its possible signers."""

    trust: str
    url: str
    authorities: tuple[bytes, ...] = field(repr=False)

    @property
    def server(self) -> str:
        """Return host and port, as they are in the address."""
        return self.url.split("/")[2].rpartition("@")[2].lower()


@dataclass(frozen=True, slots=True)
class Responder:
    """The OCSP responder of one trust, and the trust's issuers by SHA-256."""

    trust: str
    url: str
    issuers: Mapping[str, ClientCert] = field(repr=False)
    tolerance: float = 300.0


@dataclass(frozen=True, slots=True)
class FetchPlan:
    """The CRL sources and OCSP responders that the policy names."""

    crls: tuple[CrlSource, ...] = ()
    responders: Mapping[str, Responder] = field(default_factory=dict)
    authorities: Mapping[str, tuple[bytes, ...]] = field(default_factory=dict, repr=False)


NOTHING = FetchPlan()


def fingerprint(der: bytes) -> str:
    """Return the SHA-256 of a certificate, lower-case hex."""
    return hashlib.sha256(der).hexdigest()


@dataclass(slots=True)
class PlanReader:
    """Read plans.  `seen` holds the version of each file before it was read.

    `again`: the moment (monotonic) of the next attempt after an error that may pass.
    """

    policy: Path
    trusted_only: bool = False
    seen: dict[Path, FileVersion | None] = field(default_factory=dict)
    mistakes: list[Diagnostic] = field(default_factory=list)
    again: float = math.inf
    _bundles: dict[Path, list[bytes] | None] = field(default_factory=dict)

    def read(self, last: FetchPlan = NOTHING) -> FetchPlan:
        """Read the policy and its files of authorities.  Raises `PolicyError` and `OSError`.

        Only the form of rules and locations is checked: a policy that `serve` refuses may still
        name the right CRLs.  A trust whose authorities can't be read keeps those of the `last`
        plan, or is left out; `mistakes` say why.  With `trusted_only`, files that other users can
        write are refused.
        """
        self.seen.clear()
        self._bundles.clear()
        self.mistakes, self.again = [], math.inf
        spec = read_policy(self._take(self.policy), str(self.policy))
        crls: list[CrlSource] = []
        responders: dict[str, Responder] = {}
        known: dict[str, tuple[bytes, ...]] = {}
        for name, trust in spec.trust.items():
            urls = [crl.text for crl in trust.crl if is_address(crl.text)]
            if not urls and not trust.ocsp:
                continue
            authorities = self._authorities(trust) or last.authorities.get(name)
            if authorities is None:
                continue
            known[name] = authorities
            crls += [CrlSource(name, url, authorities) for url in dict.fromkeys(urls)]
            if trust.ocsp:
                tolerance = float(trust.clock_tolerance)
                responders[name] = _responder(name, trust.ocsp, tolerance, authorities)
        return FetchPlan(tuple(crls), responders, known)

    def changed(self) -> bool:
        """Return whether a file has changed since it was read, or is to be read again."""
        moved = any(file_version(path) != seen for path, seen in self.seen.items())
        return moved or time.monotonic() >= self.again

    def _take(self, path: Path) -> bytes:
        self.seen[path] = file_version(path)
        try:
            return read_file(path, MAX_POLICY, trusted_only=self.trusted_only)
        except (OSError, MemoryError) as error:
            if may_pass(error):
                self.again = time.monotonic() + AGAIN_SECONDS
            raise

    def _authorities(self, trust: TrustSpec) -> tuple[bytes, ...] | None:
        """Return the DER of every authority of a trust; None where a file can't be used."""
        found: list[bytes] = []
        whole = True
        for place in (*trust.ca, *trust.intermediates):
            path = self.policy.parent / place.text
            if path not in self._bundles:
                self._bundles[path] = self._bundle(path)
            bundle = self._bundles[path]
            whole = whole and bundle is not None
            found += bundle or ()
        return tuple(dict.fromkeys(found)) if whole else None

    def _bundle(self, path: Path) -> list[bytes] | None:
        """Return the DER of each certificate of a file, which many trusts may name."""
        try:
            return [cert.der for cert in read_bundle(self._take(path))]
        except Exception as error:  # noqa: BLE001 - whatever a file's content raises
            why = getattr(error, "strerror", None) or brief(error)
            self.mistakes.append(Diagnostic(str(path), 0, 0, str(why)))
            return None


def _responder(name: str, url: str, tolerance: float, authorities: Iterable[bytes]) -> Responder:
    issuers = {}
    for der in authorities:
        with suppress(ValueError):  # a certificate that can't be parsed is never an issuer
            issuers[fingerprint(der)] = from_der(der)
    return Responder(name, url, issuers, tolerance)


# -- the plan kept in the state directory

MOST_OCTETS = 64 * 1024 * 1024


def plan_path(state_dir: Path) -> Path:
    """Return the path of the last valid plan, which is used if the policy is invalid at a start."""
    return state_dir / "crl" / "plan.json"


def save_plan(path: Path, plan: FetchPlan) -> None:
    """Write a plan to a file.  Raises OSError."""
    held = {
        "authorities": {
            name: [base64.b64encode(der).decode() for der in ders]
            for name, ders in plan.authorities.items()
        },
        "crls": [[source.trust, source.url] for source in plan.crls],
        "responders": [[r.trust, r.url, r.tolerance] for r in plan.responders.values()],
    }
    if path.is_dir() and not path.is_symlink():
        rename_broken(path)
    write_file(path, json.dumps(held).encode())  # for this user alone: addresses hold passwords


def kept_plan(path: Path) -> FetchPlan | None:
    """Read the plan that `save_plan` wrote; return None if there is no valid one."""
    try:
        held = json.loads(read_file(path, MOST_OCTETS))
        authorities = {
            str(name): tuple(base64.b64decode(text, validate=True) for text in texts)
            for name, texts in held["authorities"].items()
        }
        crls = [CrlSource(name, url, authorities[name]) for name, url in held["crls"]]
        responders = [
            _responder(name, url, float(tolerance), authorities[name])
            for name, url, tolerance in held["responders"]
        ]
        urls = [source.url for source in crls] + [each.url for each in responders]
        if not all(url.startswith(("http://", "https://")) for url in urls):
            return None
    except Exception:  # noqa: BLE001 - an invalid file may raise any class; it equals no file
        return None
    return FetchPlan(tuple(crls), {each.trust: each for each in responders}, authorities)

"""NIST PKITS (2011), from the package `cryptography_vectors`: the files, and all as one trust."""

from __future__ import annotations

import importlib.resources
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from importlib.resources.abc import Traversable
from urllib.parse import quote_from_bytes

from der import pem

from sidecar.core.errors import MalformedCertificate
from sidecar.core.policy.compile import compile_policy
from sidecar.core.policy.model import Policy
from sidecar.core.revocation.crl.index import Crl, CrlError, read_crl
from sidecar.core.revocation.denylist import Denylist
from sidecar.core.x509.bundle import Bundle
from sidecar.core.x509.certificate import ClientCert, from_der
from sidecar.core.x509.path_building import Anchors

NOW = datetime(2015, 1, 1, tzinfo=UTC).timestamp()
DATA = importlib.resources.files("cryptography_vectors") / "x509" / "PKITS_data"
ANCHOR = "TrustAnchorRootCertificate.crt"

REFUSED = {
    "BadCRLIssuerNameCACRL.crl": "is not an authority of this trust",
    "BadCRLSignatureCACRL.crl": "the signature isn't whole octets",
    "BadSignedCACRL.crl": "is not an authority of this trust",
    "DSACACRL.crl": "signed with sha1",
    "DSAParametersInheritedCACRL.crl": "signed with sha1",
    "TwoCRLsCABadCRL.crl": "is not an authority of this trust",
    "keyUsageCriticalcRLSignFalseCACRL.crl": "lacks cRLSign",
    "keyUsageNotCriticalcRLSignFalseCACRL.crl": "lacks cRLSign",
}
"""CRLs that can't be read into the trust, and what is said about them."""


def files(kind: str) -> list[Traversable]:
    return sorted((DATA / kind).iterdir(), key=lambda each: each.name)


def ends(verdict: str) -> list[str]:
    found = [each.name for each in files("certs") if each.name.endswith("EE.crt")]
    return [name for name in found if name.startswith(verdict)]


def cert(name: str) -> ClientCert:
    return from_der((DATA / "certs" / name).read_bytes())


@dataclass(frozen=True)
class Suite:
    """The suite as one trust."""

    anchors: Anchors
    crls: tuple[Crl, ...]
    refused: dict[str, str]
    intermediates: tuple[ClientCert, ...]


@cache
def suite() -> Suite:
    intermediates = []
    for each in files("certs"):
        if not each.name.endswith("EE.crt") and each.name != ANCHOR:
            try:
                intermediates.append(cert(each.name))
            except MalformedCertificate:
                assert each.name == "BadSignedCACert.crt"  # its signature isn't whole octets
    anchors = Anchors([cert(ANCHOR)], intermediates)
    crls, refused = [], {}
    for each in files("crls"):
        try:
            crls.append(read_crl(each.read_bytes(), each.name, anchors.der))
        except CrlError as error:
            refused[each.name] = str(error)
    return Suite(anchors, tuple(crls), refused, tuple(intermediates))


class Sources:
    """The suite's files as those of a policy."""

    def certificates(self, path: str) -> Bundle:
        return Bundle((cert(ANCHOR),) if path == "anchor" else suite().intermediates)

    def denylist(self, path: str) -> Denylist:
        raise FileNotFoundError(path)

    def crls(
        self, place: str, trust: str, authorities: tuple[bytes, ...]
    ) -> tuple[Crl, ...] | None:
        return (read_crl((DATA / "crls" / place).read_bytes(), place, authorities),)

    def revoking(self, place: str, trust: str, authorities: tuple[bytes, ...]) -> tuple[Crl, ...]:
        return ()


CRLS = ", ".join(each.name for each in files("crls") if each.name not in REFUSED)

REVOCATION = f"crl: [{CRLS}], chain: all, revocation: required"


def policy(trust: str) -> Policy:
    """One location for whoever verifies; `trust` says how, besides the certificates."""
    text = f"""
version: 1
trust:
  pkits: {{ca: anchor, intermediates: [intermediates], {trust}}}
locations:
  - {{name: site, allow: verified}}
"""
    return compile_policy(text.encode(), "policy.yaml", Sources())


def escaped(name: str) -> bytes:
    """An end entity as nginx's `$ssl_client_escaped_cert`."""
    der = (DATA / "certs" / name).read_bytes()
    return quote_from_bytes(pem("CERTIFICATE", der), safe="").encode()

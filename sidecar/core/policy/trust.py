"""Build a trust of the policy from the content of its files, and report mistakes in them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from sidecar.core.config.crl_place import shown
from sidecar.core.config.schema import Located
from sidecar.core.config.yaml_tree import Node
from sidecar.core.errors import Diagnostic, brief
from sidecar.core.policy.model import Trust
from sidecar.core.revocation.crl.index import Crl, CrlIndex
from sidecar.core.revocation.denylist import Denylist
from sidecar.core.x509.bundle import Bundle
from sidecar.core.x509.certificate import ClientCert
from sidecar.core.x509.path_building import Anchors, issuer_remarks

from .spec import TrustSpec

NO_BUNDLES: Mapping[str, Iterable[ClientCert]] = {}


def build_trust(
    name: str,
    spec: TrustSpec,
    anchors: Anchors,
    *,
    denylists: Sequence[Denylist] = (),
    crls: Sequence[Crl] = (),
    revoking: Sequence[Crl] = (),
    missing: Sequence[str] = (),
    unread: Sequence[str] = (),
    bundles: Mapping[str, Iterable[ClientCert]] = NO_BUNDLES,
) -> Trust:
    """Build a trust from the content of its files; `bundles` has the authorities by file."""
    whole = spec.chain == "all"
    index = CrlIndex(
        crls, spec.clock_tolerance, spec.crl_grace, whole_chain=whole, revoking=revoking
    )
    return Trust(
        name=name,
        anchors=anchors,
        sidecar_verifies=spec.verify == "sidecar",
        chain_all=whole,
        revocation=_revocation(spec),
        denylists=tuple(denylists),
        crls=index if spec.crl else None,
        crl_list=tuple(crls),
        ocsp=spec.ocsp,
        clock_tolerance=spec.clock_tolerance,
        missing=tuple(missing),
        unread=tuple(unread),
        revoking=tuple(revoking),
        ca_ends=_ca_ends(anchors, bundles),
    )


def _ca_ends(
    anchors: Anchors, bundles: Mapping[str, Iterable[ClientCert]]
) -> dict[str, tuple[float, ...]]:
    """Return the ends of the authorities in force, by file."""
    used = {cert.sha256 for cert in anchors.certificates}
    found = {
        shown(place): tuple(sorted({cert.not_after for cert in certs if cert.sha256 in used}))
        for place, certs in bundles.items()
    }
    return {place: ends for place, ends in found.items() if ends}


def _revocation(spec: TrustSpec) -> str:
    return spec.revocation or ("required" if spec.crl or spec.ocsp else "off")


def trust_warning(name: str, spec: TrustSpec) -> str:
    """Describe a setting of a trust that is valid but denies everybody, or return nothing."""
    if _revocation(spec) == "required" and not spec.crl and not spec.ocsp:
        return f"trust {name!r} requires revocation but names neither crl nor ocsp: it denies all"
    return ""


def unusable_crls(file: str, spec: TrustSpec, crls: Iterable[Crl]) -> list[Diagnostic]:
    """Return a warning for each unusable CRL, which only revokes."""
    return [
        at_node(file, spec.node, f"CRL {crl.source} only revokes: {crl.unusable}")
        for crl in crls
        if crl.unusable
    ]


def bundle_remarks(file: str, place: Located, bundle: Bundle, verifies: bool) -> list[Diagnostic]:
    """Return a warning for each certificate of a file that is left out or unusable."""
    remarks = (*bundle.remarks, *(issuer_remarks(bundle) if verifies else ()))
    return [at_node(file, place.node, f"{shown(place.text)}: {remark}") for remark in remarks]


def at_node(file: str, node: Node, message: str, hint: str = "") -> Diagnostic:
    """Return a diagnostic at a node of the policy."""
    return Diagnostic(file, node.line, node.column, message, hint)


def _remedy(error: OSError, name: str) -> str:
    """Suggest a remedy for a file that can't be read."""
    if isinstance(error, PermissionError):
        return "give the service's user access to it and its directories (chgrp mtls-sidecar, g+r)"
    if isinstance(error, FileNotFoundError) and "deny" in name:
        return f"correct the path, or create an empty file: touch {name}"
    if isinstance(error, FileNotFoundError) and _WITHOUT_SCHEME.match(name):
        return "correct the path; the address of a CRL begins with http:// or https://"
    return "correct the path"


_WITHOUT_SCHEME = re.compile(r"[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)*\.[A-Za-z]{2,}(:[0-9]+)?/")
"""What begins as an address does, and is taken for a file's name."""


def file_mistake(file: str, place: Located, error: BaseException) -> Diagnostic:
    """Convert any error of a trust's file to a diagnostic where the policy names the file."""
    name = shown(place.text)
    if isinstance(error, OSError):
        why = error.strerror or str(error)
        return at_node(file, place.node, f"can't read {name!r}: {why}", _remedy(error, name))
    if isinstance(error, ValueError) and error.args:
        message, *hint = map(str, error.args)
        return at_node(file, place.node, f"{name}: {message}", "; ".join(filter(None, hint)))
    why = f"it can't be used: {type(error).__name__}: {brief(error)}"
    return at_node(file, place.node, f"{name}: {why}", "replace the file, and report this error")

"""One trust of a policy, made of what its files say; and how a mistake in such a file is told."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from sidecar.core.bounded import put_bounded
from sidecar.core.config.schema import Located
from sidecar.core.config.yaml_tree import Node
from sidecar.core.errors import Diagnostic, brief
from sidecar.core.revocation.crl.index import Crl, CrlIndex
from sidecar.core.revocation.denylist import Denylist
from sidecar.core.x509.bundle import Bundle
from sidecar.core.x509.certificate import ClientCert
from sidecar.core.x509.path_building import Anchors, Path, issuer_remarks

from .spec import TrustSpec, shown


@dataclass(frozen=True, slots=True, eq=False)
class Trust:
    """One named authority, ready to be asked.

    `crl_list` are the CRLs that count; `revoking` those that were refused, whose entries still
    revoke; `missing` the addresses that nothing was fetched from yet.
    """

    name: str
    anchors: Anchors
    sidecar_verifies: bool
    chain_all: bool
    revocation: str
    denylists: tuple[Denylist, ...]
    crls: CrlIndex | None
    crl_list: tuple[Crl, ...]
    ocsp: str
    clock_tolerance: int
    missing: tuple[str, ...] = ()
    revoking: tuple[Crl, ...] = ()
    _paths: dict[str, tuple[float, float, Path]] = field(default_factory=dict, repr=False)

    def path(self, cert: ClientCert, now: float) -> Path | None:
        """The issuers of a certificate up to an anchor of this trust, or None.

        Remembered for as long as no authority begins or ends to be valid.
        """
        known = self._paths.get(cert.sha256)
        if known is not None and known[0] <= now < known[1]:
            return known[2]
        find = self.anchors.verified_path if self.sidecar_verifies else self.anchors.issuing_path
        path = find(cert, now)
        if path is not None:
            until = self.anchors.next_change(now)
            put_bounded(self._paths, cert.sha256, (now, until, path), _REMEMBERED)
        return path


_REMEMBERED = 4096


def build_trust(
    name: str,
    spec: TrustSpec,
    anchors: Anchors,
    *,
    denylists: Sequence[Denylist] = (),
    crls: Sequence[Crl] = (),
    revoking: Sequence[Crl] = (),
    missing: Sequence[str] = (),
) -> Trust:
    """A trust of what its files say."""
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
        revoking=tuple(revoking),
    )


def _revocation(spec: TrustSpec) -> str:
    return spec.revocation or ("required" if spec.crl or spec.ocsp else "off")


def trust_warning(name: str, spec: TrustSpec) -> str:
    """What is odd about a trust though it is no mistake, or nothing."""
    if _revocation(spec) == "required" and not spec.crl and not spec.ocsp:
        return f"trust {name!r} requires revocation but names no crl and no ocsp: it denies all"
    return ""


def unusable_crls(file: str, spec: TrustSpec, crls: Iterable[Crl]) -> list[Diagnostic]:
    """A warning for each CRL that can be read and proves nothing."""
    return [
        at_node(file, spec.node, f"CRL {crl.source} is of no use: {crl.unusable}")
        for crl in crls
        if crl.unusable
    ]


def bundle_remarks(file: str, place: Located, bundle: Bundle, verifies: bool) -> list[Diagnostic]:
    """A warning for whatever a file of authorities has that is left out or useless."""
    remarks = (*bundle.remarks, *(issuer_remarks(bundle) if verifies else ()))
    return [at_node(file, place.node, f"{shown(place.text)}: {remark}") for remark in remarks]


def at_node(file: str, node: Node, message: str, hint: str = "") -> Diagnostic:
    """A diagnostic at a place of the policy."""
    return Diagnostic(file, node.line, node.column, message, hint)


def file_mistake(file: str, place: Located, error: BaseException) -> Diagnostic:
    """What is wrong with a file of a trust, told where the policy names it; whatever was raised."""
    name = shown(place.text)
    if isinstance(error, OSError):
        why = error.strerror or str(error)
        return at_node(file, place.node, f"can't read {name!r}: {why}", "correct the path")
    if isinstance(error, ValueError) and error.args:
        message, *hint = map(str, error.args)
        return at_node(file, place.node, f"{name}: {message}", "; ".join(filter(None, hint)))
    why = f"it can't be used: {type(error).__name__}: {brief(error)}"
    return at_node(file, place.node, f"{name}: {why}", "put another file there, and report this")

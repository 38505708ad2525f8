"""Check how a server verifies client certificates, and whether TLS early data can be replayed."""

from __future__ import annotations

from pathlib import Path

from cryptography import x509

from sidecar.core.policy.model import Policy
from sidecar.core.x509.pem_text import plain_pem
from sidecar.runtime.files import read_file

from .findings import Finding
from .nginx_config import Block, Root
from .rewriting import status_of
from .server import Server

MAX_BUNDLE = 8 << 20
ANCHORS = ("ssl_client_certificate", "ssl_trusted_certificate")


def verification(
    server: Block, policy: Policy | None, asked: set[str], findings: list[Finding]
) -> None:
    """Whether a server asks for certificates, and has something to verify them by."""

    def add(id: str, what: str, write: str) -> None:
        findings.append(Finding(id, server.file, server.line, what, write))

    tls = any({"ssl", "quic"} & set(listen.args) for listen in server.own("listen"))
    verify = server.value("ssl_verify_client", "off")
    if tls and verify == "off":
        add("no-verify", "ssl_verify_client is off here", "ssl_verify_client optional;")
    if verify in ("on", "optional") and not any(map(server.inherited, ANCHORS)):
        add(
            "no-ca",
            "no ssl_client_certificate holds here",
            "ssl_client_certificate /etc/nginx/pki/ca.crt;",
        )
    if verify != "optional_no_ca" or policy is None:
        return
    for name in sorted(asked):
        place = policy.locations.get(name)
        trusts = place.trusts if place is not None else tuple(policy.trusts.values())
        if not any(trust.sidecar_verifies for trust in trusts):
            add(
                "no-ca-no-trust",
                f"optional_no_ca, and no trust of {name or 'the policy'!r} verifies chains",
                "verify: sidecar   (in policy.yaml), or ssl_verify_client optional;",
            )


def early_data(server: Block, findings: list[Finding]) -> None:
    """TLS 1.3's early data can be sent again by whoever saw it (RFC 8446, 8; RFC 8470)."""
    refused = any(
        each.args[:1] == ["$ssl_early_data"]
        and any(status_of(r) >= 400 for r in each.own("return"))
        for each in server.own("if")
    )
    for each in server.inherited("ssl_early_data"):
        if each.args == ["on"] and not refused:
            what = "ssl_early_data is on where the sidecar is asked"
            write = "ssl_early_data off;   (or: if ($ssl_early_data) { return 425; })"
            findings.append(Finding("early-data", each.file, each.line, what, write))


def authorities(
    asking: list[Server], root: Root, policy: Policy | None, findings: list[Finding]
) -> None:
    """Several CAs, and a policy that doesn't tell them apart."""
    if policy is None or policy.trusts:
        return
    for server in asking:
        if server.block.value("ssl_verify_client", "off") not in ("on", "optional"):
            continue
        found = [each for name in ANCHORS for each in server.block.inherited(name)]
        names = {name for each in found for name in _topmost(each, root)}
        if len(names) > 1:
            what = f"{len(names)} CAs are taken ({'; '.join(sorted(names))}), and no trust is named"
            write = "trust: {NAME: {ca: …}}   (in policy.yaml, and in each location)"
            findings.append(Finding("several-cas", found[0].file, found[0].line, what, write))


def _topmost(directive: Block, root: Root) -> set[str]:
    """The CAs of a file that no other CA in it has issued; empty where it can't be read."""
    try:
        data = read_file(Path(root.file).parent / directive.args[0], MAX_BUNDLE)
        found = x509.load_pem_x509_certificates(plain_pem(data))
        subjects = {each.subject for each in found}
        return {
            each.subject.rfc4514_string()
            for each in found
            if each.issuer == each.subject or each.issuer not in subjects
        }
    except (OSError, ValueError):
        return set()

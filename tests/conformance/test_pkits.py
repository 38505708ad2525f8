"""NIST PKITS (2011): somebody else's verdicts on certificates, CRLs and paths.

The verdict is in each end entity's file name.  All intermediates and all CRLs of the suite are
given at once, as the files of one trust; revocation is asked of the whole chain.  Here nginx
verifies, and what it checks before (name constraints, policies, critical extensions: sections 4.8
to 4.13, 4.16) is not looked for in the invalid ones; the valid ones of all sections must be GOOD.
In test_pkits_chains.py the sidecar verifies.
"""

from __future__ import annotations

import re
from functools import cache

import pytest
from pkits import NOW, REFUSED, REVOCATION, cert, ends, escaped, policy, suite

from sidecar.core.decision import Reason
from sidecar.core.errors import MalformedCertificate
from sidecar.core.evaluate import evaluate
from sidecar.core.policy.model import Policy
from sidecar.core.request import AuthzRequest
from sidecar.core.revocation.crl.index import CrlIndex, crl_facts
from sidecar.core.revocation.status import Answer, RevocationStatus
from sidecar.core.x509.validity import is_valid

# Of the invalid ones, those whose fault is nginx's to find.
ELSEWHERE = re.compile(
    "Polic|PolicyMapping|MappingFrom|MappingTo|inhibit|requireExplicit|nameConstraints"
    "|UnknownCriticalCertificateExtension"
)

_DSA = "DSA, signed with SHA-1: refused as weak, and without parameters not readable"
DENIED = {
    "ValidDSASignaturesTest4EE.crt": _DSA,
    "ValidDSAParameterInheritanceTest5EE.crt": _DSA,
}
"""Valid, and denied; why."""

CIRCULAR = "ValidcRLIssuerTest30EE.crt"
"""Its CRL issuer's own certificate is on no CRL but the one that issuer signs."""

UNUSABLE = {"UnknownCRLEntryExtensionCACRL.crl", "UnknownCRLExtensionCACRL.crl"}


OURS = [name for name in ends("Invalid") if not ELSEWHERE.search(name)]


def answers(name: str, *, whole_chain: bool = True) -> list[Answer]:
    """What the CRLs say about each certificate of the chain; nothing without a chain."""
    try:
        leaf = cert(name)
    except MalformedCertificate:
        return []
    path = suite().anchors.issuing_path(leaf, NOW)
    if path is None or not is_valid(leaf, NOW):
        return []
    index = CrlIndex(suite().crls, whole_chain=whole_chain)
    chain = (leaf, *path)
    return [index.status(crl_facts(low), high, NOW) for low, high in zip(chain, path, strict=False)]


def is_good(name: str, *, whole_chain: bool = True) -> bool:
    found = answers(name, whole_chain=whole_chain)
    return bool(found) and all(answer.status is RevocationStatus.GOOD for answer in found)


# -- the CRLs by themselves


def test_only_broken_crls_are_refused() -> None:
    """A CRL that no authority signed or may sign is refused, and each refusal says why."""
    refused = suite().refused
    assert refused.keys() == REFUSED.keys()
    assert all(REFUSED[name] in why for name, why in refused.items())


def test_what_is_not_understood_is_unusable() -> None:
    """An unknown critical extension, of the CRL or an entry, takes all it says away."""
    assert {crl.source for crl in suite().crls if crl.unusable} == UNUSABLE


# -- the index


def test_all_sections_are_there() -> None:
    """Asked are the 69 invalid ones of 4.1 to 4.7, 4.14 and 4.15, and all 88 called valid."""
    assert (len(OURS), len(ends("Valid"))) == (69, 88)


@pytest.mark.parametrize("name", OURS)
def test_no_invalid_one_is_good(name: str) -> None:
    """No certificate that PKITS calls invalid for what we check has a chain that is all GOOD."""
    assert not is_good(name)
    assert not is_good(name, whole_chain=False)


@pytest.mark.parametrize("name", ends("Valid"))
def test_every_valid_one_is_good(name: str) -> None:
    """All others are GOOD up to the anchor, but for those on the list."""
    assert is_good(name) == (name not in DENIED and name != CIRCULAR)


def test_a_circular_crl_issuer_is_good_only_on_trust() -> None:
    """A CRL signer that only itself vouches for is UNKNOWN where the whole chain is asked."""
    assert is_good(CIRCULAR, whole_chain=False)
    first = answers(CIRCULAR)[0]
    assert first.status is RevocationStatus.UNKNOWN
    assert "signer's certificate" in first.detail


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("InvalidRevokedEETest3EE.crt", "keyCompromise"),
        ("InvalidNegativeSerialNumberTest15EE.crt", "revoked"),
        ("InvalidLongSerialNumberTest18EE.crt", "revoked"),
        ("InvaliddeltaCRLTest3EE.crt", "revoked"),
        ("InvaliddeltaCRLTest4EE.crt", "revoked"),
        ("InvaliddistributionPointTest2EE.crt", "revoked"),
        ("InvalidonlySomeReasonsTest20EE.crt", "revoked"),
        ("InvalidIDPwithindirectCRLTest23EE.crt", "revoked"),
        ("InvalidcRLIssuerTest31EE.crt", "revoked"),
    ],
)
def test_revoked_ones_are_revoked_not_unknown(name: str, says: str) -> None:
    """Where a CRL lists the certificate, the answer is REVOKED."""
    first = answers(name)[0]
    assert first.status is RevocationStatus.REVOKED
    assert says in first.detail


# -- end to end


@cache
def rules() -> Policy:
    return policy(REVOCATION)


def decide(name: str) -> Reason:
    request = AuthzRequest(location="site", verify="SUCCESS", cert=escaped(name))
    return evaluate(rules(), request, NOW).reason


@pytest.mark.parametrize("name", OURS)
def test_no_invalid_one_is_allowed(name: str) -> None:
    """The decision about an invalid certificate is a deny, even where nginx said SUCCESS."""
    assert decide(name) is not Reason.ALLOWED


@pytest.mark.parametrize("name", sorted({*ends("Valid")} - {CIRCULAR}))
def test_every_valid_one_is_allowed(name: str) -> None:
    """The decision about every other is an allow, but for those on the list."""
    assert (decide(name) is Reason.ALLOWED) == (name not in DENIED)

"""NIST PKITS (2011) where the sidecar verifies the chain itself (`verify: sidecar`).

As in test_pkits.py, but nginx (`optional_no_ca`) says only that it knows no issuer, so every
fault of every section is the sidecar's to find.
"""

from __future__ import annotations

import re
from functools import cache

import pytest
from pkits import NOW, REVOCATION, ends, escaped, policy

from sidecar.core.evaluate import evaluate
from sidecar.core.policy.model import Policy
from sidecar.core.request import AuthzRequest

DENIED = {
    "DSA": "DSA, signed with SHA-1: refused as weak, or not readable",
    "Polic": "policy constraints, mappings and inhibitAnyPolicy are refused, not processed",
    "cRLIssuerTest30": "the CRL issuer's certificate is on no CRL but its own",
}
"""Valid, and denied: whatever matches, and why."""


@cache
def rules() -> Policy:
    return policy(f"verify: sidecar, {REVOCATION}")


def is_allowed(name: str) -> bool:
    unknown = "FAILED:unable to verify the first certificate"
    request = AuthzRequest(location="site", verify=unknown, cert=escaped(name))
    return evaluate(rules(), request, NOW).granted


@pytest.mark.parametrize("name", ends("Invalid"))
def test_no_invalid_one_is_allowed(name: str) -> None:
    """Nothing that NIST calls invalid, for whatever reason, is let in."""
    assert not is_allowed(name)


@pytest.mark.parametrize("name", ends("Valid"))
def test_every_valid_one_is_allowed(name: str) -> None:
    """All others are, but for kinds that are refused on purpose."""
    assert is_allowed(name) or any(re.search(each, name) for each in DENIED)


def test_what_is_allowed_is_no_less() -> None:
    """Of the 88 valid ones 66 are allowed: a change that denies more is seen."""
    assert sum(map(is_allowed, ends("Valid"))) == 66

"""A trust whose CRL is older than another trust's of the same issuer and scope is told of."""

from __future__ import annotations

from pathlib import Path

import pytest
from pki import CA

from sidecar.core.policy.compile import compile_policy
from sidecar.runtime.direct_sources import DirectSources

STAFF, OTHER = CA("Staff"), CA("Other")
POLICY = """\
version: 1
trust:
  x: {ca: staff.crt, crl: [x.crl]}
  y: {ca: [staff.crt, other.crt], crl: [y.crl, beside.crl]}
locations:
  - {name: site, allow: verified}
"""


@pytest.mark.parametrize(
    ("x", "y", "beside", "told"),
    [
        (STAFF.crl(number=5), STAFF.crl(number=7), OTHER.crl(number=9), "'x': x.crl is older"),
        (STAFF.crl(number=7), STAFF.crl(number=5), OTHER.crl(number=9), "'y': y.crl is older"),
        (STAFF.crl(number=7), STAFF.crl(number=5), STAFF.crl(number=7), ""),
        (STAFF.crl(number=5), STAFF.crl(number=5), OTHER.crl(number=9), ""),
    ],
    ids=["first", "second", "newer-beside", "same"],
)
def test_an_older_crl_than_another_trusts_is_told_of(
    tmp_path: Path, x: bytes, y: bytes, beside: bytes, told: str
) -> None:
    """Not where the trust has a CRL as new at another place, nor of another issuer's."""
    files = {"staff.crt": STAFF.pem, "other.crt": OTHER.pem}
    for name, data in {**files, "x.crl": x, "y.crl": y, "beside.crl": beside}.items():
        (tmp_path / name).write_bytes(data)
    policy = compile_policy(POLICY.encode(), "policy.yaml", DirectSources(tmp_path, tmp_path))
    found = [str(each.warning) for each in policy.dated if "is older than" in str(each.warning)]
    assert len(found) == bool(told)
    assert told in "".join(found)

"""Read the files of a trust, and decide which copies are used."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from pki import CA

from sidecar.authorizer.lanes import CrlReaders
from sidecar.authorizer.last_good import InForce, LastGood
from sidecar.authorizer.readings import Readings
from sidecar.authorizer.trust_sources import KeptCrls, TrustSources, without_withdrawn
from sidecar.authorizer.watermarks import Watermarks
from sidecar.core.x509.bundle import read_bundle
from sidecar.runtime.files import crl_state_path

A, B, C = CA("A"), CA("B"), CA("C")


def sources(tmp_path: Path, *, trusted_only: bool = False) -> TrustSources:
    return TrustSources(
        tmp_path,
        tmp_path / "state",
        trusted_only,
        Watermarks(None),
        Readings(),
        LastGood(tmp_path / "copies"),
        CrlReaders(),
    )


def test_removed_authorities_are_taken_out_of_the_last_good_ones() -> None:
    """Old authorities are kept if the new file has them; all are kept if it has none of them."""
    old = read_bundle(A.pem + B.pem)
    assert [cert.cn for cert in without_withdrawn(old, read_bundle(B.pem + C.pem))] == [("B",)]
    assert list(without_withdrawn(old, read_bundle(C.pem))) == list(old)


def test_a_copy_that_was_changed_does_not_count(tmp_path: Path) -> None:
    """A copy is used only if it still has its recorded SHA-256."""
    path = tmp_path / "ca.crt"
    path.write_bytes(A.pem)
    found = sources(tmp_path)
    found.readings.begin(patient=True)
    outcome = found.bundle("ca.crt")
    assert outcome is not None
    assert outcome.error is None
    key = ("ca", "ca.crt")
    found.last_good.save({key: InForce(path, outcome.value.digest)}, [key])
    kept = found.kept_bundle("ca.crt", whole=True)
    assert kept is not None
    assert [cert.cn for cert in kept] == [("A",)]
    copy = found.last_good.copy_of(*key)
    assert copy is not None
    copy[0].write_bytes(B.pem)
    again = sources(tmp_path)
    again.readings.begin(patient=True)
    assert again.kept_bundle("ca.crt", whole=True) is None


def test_lines_and_crls_are_read_with_their_mistakes(tmp_path: Path) -> None:
    """An invalid line is reported beside the valid ones; a CRL of another issuer is a mistake."""
    (tmp_path / "denylist.txt").write_text("serial 01\ngarbage\n")
    (tmp_path / "a.crl").write_bytes(A.crl(number=1))
    found = sources(tmp_path)
    found.readings.begin(patient=True)
    lines = found.denylist("denylist.txt")
    assert lines is not None
    assert len(lines.value.value.entries.entries) == 1
    assert [mistake.line for mistake in lines.value.value.mistakes] == [2]
    ours, theirs = found.crls("t", "a.crl", (A.der,)), found.crls("t", "a.crl", (B.der,))
    assert ours is not None
    assert theirs is not None
    assert (len(ours.value.found.crls), len(ours.value.found.mistakes)) == (1, 0)
    assert (len(theirs.value.found.crls), len(theirs.value.found.mistakes)) == (0, 1)
    assert found.kept_denylist("denylist.txt") is None
    assert found.kept_crls("t", "a.crl", (A.der,)) == KeptCrls(None, None, [], [])


@pytest.mark.parametrize("opened", ["to all", "another user's"])
def test_who_could_replace_a_fetched_crl_does_not_matter(tmp_path: Path, opened: str) -> None:
    """Its signature does: it is read though its directory is the fetcher's, and it root's."""
    if opened == "another user's" and os.geteuid() != 0:
        pytest.skip("only root gives a directory away")
    address = "http://ca.test/a.crl"
    path = crl_state_path(tmp_path / "state", "t", address)
    path.parent.mkdir(parents=True)
    path.write_bytes(A.crl(number=1))
    if opened == "to all":
        path.parent.chmod(0o777)
    else:
        os.chown(path.parent, 65534, 65534)
    found = sources(tmp_path, trusted_only=True)
    found.readings.begin(patient=True)
    outcome = found.crls("t", address, (A.der,))
    assert outcome is not None
    assert outcome.error is None
    assert len(outcome.value.found.crls) == 1

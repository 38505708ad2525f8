"""Each place of CRLs keeps its newest valid CRLs in force; refused ones only revoke."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from pki import CA, now

from sidecar.authorizer import trust_crls
from sidecar.authorizer.lanes import CrlReaders
from sidecar.authorizer.last_good import LastGood
from sidecar.authorizer.readings import Readings
from sidecar.authorizer.trust_crls import CrlPlaces, CrlSet
from sidecar.authorizer.trust_sources import TrustSources
from sidecar.authorizer.watermarks import Watermarks
from sidecar.core.policy.compile import compile_draft

A, B = CA("A"), CA("B")
POLICY = """\
version: 1
trust:
  staff: {ca: a.crt, crl: CRL}
locations:
  - {name: site, trust: staff, allow: verified}
"""


class Places:
    """The CRL file of a trust, and the CRLs that are in force."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "a.crl"
        self.sources = TrustSources(
            directory,
            directory / "state",
            False,
            Watermarks(None),
            Readings(),
            LastGood(directory / "copies"),
            CrlReaders(),
        )

    def read(self, data: bytes | None, crl: str = "a.crl", authority: CA = A) -> CrlSet:
        """Write the file and read it; usable CRLs come into force."""
        if data is not None:
            self.path.write_bytes(data)
        text = POLICY.replace("CRL", f"[{crl}]")
        spec = compile_draft(text.encode(), "policy.yaml").spec.trust["staff"]
        self.sources.readings.begin(patient=True)
        places = CrlPlaces(self.sources, "policy.yaml", "staff", spec, now().timestamp())
        found = places.verified_with((authority.der,))
        self.sources.readings.end()
        if found.fits:
            self.sources.good.update(found.good)
            ahead = [crl for crl in found.full if places.is_ahead(crl)]
            in_force = [crl for crl in found.full if crl not in ahead]
            self.sources.marks.note(in_force, places.latest)
        return found


@pytest.fixture
def places(tmp_path: Path) -> Places:
    """Return the place of one CRL file."""
    return Places(tmp_path)


def _numbers(found: CrlSet) -> tuple[list[int | None], list[int | None]]:
    return [crl.number for crl in found.full], [crl.number for crl in found.refused]


def test_a_newer_crl_replaces_the_older_one(places: Places) -> None:
    """Only the newest CRL is in force, and none is refused."""
    for number in (1, 2):
        found = places.read(A.crl(number=number))
        assert (found.fits, _numbers(found)) == (True, ([number], []))


def test_an_older_crl_only_revokes(places: Places) -> None:
    """A lower number is refused; the CRL in force stays, and the refused one can still revoke."""
    places.read(A.crl(number=2))
    found = places.read(A.crl(number=1))
    assert (found.fits, _numbers(found)) == (True, ([2], [1]))
    assert ["refused:" in str(problem) for problem in found.problems] == [True]


def test_a_crl_from_the_future_waits_beside_the_one_in_force(places: Places) -> None:
    """Both are used until the newer one's thisUpdate, at which the files are read again."""
    places.read(A.crl(number=1))
    found = places.read(A.crl(number=2, this_update=now() + timedelta(hours=2)))
    assert _numbers(found) == ([2, 1], [])
    assert len(found.ahead) == 1


def test_a_crl_of_another_authority_makes_the_set_unusable(places: Places) -> None:
    """Without a CRL that these authorities verify, the place is reported as out of place."""
    found = places.read(A.crl(number=1), authority=B)
    assert (found.fits, found.pending) == (False, False)
    assert [place.text for place in found.out_of_place] == ["a.crl"]


def test_an_unreadable_file_keeps_the_last_crl(places: Places) -> None:
    """Garbage in the file is reported, and the CRL in force stays."""
    places.read(A.crl(number=1))
    found = places.read(b"garbage")
    assert (found.fits, _numbers(found), len(found.problems)) == (True, ([1], []), 1)


def test_a_valid_crl_replaces_the_older_one_beside_an_invalid_crl(places: Places) -> None:
    """Of a file with an invalid CRL, the valid ones come into force; the mistake is reported."""
    places.read(A.crl(number=1))
    found = places.read(A.crl(number=2) + B.crl(number=7))
    assert (found.fits, _numbers(found), len(found.problems)) == (True, ([2], []), 1)


def test_an_address_without_a_download_is_missing_and_no_mistake(places: Places) -> None:
    """Before the first download, the set can be used without that CRL."""
    found = places.read(None, '"http://127.0.0.1/a.crl"')
    assert (found.fits, found.missing, found.problems) == (True, ["http://127.0.0.1/a.crl"], [])


@pytest.mark.parametrize(("limit", "value"), [("MAX_TRUST", 10), ("MAX_ENTRIES", 0)])
def test_too_large_crls_are_refused_and_the_last_ones_stay(
    places: Places, monkeypatch: pytest.MonkeyPatch, limit: str, value: int
) -> None:
    """The octets and the entries of a trust's CRLs are limited together."""
    places.read(A.crl(number=1))
    monkeypatch.setattr(trust_crls, limit, value)
    found = places.read(A.crl([17], number=2))
    assert (found.fits, _numbers(found)) == (True, ([1], []))
    assert "the CRLs of trust 'staff' have more than" in str(found.problems[0])

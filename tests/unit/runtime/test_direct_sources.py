"""Read a policy's files on demand."""

from __future__ import annotations

from pathlib import Path

import pytest
from pki import CA

from sidecar.runtime import crl_worker
from sidecar.runtime.crl_worker import HERE
from sidecar.runtime.direct_sources import DirectSources
from sidecar.runtime.files import crl_state_path, revoking_path

STAFF = CA("Staff")
URL = "http://ca.test/a.crl"


@pytest.mark.parametrize("beside", [False, True], ids=["fetched", "refused"])
def test_a_large_crl_that_was_fetched_is_parsed_in_a_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, beside: bool
) -> None:
    """Hundreds of megabytes in the fetcher's place take no memory of a daemon that tries a fleet's
    release, nor of root's commands."""
    place = crl_state_path(tmp_path, "t", URL)
    place.parent.mkdir(parents=True)
    path = revoking_path(place) if beside else place
    path.write_bytes(STAFF.crl() + b"#" * HERE)
    monkeypatch.setattr(crl_worker, "read_crls", lambda *_: pytest.fail("parsed in this process"))
    sources = DirectSources(tmp_path, tmp_path)
    found = (sources.revoking if beside else sources.crls)(URL, "t", (STAFF.der,))
    assert found is not None
    assert len(found) == 1


def test_what_was_never_fetched_is_missing(tmp_path: Path) -> None:
    """An address without a file has no CRL yet; a file that is named must be there."""
    sources = DirectSources(tmp_path, tmp_path)
    assert sources.crls(URL, "t", (STAFF.der,)) is None
    assert sources.revoking(URL, "t", (STAFF.der,)) == ()
    with pytest.raises(FileNotFoundError):
        sources.crls("a.crl", "t", (STAFF.der,))

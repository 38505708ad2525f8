"""Refuse CRLs that are older than the newest accepted one of the same issuer and scope."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
from pki import CA

from sidecar.authorizer.watermarks import Watermarks
from sidecar.core.revocation.crl.index import Crl, read_crls

STAFF, OTHER = CA("Staff"), CA("Other")


def crl(ca: CA, number: int) -> Crl:
    [found] = read_crls(ca.crl(number=number), "x.crl", (ca.der,)).crls
    return found


def test_an_older_crl_is_refused_and_the_reason_told() -> None:
    """A lower number is refused for the same issuer and scope only; an equal number is accepted."""
    marks = Watermarks(None)
    marks.note([crl(STAFF, 5)])
    assert marks.refuses(crl(STAFF, 4)) == "its CRL number is 4, the one accepted before has 5"
    assert marks.refuses(crl(STAFF, 5)) is None
    assert marks.refuses(crl(OTHER, 1)) is None
    marks.note([crl(STAFF, 4)])
    assert marks.refuses(crl(STAFF, 4)) is not None


def test_marks_outlast_the_process(tmp_path: Path) -> None:
    """Saved watermarks refuse older CRLs in the next process; without a change nothing is
    written."""
    path = tmp_path / "marks.json"
    marks = Watermarks(path)
    marks.save()
    assert not path.exists()
    marks.note([crl(STAFF, 5)])
    marks.save()
    assert Watermarks(path).refuses(crl(STAFF, 4)) is not None
    path.unlink()
    marks.save()
    assert not path.exists()


@pytest.mark.parametrize("content", [b"{", b"[]", b'{"k": [true, 1]}', b'{"k": [-1, 1]}', b"1"])
def test_a_spoilt_file_is_renamed_and_told(
    tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """An invalid file is logged, renamed to NAME.broken, and never prevents a start."""
    path = tmp_path / "marks.json"
    path.write_bytes(content)
    with caplog.at_level(logging.ERROR):
        marks = Watermarks(path)
    assert "is set aside, and CRLs may go back once" in caplog.text
    assert marks.refuses(crl(STAFF, 1)) is None
    assert (tmp_path / "marks.json.broken").read_bytes() == content


def test_what_could_not_be_saved_is_tried_again(tmp_path: Path) -> None:
    """After a failed save, the next `save` writes all watermarks."""
    (tmp_path / "state").write_text("in the way")
    path = tmp_path / "state" / "marks.json"
    marks = Watermarks(path)
    marks.note([crl(STAFF, 5)])
    with pytest.raises(OSError, match="state"):
        marks.save()
    (tmp_path / "state").unlink()
    marks.save()
    assert len(json.loads(path.read_bytes())) == 1

"""Refuse CRLs that are older than the newest accepted one of the same issuer and scope."""

from __future__ import annotations

import json
import logging
import threading
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from pki import CA, now

from sidecar.authorizer import watermarks
from sidecar.authorizer.watermarks import Watermarks
from sidecar.core.revocation.crl.index import Crl, read_crls
from sidecar.runtime.files import write_file

STAFF, OTHER = CA("Staff"), CA("Other")


NOW = now()
LATEST = NOW.timestamp()


def crl(ca: CA, number: int | None, days: int = 0) -> Crl:
    """Return a CRL whose thisUpdate is so many days from now."""
    data = ca.crl(number=number, this_update=NOW + timedelta(days=days))
    [found] = read_crls(data, "x.crl", (ca.der,)).crls
    return found


def test_an_older_crl_is_refused_and_the_reason_told() -> None:
    """A lower number is refused for the same issuer and scope only; an equal number is accepted."""
    marks = Watermarks(None)
    marks.note([crl(STAFF, 5)], LATEST)
    assert (
        marks.refuses(crl(STAFF, 4), LATEST) == "its CRL number is 4, the one accepted before has 5"
    )
    assert marks.refuses(crl(STAFF, 5), LATEST) is None
    assert marks.refuses(crl(OTHER, 1), LATEST) is None
    marks.note([crl(STAFF, 4)], LATEST)
    assert marks.refuses(crl(STAFF, 4), LATEST) is not None


def test_marks_outlast_the_process(tmp_path: Path) -> None:
    """Saved watermarks refuse older CRLs in the next process; without a change nothing is
    written."""
    path = tmp_path / "marks.json"
    marks = Watermarks(path)
    marks.save()
    assert not path.exists()
    marks.note([crl(STAFF, 5)], LATEST)
    marks.save()
    assert Watermarks(path).refuses(crl(STAFF, 4), LATEST) is not None
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
    assert marks.refuses(crl(STAFF, 1), LATEST) is None
    assert (tmp_path / "marks.json.broken").read_bytes() == content


def test_what_could_not_be_saved_is_tried_again(tmp_path: Path) -> None:
    """After a failed save, the next `save` writes all watermarks."""
    (tmp_path / "state").write_text("in the way")
    path = tmp_path / "state" / "marks.json"
    marks = Watermarks(path)
    marks.note([crl(STAFF, 5)], LATEST)
    with pytest.raises(OSError, match="state"):
        marks.save()
    (tmp_path / "state").unlink()
    marks.save()
    assert len(json.loads(path.read_bytes())) == 1


def test_a_mark_from_the_future_bars_nothing(tmp_path: Path) -> None:
    """What came into force while the clock was ahead bars no right CRL, but older ones are still
    refused; in the next process too."""
    path = tmp_path / "marks.json"
    marks = Watermarks(path)
    marks.note([crl(STAFF, 5, -1)], LATEST)
    ahead = LATEST + 400 * 86400
    marks.note([crl(STAFF, 6, 365)], ahead)
    assert marks.refuses(crl(STAFF, 7), ahead) is not None
    marks.save()
    for each in (marks, Watermarks(path)):
        assert each.refuses(crl(STAFF, 7), LATEST) is None
        assert each.refuses(crl(STAFF, 5, -1), LATEST) is None
        assert each.refuses(crl(STAFF, 4, -2), LATEST) is not None


@pytest.mark.parametrize(("number", "ahead"), [(6, 5), (6, None), (None, None)])
def test_a_mark_from_the_future_ends_with_the_right_crl(
    number: int | None, ahead: int | None
) -> None:
    """Nor does it bar that one later, when its own time has come; unless its number is higher."""
    marks = Watermarks(None)
    marks.note([crl(STAFF, ahead, 365)], LATEST + 400 * 86400)
    marks.note([crl(STAFF, number)], LATEST)
    assert marks.refuses(crl(STAFF, number), LATEST + 400 * 86400) is None
    marks.note([crl(STAFF, 9, 1)], LATEST + 2 * 86400)
    marks.note([crl(STAFF, 8)], LATEST)
    assert marks.refuses(crl(STAFF, 8), LATEST + 2 * 86400) is not None


def test_what_another_instance_has_noted_counts(tmp_path: Path) -> None:
    """It is taken over by who looks again, and not written over."""
    one, other = (Watermarks(tmp_path / "marks.json") for _ in range(2))
    one.note([crl(STAFF, 6)], LATEST, "place")
    one.save()
    assert other.refuses(crl(STAFF, 5), LATEST, "place") is None
    other.look_again()
    assert other.refuses(crl(STAFF, 5), LATEST, "place") is not None
    one.note([crl(STAFF, 7)], LATEST, "place")
    one.save()
    other.note([crl(OTHER, 1)], LATEST, "place")
    other.save()
    assert Watermarks(one.path).refuses(crl(STAFF, 6), LATEST, "place") is not None
    (tmp_path / "marks.json").write_text("{")
    one.look_again()
    assert one.refuses(crl(STAFF, 6), LATEST, "place") is not None


def test_marks_belong_to_a_place(tmp_path: Path) -> None:
    """Another place's don't count, unless the policy no longer names it; earlier versions' do."""
    path = tmp_path / "marks.json"
    earlier = Watermarks(path)
    earlier.note([crl(STAFF, 5)], LATEST)
    earlier.save()
    marks = Watermarks(path)
    marks.named = frozenset(["a", "b"])
    assert marks.refuses(crl(STAFF, 4), LATEST, "a") is not None
    assert marks.refuses(crl(STAFF, 4), LATEST, "a", former=False) is None
    marks.note([crl(STAFF, 6)], LATEST, "a")
    assert marks.refuses(crl(STAFF, 4), LATEST, "b") is None
    marks.save()
    marks = Watermarks(path)
    marks.named = frozenset(["b"])
    assert marks.refuses(crl(STAFF, 5), LATEST, "b") is not None
    assert marks.refuses(crl(STAFF, 6), LATEST, "b") is None


def of_scope(number: int, minute: int, ca: CA = STAFF) -> Crl:
    """Return a CRL of a scope of its own, of some minutes ago."""
    uri = x509.UniformResourceIdentifier(f"http://127.0.0.1/{number}.crl")
    scope = x509.IssuingDistributionPoint([uri], None, False, False, None, False, False)
    data = ca.crl(number=1, this_update=NOW + timedelta(minutes=minute), idp=scope)
    [found] = read_crls(data, "x.crl", (ca.der,)).crls
    return found


def test_ever_new_scopes_take_no_mark_of_another_signer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of one signer's scopes at a place the newest are remembered.  Of the others no CRL is taken
    that is older than what was forgotten, also in the next process and in another instance."""
    monkeypatch.setattr(watermarks, "MAX_SCOPES", 4)
    path = tmp_path / "marks.json"
    marks, other = Watermarks(path), Watermarks(path)
    marks.note([crl(OTHER, 5, -1), crl(STAFF, 5)], LATEST, "here")
    marks.note([of_scope(1, -60, OTHER)], LATEST, "elsewhere")
    for number in range(40):
        marks.note([of_scope(number, number - 50)], LATEST, "here")
    assert sum(map(len, marks._marks.values())) == 4 + 1 + 1 + 1
    marks.save()
    other.note([of_scope(number, -1) for number in range(50, 60)], LATEST, "here")
    other.look_again()
    for each in (marks, Watermarks(path), other):
        assert each.refuses(crl(OTHER, 4, -1), LATEST, "here") is not None
        assert each.refuses(crl(STAFF, 4), LATEST, "here") is not None
        assert each.refuses(of_scope(0, -50), LATEST, "here") is not None
        assert each.refuses(of_scope(0, -50), LATEST, "renamed") is not None
        assert each.refuses(of_scope(0, -50, OTHER), LATEST, "here") is None
        assert each.refuses(of_scope(0, 0), LATEST, "here") is None


def test_more_marks_than_could_be_read_again_are_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file stays as it was: a start would set a larger one aside."""
    path = tmp_path / "marks.json"
    marks = Watermarks(path)
    marks.note([crl(STAFF, 5)], LATEST, "here")
    marks.save()
    before = path.read_bytes()
    monkeypatch.setattr(watermarks, "MOST_OCTETS", len(before))
    marks.note([crl(OTHER, 5)], LATEST, "here")
    with pytest.raises(OSError, match="too many"):
        marks.save()
    assert path.read_bytes() == before


def test_two_instances_that_write_at_once_forget_no_mark(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who comes second waits for the first, and takes over its marks."""
    path = tmp_path / "marks.json"
    one, other = Watermarks(path), Watermarks(path)
    one.note([crl(STAFF, 5)], LATEST)
    other.note([crl(OTHER, 5)], LATEST)
    second = threading.Thread(target=other.save)

    def write_late(place: Path, data: bytes) -> None:
        if threading.current_thread() is not second:
            second.start()
            second.join(0.2)  # without a lock it is done by then
        write_file(place, data)

    monkeypatch.setattr(watermarks, "write_file", write_late)
    one.save()
    second.join()
    for ca in (STAFF, OTHER):
        assert Watermarks(path).refuses(crl(ca, 4), LATEST) is not None

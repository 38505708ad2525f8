"""Keep OCSP answers in a file; tests/process/test_ocsp_file.py has restarts and hostile files."""

from __future__ import annotations

import fcntl
import json
import logging
import time
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import ocsp_pki
import pytest
from asking import policy
from counted import calls
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.name import _ASN1Type
from cryptography.x509.oid import NameOID

from sidecar.authorizer import ocsp_file
from sidecar.authorizer.ocsp_answers import OcspAnswers, StoredResponse
from sidecar.authorizer.ocsp_file import NAME, OcspFile
from sidecar.authorizer.ocsp_queue import OcspClient
from sidecar.core.policy.model import Policy
from sidecar.core.revocation.ocsp.response import ocsp_key
from sidecar.core.x509.certificate import from_der

AUTHORITY, ALICE = ocsp_pki.authority(), ocsp_pki.leaf("alice")
GOOD = ocsp_pki.craft(AUTHORITY, [ocsp_pki.single(ALICE.cert, AUTHORITY.cert)])
ADDRESS = "http://ca.test/"
RECORD = StoredResponse("staff", ALICE.der, AUTHORITY.der, GOOD, time.time(), ADDRESS)


def rules(
    ocsp: str = "http://ca.test/", ca: x509.Certificate = AUTHORITY.cert, name: str = "staff"
) -> Policy:
    text = f"""
version: 1
trust:
  aaa: {{ca: other.crt, ocsp: "http://ca.test/"}}
  {name}: {{ca: ca.crt, ocsp: "{ocsp}"}}
locations: [{{name: site, allow: verified}}]
"""
    pems = {"ca_crt": ca, "other_crt": ocsp_pki.issue("Other CA", ca=True).cert}
    return policy(text, **{key: cert.public_bytes(Encoding.PEM) for key, cert in pems.items()})


def answers() -> OcspAnswers:
    return OcspAnswers(OcspClient(Path("/nonexistent")))


def saved(directory: Path) -> Path:
    """A file with one good answer."""
    found = answers()
    file = OcspFile(directory, found)
    assert found.restore(RECORD, 300)
    file.save()
    return directory / NAME


def test_an_answer_is_restored_for_the_current_policy(tmp_path: Path) -> None:
    """It counts only for a trust that still names a responder and has the issuer."""
    saved(tmp_path)
    for trusts, number in ((rules().trusts, 1), (rules("off").trusts, 0), ({}, 0)):
        found = answers()
        OcspFile(tmp_path, found).load(trusts)
        assert len(found) == number


@pytest.mark.parametrize("name", ["people", "aaa-staff", "zzz"])
def test_an_answer_outlives_a_renamed_trust(tmp_path: Path, name: str) -> None:
    """It belongs to its issuer: it counts in the trust that has this authority now."""
    saved(tmp_path)
    found = answers()
    OcspFile(tmp_path, found).load(rules(name=name).trusts)
    assert [record.trust for record in found.records()] == [name]


def test_an_answer_outlives_two_trusts_that_swap_names(tmp_path: Path) -> None:
    """A trust of the old name, but of another authority, doesn't stand in its way."""
    path = saved(tmp_path)
    path.write_text(path.read_text().replace('"staff"', '"aaa"'))
    found = answers()
    OcspFile(tmp_path, found).load(rules().trusts)
    assert [record.trust for record in found.records()] == ["staff"]


def test_good_outlives_its_responder_s_name_and_not_its_address(tmp_path: Path) -> None:
    """What a responder that is named no more has called good, a new one may know better; what it
    has revoked stays so.  A file of before, without addresses, counts as of the trust's own."""
    bob = ocsp_pki.leaf("bob")
    found, file = instance(tmp_path, RECORD, answer(bob, revoked=True))
    file.save()
    assert ADDRESS not in (tmp_path / NAME).read_text()  # it may hold a password
    moved = rules("http://new.test/").trusts
    found = answers()
    OcspFile(tmp_path, found).load(moved)
    assert [(record.cert, record.responder) for record in found.records()] == [
        (bob.der, "http://new.test/")
    ]
    lines = [json.loads(line) for line in (tmp_path / NAME).read_text().splitlines()]
    for line in lines:
        del line["responder"]
    (tmp_path / NAME).write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = answers()
    OcspFile(tmp_path, found).load(moved)
    assert len(found) == 2


@pytest.mark.parametrize("encoding", [_ASN1Type.UTF8String, _ASN1Type.PrintableString])
def test_an_answer_outlives_a_renewed_authority(tmp_path: Path, encoding: _ASN1Type) -> None:
    """It counts for a certificate of the same name and key, whatever string type the name has now,
    not for another key of that name."""
    saved(tmp_path)
    old = AUTHORITY.cert
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Test CA", encoding)])
    builder = x509.CertificateBuilder(name, name, AUTHORITY.key.public_key(), 7)
    builder = builder.not_valid_before(old.not_valid_before_utc)
    builder = builder.not_valid_after(old.not_valid_after_utc + timedelta(days=1))
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    renewed = builder.sign(AUTHORITY.key, hashes.SHA256())
    other = ocsp_pki.issue("Test CA", ca=True).cert
    for cert, number in ((renewed, 1), (other, 0)):
        found = answers()
        OcspFile(tmp_path, found).load(rules(ca=cert).trusts)
        assert [key.issuer_sha256 for key in found] == number * [
            cert.fingerprint(hashes.SHA256()).hex()
        ]


def test_nothing_is_written_without_a_change(tmp_path: Path) -> None:
    """A file that was just read is not written again."""
    path = saved(tmp_path)
    found = answers()
    file = OcspFile(tmp_path, found)
    file.load(rules().trusts)
    path.unlink()
    file.save()
    assert not path.exists()


@pytest.mark.parametrize(
    "line",
    ["garbage", "{}", "[]", json.dumps({"trust": 1, "at": 1.0}), json.dumps({"trust": "staff"})],
)
def test_an_invalid_line_is_reported_and_the_others_count(
    tmp_path: Path, line: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The file is renamed to NAME.broken, and the valid answers are used and saved again."""
    path = saved(tmp_path)
    path.write_text(line + "\n" + path.read_text())
    found = answers()
    file = OcspFile(tmp_path, found)
    with caplog.at_level(logging.ERROR):
        file.load(rules().trusts)
    assert "1 of its lines are not OCSP answers" in caplog.text
    assert len(found) == 1
    assert path.with_name(NAME + ".broken").exists()
    file.save()
    assert len(path.read_text().splitlines()) == 1


def test_a_file_that_can_not_be_written_is_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The daemon ends without an exception."""
    found = answers()
    file = OcspFile(tmp_path / "state", found)
    (tmp_path / "state").write_text("in the way")
    assert found.restore(RECORD, 300)
    with caplog.at_level(logging.WARNING):
        file.save()
    assert "OCSP answers aren't kept across restarts" in caplog.text


def answer(leaf: ocsp_pki.Pair, *, revoked: bool = False, start: float = -60.0) -> StoredResponse:
    """A response about a leaf, as another instance stores it."""
    status = b"\xa1\x11\x18\x0f20260101000000Z" if revoked else b"\x80\x00"
    one = ocsp_pki.single(leaf.cert, AUTHORITY.cert, status=status, start=start)
    der = ocsp_pki.craft(AUTHORITY, [one])
    return StoredResponse("staff", leaf.der, AUTHORITY.der, der, time.time(), ADDRESS)


def instance(directory: Path, *records: StoredResponse) -> tuple[OcspAnswers, OcspFile]:
    found = answers()
    file = OcspFile(directory, found)
    file.load(rules().trusts)
    for record in records:
        assert found.restore(record, 300)
    return found, file


def said(found: OcspAnswers, record: StoredResponse) -> str:
    """The status of the answer about a record's certificate."""
    cert, issuer = from_der(record.cert), from_der(record.issuer)
    held = found.get(ocsp_key(cert, issuer, 300, ADDRESS))
    assert held is not None
    return held.status.value


def restarted(directory: Path) -> dict[bytes, str]:
    """Certificate and status of each answer after a restart."""
    found, _ = instance(directory)
    return {record.cert: said(found, record) for record in found.records()}


def test_no_instance_writes_over_what_another_has_learnt(tmp_path: Path) -> None:
    """What it hasn't looked at stays in the file: revoked counts after a restart of all."""
    bob = ocsp_pki.leaf("bob")
    _, first = instance(tmp_path, answer(bob, start=-120), RECORD)
    _, second = instance(tmp_path, answer(bob, revoked=True))
    second.save()
    first.save()
    assert restarted(tmp_path) == {bob.der: "revoked", ALICE.der: "good"}


async def test_what_another_instance_has_learnt_counts_here(tmp_path: Path) -> None:
    """Revoked overrules an older good; what says the same as here is left out, so that two
    instances don't write in turns for ever."""
    bob = ocsp_pki.leaf("bob")
    trusts = rules().trusts
    found, first = instance(tmp_path, answer(bob, start=-120), RECORD)
    _, second = instance(tmp_path, answer(bob, revoked=True), answer(ALICE))
    second.save()
    before = found.version
    await first.take_others(lambda: trusts)
    assert {r.cert: said(found, r) for r in found.records()}[bob.der] == "revoked"
    assert RECORD.response in [record.response for record in found.records()]
    after = found.version
    assert after > before
    first.save()
    second.save()
    await first.take_others(lambda: trusts)
    assert found.version == after


async def test_a_later_revoked_of_another_instance_overrules_here_too(tmp_path: Path) -> None:
    """What a trust's responder has called good since it was revoked by another trust's, which says
    so again, later, in another instance: it counts as in that one, and they come to rest."""
    bob, both = ocsp_pki.leaf("bob"), rules(name="b", ocsp="http://b.test/").trusts
    trusts = {**both, "staff": rules().trusts["staff"]}
    revoked = [answer(bob, revoked=True, start=start) for start in (-300.0, -60.0)]
    good = answer(bob, start=-120.0)._replace(trust="b", responder="http://b.test/")
    found, first = instance(tmp_path, revoked[0], good)
    _, second = instance(tmp_path, revoked[1])
    second.save()
    await first.take_others(lambda: trusts)
    key = ocsp_key(from_der(bob.der), from_der(AUTHORITY.der), 300, "http://b.test/")
    assert found[key].status.value == "revoked"
    before = found.version
    first.save()
    await first.take_others(lambda: trusts)
    assert found.version == before


async def test_lines_of_another_instance_that_are_no_answers_are_left_out(tmp_path: Path) -> None:
    """They harm nothing, are looked at once, and go with the next writing."""
    trusts = rules().trusts
    found, file = instance(tmp_path)
    (tmp_path / NAME).write_text("garbage\n[]\n")
    await file.take_others(lambda: trusts)
    assert len(found) == 0
    assert found.restore(RECORD, 300)
    file.save()
    assert len((tmp_path / NAME).read_text().splitlines()) == 1


def test_an_instance_that_hangs_while_it_writes_holds_no_other_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After some time the lock doesn't count."""
    monkeypatch.setattr("sidecar.runtime.files.LOCK_SECONDS", 0.1)
    _, file = instance(tmp_path, RECORD)
    with (tmp_path / "ocsp-answers.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        file.save()
    assert len((tmp_path / NAME).read_text().splitlines()) == 1


@pytest.mark.parametrize("looks", ["at its start", "later"])
async def test_an_instance_of_another_policy_keeps_the_lines_of_others(
    tmp_path: Path, looks: str
) -> None:
    """It has no trust of their issuer yet, or no more: after a restart of all they count."""
    bob = ocsp_pki.leaf("bob")
    older = rules(ca=ocsp_pki.issue("Older CA", ca=True).cert).trusts
    file = OcspFile(tmp_path, answers())
    if looks == "later":
        file.load(older)
    _, newer = instance(tmp_path, answer(bob, revoked=True))
    newer.save()
    if looks == "later":
        await file.take_others(lambda: older)
    else:
        file.load(older)
    assert file._answers.restore(RECORD, 300)
    file.save()
    assert restarted(tmp_path) == {ALICE.der: "good", bob.der: "revoked"}


def test_lines_of_others_are_kept_in_bounds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By number and by octets: a start would set a larger file aside."""
    path = tmp_path / NAME
    for limit, value in (("MAX_ANSWERS", 3), ("MAX_BYTES", 15)):
        path.write_bytes(b"".join(b"%09d\n" % number for number in range(20)))
        with monkeypatch.context() as bounded:
            bounded.setattr(ocsp_file, limit, value)
            ocsp_file._write(path, [], frozenset())
        assert path.read_text().split() == ["000000017", "000000018", "000000019"]


def test_answers_times_trusts(tmp_path: Path) -> None:
    """An answer kept costs the same, however many trusts have a responder."""

    def asked(number: int) -> int:
        trusts = rules().trusts
        other = trusts["aaa"]
        many = {**{f"t{at}": replace(other, name=f"t{at}") for at in range(number)}, **trusts}
        directory = tmp_path / str(number)
        directory.mkdir()
        path = saved(directory)
        path.write_bytes(path.read_bytes() * 10)
        found = answers()
        file = OcspFile(directory, found)
        cost = calls(lambda: file.load(many))
        assert len(found) == 1
        return cost

    asked(1)
    assert asked(100) - asked(10) < 10 * 90

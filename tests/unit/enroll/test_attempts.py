"""Issuing is all or nothing, whatever fails, whoever else asks, and whoever is killed."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cryptography import x509
from issuing import Issuing, own_ca, request

from sidecar.enroll import invitations
from sidecar.enroll.attempts import stop_all_of
from sidecar.enroll.certificate_profile import Identity
from sidecar.enroll.issuance import Wanted
from sidecar.enroll.issuer import Issued, IssuerError, KeyIssuer
from sidecar.enroll.refused import Refused
from sidecar.enroll.store import Store, StoreError

P12, CSR = Wanted("p12"), Wanted("csr", csr=request())


class FailingStore(Store):
    """A store whose transaction number `at` fails, before its block or at its end."""

    def __init__(self, path: Path, at: int, *, early: bool) -> None:
        super().__init__(path)
        self.at, self.early, self.count, self.armed = at, early, 0, False

    @contextlib.contextmanager
    def changing(self) -> Iterator[sqlite3.Connection]:
        self.count += self.armed
        fails = self.armed and self.count == self.at
        if fails and self.early:
            raise StoreError("the disk is full")
        with super().changing() as connection:
            yield connection
            if fails:
                raise StoreError("the disk is full")


class FailingIssuer:
    """An issuer that fails as it is told; `made` is whether it had made a certificate."""

    def __init__(self, issuer: KeyIssuer, *, goes_by_request: bool, made: bool) -> None:
        self._issuer, self._made, self.fails = issuer, made, True
        self._goes_by_request = goes_by_request

    @property
    def goes_by_request(self) -> bool:
        return self._goes_by_request

    def issue(
        self, identity: Identity, request: x509.CertificateSigningRequest, now: float
    ) -> Issued:
        issued = self._issuer.issue(identity, request, now)
        if self.fails:
            raise IssuerError("no", issued.certificate if self._made else None)
        return issued


# -- all or nothing


@pytest.mark.parametrize("early", [True, False])
@pytest.mark.parametrize("at", [1, 2, 3])
@pytest.mark.parametrize("wanted", [P12, CSR], ids=["p12", "csr"])
def test_whatever_transaction_fails_there_is_no_half(
    tmp_path: Path, at: int, early: bool, wanted: Wanted
) -> None:
    """Either the holder has the file and there is a record, or neither, and the link is good."""
    store = FailingStore(tmp_path / "enroll.db", at, early=early)
    found = Issuing(tmp_path, store=store)
    token = found.invite()
    store.armed = True
    got = None
    with contextlib.suppress(StoreError):
        got = found.issuance.redeem(token, wanted)
    store.armed = False
    assert len(found.clients) == (got is not None)
    if got is None:
        assert found.issuance.redeem(token, wanted) is not None
    assert (len(found.clients), found.state(token), found.attempts) == (1, "used", [])


def test_an_undo_that_fails_is_made_up_for(tmp_path: Path) -> None:
    """Where even the undo fails, the next request, or the next start, finds the link good."""

    class Broken(FailingStore):
        def __init__(self, path: Path) -> None:
            super().__init__(path, 2, early=True)

    for again in (False, True):
        directory = tmp_path / str(again)
        issuer = FailingIssuer(own_ca(), goes_by_request=False, made=False)
        store = Broken(directory / "enroll.db")
        found = Issuing(directory, store=store, issuer=issuer)
        token = found.invite()
        store.armed = True
        with pytest.raises(IssuerError):
            found.issuance.redeem(token, P12)
        assert found.state(token) == "issuing"
        store.armed = issuer.fails = False
        if again:
            found = Issuing(directory, issuer=issuer, clock=found.clock)
        assert found.issuance.redeem(token, P12) is not None
        assert len(found.clients) == 1


def test_an_undo_that_failed_takes_no_device(tmp_path: Path) -> None:
    """What is left of an attempt counts for nothing as soon as somebody asks again."""
    issuer = FailingIssuer(own_ca(), goes_by_request=False, made=False)
    store = FailingStore(tmp_path / "enroll.db", 2, early=True)
    more = "profiles: {default: {max_devices: 1}}\n"
    found = Issuing(tmp_path, more, store=store, issuer=issuer)
    phone, laptop = found.invite(device="phone"), found.invite(device="laptop")
    store.armed = True
    with pytest.raises(IssuerError):
        found.issuance.redeem(phone, P12)
    assert len(found.attempts) == 1
    store.armed = issuer.fails = False
    assert found.issuance.redeem(laptop, P12) is not None
    assert found.attempts == []


def test_a_process_that_was_killed_leaves_the_link_good(tmp_path: Path) -> None:
    """A reservation of a process that is gone is undone at the start, and nothing was issued."""
    found = Issuing(tmp_path)
    token = found.invite()
    with found.store.changing() as connection:
        invitation = invitations.by_token(connection, token, found.clock())
        assert invitation is not None
        invitations.reserve(connection, invitation, "another process")
    assert found.state(token) == "issuing"
    again = Issuing(tmp_path, clock=found.clock, issuer=found.issuer)
    assert again.state(token) == "open"
    assert again.clients == []
    assert again.issuance.redeem(token, P12) is not None


def test_what_another_ca_has_made_and_nobody_got_is_kept_as_revoked(tmp_path: Path) -> None:
    """The record says so, the attempt stays as lost, and the link is good."""
    issuer = FailingIssuer(own_ca(), goes_by_request=True, made=True)
    found = Issuing(tmp_path, issuer=issuer)
    token = found.invite()
    with pytest.raises(IssuerError):
        found.issuance.redeem(token, P12)
    (lost,) = found.clients
    assert (lost.revoked is not None, lost.reason) == (True, "never given out")
    assert [each["lost"] for each in found.attempts] == ["no"]
    issuer.fails = False
    assert found.issuance.redeem(token, P12) is not None
    assert len(found.clients) == 2


def test_a_file_that_cannot_be_packed_gives_no_certificate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mistake in packing undoes the issuance."""

    def fail(*_: object) -> None:
        raise RuntimeError("a mistake")

    found = Issuing(tmp_path)
    token = found.invite()
    monkeypatch.setattr("sidecar.enroll.attempts.modern_p12", fail)
    with pytest.raises(IssuerError, match="packed"):
        found.issuance.redeem(token, P12)
    monkeypatch.undo()
    assert (found.clients, found.state(token)) == ([], "open")


def test_a_link_cancelled_while_it_is_used_gives_nothing(tmp_path: Path) -> None:
    """`revoke` or `--cancel` during an issuance wins."""

    class Slow(FailingIssuer):
        def issue(
            self, identity: Identity, request: x509.CertificateSigningRequest, now: float
        ) -> Issued:
            with Store(tmp_path / "enroll.db").changing() as connection:
                assert invitations.cancel_all_of(connection, "alice", None, now)
            return self._issuer.issue(identity, request, now)

    found = Issuing(tmp_path, issuer=Slow(own_ca(), goes_by_request=False, made=False))
    token = found.invite()
    with pytest.raises(Refused) as refused:
        found.issuance.redeem(token, P12)
    assert refused.value.status == 410
    assert (found.clients, found.state(token)) == ([], "cancelled")


def test_who_is_revoked_while_a_certificate_is_issued_gets_none(tmp_path: Path) -> None:
    """`revoke alice/phone` stops a link and a renewal for it, and none for alice/pad."""

    class Slow(FailingIssuer):
        def issue(
            self, identity: Identity, request: x509.CertificateSigningRequest, now: float
        ) -> Issued:
            if self.fails:
                with Store(tmp_path / "enroll.db").changing() as connection:
                    stop_all_of(connection, "alice", "phone")
            return self._issuer.issue(identity, request, now)

    issuer = Slow(own_ca(), goes_by_request=False, made=False)
    issuer.fails = False
    found = Issuing(tmp_path, "profiles: {default: {renew_before: 400d}}\n", issuer=issuer)
    assert found.issuance.redeem(found.invite(), Wanted("p12", "phone")) is not None
    (old,) = found.clients
    issuer.fails = True
    with pytest.raises(Refused):
        found.issuance.redeem(found.invite(), Wanted("p12", "phone"))
    with pytest.raises(Refused):
        found.issuance.renew(old.sha256, P12)
    assert (found.clients, found.attempts) == ([old], [])
    assert found.issuance.redeem(found.invite(), Wanted("p12", "pad")) is not None


def test_two_at_once_make_one_certificate_without_the_server_s_help(tmp_path: Path) -> None:
    """Threads that redeem one token at the same moment: one file, one record."""
    found = Issuing(tmp_path)
    token = found.invite()

    def redeem(_: int) -> bool:
        try:
            return found.issuance.redeem(token, P12) is not None
        except Refused:
            return False

    with ThreadPoolExecutor(6) as pool:
        assert sum(pool.map(redeem, range(6))) == 1
    assert len(found.clients) == 1


def test_a_certificate_that_cannot_be_stored_is_kept_as_soon_as_it_can(tmp_path: Path) -> None:
    """Another CA's, made just before the disk was full: on record as revoked, and not given out."""
    issuer = FailingIssuer(own_ca(), goes_by_request=True, made=True)
    issuer.fails = False
    store = FailingStore(tmp_path / "enroll.db", 2, early=False)
    found = Issuing(tmp_path, store=store, issuer=issuer)
    token = found.invite()
    store.armed = True
    with pytest.raises(StoreError):
        found.issuance.redeem(token, P12)
    (lost,) = found.clients
    assert lost.revoked is not None
    assert found.state(token) == "open"


def test_a_certificate_that_a_command_prints_again_stays_as_it_is(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A command that repeats itself revokes nobody: the first one is somebody's."""

    class Repeating(FailingIssuer):
        first: Issued | None = None

        def issue(
            self, identity: Identity, request: x509.CertificateSigningRequest, now: float
        ) -> Issued:
            if self.first is None:
                self.first = self._issuer.issue(identity, request, now)
                return self.first
            raise IssuerError("it has another key", self.first.certificate)

    issuer = Repeating(own_ca(), goes_by_request=True, made=True)
    found = Issuing(tmp_path, issuer=issuer)
    assert found.issuance.redeem(found.invite(), P12) is not None
    with pytest.raises(IssuerError):
        found.issuance.redeem(found.invite(), P12)
    (first,) = found.clients
    assert first.revoked is None
    assert "printed the certificate of alice again" in caplog.text

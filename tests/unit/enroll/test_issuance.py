"""The steps of issuing: once, all or nothing, and by the rules of profile and invitation."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from issuing import Clock, Issuing, own_ca, request

from sidecar.enroll import clients, invitations
from sidecar.enroll.certificate_profile import Identity
from sidecar.enroll.issuance import MAX_RENEWALS, Refused, Wanted
from sidecar.enroll.issuer import Issued, IssuerError, KeyIssuer
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
    monkeypatch.setattr("sidecar.enroll.issuance.modern_p12", fail)
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


# -- rules


def test_a_person_has_no_more_devices_than_the_profile_allows(tmp_path: Path) -> None:
    """One more is 409; a further certificate for the same device is fine, and so is one for
    another after a revocation."""
    found = Issuing(tmp_path, "profiles: {default: {max_devices: 2}}\n")
    for device in ("phone", "laptop", "phone"):
        assert found.issuance.redeem(found.invite(device=device), P12) is not None
    token = found.invite(device="tablet")
    with pytest.raises(Refused) as refused:
        found.issuance.redeem(token, P12)
    assert refused.value.status == 409
    phones = [each.sha256 for each in found.clients if each.device == "phone"]
    with found.store.changing() as connection:
        clients.mark_revoked(connection, phones, found.clock(), "")
    assert found.issuance.redeem(token, P12) is not None


def test_a_device_that_nobody_named_gets_a_name_of_its_own(tmp_path: Path) -> None:
    """Without a name in invitation and form, devices are numbered, so each can be revoked."""
    found = Issuing(tmp_path)
    for _ in range(2):
        found.issuance.redeem(found.invite(), P12)
    assert [each.device for each in found.clients] == ["device", "device-2"]


def test_an_invitation_for_one_device_is_for_no_other(tmp_path: Path) -> None:
    """The form can't change what the invitation says."""
    found = Issuing(tmp_path)
    token = found.invite(device="phone")
    with pytest.raises(Refused):
        found.issuance.redeem(token, Wanted("p12", device="laptop"))
    assert found.issuance.redeem(token, Wanted("p12", device="phone")) is not None


def test_a_format_that_the_profile_has_not_is_refused(tmp_path: Path) -> None:
    """`formats: [csr]` gives no file with a key in it."""
    found = Issuing(tmp_path, "profiles: {default: {formats: [csr]}}\n")
    token = found.invite()
    with pytest.raises(Refused):
        found.issuance.redeem(token, P12)
    assert found.issuance.redeem(token, CSR) is not None


def test_names_come_from_the_invitation_alone(tmp_path: Path) -> None:
    """A CSR for somebody else, with extensions of a CA, is signed for the invited one."""
    greedy = x509.SubjectAlternativeName([x509.DNSName("bank.example.com")])
    found = Issuing(tmp_path, "profiles: {default: {ou: [staff], email: '{name}@example.com'}}\n")
    key = ec.generate_private_key(ec.SECP256R1())
    csr = request("root", key, greedy, x509.BasicConstraints(ca=True, path_length=None))
    file = found.issuance.redeem(found.invite(), Wanted("csr", csr=csr))
    assert file is not None
    cert = x509.load_pem_x509_certificate(file.data)
    assert cert.subject.rfc4514_string() == "CN=alice,OU=staff"
    san = cert.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert list(san) == [x509.RFC822Name("alice@example.com")]
    basic = cert.extensions.get_extension_for_class(x509.BasicConstraints).value
    assert not basic.ca
    assert cert.public_key() == key.public_key()


# -- time


def test_an_invitation_has_ended_when_its_time_is_over_or_the_clock_is_wrong(
    tmp_path: Path,
) -> None:
    """At its end, and where the clock goes back before its creation: no certificate."""
    found = Issuing(tmp_path, clock=Clock(1_800_000_000.0))
    token = found.invite(seconds=60)
    for wrong in (60.0, 1e6, -301.0):
        found.clock.now = 1_800_000_000.0 + wrong
        with pytest.raises(Refused) as refused:
            found.issuance.redeem(token, P12)
        assert refused.value.status == 410
    found.clock.now = 1_800_000_000.0 + 59
    assert found.issuance.redeem(token, P12) is not None


def test_a_certificate_is_renewed_within_its_window_only(tmp_path: Path) -> None:
    """Too early, after its end, revoked and too often: refused, each with its reason."""
    found = Issuing(tmp_path, "profiles: {default: {validity: 30d, renew_before: 10d}}\n")
    found.issuance.redeem(found.invite(device="phone"), P12)
    (old,) = found.clients
    day = 86400.0
    start = found.clock.now
    for after, why in ((19 * day, "too early"), (30 * day, "isn't valid"), (-day, "isn't valid")):
        found.clock.now = start + after
        with pytest.raises(Refused, match=why):
            found.issuance.renew(old.sha256, P12)
    found.clock.now = start + 21 * day
    for _ in range(MAX_RENEWALS):
        assert found.issuance.renew(old.sha256, P12) is not None
    with pytest.raises(Refused, match="renewed already"):
        found.issuance.renew(old.sha256, P12)
    new = next(each for each in found.clients if each.renewed_from == old.sha256)
    assert (new.name, new.device) == (old.name, old.device)
    with found.store.changing() as connection:
        clients.mark_revoked(connection, [new.sha256], found.clock(), "")
    with pytest.raises(Refused, match="revoked"):
        found.issuance.renew(new.sha256, P12)


def test_a_certificate_never_outlives_its_issuer(tmp_path: Path) -> None:
    """Its end is the CA's at most, and with a CA that has ended there is none."""
    issuer = own_ca()
    end = issuer.certificate.not_valid_after_utc.timestamp()
    found = Issuing(tmp_path, issuer=issuer, clock=Clock(end - 3600))
    found.issuance.redeem(found.invite(), P12)
    assert found.clients[0].not_after == end
    found.clock.now = end + 1
    with pytest.raises(IssuerError, match="valid from"):
        found.issuance.redeem(found.invite(), P12)


# -- the password


def test_a_password_is_the_invitation_s_own_and_gone_with_it(tmp_path: Path) -> None:
    """Two links have two; the database alone, or the link alone, doesn't tell one; after the use
    nothing is left to derive it from."""
    found = Issuing(tmp_path)
    one, two = found.invite(), found.invite()
    first = found.issuance.find(one)
    assert found.issuance.password(one, first) != found.issuance.password(
        two, found.issuance.find(two)
    )
    assert found.issuance.password(two, first) != found.issuance.password(one, first)
    found.issuance.redeem(one, P12)
    with found.store.reading() as connection:
        left = connection.execute("SELECT salt, request FROM invitations WHERE state = 'used'")
        assert [tuple(row) for row in left] == [(None, None)]

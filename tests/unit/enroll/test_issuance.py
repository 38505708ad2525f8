"""Who gets a certificate: by the rules of profile, invitation and renewal."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from issuing import Clock, Issuing, own_ca, request

from sidecar.enroll import attempts, clients, invitations
from sidecar.enroll.attempts import MAX_RENEWALS
from sidecar.enroll.issuance import Wanted
from sidecar.enroll.issuer import IssuerError
from sidecar.enroll.refused import Refused
from sidecar.enroll.signing_request import UnusableRequest

P12, CSR = Wanted("p12"), Wanted("csr", csr=request())


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


def test_a_device_has_so_many_certificates_by_renewal_and_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where each can be renewed at once, and each of those again, a thief would have thousands,
    each with a line that `revoke` writes; one that has ended or is revoked makes room."""
    monkeypatch.setattr(attempts, "MAX_VALID", 4)
    found = Issuing(tmp_path, "profiles: {default: {validity: 7d, renew_before: 30d}}\n")
    found.issuance.redeem(found.invite(device="phone"), P12)
    found.issuance.redeem(found.invite(device="pad"), P12)

    def last(device: str) -> str:
        renewed = {each.renewed_from for each in found.clients}
        (sha256,) = [
            e.sha256 for e in found.clients if e.device == device and e.sha256 not in renewed
        ]
        return sha256

    first = last("phone")
    for _ in range(3):
        found.issuance.renew(last("phone"), P12)
    with pytest.raises(Refused, match="has 4 certificates") as refused:
        found.issuance.renew(last("phone"), P12)
    assert refused.value.status == 409
    found.issuance.renew(last("pad"), P12)
    with found.store.changing() as connection:
        clients.mark_revoked(connection, [first], found.clock(), "")
    found.issuance.renew(last("phone"), P12)
    found.clock.now += 7 * 86400 - 1
    with found.store.changing() as connection:
        connection.execute("UPDATE certificates SET not_after = ? WHERE revoked IS NULL AND"
                           " renewed_from = ?", (found.clock(), first))  # fmt: skip
    found.issuance.renew(last("phone"), P12)


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


# -- approval


def test_what_was_approved_is_what_is_issued(tmp_path: Path) -> None:
    """Neither another CSR, nor another format or device, once somebody has approved one."""
    found = Issuing(tmp_path)
    token = found.invite(approve=True)
    wanted = Wanted("csr", device="phone", csr=CSR.csr)
    assert found.issuance.redeem(token, wanted) is None
    with pytest.raises(Refused, match="waits for approval"):
        found.issuance.redeem(token, wanted)
    identifier = found.issuance.find(token).id
    with found.store.changing() as connection:
        invitations.approve(connection, identifier, found.clock())
    for other in (P12, Wanted("csr", csr=request()), Wanted("csr", device="laptop", csr=CSR.csr)):
        with pytest.raises(Refused, match="What was approved is"):
            found.issuance.redeem(token, other)
    assert found.issuance.redeem(token, wanted) is not None
    assert found.clients[0].device == "phone"


def test_an_approval_comes_too_late_like_everything_else(tmp_path: Path) -> None:
    """An invitation that has ended can be neither asked for nor approved."""
    found = Issuing(tmp_path)
    token = found.invite(approve=True, seconds=60)
    assert found.issuance.redeem(token, CSR) is None
    identifier = found.issuance.find(token).id
    found.clock.now += 60
    with (
        pytest.raises(invitations.InvitationError, match="expired"),
        found.store.changing() as connection,
    ):
        invitations.approve(connection, identifier, found.clock())


# -- what is gone, and what another CA would take over


def test_a_profile_that_was_taken_away_takes_its_invitations_and_renewals_with_it(
    tmp_path: Path,
) -> None:
    """Nothing is issued by another profile in its place."""
    found = Issuing(tmp_path, "profiles: {default: {renew_before: 400d}, guests: {}}\n")
    kept, gone = found.invite(profile="default"), found.invite(profile="default")
    found.issuance.redeem(kept, P12)
    again = Issuing(tmp_path, "profiles: {guests: {}}\n", clock=found.clock)
    with pytest.raises(Refused, match="profile is gone"):
        again.issuance.redeem(gone, P12)
    with pytest.raises(Refused, match="profile is gone"):
        again.issuance.renew(found.clients[0].sha256, P12)


def test_a_renewal_takes_a_csr_too_and_its_device_stays(tmp_path: Path) -> None:
    """The key of a renewal can stay on its machine; it is for the same device."""
    found = Issuing(tmp_path, "profiles: {default: {renew_before: 400d, formats: [csr]}}\n")
    found.issuance.redeem(found.invite(device="server"), CSR)
    old = found.clients[0].sha256
    key = ec.generate_private_key(ec.SECP256R1())
    file = found.issuance.renew(old, Wanted("csr", "server", request("x", key)))
    assert x509.load_pem_x509_certificate(file.data).public_key() == key.public_key()
    with pytest.raises(Refused, match="no such kind"):
        found.issuance.renew(old, P12)
    with pytest.raises(Refused, match="is for the device server"):
        found.issuance.renew(old, Wanted("csr", "other", request()))


def test_a_key_that_was_revoked_gets_no_certificate_again(tmp_path: Path) -> None:
    """Whoever has stolen it would be in again: neither by a link nor by a renewal, until --undo."""
    found = Issuing(tmp_path, "profiles: {default: {renew_before: 400d}}\n")
    found.issuance.redeem(found.invite(device="phone"), CSR)
    found.issuance.redeem(found.invite(device="pad"), P12)
    pad, phone = found.clients
    with found.store.changing() as connection:
        clients.mark_revoked(connection, [phone.sha256], found.clock(), "stolen")
    token = found.invite(device="laptop")
    with pytest.raises(UnusableRequest, match="make a new key"):
        found.issuance.redeem(token, CSR)
    with pytest.raises(UnusableRequest, match="make a new key"):
        found.issuance.renew(pad.sha256, CSR)
    with found.store.changing() as connection:
        clients.mark_valid(connection, [phone.sha256])
    assert found.issuance.redeem(token, CSR) is not None


@pytest.mark.parametrize("device", ["x-y", "x..y"])
def test_a_holder_takes_no_device_whose_names_would_be_another_s(
    tmp_path: Path, device: str
) -> None:
    """alice's device `x-y` would have the DNS name of alice-x's `y`; `x..y` none at all."""
    more = "profiles: {default: {dns: '{name}-{device}.example.com'}}\n"
    found = Issuing(tmp_path, more)
    token = found.invite("alice")
    with pytest.raises(Refused, match="Choose another") as refused:
        found.issuance.redeem(token, Wanted("p12", device))
    assert (refused.value.status, found.state(token)) == (400, "open")
    assert found.issuance.redeem(token, Wanted("p12", "y")) is not None

"""The CRL: whom it lists, and that others accept it."""

from __future__ import annotations

from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from issuing import Issuing, own_ca
from tools import need, openssl

from sidecar.enroll import clients
from sidecar.enroll.crl import sign_crl
from sidecar.enroll.issuance import Wanted
from sidecar.enroll.issuer import KeyIssuer

WEEK = 7 * 86400


def test_it_lists_who_is_revoked_and_openssl_goes_by_it(tmp_path: Path) -> None:
    """Revoked, not ended, of this CA; OpenSSL refuses that one and takes another."""
    issuer = own_ca()
    found = Issuing(tmp_path, issuer=issuer)
    for name in ("alice", "bob", "carol"):
        found.issuance.redeem(found.invite(name), Wanted("p12"))
    by_name = {each.name: each for each in found.clients}
    other = Issuing(tmp_path, issuer=own_ca("Unit CA"), clock=found.clock)
    other.issuance.redeem(other.invite("dora"), Wanted("p12"))
    dora = next(each for each in other.clients if each.name == "dora")
    with found.store.changing() as connection:
        revoked = [by_name["alice"].sha256, dora.sha256]
        clients.mark_revoked(connection, revoked, found.clock(), "")
    data, count = sign_crl(found.store, issuer, found.clock(), WEEK)
    crl = x509.load_pem_x509_crl(data)
    assert (count, [each.serial_number for each in crl]) == (1, [int(by_name["alice"].serial, 16)])
    assert crl.next_update_utc is not None
    assert crl.next_update_utc.timestamp() == found.clock() + WEEK
    (tmp_path / "crl.pem").write_bytes(data)
    (tmp_path / "ca.pem").write_bytes(issuer.certificate.public_bytes(Encoding.PEM))
    tool, codes = need(openssl()), {}
    for name in ("alice", "bob"):
        cert = x509.load_der_x509_certificate(by_name[name].der)
        (tmp_path / f"{name}.pem").write_bytes(cert.public_bytes(Encoding.PEM))
        command = f"verify -crl_check -CAfile ca.pem -CRLfile crl.pem {name}.pem"
        codes[name] = tool.run(*command.split(), cwd=tmp_path)
    assert "certificate revoked" in codes["alice"].stderr
    assert codes["bob"].returncode == 0, codes["bob"].stderr


def test_its_number_grows_whatever_the_clock_says(tmp_path: Path) -> None:
    """A clock that goes back makes no CRL that others take for an older one."""
    found = Issuing(tmp_path)
    assert isinstance(found.issuer, KeyIssuer)
    numbers = []
    for moment in (found.clock(), found.clock() - WEEK):
        crl = x509.load_pem_x509_crl(sign_crl(found.store, found.issuer, moment, WEEK)[0])
        numbers.append(crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number)
    assert numbers == [1, 2]

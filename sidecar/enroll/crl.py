"""Sign a CRL of the revoked certificates in the store (RFC 5280, 5), for others who need one."""

from __future__ import annotations

from datetime import timedelta

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from . import clients
from .certificate_profile import authority_key, now_utc
from .clients import IssuedCertificate
from .issuer import KeyIssuer, signature_hash
from .store import Store, put_setting, setting


def sign_crl(store: Store, issuer: KeyIssuer, now: float, validity: int) -> tuple[bytes, int]:
    """Sign the next CRL; the PEM, and how many certificates it lists.

    Raises `StoreError`.  Its number is one more than the last one's, whatever the clock says.
    """
    with store.changing() as connection:
        number = int(setting(connection, "crl_number") or b"0") + 1
        put_setting(connection, "crl_number", str(number).encode())
        found = [each for each in clients.all_of(connection) if each.revoked is not None]
    listed = [each for each in found if now < each.not_after + validity and _is_of(each, issuer)]
    start = now_utc(now).replace(microsecond=0)
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(issuer.certificate.subject)
        .last_update(start)
        .next_update(start + timedelta(seconds=validity))
        .add_extension(x509.CRLNumber(number), critical=False)
        .add_extension(authority_key(issuer.certificate), critical=False)
    )
    for each in listed:
        builder = builder.add_revoked_certificate(_entry(each))
    crl = builder.sign(issuer.key, signature_hash(issuer.key))
    return crl.public_bytes(Encoding.PEM), len(listed)


def _is_of(found: IssuedCertificate, issuer: KeyIssuer) -> bool:
    """Whether a certificate was issued by this CA, and not by an earlier one."""
    try:
        x509.load_der_x509_certificate(found.der).verify_directly_issued_by(issuer.certificate)
    except Exception:  # noqa: BLE001 - whatever is wrong, it is not a certificate of this CA
        return False
    return True


def _entry(found: IssuedCertificate) -> x509.RevokedCertificate:
    assert found.revoked is not None
    moment = now_utc(found.revoked).replace(microsecond=0)
    builder = x509.RevokedCertificateBuilder()
    return builder.serial_number(int(found.serial, 16)).revocation_date(moment).build()

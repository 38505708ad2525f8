"""Verify OCSP responses: only a response that passes every check of RFC 6960 counts."""

from __future__ import annotations

import importlib.resources
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import ocsp_pki as pki
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, mldsa, padding, rsa
from cryptography.hazmat.primitives.asymmetric.types import (
    CertificateIssuerPrivateKeyTypes,
    CertificatePublicKeyTypes,
)
from cryptography.hazmat.primitives.asymmetric.utils import (
    decode_dss_signature,
    encode_dss_signature,
)
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp
from cryptography.x509.oid import ExtendedKeyUsageOID
from der import der_oid, der_rdn, tlv
from pki import CA as Authority
from pki import Leaf

from sidecar.core.revocation.ocsp import response
from sidecar.core.revocation.ocsp.response import (
    DEFAULT_LIFETIME,
    MAX_RESPONSE,
    OcspAnswer,
    ocsp_key,
)
from sidecar.core.revocation.status import RevocationStatus
from sidecar.core.x509.certificate import ClientCert, from_der

CA, LEAF = pki.authority(), pki.leaf()
NONCE = bytes(range(32))
REVOKED = tlv(0xA1, tlv(0x18, b"20260101000000Z"))


def as_read(cert: x509.Certificate) -> ClientCert:
    return from_der(cert.public_bytes(Encoding.DER))


def verify_response(
    der: bytes,
    cert: x509.Certificate,
    issuer: x509.Certificate,
    now: float,
    tolerance: float,
    nonce: bytes | None = None,
    **options: bool,
) -> OcspAnswer:
    return response.verify_response(
        der, as_read(cert), as_read(issuer), now, tolerance, nonce, **options
    )


def build_request(cert: x509.Certificate, issuer: x509.Certificate, nonce: bytes | None) -> bytes:
    return response.build_request(as_read(cert), as_read(issuer), nonce)


def verify(der: bytes, nonce: bytes | None = None, **options: bool) -> OcspAnswer:
    return verify_response(der, LEAF.cert, CA.cert, time.time(), 5.0, nonce, **options)


def about(**options: object) -> bytes:
    return pki.single(LEAF.cert, CA.cert, **options)  # type: ignore[arg-type]


def request(nonce: bytes | None = NONCE) -> bytes:
    return build_request(LEAF.cert, CA.cert, nonce)


# -- the request -------------------------------------------------------------------------------


def test_request_names_the_certificate_and_carries_the_nonce() -> None:
    """A request asks about one certificate, by issuer and serial number, with the nonce."""
    read = ocsp.load_der_ocsp_request(request())
    assert read.serial_number == LEAF.cert.serial_number
    assert read.extensions.get_extension_for_class(x509.OCSPNonce).value.nonce == NONCE
    assert len(ocsp.load_der_ocsp_request(request(None)).extensions) == 0


@pytest.mark.parametrize("length", [0, 129])
def test_a_nonce_has_1_to_128_octets(length: int) -> None:
    """RFC 9654, section 2.1: other lengths are not sent."""
    with pytest.raises(ValueError, match="nonce"):
        request(b"x" * length)


def test_a_key_names_a_certificate_whatever_its_encoding() -> None:
    """An ECDSA signature turned over, (r, n - s), is another fingerprint but the same key."""
    staff = Authority("Staff")
    issuer, bob = from_der(staff.der), from_der(staff.issue("bob").der)
    leaf = staff.issue("alice")
    alice = from_der(leaf.der)
    r, s = decode_dss_signature(alice.signature)
    order = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
    signature = tlv(0x03, b"\0" + encode_dss_signature(r, order - s))
    turned = from_der(tlv(0x30, alice.signed, alice.algorithm, signature))
    assert turned.sha256 != alice.sha256
    assert ocsp_key(turned, issuer, 300) == ocsp_key(alice, issuer, 300)
    assert ocsp_key(alice, issuer, 300) != ocsp_key(bob, issuer, 300)
    assert ocsp_key(alice, issuer, 300) != ocsp_key(alice, bob, 300)
    assert ocsp_key(alice, issuer, 300) != ocsp_key(alice, issuer, 0)


# -- the real responder ------------------------------------------------------------------------


def openssl(directory: Path, signer: pki.Pair, *options: str, state: str = "good") -> bytes:
    pki.write_index(
        directory / "index.txt",
        good=[LEAF] if state == "good" else [],
        revoked=[LEAF] if state == "revoked" else [],
    )
    return pki.respond(directory, request(), signer, CA, *options)


@pytest.mark.parametrize(
    ("state", "status"),
    [
        ("good", RevocationStatus.GOOD),
        ("revoked", RevocationStatus.REVOKED),
        ("absent", RevocationStatus.UNKNOWN),
    ],
)
def test_openssl_answers_signed_by_the_issuer(
    tmp_path: Path, state: str, status: RevocationStatus
) -> None:
    """Good, revoked and unknown answers of `openssl ocsp` are read correctly, with their nonce."""
    answer = verify(openssl(tmp_path, CA, "-nmin", "10", state=state), NONCE, require_nonce=True)
    assert answer.status is status
    assert answer.delegate is None
    assert answer.next_update - answer.this_update == 600
    assert answer.until == answer.next_update + 5
    assert ("keyCompromise" in answer.detail) == (state == "revoked")


@pytest.mark.parametrize("hash_name", ["sha256", "sha384", "sha512"])
def test_openssl_signature_hashes(tmp_path: Path, hash_name: str) -> None:
    """Every hash of the SHA-2 family is accepted in the signature."""
    answer = verify(openssl(tmp_path, CA, "-nmin", "10", "-rmd", hash_name))
    assert answer.status is RevocationStatus.GOOD


def test_openssl_sha1_signature_is_refused(tmp_path: Path) -> None:
    """A SHA-1 signature is refused."""
    answer = verify(openssl(tmp_path, CA, "-nmin", "10", "-rmd", "sha1"))
    assert answer.status is RevocationStatus.UNKNOWN
    assert "signature" in answer.detail


def test_openssl_expired_answer_is_unknown(tmp_path: Path) -> None:
    """An answer is used until nextUpdate plus tolerance, and no longer."""
    der = openssl(tmp_path, CA, "-nmin", "1")
    fresh = verify(der)
    at = fresh.until
    assert verify_response(der, LEAF.cert, CA.cert, at - 0.1, 5.0).status is RevocationStatus.GOOD
    late = verify_response(der, LEAF.cert, CA.cert, at, 5.0)
    assert (late.status, late.detail) == (RevocationStatus.UNKNOWN, "expired")


def test_openssl_without_next_update_gets_the_short_default(tmp_path: Path) -> None:
    """Without nextUpdate an answer is used for a minute after its thisUpdate."""
    der = openssl(tmp_path, CA)
    answer = verify(der)
    assert answer.status is RevocationStatus.GOOD
    assert answer.next_update == answer.this_update + DEFAULT_LIFETIME
    late = answer.this_update + DEFAULT_LIFETIME + 5
    assert verify_response(der, LEAF.cert, CA.cert, late, 5.0).status is RevocationStatus.UNKNOWN


def test_openssl_wrong_key_is_unknown(tmp_path: Path) -> None:
    """An answer signed by another key under the issuer's name is refused."""
    imposter = pki.issue("Test CA", ca=True)
    answer = verify(openssl(tmp_path, imposter, "-nmin", "10"))
    assert answer.status is RevocationStatus.UNKNOWN


def delegated(
    eku: Sequence[x509.ObjectIdentifier] = (pki.OCSP_SIGNING,), **options: object
) -> pki.Pair:
    return pki.issue("responder", options.pop("issuer", CA), eku=eku, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("by_key", [False, True])
@pytest.mark.parametrize("nocheck", [False, True])
def test_openssl_delegated_responder(tmp_path: Path, by_key: bool, nocheck: bool) -> None:
    """A responder that the issuer certified for OCSPSigning is accepted, named by DN or key."""
    signer = delegated(extra=[(x509.OCSPNoCheck(), False)] if nocheck else [])
    options = ["-nmin", "10"] + (["-resp_key_id"] if by_key else [])
    answer = verify(openssl(tmp_path, signer, *options, state="revoked"))
    assert answer.status is RevocationStatus.REVOKED
    assert answer.delegate is not None
    assert answer.delegate.der == signer.cert.public_bytes(Encoding.DER)
    assert answer.nocheck is nocheck


@pytest.mark.parametrize(
    ("signer", "why"),
    [
        (delegated(eku=()), "not for OCSPSigning"),
        (
            delegated(eku=[ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE]),
            "not for OCSPSigning",
        ),
        (delegated(eku=[ExtendedKeyUsageOID.CLIENT_AUTH]), "not for OCSPSigning"),
        (delegated(issuer=pki.authority("Other CA")), "not issued by"),
        (delegated(issuer=pki.issue("sub", CA, ca=True)), "not issued by"),
        (delegated(days=(-9, -1)), "not valid now"),
        (delegated(days=(1, 9)), "not valid now"),
        (
            delegated(
                extra=[
                    (
                        x509.KeyUsage(False, False, False, True, True, True, True, False, False),
                        True,
                    )
                ]
            ),
            "keyUsage",
        ),
        (
            delegated(
                extra=[
                    (
                        x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3"), b"\x05\0"),
                        True,
                    )
                ]
            ),
            "critical",
        ),
    ],
)
def test_openssl_delegated_responder_without_the_right(
    tmp_path: Path, signer: pki.Pair, why: str
) -> None:
    """EKU, direct issuance, validity, keyUsage and critical extensions of the delegate are
    checked."""
    answer = verify(openssl(tmp_path, signer, "-nmin", "10"))
    assert answer.status is RevocationStatus.UNKNOWN
    assert why in answer.detail


def test_openssl_delegate_not_in_the_response(tmp_path: Path) -> None:
    """A delegated signature whose certificate is left out can't be checked."""
    answer = verify(openssl(tmp_path, delegated(), "-nmin", "10", "-resp_no_certs"))
    assert answer.status is RevocationStatus.UNKNOWN


SIGNING_KEYS: dict[str, tuple[Callable[[], CertificateIssuerPrivateKeyTypes], Any]] = {
    "RSA": (lambda: rsa.generate_private_key(65537, 2048), hashes.SHA256()),
    "P-384": (lambda: ec.generate_private_key(ec.SECP384R1()), hashes.SHA384()),
    "Ed25519": (ed25519.Ed25519PrivateKey.generate, None),
    "Ed448": (ed448.Ed448PrivateKey.generate, None),
}


@pytest.mark.parametrize("kind", SIGNING_KEYS)
def test_kinds_of_signing_keys(kind: str) -> None:
    """RSA, ECDSA and EdDSA signatures are verified: valid ones accepted, invalid ones refused."""
    make, algorithm = SIGNING_KEYS[kind]
    key, other = make(), make()
    issuer_name, now = pki.name("kinds"), datetime.now(UTC).replace(microsecond=0)

    def certify(subject: x509.Name, public: CertificatePublicKeyTypes) -> x509.Certificate:
        builder = x509.CertificateBuilder(issuer_name, subject, public, 1)
        return builder.not_valid_before(now).not_valid_after(now).sign(key, algorithm)

    issuer, cert = certify(issuer_name, key.public_key()), certify(pki.name("x"), key.public_key())
    twin = certify(issuer_name, other.public_key())
    for named, signer, status in (
        (issuer, key, RevocationStatus.GOOD),
        (twin, other, RevocationStatus.UNKNOWN),
    ):
        builder = ocsp.OCSPResponseBuilder().add_response(
            cert, issuer, hashes.SHA1(), ocsp.OCSPCertStatus.GOOD, now, None, None, None
        )
        builder = builder.responder_id(ocsp.OCSPResponderEncoding.NAME, named)
        der = builder.sign(signer, algorithm).public_bytes(Encoding.DER)
        assert verify_response(der, cert, issuer, time.time(), 5.0).status is status


def certified(key: Any, hashing: Any = None) -> tuple[x509.Certificate, x509.Certificate]:
    """An authority with this key, and a certificate under it."""
    now = datetime.now(UTC).replace(microsecond=0)

    def certify(cn: str) -> x509.Certificate:
        builder = x509.CertificateBuilder(pki.name("kinds"), pki.name(cn), key.public_key(), 1)
        return builder.not_valid_before(now).not_valid_after(now).sign(key, hashing)

    return certify("kinds"), certify("x")


PSS = bytes.fromhex(
    "304106092a864886f70d01010a3034a00f300d06096086480165030402010500a11c301a06092a864886f70d0101"
    "08300d06096086480165030402010500a203020120"
)
PSS_MGF_SHA1 = bytes.fromhex(
    "302406092a864886f70d01010a3017a00f300d06096086480165030402010500a203020120a3040202"
)


def test_rsassa_pss_signed_answers() -> None:
    """RSASSA-PSS as in RFC 4055 is accepted; another salt, key or hash is refused."""
    key, other = (rsa.generate_private_key(65537, 2048) for _ in range(2))
    issuer, cert = certified(key, hashes.SHA256())
    one = pki.single(cert, issuer)

    def signed(by: Any, salt: int, hashing: Any, algorithm: bytes = PSS) -> RevocationStatus:
        scheme = padding.PSS(padding.MGF1(hashing), salt)
        der = pki.craft(
            pki.Pair(issuer, by), [one], algorithm=algorithm,
            sign=lambda data: by.sign(data, scheme, hashes.SHA256()),
        )  # fmt: skip
        return verify_response(der, cert, issuer, time.time(), 5.0).status

    assert signed(key, 32, hashes.SHA256()) is RevocationStatus.GOOD
    assert signed(other, 32, hashes.SHA256()) is RevocationStatus.UNKNOWN
    assert signed(key, 20, hashes.SHA256()) is RevocationStatus.UNKNOWN
    assert signed(key, 32, hashes.SHA1(), PSS_MGF_SHA1) is RevocationStatus.UNKNOWN


def test_openssl_rsassa_pss(tmp_path: Path) -> None:
    """RSASSA-PSS signatures of `openssl ocsp` are accepted."""
    key = rsa.generate_private_key(65537, 2048)
    issuer, cert = certified(key, hashes.SHA256())
    signer = pki.Pair(issuer, key)  # type: ignore[arg-type]  # any key will do for OpenSSL
    pki.write_index(tmp_path / "index.txt", good=[pki.Pair(cert, signer.key)])
    pss = ("-nmin", "10", "-rsigopt", "rsa_padding_mode:pss", "-rsigopt", "rsa_mgf1_md:sha256")
    der = pki.respond(tmp_path, build_request(cert, issuer, None), signer, signer, *pss)
    assert verify_response(der, cert, issuer, time.time(), 5.0).status is RevocationStatus.GOOD


@pytest.mark.parametrize("kind", [44, 65, 87])
def test_ml_dsa_signed_answers(kind: int) -> None:
    """ML-DSA (FIPS 204) is accepted; a signature of another key or of other octets is refused."""
    make = getattr(mldsa, f"MLDSA{kind}PrivateKey").generate
    algorithm = bytes.fromhex("300b06096086480165030403") + bytes([{44: 17, 65: 18, 87: 19}[kind]])
    key, other = make(), make()
    issuer, cert = certified(key)
    one = pki.single(cert, issuer)
    for by, status in ((key, RevocationStatus.GOOD), (other, RevocationStatus.UNKNOWN)):
        signer = pki.Pair(issuer, by)
        der = pki.craft(signer, [one], algorithm=algorithm, sign=by.sign)
        assert verify_response(der, cert, issuer, time.time(), 5.0).status is status
        assert verify_response(der[:-1] + b"\0", cert, issuer, time.time(), 5.0).status is (
            RevocationStatus.UNKNOWN if der[-1] else status
        )


# -- responses that no honest responder sends ---------------------------------------------------


def test_a_crafted_good_answer_is_good() -> None:
    """The handmade response is valid before the other tests change it."""
    assert verify(pki.craft(CA, [about()])).status is RevocationStatus.GOOD
    assert (
        verify(pki.craft(CA, [about()], responder=pki.key_id(CA))).status is RevocationStatus.GOOD
    )


@pytest.mark.parametrize("algorithm", [hashes.SHA1(), hashes.SHA256(), hashes.SHA512()])
def test_cert_id_hash_is_the_responses_choice(algorithm: hashes.HashAlgorithm) -> None:
    """The CertID may use another hash than the request."""
    der = pki.craft(CA, [about(algorithm=algorithm, status=REVOKED)])
    assert verify(der).status is RevocationStatus.REVOKED


def other_singles() -> list[bytes]:
    return [
        pki.single(pki.leaf("bob").cert, CA.cert),
        pki.single(LEAF.cert, pki.authority("Other CA").cert),
        pki.single(
            pki.issue("x", pki.authority("Other CA"), serial=LEAF.cert.serial_number).cert, CA.cert
        ),
    ]


@pytest.mark.parametrize("which", range(3))
def test_an_answer_about_another_certificate_says_nothing(which: int) -> None:
    """Serial number, issuer name and issuer key must all be this certificate's."""
    answer = verify(pki.craft(CA, [other_singles()[which]]))
    assert (answer.status, answer.detail) == (
        RevocationStatus.UNKNOWN,
        "no answer about this certificate",
    )


def test_same_serial_under_an_issuer_of_the_same_name_is_another_certificate() -> None:
    """An authority with the same name but another key can't answer, even with the same serial
    number."""
    twin = pki.issue("Test CA", ca=True)
    answer = verify(pki.craft(CA, [pki.single(LEAF.cert, twin.cert)]))
    assert answer.status is RevocationStatus.UNKNOWN


def test_of_several_answers_the_certificates_own_counts() -> None:
    """The single response with the right CertID is used, at any position."""
    others = other_singles()
    for at in range(len(others) + 1):
        singles = [*others[:at], about(status=REVOKED), *others[at:]]
        assert verify(pki.craft(CA, singles)).status is RevocationStatus.REVOKED


UNKNOWN = b"\x82\x00"


@pytest.mark.parametrize(
    ("first", "second", "status"),
    [
        (b"\x80\x00", b"\x80\x00", RevocationStatus.GOOD),
        (b"\x80\x00", REVOKED, RevocationStatus.REVOKED),
        (REVOKED, UNKNOWN, RevocationStatus.REVOKED),
        (b"\x80\x00", UNKNOWN, RevocationStatus.UNKNOWN),
        (REVOKED, REVOKED, RevocationStatus.REVOKED),
    ],
)
def test_two_answers_about_one_certificate(
    first: bytes, second: bytes, status: RevocationStatus
) -> None:
    """Of answers by SHA-1 and SHA-256, in any order, the worst counts."""
    for algorithm in (hashes.SHA1(), hashes.SHA256()):
        one = about(status=first, algorithm=hashes.SHA1())
        two = about(status=second, algorithm=algorithm)
        for singles in ([one, two], [two, one]):
            assert verify(pki.craft(CA, singles)).status is status


def test_two_good_answers_hold_within_the_times_of_both() -> None:
    """The later beginning and the earlier end apply; an expired one makes both unusable."""
    one, two = about(start=-60, end=600), about(start=-30, end=3600)
    answer = verify(pki.craft(CA, [one, two]))
    alone = verify(pki.craft(CA, [one])), verify(pki.craft(CA, [two]))
    assert answer.until == pytest.approx(alone[0].until, abs=2)
    assert answer.since == pytest.approx(alone[1].since, abs=2)
    ended = about(start=-7200, end=-3600)
    assert verify(pki.craft(CA, [one, ended])).status is RevocationStatus.UNKNOWN
    many = [about() for _ in range(9)]
    assert verify(pki.craft(CA, many)).status is RevocationStatus.UNKNOWN


def test_an_answer_holds_while_its_delegate_is_valid() -> None:
    """An answer is used only while the responder's certificate is valid."""
    delegate = pki.issue("r", CA, eku=[pki.OCSP_SIGNING], days=(-0.0005, 0.005))
    answer = verify(pki.craft(delegate, [about(start=-600)], certs=[delegate], produced=-600))
    end = delegate.cert.not_valid_after_utc.timestamp()
    assert answer.status is RevocationStatus.GOOD
    assert answer.holds(end + 0.5)
    assert not answer.holds(end + 1)
    assert answer.holds(delegate.cert.not_valid_before_utc.timestamp())
    assert not answer.holds(delegate.cert.not_valid_before_utc.timestamp() - 0.5)
    late = verify_response(
        pki.craft(delegate, [about(start=-600)], certs=[delegate]),
        LEAF.cert, CA.cert, end + 0.5, 5.0,
    )  # fmt: skip
    assert (
        late.status is RevocationStatus.GOOD
    )  # the second of notAfter is in, as for every certificate


CRITICAL = pki.extension(b"\x2a\x03\x04", True)
HARMLESS = pki.extension(b"\x2a\x03\x04", False)


def test_unknown_critical_extensions_are_refused() -> None:
    """An unknown extension is refused only if it is critical."""
    assert verify(pki.craft(CA, [about()], extensions=[HARMLESS])).status is RevocationStatus.GOOD
    assert verify(pki.craft(CA, [about(extensions=[HARMLESS])])).status is RevocationStatus.GOOD
    assert (
        verify(pki.craft(CA, [about()], extensions=[CRITICAL])).status is RevocationStatus.UNKNOWN
    )
    assert verify(pki.craft(CA, [about(extensions=[CRITICAL])])).status is RevocationStatus.UNKNOWN
    mixed = [other_singles()[0], about(extensions=[HARMLESS, CRITICAL])]
    assert verify(pki.craft(CA, mixed)).status is RevocationStatus.UNKNOWN
    elsewhere = [
        pki.single(pki.leaf("bob").cert, CA.cert, extensions=[CRITICAL]),
        about(),
    ]
    assert verify(pki.craft(CA, elsewhere)).status is RevocationStatus.GOOD


def test_extensions_are_bounded() -> None:
    """Twenty thousand that are rightly signed would hold up every decision while they are read:
    they are refused unread, and revoke all the same."""
    many = [
        pki.extension(bytes([0x2A, number // 100, number % 100]), False) for number in range(400)
    ]
    for whole, single in ((many, []), ([], many)):
        answer = verify(pki.craft(CA, [about(extensions=single)], extensions=whole))
        assert answer.status is RevocationStatus.UNKNOWN
        assert answer.detail == "too many extensions"
        revoked = pki.craft(CA, [about(status=REVOKED, extensions=single)], extensions=whole)
        assert verify(revoked).status is RevocationStatus.REVOKED


def test_repeated_extensions_are_refused() -> None:
    """RFC 5280, 4.2: a repeated extension is refused."""
    twice = [HARMLESS, HARMLESS]
    assert verify(pki.craft(CA, [about(extensions=twice)])).status is RevocationStatus.UNKNOWN
    assert verify(pki.craft(CA, [about()], extensions=twice)).status is RevocationStatus.UNKNOWN


NONCE_OID = bytes.fromhex("2b0601050507300102")


def with_nonce(nonce: bytes) -> bytes:
    echo = pki.extension(NONCE_OID, False, tlv(0x04, nonce))
    return pki.craft(CA, [about()], extensions=[echo])


def test_nonce_must_match_when_it_is_there() -> None:
    """A different nonce is refused as a replay; a missing nonce is accepted."""
    assert verify(with_nonce(NONCE), NONCE, require_nonce=True).status is RevocationStatus.GOOD
    assert verify(with_nonce(NONCE[::-1]), NONCE).status is RevocationStatus.UNKNOWN
    assert verify(with_nonce(NONCE)).status is RevocationStatus.GOOD
    bare = pki.craft(CA, [about()])
    assert verify(bare, NONCE).status is RevocationStatus.GOOD
    assert verify(bare, NONCE, require_nonce=True).status is RevocationStatus.UNKNOWN


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"start": 60}, "future"),
        ({"start": -7200, "end": -3600}, "expired"),
        ({"start": -7200, "end": None}, "expired"),
        ({"start": -60, "end": -120}, "nextUpdate is before"),
    ],
)
def test_times_that_are_wrong(options: dict[str, float | None], why: str) -> None:
    """thisUpdate in the future, nextUpdate in the past and a wrong order are refused."""
    answer = verify(pki.craft(CA, [about(**options)]))
    assert answer.status is RevocationStatus.UNKNOWN
    assert why in answer.detail


@pytest.mark.parametrize(
    ("options", "around"),
    [
        ({"start": 1200, "end": 7200}, {"produced": 1200}),
        ({"start": -7200, "end": -3600}, {}),
        ({"start": -60, "end": -120}, {}),
        ({"extensions": [CRITICAL]}, {}),
        ({"extensions": [HARMLESS, HARMLESS]}, {}),
        ({}, {"extensions": [CRITICAL]}),
        ({}, {"extensions": [HARMLESS, HARMLESS]}),
        ({}, {"extensions": [pki.extension(NONCE_OID, False, tlv(0x04, NONCE[::-1]))]}),
    ],
)
def test_what_is_rightly_signed_revokes_even_if_it_is_refused(
    options: dict[str, object], around: dict[str, object]
) -> None:
    """A clock that is wrong, a cache between, an extension of tomorrow: such an answer never holds
    and never says good, but whom it revokes is revoked, as by a CRL."""

    def answer(status: bytes, signer: pki.Pair = CA) -> OcspAnswer:
        single = about(**options, status=status)
        return verify(pki.craft(signer, [single], **around), NONCE)  # type: ignore[arg-type]

    revoked = answer(REVOKED)
    assert revoked.status is RevocationStatus.REVOKED
    assert "refused otherwise" in revoked.detail
    assert not any(map(revoked.holds, (0.0, time.time(), revoked.this_update + 1)))
    assert answer(b"\x80\x00").status is RevocationStatus.UNKNOWN
    assert answer(REVOKED, pki.issue("Test CA", ca=True)).status is RevocationStatus.UNKNOWN


@pytest.mark.parametrize("days", [(-9, -1), (1, 9)])
def test_what_a_delegate_signed_that_is_not_valid_now_revokes(days: tuple[float, float]) -> None:
    """Responders' certificates are short-lived: what one has revoked stays so, and good it never
    says; beside a valid one of the same name and key, that one counts."""
    signer = delegated(days=days)
    good, revoked = (
        verify(pki.craft(signer, [about(status=status)], certs=[signer]))
        for status in (b"\x80\x00", REVOKED)
    )
    assert (good.status, good.detail) == (
        RevocationStatus.UNKNOWN,
        "the responder's certificate is not valid now",
    )
    assert revoked.status is RevocationStatus.REVOKED
    assert not any(map(revoked.holds, (0.0, time.time(), revoked.this_update + 1)))
    server = delegated(eku=[ExtendedKeyUsageOID.SERVER_AUTH], days=days)
    der = pki.craft(server, [about(status=REVOKED)], certs=[server])
    assert verify(der).status is RevocationStatus.UNKNOWN
    builder = x509.CertificateBuilder(CA.cert.subject, signer.cert.subject)
    builder = builder.public_key(signer.key.public_key()).serial_number(7)
    builder = builder.not_valid_before(CA.cert.not_valid_before_utc)
    builder = builder.not_valid_after(CA.cert.not_valid_after_utc)
    builder = builder.add_extension(x509.ExtendedKeyUsage([pki.OCSP_SIGNING]), critical=False)
    renewed = pki.Pair(builder.sign(CA.key, hashes.SHA256()), signer.key)
    both = verify(pki.craft(signer, [about()], certs=[signer, renewed]))
    assert both.status is RevocationStatus.GOOD
    assert both.delegate is not None
    assert both.delegate.der == renewed.der


def test_one_that_revokes_among_too_many_answers_revokes() -> None:
    """So does one whose reason isn't one that is known."""
    many = [*(about() for _ in range(9)), about(status=REVOKED)]
    assert verify(pki.craft(CA, many)).status is RevocationStatus.REVOKED
    odd = tlv(0xA1, tlv(0x18, b"20260101000000Z"), tlv(0xA0, tlv(0x0A, b"\x07")))
    assert verify(pki.craft(CA, [about(status=odd)])).status is RevocationStatus.REVOKED


def test_tolerance_covers_clocks_that_differ() -> None:
    """An answer from 60 s ahead is accepted with a tolerance of 120 s."""
    der = pki.craft(CA, [about(start=60)], produced=60)
    assert (
        verify_response(der, LEAF.cert, CA.cert, time.time(), 120.0).status is RevocationStatus.GOOD
    )
    assert verify(pki.craft(CA, [about()], produced=60)).status is RevocationStatus.UNKNOWN


def test_signature_covers_every_byte() -> None:
    """Any changed bit makes the response invalid or leaves its meaning, and never raises."""
    der = pki.craft(CA, [about(status=REVOKED)])
    for at in range(len(der) * 8):
        broken = bytearray(der)
        broken[at // 8] ^= 1 << at % 8
        answer = verify(bytes(broken))
        assert answer.status in (RevocationStatus.UNKNOWN, RevocationStatus.REVOKED)


def test_every_cut_and_garbage_is_unknown() -> None:
    """Any bytes give an answer and never an exception."""
    der = pki.craft(delegated(), [about()], certs=[delegated()])
    dice = random.Random(6960)
    samples = [der[:at] for at in range(len(der))]
    samples += [dice.randbytes(dice.randrange(200)) for _ in range(300)]
    samples += [b"\x30" + dice.randbytes(40) for _ in range(300)]
    for sample in samples:
        answer = verify(sample)
        assert answer.status is RevocationStatus.UNKNOWN
        assert answer.detail


def test_an_oversized_response_is_not_read() -> None:
    """A response over the limit is not parsed."""
    answer = verify(pki.craft(CA, [about()]) + bytes(MAX_RESPONSE))
    assert "longer" in answer.detail


def test_a_response_that_is_no_answer_says_which() -> None:
    """The detail names the responder's error status."""
    der = (VECTORS / "ocsp" / "resp-unauthorized.der").read_bytes()
    assert "unauthorized" in verify(der).detail


def test_a_delegates_certificate_without_its_signature_is_nothing() -> None:
    """A delegate's certificate in the response is worthless without its signature."""
    signer, imposter = delegated(), delegated()
    responder = pki.key_id(signer)
    der = pki.craft(imposter, [about()], certs=[signer], responder=responder)
    assert verify(der).detail == "the signature is wrong"


def test_an_endless_list_of_certificates_is_cut_off() -> None:
    """Only the first few certificates of a response are tried as the signer."""
    signer = delegated()
    fakes = [delegated() for _ in range(8)]
    responder = tlv(0xA1, signer.cert.subject.public_bytes())
    der = pki.craft(signer, [about()], certs=[*fakes, signer], responder=responder)
    assert verify(der).status is RevocationStatus.UNKNOWN
    der = pki.craft(signer, [about()], certs=[*fakes[1:], signer], responder=responder)
    assert verify(der).status is RevocationStatus.GOOD


# -- vectors of other authors -------------------------------------------------------------------

VECTORS = importlib.resources.files("cryptography_vectors") / "x509"
RESPONSES = sorted(p.name for p in (VECTORS / "ocsp").iterdir() if "resp" in p.name)


@pytest.mark.parametrize("file", RESPONSES)
def test_no_vector_is_believed_about_our_certificate(file: str) -> None:
    """Published responses are about other certificates: all are unknown, none raises."""
    assert verify((VECTORS / "ocsp" / file).read_bytes()).status is RevocationStatus.UNKNOWN


def stand_in(issuer: x509.Certificate, serial: int) -> x509.Certificate:
    """A certificate with the issuer name and serial number that a vector is about."""
    at = issuer.not_valid_before_utc
    builder = x509.CertificateBuilder(issuer.subject, pki.name("x"), CA.key.public_key(), serial)
    return builder.not_valid_before(at).not_valid_after(at).sign(CA.key, hashes.SHA256())


def test_lets_encrypts_answer_is_good_in_its_week() -> None:
    """A real answer of a public authority is good in the week from 30 August 2018."""
    der = (VECTORS / "ocsp" / "resp-sha256.der").read_bytes()
    issuer = x509.load_pem_x509_certificate((VECTORS / "letsencryptx3.pem").read_bytes())
    cert = stand_in(issuer, 271024907440004808294641238224534273948400)
    in_week = 1535700000.0  # 2018-08-31
    answer = verify_response(der, cert, issuer, in_week, 60.0)
    assert (answer.status, answer.detail) == (RevocationStatus.GOOD, "")
    assert answer.next_update == 1536231600  # 2018-09-06T11:00:00Z
    for at in (in_week - 7 * 86400, in_week + 7 * 86400):
        assert verify_response(der, cert, issuer, at, 60.0).status is RevocationStatus.UNKNOWN
    odd = (VECTORS / "ocsp" / "resp-invalid-signature-oid.der").read_bytes()
    assert verify_response(odd, cert, issuer, in_week, 60.0).status is RevocationStatus.UNKNOWN


def test_odd_questions_are_unknown() -> None:
    """A negative serial number, or an issuer with an unsupported key, is unknown, without an
    exception."""
    der = pki.craft(CA, [about()])
    edwards = ed25519.Ed25519PrivateKey.generate()
    at = CA.cert.not_valid_before_utc
    builder = x509.CertificateBuilder(CA.cert.subject, CA.cert.subject, edwards.public_key(), 1)
    issuer = builder.not_valid_before(at).not_valid_after(at).sign(edwards, None)
    assert (
        verify_response(der, LEAF.cert, issuer, time.time(), 5.0).status is RevocationStatus.UNKNOWN
    )
    assert (
        verify_response(der, issuer, CA.cert, time.time(), 5.0).status is RevocationStatus.UNKNOWN
    )


@pytest.mark.parametrize(
    ("status", "expected"),
    [(REVOKED, RevocationStatus.REVOKED), (b"\x80\x00", RevocationStatus.UNKNOWN)],
)
def test_a_negative_serial_number_is_revoked_by_its_octets_too(
    status: bytes, expected: RevocationStatus
) -> None:
    """An authority that forgets the zero octet may answer about the number that it means."""
    authority = Authority("Forgetful")
    cert = from_der(authority.forge(serial=-0xF6).der)
    signer = pki.Pair(authority.cert, authority.key)  # type: ignore[arg-type]  # it is an EC key
    single = pki.single(stand_in(authority.cert, 0xFF0A), authority.cert, status=status)
    der = pki.craft(signer, [single])
    issuer = from_der(authority.der)
    found = response.verify_response(der, cert, issuer, time.time(), 5.0)
    assert found.status is expected


# -- certificates that OpenSSL reads and `cryptography` does not ---------------------------------

AUTHORITY = Authority("Odd CA")
ODD_SUBJECTS = {
    "PrintableString with an underscore": tlv(0x30, der_rdn("2.5.4.3", b"a_b", 0x13)),
    "T61String": tlv(0x30, der_rdn("2.5.4.3", b"J\xfcrgen", 0x14)),
}
WRITTEN_OUT = tlv(0x30, der_oid("2.5.29.19"), tlv(0x01, b"\0"), tlv(0x04, tlv(0x30)))


@pytest.mark.parametrize(
    "leaf",
    [
        *(AUTHORITY.forge(subject=each) for each in ODD_SUBJECTS.values()),
        AUTHORITY.forge(extensions=[WRITTEN_OUT]),
    ],
    ids=[*ODD_SUBJECTS, "a default written out"],
)
def test_a_certificate_that_the_library_refuses_is_asked_about(leaf: Leaf) -> None:
    """A certificate in an unusual encoding can be found revoked."""
    cert, issuer = from_der(leaf.der), from_der(AUTHORITY.der)
    asked = ocsp.load_der_ocsp_request(response.build_request(cert, issuer, NONCE))
    plain = stand_in(AUTHORITY.cert, cert.serial)
    same = ocsp.load_der_ocsp_request(build_request(plain, AUTHORITY.cert, NONCE))
    assert asked.public_bytes(Encoding.DER) == same.public_bytes(Encoding.DER)
    key = AUTHORITY.key
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    one = pki.single(plain, AUTHORITY.cert, status=b"\xa1\x11\x18\x0f20260101000000Z")
    der = pki.craft(pki.Pair(AUTHORITY.cert, key), [one])
    answer = response.verify_response(der, cert, issuer, time.time(), 5.0)
    assert answer.status is RevocationStatus.REVOKED


@pytest.mark.parametrize(
    "delegate",
    [
        *(AUTHORITY.forge(subject=each, usage=pki.OCSP_SIGNING) for each in ODD_SUBJECTS.values()),
        AUTHORITY.forge(extensions=[WRITTEN_OUT], usage=pki.OCSP_SIGNING),
    ],
    ids=[*ODD_SUBJECTS, "a default written out"],
)
def test_a_delegate_that_the_library_refuses_speaks(delegate: Leaf) -> None:
    """Its answers count, as with OpenSSL; and what stands beside it takes nothing away."""
    cert, issuer = AUTHORITY.issue("odd"), from_der(AUTHORITY.der)
    one = pki.single(cert.cert, AUTHORITY.cert, status=b"\xa1\x11\x18\x0f20260101000000Z")
    key = delegate.private
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    for beside in ([], [tlv(0x30, b"rubbish")], [AUTHORITY.der]):
        der = pki.craft(
            CA,
            [one],
            certs=[*map(Raw, beside), Raw(delegate.der)],
            responder=tlv(0xA1, from_der(delegate.der).subject_name),
            sign=lambda data: key.sign(data, ec.ECDSA(hashes.SHA256())),
        )
        answer = response.verify_response(der, from_der(cert.der), issuer, time.time(), 5.0)
        assert answer.status is RevocationStatus.REVOKED, answer.detail
        assert answer.delegate is not None
        assert answer.delegate.der == delegate.der


@dataclass
class Raw:
    """A certificate of which only the octets count."""

    der: bytes


def test_the_request_is_the_librarys_own() -> None:
    """Requests equal those of `cryptography` octet by octet."""
    for nonce in (None, NONCE):
        builder = ocsp.OCSPRequestBuilder().add_certificate(LEAF.cert, CA.cert, hashes.SHA1())
        if nonce is not None:
            builder = builder.add_extension(x509.OCSPNonce(nonce), critical=False)
        assert request(nonce) == builder.build().public_bytes(Encoding.DER)


def test_the_issuers_name_may_be_written_in_two_ways() -> None:
    """A responder may hash the issuer's name as encoded in either certificate."""
    issuer = from_der(AUTHORITY.der)
    text = tlv(0x30, der_rdn("2.5.4.3", b"Odd CA", 0x13))  # there a UTF8String
    key = AUTHORITY.key
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    plain = stand_in(AUTHORITY.cert, 4711)
    cert = replace(from_der(AUTHORITY.forge(serial=4711).der), issuer_name=text)
    der = pki.craft(pki.Pair(AUTHORITY.cert, key), [pki.single(plain, AUTHORITY.cert)])
    assert (
        response.verify_response(der, cert, issuer, time.time(), 5.0).status
        is RevocationStatus.GOOD
    )

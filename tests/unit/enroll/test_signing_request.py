"""CSRs of strangers: only a good key of a good size counts."""

from __future__ import annotations

import base64
from collections.abc import Callable

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID
from der import der_oid, tlv
from issuing import request

from sidecar.enroll.signing_request import (
    MAX_REQUEST,
    UnusableRequest,
    read_request,
    refuse_other_names,
)

NewKey = Callable[[], CertificateIssuerPrivateKeyTypes]
ALICE = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "alice")])


def signed(key: CertificateIssuerPrivateKeyTypes, algorithm: hashes.SHA256 | None) -> str:
    builder = x509.CertificateSigningRequestBuilder().subject_name(ALICE)
    return builder.sign(key, algorithm).public_bytes(Encoding.PEM).decode()


def by_hand(*lists: bytes, version: int = 0, name: bytes = ALICE.public_bytes()) -> str:
    """A CSR with these lists of extensions, each an attribute."""
    key = ec.generate_private_key(ec.SECP256R1())
    spki = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    asked = tlv(0xA0, *sorted(lists))
    tbs = tlv(0x30, tlv(0x02, bytes([version])), name, spki, asked)
    algorithm = tlv(0x30, der_oid("1.2.840.10045.4.3.2"))
    signature = key.sign(tbs, ec.ECDSA(hashes.SHA256()))
    body = base64.encodebytes(tlv(0x30, tbs, algorithm, tlv(0x03, b"\0", signature))).decode()
    return f"-----BEGIN CERTIFICATE REQUEST-----\n{body}-----END CERTIFICATE REQUEST-----\n"


def extensions(attribute: str, *found: tuple[str, bytes]) -> bytes:
    """A list of extensions, as an attribute of a CSR."""
    each = [tlv(0x30, der_oid(oid), tlv(0x04, value)) for oid, value in found]
    return tlv(0x30, der_oid(attribute), tlv(0x31, tlv(0x30, *each)))


PKCS9, MICROSOFT = "1.2.840.113549.1.9.14", "1.3.6.1.4.1.311.2.1.14"
SAN, POLICIES = "2.5.29.17", ("2.5.29.32", tlv(0x30, tlv(0x30, der_oid("1.2.3.4"))))


@pytest.mark.parametrize(
    "new_key",
    [
        lambda: ec.generate_private_key(ec.SECP256R1()),
        lambda: ec.generate_private_key(ec.SECP384R1()),
        lambda: ec.generate_private_key(ec.SECP521R1()),
        ed25519.Ed25519PrivateKey.generate,
        lambda: rsa.generate_private_key(public_exponent=65537, key_size=2048),
    ],
    ids=["p256", "p384", "p521", "ed25519", "rsa"],
)
def test_good_keys_are_taken(new_key: NewKey) -> None:
    """EC of NIST's curves, Ed25519, and RSA from 2048 bits."""
    key = new_key()
    algorithm = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    assert read_request(signed(key, algorithm)).public_key() == key.public_key()


@pytest.mark.parametrize(
    ("new_key", "why"),
    [
        (lambda: rsa.generate_private_key(public_exponent=65537, key_size=1024), "1024 bits"),
        (lambda: rsa.generate_private_key(public_exponent=3, key_size=2048), "RSA"),
        (lambda: ec.generate_private_key(ec.SECP256K1()), "secp256k1"),
        (lambda: ec.generate_private_key(ec.SECP192R1()), "secp192r1"),
        (lambda: dsa.generate_private_key(1024), "kind"),
    ],
    ids=["rsa1024", "rsa-e3", "k1", "p192", "dsa"],
)
def test_weak_and_odd_keys_are_refused(new_key: NewKey, why: str) -> None:
    """The message says what to use."""
    with pytest.raises(UnusableRequest, match=why) as error:
        read_request(signed(new_key(), hashes.SHA256()))
    assert "use EC P-256" in str(error.value)


def test_a_csr_that_another_key_has_signed_is_refused() -> None:
    """Whoever asks must have the key: one bit of the signature is enough."""
    pem = request()
    der = bytearray(x509.load_pem_x509_csr(pem.encode()).public_bytes(Encoding.DER))
    der[-1] ^= 1
    body = base64.encodebytes(bytes(der)).decode()
    broken = f"-----BEGIN CERTIFICATE REQUEST-----\n{body}-----END CERTIFICATE REQUEST-----\n"
    with pytest.raises(UnusableRequest, match="signed by its own key"):
        read_request(broken)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "not a CSR"),
        ("hello", "not a CSR"),
        ("-----BEGIN EC PRIVATE KEY-----\nAA==\n-----END EC PRIVATE KEY-----", "keep it"),
        ("-----BEGIN CERTIFICATE REQUEST-----\nAA=\n-----END CERTIFICATE REQUEST-----", "damaged"),
        ("-----BEGIN CERTIFICATE REQUEST-----\nMAA=\n-----END CERTIFICATE REQUEST-----", "damaged"),
        (request() * 2, "not a CSR"),
        ("x" * (MAX_REQUEST + 1), "longer"),
        (by_hand(version=1), "damaged"),
    ],
)
def test_what_is_no_csr_is_refused(text: str, why: str) -> None:
    """Nothing, text, a private key, two of them, and too much."""
    with pytest.raises(UnusableRequest, match=why):
        read_request(text)


def test_another_ca_gets_no_csr_with_names_that_were_not_given() -> None:
    """For a CA that goes by the CSR, its names and extensions must be those of the invitation."""
    san = x509.SubjectAlternativeName
    alice, bank = x509.DNSName("alice.example.com"), x509.DNSName("bank.example.com")
    good = [request("alice"), request("alice", None, san([alice]))]
    for pem in good:
        refuse_other_names(read_request(pem), ALICE, [alice])
    bad = [
        request("root"),
        request("alice", None, san([alice, bank])),
        request("alice", None, x509.BasicConstraints(ca=True, path_length=None)),
        request("alice", None, x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3"), b"\5\0")),
    ]
    for pem in bad:
        with pytest.raises(UnusableRequest):
            refuse_other_names(read_request(pem), ALICE, [alice])


@pytest.mark.parametrize(
    ("pem", "why"),
    [
        (by_hand(extensions(MICROSOFT), extensions(PKCS9, POLICIES)), "two lists"),
        (by_hand(extensions(PKCS9), extensions(PKCS9, POLICIES)), "two lists"),
        (by_hand(extensions(PKCS9, POLICIES, POLICIES)), "damaged"),
        (by_hand(extensions(PKCS9, (SAN, tlv(0x30, tlv(0xA3))))), "damaged"),
        (by_hand(name=tlv(0x30, tlv(0x31, tlv(0x30, der_oid("2.5.4.3"), tlv(0x0C, b"\xff"))))),
         "damaged"),
    ],
    ids=["microsoft-first", "twice", "extension-twice", "x400", "bad-utf8"],
)  # fmt: skip
def test_another_ca_gets_no_csr_that_it_may_read_otherwise(pem: str, why: str) -> None:
    """Two lists of extensions, of which OpenSSL takes another one than the library, and what the
    library reads by none of its own errors, are refused as any other CSR that can't be used."""
    with pytest.raises(UnusableRequest, match=why):
        refuse_other_names(read_request(pem), ALICE, [])

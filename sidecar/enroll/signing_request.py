"""Read a CSR (PKCS #10) that a stranger sent.  Of it only the public key counts.

Names and extensions in it are ignored, or refused where another CA would take them over: what is
issued comes from the invitation.  Not checked here: whether the key was revoked before.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID

from .certificate_profile import PublicKey

MAX_REQUEST = 16 * 1024
"""Most octets of a CSR."""

_PEM = re.compile(
    r"\s*-----BEGIN (?P<label>(?:NEW )?CERTIFICATE REQUEST)-----(?P<body>[A-Za-z0-9+/=\s]*)"
    r"-----END (?P=label)-----\s*"
)

_LISTS = tuple(map(x509.ObjectIdentifier, ("1.2.840.113549.1.9.14", "1.3.6.1.4.1.311.2.1.14")))
"""The attributes that ask for extensions: PKCS #9's (RFC 2985, 5.4.2), and Microsoft's own."""


class UnusableRequest(ValueError):
    """The CSR can't be used; the argument says why, for the person who sent it."""


def read_request(text: str) -> x509.CertificateSigningRequest:
    """Read a CSR in PEM.  Raises `UnusableRequest`."""
    if len(text) > MAX_REQUEST:
        raise UnusableRequest(f"the CSR is longer than {MAX_REQUEST >> 10} KiB")
    found = _PEM.fullmatch(text)
    if found is None:
        if "PRIVATE KEY" in text:
            raise UnusableRequest("that holds a private key: keep it, and send the CSR alone")
        raise UnusableRequest(
            "that is not a CSR: it begins with -----BEGIN CERTIFICATE REQUEST-----"
        )
    try:
        der = base64.b64decode("".join(found["body"].split()), validate=True)
    except binascii.Error:
        raise UnusableRequest("the CSR is damaged: it isn't Base64") from None
    return read_request_der(der)


def read_request_der(der: bytes) -> x509.CertificateSigningRequest:
    """Read a CSR in DER, and check its signature and key.  Raises `UnusableRequest`."""
    try:
        request = x509.load_der_x509_csr(der)
        if not request.is_signature_valid:
            raise UnusableRequest("the CSR isn't signed by its own key")
        check_key(request.public_key())
    except (UnsupportedAlgorithm, InvalidSignature, TypeError):
        raise UnusableRequest("the CSR's key or signature is of a kind not taken here") from None
    except UnusableRequest:
        raise
    except Exception:  # noqa: BLE001 - the library's errors about a stranger's CSR are of any kind
        raise UnusableRequest("the CSR is damaged") from None
    return request


def check_key(key: object) -> PublicKey:
    """Refuse a key that is weak or of a kind that clients don't have.  Raises `UnusableRequest`."""
    hint = "use EC P-256, P-384 or P-521, Ed25519, or RSA of 2048 to 8192 bits"
    if isinstance(key, rsa.RSAPublicKey):
        exponent = key.public_numbers().e
        if not 2048 <= key.key_size <= 8192 or exponent < 65537 or exponent >= 2**64:
            raise UnusableRequest(f"the CSR's RSA key has {key.key_size} bits; {hint}")
        return key
    if isinstance(key, ec.EllipticCurvePublicKey):
        if key.curve.name not in ("secp256r1", "secp384r1", "secp521r1"):
            raise UnusableRequest(f"the CSR's key is on the curve {key.curve.name}; {hint}")
        return key
    if isinstance(key, ed25519.Ed25519PublicKey):
        return key
    raise UnusableRequest(f"the CSR's key is of a kind not taken here; {hint}")


def spki_sha256(request: x509.CertificateSigningRequest) -> str:
    """Return the SHA-256 of a CSR's public key, as a denylist names it."""
    key = request.public_key()
    spki = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(spki).hexdigest()


def refuse_other_names(
    request: x509.CertificateSigningRequest, subject: x509.Name, names: list[x509.GeneralName]
) -> None:
    """Refuse a CSR that asks for more than it gets, for a CA that goes by the CSR.

    Raises `UnusableRequest`.
    """
    allowed = [subject, x509.Name([each for each in subject if each.oid == NameOID.COMMON_NAME])]
    try:
        named, asked = request.subject, list(request.extensions)
        lists = sum(each.oid in _LISTS for each in request.attributes)
    except Exception:  # noqa: BLE001 - as above
        raise UnusableRequest("the CSR's names or extensions are damaged") from None
    if named not in allowed:
        raise UnusableRequest(
            f"the CSR is for {named.rfc4514_string()!r}; make it with the line below, "
            f"for {subject.rfc4514_string()!r}"
        )
    if lists > 1:  # of which the library reads one, and the CA maybe another one
        raise UnusableRequest("the CSR has two lists of extensions; make it with the line below")
    for extension in asked:
        value = extension.value
        if not isinstance(value, x509.SubjectAlternativeName) or set(value) - set(names):
            name = extension.oid._name if extension.oid._name != "Unknown OID" else "an extension"
            raise UnusableRequest(f"the CSR asks for {name}; make it with the line below")

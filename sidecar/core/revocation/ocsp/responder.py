"""Who signed an OCSP response: the issuer itself, or a responder that it certified for this.

RFC 6960, section 4.2.2.2.  Signatures by MD5 or SHA-1 are refused: who chooses the nonce chooses
a part of what is signed.  RSASSA-PSS is not understood.
"""

from __future__ import annotations

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, padding, rsa
from cryptography.x509 import ocsp
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID

from sidecar.core.errors import brief

MAX_CERTIFICATES = 8
"""Most certificates of a response that are tried as the delegated responder."""

_SIGNATURE_HASHES = (hashes.SHA224, hashes.SHA256, hashes.SHA384, hashes.SHA512)

# RFC 8017: the RSA PKCS #1 v1.5 and RFC 5758: the ECDSA signatures, by the key that makes them.
_RSA_PREFIX = "1.2.840.113549.1.1."
_RSA_PSS = "1.2.840.113549.1.1.10"

# Extensions of a delegated responder's certificate that are processed here, or that add nothing
# to who it is; any other one that is critical is refused (RFC 5280, section 4.2).
_RESPONDER_EXTENSIONS = frozenset(
    {
        ExtensionOID.BASIC_CONSTRAINTS,
        ExtensionOID.KEY_USAGE,
        ExtensionOID.EXTENDED_KEY_USAGE,
        ExtensionOID.OCSP_NO_CHECK,
    }
)


class Refused(Exception):
    """The response proves nothing; the argument says why."""


def signer_of(
    response: ocsp.OCSPResponse, issuer: x509.Certificate, now: float
) -> x509.Certificate | None:
    """The delegated responder whose signature it is; None if the issuer signed itself.

    Raises `Refused`.  The delegate's own revocation is not asked about here.
    """
    if _is_responder(response, issuer):
        _check_signature(response, issuer)
        return None
    why = "the signer is neither the issuer nor in the response"
    for candidate in response.certificates[:MAX_CERTIFICATES]:
        if _is_responder(response, candidate):
            try:
                _check_delegate(candidate, issuer, now)
                _check_signature(response, candidate)
                return candidate
            except Refused as refused:
                why = str(refused)
    raise Refused(why)


def _is_responder(response: ocsp.OCSPResponse, signer: x509.Certificate) -> bool:
    """Whether the ResponderID, by name or by key (SHA-1, RFC 6960, 4.2.1), is the signer's."""
    if response.responder_key_hash is not None:
        asked = ocsp.OCSPRequestBuilder().add_certificate(signer, signer, hashes.SHA1()).build()
        return response.responder_key_hash == asked.issuer_key_hash
    return response.responder_name == signer.subject


def _check_delegate(delegate: x509.Certificate, issuer: x509.Certificate, now: float) -> None:
    """RFC 6960, 4.2.2.2: OCSPSigning, issued directly by the authority, and valid now."""
    if not _issued(delegate, issuer):
        raise Refused("the responder's certificate is not issued by the certificate's issuer")
    if not _has_ocsp_signing(delegate):
        raise Refused("the responder's certificate is not for OCSPSigning")
    if not delegate.not_valid_before_utc.timestamp() <= now <= _end(delegate):
        raise Refused("the responder's certificate is not valid now")
    if not _may_sign(delegate):
        raise Refused("the responder's keyUsage does not allow signing")
    if any(e.critical and e.oid not in _RESPONDER_EXTENSIONS for e in delegate.extensions):
        raise Refused("the responder's certificate has an unknown critical extension")


def _end(cert: x509.Certificate) -> float:
    return cert.not_valid_after_utc.timestamp()


def _issued(cert: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        cert.verify_directly_issued_by(issuer)
    except (InvalidSignature, ValueError, TypeError, UnsupportedAlgorithm):
        return False
    return True


def has_extension(cert: x509.Certificate, oid: x509.ObjectIdentifier) -> bool:
    """Whether the certificate has the extension, critical or not."""
    return any(extension.oid == oid for extension in cert.extensions)


def _has_ocsp_signing(cert: x509.Certificate) -> bool:
    """Whether the EKU names OCSPSigning itself: anyExtendedKeyUsage does not do."""
    try:
        usages = cert.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return False
    return ExtendedKeyUsageOID.OCSP_SIGNING in usages


def _may_sign(cert: x509.Certificate) -> bool:
    """RFC 5280, 4.2.1.12: OCSPSigning goes with digitalSignature and nonRepudiation."""
    try:
        usage = cert.extensions.get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound:
        return True
    return usage.digital_signature or usage.content_commitment


def _check_signature(response: ocsp.OCSPResponse, signer: x509.Certificate) -> None:
    try:
        _verify_signature(response, signer)
    except InvalidSignature:
        raise Refused("the signature is wrong") from None
    except (UnsupportedAlgorithm, TypeError) as error:
        raise Refused(f"the signature is not understood: {brief(error)}") from None


def _verify_signature(response: ocsp.OCSPResponse, signer: x509.Certificate) -> None:
    key, signed = signer.public_key(), response.tbs_response_bytes
    oid = response.signature_algorithm_oid.dotted_string
    if isinstance(key, ed25519.Ed25519PublicKey | ed448.Ed448PublicKey):
        if response.signature_hash_algorithm is not None:
            raise InvalidSignature
        key.verify(response.signature, signed)
        return
    algorithm = None if oid == _RSA_PSS else response.signature_hash_algorithm
    if not isinstance(algorithm, _SIGNATURE_HASHES):
        raise UnsupportedAlgorithm(f"signature algorithm {oid}")
    if isinstance(key, rsa.RSAPublicKey) and oid.startswith(_RSA_PREFIX):
        key.verify(response.signature, signed, padding.PKCS1v15(), algorithm)
    elif isinstance(key, ec.EllipticCurvePublicKey) and not oid.startswith(_RSA_PREFIX):
        key.verify(response.signature, signed, ec.ECDSA(algorithm))
    else:
        raise UnsupportedAlgorithm(f"signature algorithm {oid} by such a key")

"""Verify the signer of an OCSP response: the issuer, or a responder that the issuer delegated.

See RFC 6960, section 4.2.2.2.  `x509.signature` verifies the signatures, as for certificates, but
MD5 and SHA-1 are refused: a client that chooses the nonce chooses a part of the signed octets.
"""

from __future__ import annotations

import hashlib
from typing import NamedTuple

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID

from sidecar.core.errors import brief
from sidecar.core.x509.certificate import ClientCert, from_der
from sidecar.core.x509.der import (
    OCTET_STRING,
    SEQUENCE,
    comparable_name,
    only,
    slices,
    value_of,
    within,
)
from sidecar.core.x509.keys import UnusableKey, public_key
from sidecar.core.x509.signature import Scheme, is_signed_by, scheme
from sidecar.core.x509.validity import is_valid

MAX_CERTIFICATES = 8
"""Maximum number of a response's certificates that are tried as the delegated responder."""

_SIGNATURE_HASHES = (hashes.SHA224, hashes.SHA256, hashes.SHA384, hashes.SHA512)

# Extensions of a delegated responder's certificate that are processed here, or that don't change
# its meaning; any other critical extension is refused (RFC 5280, section 4.2).
_RESPONDER_EXTENSIONS = frozenset(
    {
        ExtensionOID.BASIC_CONSTRAINTS,
        ExtensionOID.KEY_USAGE,
        ExtensionOID.EXTENDED_KEY_USAGE,
        ExtensionOID.OCSP_NO_CHECK,
    }
)


class ResponseRefused(Exception):
    """The response is not accepted; the argument says why."""


def signer_of(
    response: ocsp.OCSPResponse, signed: SignedResponse, issuer: ClientCert, now: float
) -> x509.Certificate | None:
    """Return the delegated responder that signed; None if the issuer signed itself.

    Raises `ResponseRefused` and ValueError.  Not checked: the delegate's own revocation.
    """
    responder = _responder(signed.data)
    if responder.is_(issuer):
        _check_signature(signed, issuer.spki)
        return None
    why = "the signer is neither the issuer nor in the response"
    for candidate in response.certificates[:MAX_CERTIFICATES]:
        read = from_der(candidate.public_bytes(Encoding.DER))
        if responder.is_(read):
            try:
                _check_delegate(candidate, read, issuer, now)
                _check_signature(signed, read.spki)
                return candidate
            except ResponseRefused as refused:
                why = str(refused)
    raise ResponseRefused(why)


class _ResponderId(NamedTuple):
    """A ResponderID: a comparable name, or the SHA-1 of a key (RFC 6960, 4.2.1)."""

    name: bytes | None
    key: bytes | None

    def is_(self, signer: ClientCert) -> bool:
        """Return whether this ID names the signer."""
        if self.key is not None:
            return self.key == hashlib.sha1(key_bits(signer.spki)).digest()
        return self.name == comparable_name(signer.subject_name)


_BY_NAME, _BY_KEY = 0xA1, 0xA2


def _responder(data: bytes) -> _ResponderId:
    """Parse the ResponderID of a ResponseData (DER).  Raises ValueError."""
    first, *rest = slices(data, value_of(data, 0), len(data), 2)
    found = rest[0] if first[0] == 0xA0 and rest else first
    value = found[value_of(found, 0) :]
    if found[0] == _BY_KEY:
        octets = only(value, OCTET_STRING)
        return _ResponderId(None, value[octets.start : octets.stop])
    if found[0] != _BY_NAME:
        raise ValueError("a ResponderID is neither a name nor a key")
    return _ResponderId(comparable_name(value), None)


def key_bits(spki: bytes) -> bytes:
    """Return the key's octets in a SubjectPublicKeyInfo; key identifiers are hashes of them."""
    bits = within(spki, SEQUENCE)[1]
    return bits[value_of(bits, 0) + 1 :]


def _check_delegate(
    delegate: x509.Certificate, read: ClientCert, issuer: ClientCert, now: float
) -> None:
    """Check a delegate (RFC 6960, 4.2.2.2): OCSPSigning, issued by the authority, valid now."""
    if not _issued(read, issuer):
        raise ResponseRefused(
            "the responder's certificate is not issued by the certificate's issuer"
        )
    if not _has_ocsp_signing(delegate):
        raise ResponseRefused("the responder's certificate is not for OCSPSigning")
    if not is_valid(delegate, now):
        raise ResponseRefused("the responder's certificate is not valid now")
    if not _may_sign(delegate):
        raise ResponseRefused("the responder's keyUsage does not allow signing")
    if any(e.critical and e.oid not in _RESPONDER_EXTENSIONS for e in delegate.extensions):
        raise ResponseRefused("the responder's certificate has an unknown critical extension")


def _issued(cert: ClientCert, issuer: ClientCert) -> bool:
    if comparable_name(cert.issuer_name) != comparable_name(issuer.subject_name):
        return False
    try:
        return is_signed_by(public_key(issuer.spki), cert.signed, cert.algorithm, cert)
    except UnusableKey:
        return False


def has_extension(cert: x509.Certificate, oid: x509.ObjectIdentifier) -> bool:
    """Return whether the certificate has the extension, critical or not."""
    return any(extension.oid == oid for extension in cert.extensions)


def _has_ocsp_signing(cert: x509.Certificate) -> bool:
    """Return whether the EKU names OCSPSigning; anyExtendedKeyUsage is not enough."""
    try:
        usages = cert.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return False
    return ExtendedKeyUsageOID.OCSP_SIGNING in usages


def _may_sign(cert: x509.Certificate) -> bool:
    """Return whether keyUsage allows OCSPSigning (RFC 5280, 4.2.1.12)."""
    try:
        usage = cert.extensions.get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound:
        return True
    return usage.digital_signature or usage.content_commitment


def _check_signature(signed: SignedResponse, spki: bytes) -> None:
    try:
        key, how = public_key(spki), scheme(signed.algorithm)
    except (UnsupportedAlgorithm, ValueError, TypeError) as error:
        raise ResponseRefused(f"the signature algorithm is unknown: {brief(error)}") from None
    if not _is_strong(how):
        raise ResponseRefused("the signature's hash is not one of SHA-2")
    if not is_signed_by(key, signed.data, signed.algorithm, signed):
        raise ResponseRefused("the signature is wrong")


def _is_strong(how: Scheme) -> bool:
    """Return whether every hash of a scheme is one of SHA-2, or the algorithm fixes its hash."""
    found = [] if how.hashing is None else [how.hashing]
    if isinstance(how.parameters, padding.PSS):
        found.append(how.parameters.mgf._algorithm)
    return all(isinstance(hashing, _SIGNATURE_HASHES) for hashing in found)


class SignedResponse(NamedTuple):
    """Parts of a BasicOCSPResponse (RFC 6960, 4.2.1): ResponseData (DER), algorithm, signature."""

    data: bytes
    algorithm: bytes
    signature: bytes


def signed_part(der: bytes) -> SignedResponse:
    """Split an OCSPResponse into signed octets, algorithm and signature.  Raises ValueError."""
    outer = only(der, SEQUENCE)
    _, explicit = slices(der, outer.start, outer.stop)
    kind, octets = slices(explicit, value_of(explicit, value_of(explicit, 0)), len(explicit))
    if kind != _BASIC:
        raise ValueError("not a basic OCSP response")
    basic = octets[value_of(octets, 0) :]
    within = only(basic, SEQUENCE)
    data, algorithm, bits = slices(basic, within.start, within.stop, 3)
    value = bits[value_of(bits, 0) :]
    if value[:1] != b"\0" or len(algorithm) > _MAX_ALGORITHM:
        raise ValueError("the signature is not whole octets, or its algorithm is too long")
    return SignedResponse(data, algorithm, value[1:])


_BASIC = bytes.fromhex("06092b0601050507300101")
_MAX_ALGORITHM = 1000
"""Maximum octets of an AlgorithmIdentifier; that of RSASSA-PSS has about 67."""

"""Verify the signer of an OCSP response: the issuer, or a responder that the issuer delegated.

See RFC 6960, section 4.2.2.2.  `x509.signature` verifies the signatures, as for certificates, but
MD5 and SHA-1 are refused: a client that chooses the nonce chooses a part of the signed octets.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding

from sidecar.core.errors import MalformedCertificate, brief
from sidecar.core.x509 import extension_values as ext
from sidecar.core.x509.certificate import ClientCert, from_der
from sidecar.core.x509.der import (
    BIT_STRING,
    OCTET_STRING,
    SEQUENCE,
    comparable_name,
    encode,
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
    {ext.BASIC_CONSTRAINTS, ext.KEY_USAGE, ext.EXTENDED_USAGE, ext.OCSP_NO_CHECK}
)
_OCSP_SIGNING = bytes.fromhex("06082b06010505070309")
_SIGNING_BITS = 0x80 | 0x40
"""digitalSignature and nonRepudiation."""


class ResponseRefused(Exception):
    """The response is not accepted; the argument says why."""


def signer_of(signed: SignedResponse, issuer: ClientCert, now: float) -> ClientCert | None:
    """Return the delegated responder that signed; None if the issuer signed itself.

    One that isn't valid at `now` is returned only if no other one signed.  Not checked: the
    delegate's own revocation.  Raises `ResponseRefused` and ValueError.
    """
    responder = _responder(signed.data)
    if responder.is_(issuer):
        _check_signature(signed, issuer.spki)
        return None
    why = "the signer is neither the issuer nor in the response"
    late: ClientCert | None = None
    for der in signed.certificates[:MAX_CERTIFICATES]:
        try:
            candidate = from_der(der)
            if responder.is_(candidate):
                _check_delegate(candidate, issuer)
                _check_signature(signed, candidate.spki)
                if is_valid(candidate, now):
                    return candidate
                late = late or candidate
        except (ResponseRefused, MalformedCertificate, ValueError) as refused:
            why = brief(refused)
    if late is None:
        raise ResponseRefused(why)
    return late


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


def _check_delegate(delegate: ClientCert, issuer: ClientCert) -> None:
    """Check a delegate (RFC 6960, 4.2.2.2): OCSPSigning, issued by the authority.

    Raises `ResponseRefused`, and ValueError for an extension that can't be read.
    """
    if not _issued(delegate, issuer):
        raise ResponseRefused(
            "the responder's certificate is not issued by the certificate's issuer"
        )
    found = ext.extensions_of(delegate)
    usages, key_usage = found.get(ext.EXTENDED_USAGE), found.get(ext.KEY_USAGE)
    # anyExtendedKeyUsage does not do
    if usages is None or _OCSP_SIGNING not in ext.oids(usages.value):
        raise ResponseRefused("the responder's certificate is not for OCSPSigning")
    if key_usage is not None and not ext.bits(key_usage.value) & _SIGNING_BITS:
        # RFC 5280, 4.2.1.12: OCSPSigning goes with digitalSignature and nonRepudiation
        raise ResponseRefused("the responder's keyUsage does not allow signing")
    if any(each.critical and oid not in _RESPONDER_EXTENSIONS for oid, each in found.items()):
        raise ResponseRefused("the responder's certificate has an unknown critical extension")


def _issued(cert: ClientCert, issuer: ClientCert) -> bool:
    if comparable_name(cert.issuer_name) != comparable_name(issuer.subject_name):
        return False
    try:
        return is_signed_by(public_key(issuer.spki), cert.signed, cert.algorithm, cert)
    except UnusableKey:
        return False


def has_nocheck(cert: ClientCert) -> bool:
    """Return whether the issuer of a delegate waived the check of its revocation."""
    return ext.OCSP_NO_CHECK in ext.extensions_of(cert)


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
    """Parts of a BasicOCSPResponse (RFC 6960, 4.2.1): ResponseData (DER), algorithm, signature.

    `certificates` are not signed.  `bare` is the whole response without them and the responder's
    name, for which `cryptography` refuses responses that OpenSSL reads.
    """

    data: bytes
    algorithm: bytes
    signature: bytes
    certificates: tuple[bytes, ...]
    bare: bytes


def without_strangers(der: bytes, delegate: ClientCert | None) -> bytes:
    """Return an OCSPResponse with the certificate of its signer, if it has one, and no other.

    They aren't signed: whoever passes a response on can put any there, of any length.  Raises
    ValueError.
    """
    signed = signed_part(der)
    bits = encode(BIT_STRING, b"\0" + signed.signature)
    certs = b"" if delegate is None else encode(_EXPLICIT, encode(SEQUENCE, delegate.der))
    return _response(_SUCCESSFUL, signed.data + signed.algorithm + bits + certs)


def _response(status: bytes, basic: bytes) -> bytes:
    octets = encode(OCTET_STRING, encode(SEQUENCE, basic))
    return encode(SEQUENCE, status + encode(_EXPLICIT, encode(SEQUENCE, _BASIC + octets)))


def signed_part(der: bytes) -> SignedResponse:
    """Split an OCSPResponse into signed octets, algorithm and signature.  Raises ValueError."""
    outer = only(der, SEQUENCE)
    status, explicit = slices(der, outer.start, outer.stop)
    kind, octets = slices(explicit, value_of(explicit, value_of(explicit, 0)), len(explicit))
    if kind != _BASIC:
        raise ValueError("not a basic OCSP response")
    basic = octets[value_of(octets, 0) :]
    within = only(basic, SEQUENCE)
    data, algorithm, bits, *more = slices(basic, within.start, within.stop)
    value = bits[value_of(bits, 0) :]
    if value[:1] != b"\0" or len(algorithm) > _MAX_ALGORITHM:
        raise ValueError("the signature is not whole octets, or its algorithm is too long")
    bare = _response(status, _without_name(data) + algorithm + bits)
    return SignedResponse(data, algorithm, value[1:], tuple(_certificates(more)), bare)


def _without_name(data: bytes) -> bytes:
    """Return a ResponseData with an empty key hash in place of the responder's name."""
    parts = slices(data, value_of(data, 0), len(data))
    nobody = encode(_BY_KEY, encode(OCTET_STRING, bytes(20)))
    at = next((i for i, part in enumerate(parts[:2]) if part[0] == _BY_NAME), None)
    if at is None or data[0] != SEQUENCE:
        return data
    return encode(SEQUENCE, b"".join([*parts[:at], nobody, *parts[at + 1 :]]))


def _certificates(more: Sequence[bytes]) -> Iterator[bytes]:
    """Yield the certificates of the field `certs`, `[0] EXPLICIT`.  Raises ValueError."""
    if not more:
        return
    (field,) = more
    inner = only(field, _EXPLICIT)
    certs = field[inner.start : inner.stop]
    within = only(certs, SEQUENCE)
    yield from slices(certs, within.start, within.stop, MAX_CERTIFICATES)


_EXPLICIT = 0xA0
_SUCCESSFUL = bytes.fromhex("0a0100")
_BASIC = bytes.fromhex("06092b0601050507300101")
_MAX_ALGORITHM = 1000
"""Maximum octets of an AlgorithmIdentifier; that of RSASSA-PSS has about 67."""

"""Check one certificate as OpenSSL does for the purpose `sslclient` at security level 2.

nginx on Debian checks a client's chain this way by default.  `Profile.of` parses the certificate,
`client_fault` checks a leaf, `issuer_fault` an authority.  Not checked here: signatures, validity,
names across a chain (`path_building`, `name_constraints`), revocation.  Certificate policies are
not processed: an authority that constrains or maps them is refused.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from cryptography.exceptions import UnsupportedAlgorithm

from . import extension_values as ext
from .canonical_name import CanonicalName, canonical_name
from .certificate import ClientCert
from .der import INTEGER, SEQUENCE, encode, only, within
from .keys import (
    RSA_PSS,
    UnusableKey,
    has_explicit_curve,
    key_algorithm,
    public_key,
    weakness,
)
from .name_constraints import ConstrainedNames, Constraints, names_of, read_constraints
from .signature import pss_without_defaults, scheme

CLIENT_AUTH = bytes.fromhex("06082b06010505070302")

_DIGITAL_SIGNATURE, _KEY_AGREEMENT, _KEY_CERT_SIGN = 0x80, 0x08, 0x04
_NETSCAPE_CLIENT = 0x80

_UNDERSTOOD = {
    ext.KEY_USAGE, ext.ALTERNATIVE_NAME, ext.BASIC_CONSTRAINTS, ext.CRL_POINTS, ext.POLICIES,
    ext.EXTENDED_USAGE, ext.NETSCAPE_TYPE, ext.OCSP_NO_CHECK, ext.NAME_CONSTRAINTS,
}  # fmt: skip
"""Extensions that may be critical.  OpenSSL's list, without policies, proxies and RFC 3779."""

_REFUSED = {ext.PROXY: "a proxy", ext.IP_BLOCKS: "RFC 3779", ext.AS_NUMBERS: "RFC 3779"}
_POLICIES = (ext.POLICY_CONSTRAINTS, ext.POLICY_MAPPINGS, ext.INHIBIT_ANY_POLICY)

MIN_DIGEST = 28
"""Minimum octets of a signed digest: SHA-224, which has 112 bits of security."""


@dataclass(frozen=True, slots=True)
class Profile:
    """The parts of a certificate that decide whether it may be in a client's chain."""

    subject: CanonicalName
    issuer: CanonicalName
    is_version_1: bool
    is_ca: bool | None
    path_length: float
    key_usage: int | None
    extended_usage: tuple[bytes, ...] | None
    netscape_type: int | None
    key_id: bytes | None
    authority: ext.AuthorityKey
    constraints: Constraints | None
    names: ConstrainedNames
    foreign: str
    policies: bool
    weak_signature: bool
    key_fault: str
    pss_only: bytes | None

    @property
    def self_issued(self) -> bool:
        """Whether subject and issuer are equal, as in a change of keys (RFC 5280, 6.1)."""
        return self.subject == self.issuer

    @classmethod
    def of(cls, cert: ClientCert) -> Profile:
        """Read the parts of a certificate.  Raises ValueError if one of them can't be parsed."""
        found = ext.extensions_of(cert)
        values = {oid: extension.value for oid, extension in found.items()}
        if ext.CRL_POINTS in values:
            ext.check_crl_points(values[ext.CRL_POINTS])
        is_ca, length = None, None
        if (constraints := values.get(ext.BASIC_CONSTRAINTS)) is not None:
            is_ca, length = ext.basic_constraints(constraints)
        usage, extended = values.get(ext.KEY_USAGE), values.get(ext.EXTENDED_USAGE)
        netscape, key_id = values.get(ext.NETSCAPE_TYPE), values.get(ext.SUBJECT_KEY)
        authority = values.get(ext.AUTHORITY_KEY)
        limits, san = values.get(ext.NAME_CONSTRAINTS), values.get(ext.ALTERNATIVE_NAME)
        return cls(
            subject=canonical_name(cert.subject_name),
            issuer=canonical_name(cert.issuer_name),
            is_version_1=cert.version == 1,
            is_ca=is_ca,
            path_length=math.inf if length is None else length,
            key_usage=None if usage is None else ext.bits(usage),
            extended_usage=None if extended is None else tuple(ext.oids(extended)),
            netscape_type=None if netscape is None else ext.bits(netscape),
            key_id=None if key_id is None else ext.key_identifier(key_id),
            authority=ext.AuthorityKey() if authority is None else ext.authority_key(authority),
            constraints=None if limits is None else read_constraints(limits),
            names=names_of(cert, [] if san is None else ext.general_names(san)),
            foreign=_foreign(found),
            policies=any(oid in found for oid in _POLICIES),
            weak_signature=_is_weak(cert.algorithm),
            key_fault=_key_fault(cert.spki),
            pss_only=_pss_parameters(cert.spki),
        )


def _foreign(found: dict[bytes, ext.Extension]) -> str:
    for oid, extension in found.items():
        if oid in _REFUSED:
            return f"an extension for {_REFUSED[oid]}"
        if extension.critical and oid not in _UNDERSTOOD and oid not in _POLICIES:
            return "a critical extension that isn't understood"
    return ""


def _is_weak(algorithm: bytes) -> bool:
    """Return whether the signature's digest is below level 2: MD5, SHA-1 or an unknown one."""
    try:
        digest = scheme(algorithm).hashing
    except (UnsupportedAlgorithm, ValueError):
        return True
    return digest is not None and digest.digest_size < MIN_DIGEST


def _key_fault(spki: bytes) -> str:
    try:
        if has_explicit_curve(spki):
            return "its key has explicit curve parameters"
        return weakness(public_key(spki))
    except UnusableKey as error:
        return str(error)


def _pss_parameters(spki: bytes) -> bytes | None:
    """Return the parameters of a key restricted to RSASSA-PSS; None for any other key."""
    oid, parameters = key_algorithm(spki)
    return parameters if oid == RSA_PSS else None


# -- verdicts -------------------------------------------------------------------------------------


def client_fault(leaf: Profile) -> str:
    """Explain why a certificate is refused as a client's; "" if it is accepted."""
    if leaf.foreign or leaf.key_fault:
        return leaf.foreign or leaf.key_fault
    if leaf.policies:
        return "constraints on policies"
    if not _is_for_clients(leaf):
        return "its extendedKeyUsage lacks clientAuth"
    if leaf.key_usage is not None and not leaf.key_usage & (_DIGITAL_SIGNATURE | _KEY_AGREEMENT):
        return "its keyUsage lacks digitalSignature and keyAgreement"
    if leaf.netscape_type is not None and not leaf.netscape_type & _NETSCAPE_CLIENT:
        return "its nsCertType lacks client"
    if leaf.is_ca is False and leaf.path_length not in (0, math.inf):
        return "a path length without being an authority"
    return ""


def issuer_fault(authority: Profile) -> str:
    """Explain why a certificate is refused as an issuer in a client's chain; "" if accepted."""
    if authority.foreign or authority.key_fault:
        return authority.foreign or authority.key_fault
    if authority.policies:
        return "constraints on policies, which are not processed"
    root_of_old = authority.is_version_1 and authority.self_issued
    if not authority.is_ca and not (authority.is_ca is None and root_of_old):
        return "its basicConstraints don't say CA"
    if authority.key_usage is not None and not authority.key_usage & _KEY_CERT_SIGN:
        return "its keyUsage lacks keyCertSign"
    return "" if _is_for_clients(authority) else "its extendedKeyUsage lacks clientAuth"


def _is_for_clients(profile: Profile) -> bool:
    """Return whether the EKU allows clients; as in OpenSSL, anyExtendedKeyUsage is not enough."""
    return profile.extended_usage is None or CLIENT_AUTH in profile.extended_usage


def may_have_issued(authority: Profile, serial: int, below: Profile, algorithm: bytes) -> bool:
    """Return whether names and key identifiers match, and the key allows such signatures.

    `serial` is the authority's, `algorithm` the AlgorithmIdentifier of the certificate below.
    """
    if authority.subject != below.issuer:
        return False
    said = below.authority
    if None not in (said.key, authority.key_id) and said.key != authority.key_id:
        return False
    if said.serial is not None and said.serial != serial:
        return False
    if said.issuer is not None and canonical_name(said.issuer) != authority.issuer:
        return False
    return authority.pss_only is None or _fits_pss(authority.pss_only, algorithm)


def _fits_pss(parameters: bytes, algorithm: bytes) -> bool:
    """Return whether a signature is RSASSA-PSS with the digests of the key, and as much salt."""
    oid, found = key_algorithm(encode(SEQUENCE, algorithm))
    if oid != RSA_PSS or not parameters:
        return oid == RSA_PSS
    try:
        (digests, least), (signed_with, salt) = _pss_fields(parameters), _pss_fields(found)
    except ValueError:
        return False
    return digests == signed_with and least <= salt


_SALT = 0xA2


def _pss_fields(parameters: bytes) -> tuple[list[bytes], int]:
    """Return the fields of RSASSA-PSS-params but the salt, and its length.  Raises ValueError."""
    fields = within(pss_without_defaults(parameters), SEQUENCE)
    length = 20
    for salt in (each for each in fields if each[0] == _SALT):
        (number,) = within(salt, _SALT)
        length = int.from_bytes(number[only(number, INTEGER).start :], signed=True)
        if length < 0:
            raise ValueError("the salt of RSASSA-PSS has a negative length")
    return [each for each in fields if each[0] != _SALT], length

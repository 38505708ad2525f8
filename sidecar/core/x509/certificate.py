"""Parse a client certificate: `SSL-Client-Cert` → a frozen `ClientCert`.

Every field is parsed from the certificate's ASN.1, completely at every level that is parsed.  The
structure around the signed part must be DER, so that nobody can re-encode a certificate.  Not
checked here: signatures, dates and revocation (see `path_building`, `evaluate`, `revocation`).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import warnings
from dataclasses import dataclass, field, replace
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

from cryptography import x509
from cryptography.utils import CryptographyDeprecationWarning

from sidecar.core.errors import MalformedCertificate, brief

from .der import (
    BIT_STRING,
    MAX_NORMALIZED,
    SEQUENCE,
    is_bits,
    is_integer,
    only,
    parse_time,
    slices,
    value_of,
    within,
)
from .extensions import RuleExtensions, read_extensions, split_extension, split_extensions
from .key_encoding import check_key
from .subject import ParsedName, read_issuer, read_name

# RFC 5280, 4.1.2.2: "Certificate users SHOULD be prepared to gracefully handle" serial numbers
# that are negative or zero.  They are compared as numbers, like any other.
warnings.filterwarnings(
    "ignore", "Parsed a serial number which wasn't positive", CryptographyDeprecationWarning
)
# A client can choose the names in its certificate; this warning would write them to the journal.
warnings.filterwarnings("ignore", "Attribute's length must be", UserWarning)

MAX_SERIAL = 128
"""Octets of the longest serial number (RFC 5280, 4.1.2.2, has 20)."""

EKU_NAMES = {
    "serverAuth": "1.3.6.1.5.5.7.3.1",
    "clientAuth": "1.3.6.1.5.5.7.3.2",
    "codeSigning": "1.3.6.1.5.5.7.3.3",
    "emailProtection": "1.3.6.1.5.5.7.3.4",
    "timeStamping": "1.3.6.1.5.5.7.3.8",
    "OCSPSigning": "1.3.6.1.5.5.7.3.9",
    "anyExtendedKeyUsage": "2.5.29.37.0",
    "smartcardLogon": "1.3.6.1.4.1.311.20.2.2",
}


@dataclass(frozen=True, slots=True, eq=False)
class ClientCert:
    """One parsed certificate.  Objects are compared by identity; `sha256` identifies it.

    Names are text as in the certificate; `dn` and `issuer_dn` are in RFC 4514 form (last RDN
    first, as in nginx's `$ssl_client_s_dn`).  Times are seconds since the epoch.  Fingerprints are
    lower-case hex.  `eku` and `policy_oid` hold dotted OIDs.  `unreadable` holds the rule keys of
    which the certificate has a value that can't be parsed: such a key never grants and always
    refuses.  `mailbox` holds the mail addresses of RFC 9598: they refuse like `email`, and never
    grant.  These fields are DER: `signed` (TBSCertificate), `algorithm` (the signature's
    AlgorithmIdentifier), `issuer_name` and `subject_name` (Name), `spki`
    (SubjectPublicKeyInfo), and each item of `extensions` (Extension).  `signature` holds the
    octets of the signature.
    """

    der: bytes
    signed: bytes
    algorithm: bytes
    signature: bytes
    spki: bytes
    extensions: list[bytes]
    version: int
    subject: ParsedName
    issuer: ParsedName
    cn: tuple[str, ...]
    o: tuple[str, ...]
    ou: tuple[str, ...]
    dn: str
    dns: tuple[str, ...]
    uri: tuple[str, ...]
    ip: tuple[str, ...]
    email: tuple[str, ...]
    upn: tuple[str, ...]
    mailbox: tuple[str, ...]
    eku: tuple[str, ...]
    policy_oid: tuple[str, ...]
    unreadable: frozenset[str]
    issuer_name: bytes
    subject_name: bytes
    serial: int
    not_before: float
    not_after: float
    sha256: str
    spki_sha256: str
    _parsed: list[x509.Certificate] = field(default_factory=list, init=False, repr=False)

    @property
    def x509(self) -> x509.Certificate:
        """The certificate as parsed by `cryptography`.

        Raises `MalformedCertificate`: `cryptography` refuses encodings that others accept
        (characters that a string type doesn't allow, default values written explicitly).
        """
        if not self._parsed:
            try:
                self._parsed.append(x509.load_der_x509_certificate(self.der))
            except Exception as error:  # it raises many classes with the same meaning
                raise MalformedCertificate(
                    f"the certificate has parts that can't be read: {brief(error)}"
                ) from error
        return self._parsed[0]

    @property
    def issuer_cn(self) -> tuple[str, ...]:
        """The issuer's CNs."""
        return self.issuer.cn

    @property
    def issuer_dn(self) -> str:
        """The issuer's DN in RFC 4514 form."""
        return self.issuer.dn

    @property
    def serial_hex(self) -> str:
        """The serial number as in nginx's `$ssl_client_serial`: upper-case hex, even length."""
        return serial_hex(self.serial)

    def outline(self) -> ClientCert:
        """Return a small copy for logs, without DER, alternative names and other large fields."""
        return replace(
            self,
            der=b"",
            signed=b"",
            spki=b"",
            extensions=[],
            subject=read_issuer(_NOBODY),
            issuer=read_issuer(_NOBODY),
            cn=(),
            o=(),
            ou=(),
            dn=self.dn[:1024],
            dns=(),
            uri=(),
            ip=(),
            email=(),
            upn=(),
            mailbox=(),
            eku=(),
            policy_oid=(),
            issuer_name=_NOBODY,
            subject_name=_NOBODY,
        )

    def extension(self, oid: bytes) -> bytes | None:
        """Return an extension's value by the contents of its OID; None if it is absent."""
        for octets in self.extensions:
            found, value = split_extension(octets)
            if found == oid:
                return value
        return None


_NOBODY = b"\x30\0"
"""An empty Name."""


def serial_hex(serial: int) -> str:
    """Format a serial number as OpenSSL's `i2a_ASN1_INTEGER`: upper-case hex, even length, `-`."""
    digits = f"{abs(serial):X}"
    return ("-" if serial < 0 else "") + digits.zfill(len(digits) + len(digits) % 2)


def refused_serials(serial: int) -> tuple[int, ...]:
    """Return the numbers by which a serial number is refused.

    Some authorities forget the zero octet before a first bit that is set.  OpenSSL then reads and
    prints a negative number; other programs, and such an authority's own list, show the octets.
    Not the other way round: a CRL that lists `FF` says nothing of `00FF` (PKITS 4.4.14).
    """
    if serial >= 0:
        return (serial,)
    octets = (serial + 1).bit_length() // 8 + 1
    return (serial, serial + (1 << 8 * octets))


def from_header(value: bytes) -> ClientCert:
    """Read `$ssl_client_escaped_cert`: URL-encoded PEM of one certificate.

    A `+` stays a `+` (it is Base64, never a blank).  Raises `MalformedCertificate`.
    """
    return from_der(_as_nginx_writes(value) or pem_to_der(unquote_to_bytes(value)))


_HEAD, _TAIL = b"-----BEGIN%20CERTIFICATE-----%0A", b"%0A-----END%20CERTIFICATE-----%0A"
_QUOTED = bytes.maketrans(b"%=\r\n", b"=!!!")
"""Map URL-encoding to quoted-printable; `=`, CR and LF become `!`, which is not Base64."""


def _as_nginx_writes(value: bytes) -> bytes | None:
    """Decode a certificate in the exact form that nginx writes; return None for another form."""
    if not (value.startswith(_HEAD) and value.endswith(_TAIL)):
        return None
    quoted = value[len(_HEAD) : -len(_TAIL)].translate(_QUOTED)
    body = binascii.a2b_qp(quoted)
    if len(quoted) - len(body) != 2 * quoted.count(b"="):  # a `%` without two hex digits
        return None
    try:
        return binascii.a2b_base64(body.replace(b"\n", b""), strict_mode=True)
    except binascii.Error:
        return None


_BEGIN = b"-----BEGIN CERTIFICATE-----"
_END = b"-----END CERTIFICATE-----"


def pem_to_der(pem: bytes) -> bytes:
    """Decode a PEM text that contains one certificate and nothing else.

    It must have the strict form of RFC 7468, section 3, except for blanks around the lines.
    Raises `MalformedCertificate`.
    """
    text = pem.strip(b" \t\r\n")
    if not text.startswith(_BEGIN) or not text.endswith(_END):
        raise MalformedCertificate("not a PEM certificate")
    body = text[len(_BEGIN) : -len(_END)].translate(None, b" \t\r\n")
    try:
        return base64.b64decode(body, validate=True)
    except binascii.Error:
        raise MalformedCertificate("the Base64 of the PEM certificate is broken") from None


def from_der(der: bytes) -> ClientCert:
    """Parse one DER certificate.  Raises `MalformedCertificate` only."""
    try:
        return _read(der)
    except MalformedCertificate:
        raise
    except ValueError as error:
        raise MalformedCertificate(f"not a readable certificate: {brief(error)}") from None


def _read(der: bytes) -> ClientCert:
    parts = _take_apart(der)
    subject, issuer = read_name(parts.subject), read_issuer(parts.issuer)
    listed = split_extensions(parts.extensions)
    extensions = read_extensions(listed)
    not_before, not_after = _period(parts.validity)
    return ClientCert(
        der,
        parts.signed,
        parts.algorithm,
        parts.signature,
        parts.key,
        listed,
        parts.version,
        subject,
        issuer,
        *subject[:4],
        *extensions[:-1],
        unreadable=_unreadable(subject, issuer, parts.issuer, extensions),
        issuer_name=parts.issuer,
        subject_name=parts.subject,
        serial=parts.serial,
        not_before=not_before,
        not_after=not_after,
        sha256=hashlib.sha256(der).hexdigest(),
        spki_sha256=hashlib.sha256(parts.key).hexdigest(),
    )


def _unreadable(
    subject: ParsedName, issuer: ParsedName, issuer_name: bytes, extensions: RuleExtensions
) -> frozenset[str]:
    """Return the keys with a value that can't be parsed, or is too long for all its spellings."""
    found = subject.unreadable | extensions.unreadable
    if len(issuer_name) > MAX_NORMALIZED:
        return found | {"issuer_cn", "issuer_dn"}
    return found | {"issuer_cn"} if "cn" in issuer.unreadable else found


class _Parts(NamedTuple):
    """The parts of a Certificate (RFC 5280, 4.1).  Bytes are DER, except `signature`."""

    signed: bytes
    algorithm: bytes
    signature: bytes
    version: int
    serial: int
    issuer: bytes
    validity: bytes
    subject: bytes
    key: bytes
    extensions: bytes


_FIELDS = bytes.fromhex("02 30 30 30 30 30")
"""Tags of serialNumber, signature, issuer, validity, subject and subjectPublicKeyInfo."""
_EXTENSIONS = 0xA3
_SHAPES = {
    version + _FIELDS + ids + extensions
    for version in (b"", b"\xa0")
    for ids in (b"", b"\x81", b"\x82", b"\x81\x82")
    for extensions in (b"", b"\xa3")
}
_VERSIONS = {bytes((0xA0, 3, 2, 1, number)): number + 1 for number in range(3)}
_NO_EXTENSIONS = bytes.fromhex("a3023000")


def _take_apart(der: bytes) -> _Parts:
    """Split a Certificate into its parts.  Raises ValueError if it isn't DER."""
    outer = only(der, SEQUENCE)
    parts = slices(der, outer.start, outer.stop, 4)
    if bytes([each[0] for each in parts]) != b"\x30\x30\x03":
        raise ValueError("it isn't a sequence of a signed part, an algorithm and a signature")
    signed, algorithm, signature = parts
    fields = slices(signed, value_of(signed, 0), len(signed), 11)
    tags = bytes([each[0] for each in fields])
    if tags not in _SHAPES:
        raise ValueError("its signed part doesn't have the fields of RFC 5280, 4.1")
    version = _VERSIONS.get(fields.pop(0)) if tags[0] == 0xA0 else 1
    if version is None:
        raise ValueError("its version isn't 1, 2 or 3")
    if len(fields) > 6 and not all(map(_is_unique_id, fields[6:])):
        raise ValueError("one of its unique identifiers is not a BIT STRING")
    if fields[1] != algorithm:
        raise ValueError("the signature algorithms inside and outside the signed part differ")
    key = within(fields[5], SEQUENCE)
    if [each[0] for each in key] != [SEQUENCE, BIT_STRING]:
        raise ValueError("its public key is not an algorithm and bits")
    check_key(*key)
    return _Parts(
        signed,
        algorithm,
        _signature(signature),
        version,
        _serial(fields[0]),
        fields[2],
        fields[3],
        fields[4],
        fields[5],
        fields[-1] if tags[-1] == _EXTENSIONS else _NO_EXTENSIONS,
    )


def _is_unique_id(field: bytes) -> bool:
    return field[0] == _EXTENSIONS or is_bits(field[value_of(field, 0) :])


def _signature(octets: bytes) -> bytes:
    """Return the octets of a BIT STRING that has no unused bits.  Raises ValueError."""
    at = value_of(octets, 0)
    if len(octets) == at or octets[at]:
        raise ValueError("the signature isn't whole octets")
    return octets[at + 1 :]


def _serial(octets: bytes) -> int:
    value = octets[value_of(octets, 0) :]
    if not is_integer(value) or len(value) > MAX_SERIAL:
        raise ValueError("its serial number is not an INTEGER of a usual length")
    return int.from_bytes(value, "big", signed=True)


def _period(octets: bytes) -> tuple[float, float]:
    times = within(octets, SEQUENCE)
    if len(times) != 2:
        raise ValueError("its validity isn't two times")
    return parse_time(times[0]), parse_time(times[1])

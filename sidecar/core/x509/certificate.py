"""What a client certificate proves: `SSL-Client-Cert` → a frozen `ClientCert`.

Every field is read from the certificate's ASN.1, to the last octet at every level that is read, and
what is around the signed part is DER, so that nobody can spell a certificate otherwise.  Nothing
here checks a signature, a date or a revocation: that is `path_building`, `evaluate` and
`revocation`.
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
from .subject import ParsedName, read_issuer, read_name

# RFC 5280, 4.1.2.2: "Certificate users SHOULD be prepared to gracefully handle" serial numbers
# that are negative or zero.  They are compared as numbers, like any other.
warnings.filterwarnings(
    "ignore", "Parsed a serial number which wasn't positive", CryptographyDeprecationWarning
)
# Whoever has a certificate made chooses its names; none of them may reach the journal this way.
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
    """One certificate, read.  Compared by identity; `sha256` is its name.

    Names are text as the certificate has them; `dn` and `issuer_dn` are RFC 4514 (last RDN
    first, as nginx's `$ssl_client_s_dn`).  Times are seconds since the epoch.  Fingerprints are
    lower-case hex.  `eku` and `policy_oid` hold dotted OIDs.  `unreadable` are the kinds (keys of
    rules) that the certificate has a value of that can't be read: these never grant and always
    refuse.  DER are `signed`, the TBSCertificate; `algorithm`, the signature's
    AlgorithmIdentifier; `issuer_name` and `subject_name`, Names; `spki`, the
    SubjectPublicKeyInfo; `extensions`, one Extension each.  `signature` are the octets of the
    signature.
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
        """The certificate as `cryptography` reads it.

        Raises `MalformedCertificate`: it refuses what others accept (characters that a string's
        type doesn't allow, defaults that are written out).
        """
        if not self._parsed:
            try:
                self._parsed.append(x509.load_der_x509_certificate(self.der))
            except Exception as error:  # of many classes; all mean the same
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
        """The issuer's DN, as RFC 4514 writes it."""
        return self.issuer.dn

    @property
    def serial_hex(self) -> str:
        """The serial number as nginx's `$ssl_client_serial` has it: upper-case hex, even length."""
        return serial_hex(self.serial)

    def outline(self) -> ClientCert:
        """A small copy that says whose it is, for a log: without octets and alternative names."""
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
            eku=(),
            policy_oid=(),
            issuer_name=_NOBODY,
            subject_name=_NOBODY,
        )

    def extension(self, oid: bytes) -> bytes | None:
        """The value of an extension, by the contents of its OID; None where there is none."""
        for octets in self.extensions:
            found, value = split_extension(octets)
            if found == oid:
                return value
        return None


_NOBODY = b"\x30\0"
"""An empty Name."""


def serial_hex(serial: int) -> str:
    """Upper-case hex, even length, `-` before a negative one (OpenSSL's `i2a_ASN1_INTEGER`)."""
    digits = f"{abs(serial):X}"
    return ("-" if serial < 0 else "") + digits.zfill(len(digits) + len(digits) % 2)


def from_header(value: bytes) -> ClientCert:
    """Read `$ssl_client_escaped_cert`: URL-encoded PEM of one certificate.

    A `+` stays a `+` (it is Base64, never a blank).  Raises `MalformedCertificate`.
    """
    return from_der(_as_nginx_writes(value) or pem_to_der(unquote_to_bytes(value)))


_HEAD, _TAIL = b"-----BEGIN%20CERTIFICATE-----%0A", b"%0A-----END%20CERTIFICATE-----%0A"
_QUOTED = bytes.maketrans(b"%=\r\n", b"=!!!")
"""From URL-encoding to quoted-printable; what means more there than here becomes no Base64."""


def _as_nginx_writes(value: bytes) -> bytes | None:
    """The DER, from what nginx makes of a certificate; None where it is anything else."""
    if not (value.startswith(_HEAD) and value.endswith(_TAIL)):
        return None
    quoted = value[len(_HEAD) : -len(_TAIL)].translate(_QUOTED)
    body = binascii.a2b_qp(quoted)
    if len(quoted) - len(body) != 2 * quoted.count(b"="):  # one of them wasn't an escape
        return None
    try:
        return binascii.a2b_base64(body.replace(b"\n", b""), strict_mode=True)
    except binascii.Error:
        return None


_BEGIN = b"-----BEGIN CERTIFICATE-----"
_END = b"-----END CERTIFICATE-----"


def pem_to_der(pem: bytes) -> bytes:
    """The DER of a PEM text that holds one certificate and nothing else.

    RFC 7468, section 3, in its strict form, but for blanks around and between the lines.
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
    """Read one DER certificate, all of it.  Raises `MalformedCertificate`, nothing else."""
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
        unreadable=_unreadable(subject, issuer, extensions),
        issuer_name=parts.issuer,
        subject_name=parts.subject,
        serial=parts.serial,
        not_before=not_before,
        not_after=not_after,
        sha256=hashlib.sha256(der).hexdigest(),
        spki_sha256=hashlib.sha256(parts.key).hexdigest(),
    )


def _unreadable(
    subject: ParsedName, issuer: ParsedName, extensions: RuleExtensions
) -> frozenset[str]:
    found = subject.unreadable | extensions.unreadable
    return found | {"issuer_cn"} if "cn" in issuer.unreadable else found


class _Parts(NamedTuple):
    """A Certificate, taken apart (RFC 5280, 4.1).  Fields of bytes are DER, but for `signature`."""

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
    """Take a Certificate apart.  Raises ValueError where it isn't DER."""
    outer = only(der, SEQUENCE)
    parts = slices(der, outer.start, outer.stop, 4)
    if bytes([each[0] for each in parts]) != b"\x30\x30\x03":
        raise ValueError("it isn't made of a signed part, an algorithm and a signature")
    signed, algorithm, signature = parts
    fields = slices(signed, value_of(signed, 0), len(signed), 11)
    tags = bytes([each[0] for each in fields])
    if tags not in _SHAPES:
        raise ValueError("its signed part isn't made as RFC 5280 has it")
    version = _VERSIONS.get(fields.pop(0)) if tags[0] == 0xA0 else 1
    if version is None:
        raise ValueError("its version is none of 1 to 3")
    if len(fields) > 6 and not all(map(_is_unique_id, fields[6:])):
        raise ValueError("one of its unique identifiers is no BIT STRING")
    if fields[1] != algorithm:
        raise ValueError("the signature algorithms within and without differ")
    if [each[0] for each in within(fields[5], SEQUENCE)] != [SEQUENCE, BIT_STRING]:
        raise ValueError("its public key is no algorithm and bits")
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
    """The octets of a BIT STRING, all eight bits of each used."""
    at = value_of(octets, 0)
    if len(octets) == at or octets[at]:
        raise ValueError("the signature isn't whole octets")
    return octets[at + 1 :]


def _serial(octets: bytes) -> int:
    value = octets[value_of(octets, 0) :]
    if not is_integer(value) or len(value) > MAX_SERIAL:
        raise ValueError("its serial number is no INTEGER of a usual length")
    return int.from_bytes(value, "big", signed=True)


def _period(octets: bytes) -> tuple[float, float]:
    times = within(octets, SEQUENCE)
    if len(times) != 2:
        raise ValueError("its validity isn't two times")
    return parse_time(times[0]), parse_time(times[1])

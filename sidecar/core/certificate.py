"""What a client certificate proves: `SSL-Client-Cert` → a frozen `ClientCert`.

Every field is read from the certificate's ASN.1.  Nothing here checks a signature, a date or a
revocation: that is `trust`, `pdp` and `revocation`.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import warnings
from dataclasses import dataclass
from typing import Any, TypedDict, cast
from urllib.parse import unquote_to_bytes

from cryptography import x509
from cryptography.hazmat import asn1
from cryptography.utils import CryptographyDeprecationWarning
from cryptography.x509.oid import NameOID

from .errors import brief
from .signature import take_apart

# RFC 5280, 4.1.2.2: "Certificate users SHOULD be prepared to gracefully handle" serial numbers
# that are negative or zero.  They are compared as numbers, like any other.
warnings.filterwarnings(
    "ignore", "Parsed a serial number which wasn't positive", CryptographyDeprecationWarning
)

_VERSION = 0xA0
UPN = x509.ObjectIdentifier("1.3.6.1.4.1.311.20.2.3")

# The names of RFC 4514, section 3, and beyond them those that OpenSSL, and so nginx, prints.
_DN_NAMES = {
    NameOID.EMAIL_ADDRESS: "emailAddress",
    NameOID.SERIAL_NUMBER: "serialNumber",
    NameOID.SURNAME: "SN",
    NameOID.GIVEN_NAME: "GN",
    NameOID.TITLE: "title",
}

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


class MalformedCertificate(ValueError):
    """The bytes are not one readable X.509 certificate, or its names carry control characters."""


@dataclass(frozen=True, slots=True, eq=False)
class ClientCert:
    """One certificate, read.  Compared by identity; `sha256` is its name.

    Names are text as the certificate has them; `dn` and `issuer_dn` are RFC 4514 (last RDN
    first, as nginx's `$ssl_client_s_dn`).  Times are seconds since the epoch.  Fingerprints are
    lower-case hex.  `signed` is the TBSCertificate and `issuer_name` the issuer's Name, both DER.
    `eku` and `policy_oid` hold dotted OIDs.
    """

    x509: x509.Certificate
    der: bytes
    signed: bytes
    cn: tuple[str, ...]
    o: tuple[str, ...]
    ou: tuple[str, ...]
    dn: str
    email: tuple[str, ...]
    dns: tuple[str, ...]
    uri: tuple[str, ...]
    ip: tuple[str, ...]
    upn: tuple[str, ...]
    issuer_name: bytes
    serial: int
    not_before: float
    not_after: float
    sha256: str
    spki_sha256: str
    eku: tuple[str, ...]
    policy_oid: tuple[str, ...]

    @property
    def issuer_cn(self) -> tuple[str, ...]:
        """The issuer's CNs."""
        return tuple(_values(self.x509.issuer).get(NameOID.COMMON_NAME, ()))

    @property
    def issuer_dn(self) -> str:
        """The issuer's DN, as RFC 4514 writes it."""
        return self.x509.issuer.rfc4514_string(_DN_NAMES)

    @property
    def subject_name(self) -> bytes:
        """The subject's Name, DER."""
        fields = take_apart(self.der, most=7)[1]
        return fields[5] if fields[0][0] == _VERSION else fields[4]

    @property
    def serial_hex(self) -> str:
        """The serial number as nginx's `$ssl_client_serial` has it: upper-case hex, even length."""
        return serial_hex(self.serial)


def serial_hex(serial: int) -> str:
    """Upper-case hex, even length, `-` before a negative one (OpenSSL's `i2a_ASN1_INTEGER`)."""
    digits = f"{abs(serial):X}"
    return ("-" if serial < 0 else "") + digits.zfill(len(digits) + len(digits) % 2)


def from_header(value: bytes) -> ClientCert:
    """Read `$ssl_client_escaped_cert`: URL-encoded PEM of one certificate.

    A `+` stays a `+` (it is Base64, never a blank).  Raises `MalformedCertificate`.
    """
    return from_der(pem_to_der(_unescape(value)))


def _unescape(value: bytes) -> bytes:
    """Percent-decoded; what PEM has of escapes is replaced at once, the rest goes the long way."""
    plain = value
    for escape, octet in _ESCAPES:
        plain = plain.replace(escape, octet)
    return unquote_to_bytes(value) if b"%" in plain else plain


_ESCAPES = ((b"%20", b" "), (b"%0A", b"\n"), (b"%2B", b"+"), (b"%2F", b"/"), (b"%3D", b"="))


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
        return _read(x509.load_der_x509_certificate(der), der)
    except MalformedCertificate:
        raise
    except Exception as error:  # the parser's own errors are of many classes; all mean the same
        raise MalformedCertificate(f"not a readable certificate: {brief(error)}") from error


def _read(cert: x509.Certificate, der: bytes) -> ClientCert:
    extensions = _extensions(cert)
    names = _san(extensions.get(x509.SubjectAlternativeName))
    eku = extensions.get(x509.ExtendedKeyUsage)
    policies = extensions.get(x509.CertificatePolicies)
    signed, fields = take_apart(der, most=7)
    # version (left out where it is 1), serial number, algorithm, issuer, validity, subject, key
    issuer, _, _, spki = fields[3:7] if fields[0][0] == _VERSION else fields[2:6]
    _check_issuer(cert, issuer)
    subject = cert.subject
    values = _values(subject)
    return ClientCert(
        x509=cert,
        der=der,
        signed=signed,
        cn=tuple(values.get(NameOID.COMMON_NAME, ())),
        o=tuple(values.get(NameOID.ORGANIZATION_NAME, ())),
        ou=tuple(values.get(NameOID.ORGANIZATIONAL_UNIT_NAME, ())),
        dn=subject.rfc4514_string(_DN_NAMES),
        issuer_name=issuer,
        serial=cert.serial_number,
        not_before=cert.not_valid_before_utc.timestamp(),
        not_after=cert.not_valid_after_utc.timestamp(),
        sha256=hashlib.sha256(der).hexdigest(),
        spki_sha256=hashlib.sha256(spki).hexdigest(),
        eku=tuple(u.dotted_string for u in eku) if eku else (),
        policy_oid=tuple(p.policy_identifier.dotted_string for p in policies) if policies else (),
        **names,
    )


def _extensions(cert: x509.Certificate) -> dict[type, Any]:
    """Extension values by their type; a repeated extension makes the parser refuse them all."""
    return {type(e.value): e.value for e in cert.extensions}


_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")


def _clean(text: str) -> str:
    """The text itself; control characters (Unicode category Cc, NUL among them) are refused."""
    if _CONTROL.search(text):
        raise MalformedCertificate(f"control character in the name {text[:80]!r}")
    return text


def _values(name: x509.Name) -> dict[x509.ObjectIdentifier, list[str]]:
    """A Name's values by type; none of them may carry a control character."""
    found: dict[x509.ObjectIdentifier, list[str]] = {}
    for attribute in name:
        value = attribute.value
        text = _clean(value) if isinstance(value, str) else str(value)
        found.setdefault(attribute.oid, []).append(text)
    return found


_CHECKED: set[bytes] = set()
"""Issuer names that were found readable, as there are few: reading one takes microseconds."""


def _check_issuer(cert: x509.Certificate, name: bytes) -> None:
    """An issuer's name has to be as readable as a subject's: rules and the log speak of it."""
    if name in _CHECKED:
        return
    _values(cert.issuer)
    if len(_CHECKED) >= 1000:  # strangers make as many as they like
        _CHECKED.clear()
    if len(name) < 1000:
        _CHECKED.add(name)


class _Names(TypedDict):
    dns: tuple[str, ...]
    uri: tuple[str, ...]
    ip: tuple[str, ...]
    email: tuple[str, ...]
    upn: tuple[str, ...]


def _san(san: x509.SubjectAlternativeName | None) -> _Names:
    """The subject's alternative names by kind (RFC 5280, 4.2.1.6), every one checked."""
    found: dict[str, list[str]] = {"dns": [], "uri": [], "ip": [], "email": [], "upn": []}
    for name in san or ():
        match name:
            case x509.DNSName():
                found["dns"].append(_clean(name.value))
            case x509.UniformResourceIdentifier():
                found["uri"].append(_clean(name.value))
            case x509.IPAddress():
                found["ip"].append(str(name.value))
            case x509.RFC822Name():
                found["email"].append(_clean(name.value))
            case x509.DirectoryName():
                _values(name.value)
            case x509.OtherName() if name.type_id == UPN:
                found["upn"].append(_clean(_utf8_string(name.value)))
    return cast(_Names, {kind: tuple(values) for kind, values in found.items()})


def _utf8_string(der: bytes) -> str:
    """The text of one DER UTF8String, which is what a Microsoft user principal name is."""
    text: str = asn1.decode_der(str, der)
    return text

"""What a client certificate proves: `SSL-Client-Cert` → a frozen `ClientCert`.

Every field is read from the certificate's ASN.1.  Nothing here checks a signature, a date or a
revocation: that is `path_building`, `evaluate` and `revocation`.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import warnings
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

from cryptography import x509
from cryptography.utils import CryptographyDeprecationWarning
from cryptography.x509.oid import NameOID

from sidecar.core.errors import MalformedCertificate, brief

from .der import value_of
from .extensions import read_extensions
from .signature import take_apart
from .subject import check_issuer, dn, read_subject, values

# RFC 5280, 4.1.2.2: "Certificate users SHOULD be prepared to gracefully handle" serial numbers
# that are negative or zero.  They are compared as numbers, like any other.
warnings.filterwarnings(
    "ignore", "Parsed a serial number which wasn't positive", CryptographyDeprecationWarning
)
# Whoever has a certificate made chooses its names; none of them may reach the journal this way.
for _about in ("Attribute's length must be", "Country names should be"):
    warnings.filterwarnings("ignore", _about, UserWarning)

_VERSION, _EXTENSIONS = 0xA0, 0xA3

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
    lower-case hex.  `eku` and `policy_oid` hold dotted OIDs.  DER are `signed`, the
    TBSCertificate; `algorithm`, the signature's AlgorithmIdentifier; `issuer_name` and
    `subject_name`, Names.
    """

    x509: x509.Certificate
    der: bytes
    signed: bytes
    algorithm: bytes
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
    issuer_name: bytes
    subject_name: bytes
    serial: int
    not_before: float
    not_after: float
    sha256: str
    spki_sha256: str

    @property
    def issuer_cn(self) -> tuple[str, ...]:
        """The issuer's CNs."""
        return values(self.x509.issuer).get(NameOID.COMMON_NAME, ())

    @property
    def issuer_dn(self) -> str:
        """The issuer's DN, as RFC 4514 writes it."""
        return dn(self.x509.issuer)

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
        return _read(x509.load_der_x509_certificate(der), der)
    except MalformedCertificate:
        raise
    except Exception as error:  # the parser's own errors are of many classes; all mean the same
        raise MalformedCertificate(f"not a readable certificate: {brief(error)}") from error


def _read(cert: x509.Certificate, der: bytes) -> ClientCert:
    signed, algorithm, fields = take_apart(der, most=10)
    # version (left out where it is 1), serial number, algorithm, issuer, validity, subject, key
    if fields[0][0] == _VERSION:
        del fields[0]
    serial, _, issuer, _, subject, key = fields[:6]
    extensions = read_extensions(cert, fields[-1] if fields[-1][0] == _EXTENSIONS else b"")
    check_issuer(cert, issuer)
    return ClientCert(
        cert,
        der,
        signed,
        algorithm,
        *read_subject(cert, subject),
        *extensions,
        issuer_name=issuer,
        subject_name=subject,
        serial=int.from_bytes(serial[value_of(serial, 0) :], "big", signed=True),
        not_before=cert.not_valid_before_utc.timestamp(),
        not_after=cert.not_valid_after_utc.timestamp(),
        sha256=hashlib.sha256(der).hexdigest(),
        spki_sha256=hashlib.sha256(key).hexdigest(),
    )

"""Read the certificates of a file of authorities: one or more in PEM, or one in DER.

PEM is read as OpenSSL reads nginx's `ssl_client_certificate`: text around the blocks, older labels
and `BEGIN TRUSTED CERTIFICATE` (`openssl x509 -trustout`) are accepted, blocks of other kinds are
skipped; byte order marks, UTF-16 and any line ends are read, too (`pem_text`).  A trusted
certificate lists its trusted purposes; without the purpose TLS client it is left out, because
OpenSSL verifies nothing with it.  `Bundle.remarks` names every certificate left out.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import overload

from sidecar.core.errors import printable

from .certificate import ClientCert, from_der
from .der import OID, SEQUENCE, begins_as_der, children, only, tlv
from .keys import UnusableKey, public_key
from .pem_text import plain_pem

MAX_CERTIFICATES = 10_000
"""Maximum number of certificates in one file."""

_HINT = "write a PEM file that begins with -----BEGIN CERTIFICATE-----"

_BLOCK = re.compile(
    rb"^-----BEGIN ((?:X509 |TRUSTED )?CERTIFICATE)-----[ \t]*\n(.*?)(-----|\Z)",
    re.DOTALL | re.MULTILINE,
)
_ASTRAY = re.compile(
    rb"^[^\n#]+-----BEGIN (?:X509 |TRUSTED )?CERTIFICATE-----"
    rb"|^-----BEGIN (?:X509 |TRUSTED )?CERTIFICATE-----(?![ \t]*$)",
    re.MULTILINE,
)
"""A block that isn't read, since its first line isn't `BEGIN` alone, and has no `#` before it."""

_TRUSTED = b"TRUSTED CERTIFICATE"

# The purposes that OpenSSL reads as trust in TLS clients: clientAuth and anyExtendedKeyUsage.
_CLIENTS = (bytes.fromhex("2b06010505070302"), bytes.fromhex("551d2500"))


class Distrusted(ValueError):
    """A TRUSTED CERTIFICATE isn't trusted for TLS clients; plain copies of it aren't either."""

    def __init__(self, der: bytes) -> None:
        super().__init__("it is a TRUSTED CERTIFICATE that isn't trusted for TLS clients")
        self.der = der


@dataclass(frozen=True, slots=True)
class Bundle(Sequence[ClientCert]):
    """The certificates of one file.  `remarks` name those left out or unusable, and the reason."""

    certs: tuple[ClientCert, ...]
    remarks: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.certs)

    @overload
    def __getitem__(self, at: int) -> ClientCert: ...

    @overload
    def __getitem__(self, at: slice) -> tuple[ClientCert, ...]: ...

    def __getitem__(self, at: int | slice) -> ClientCert | tuple[ClientCert, ...]:
        return self.certs[at]


def read_bundle(data: bytes) -> Bundle:
    """Read the certificates of a PEM file, or the one of a DER file.

    Raises ValueError if there is none, and if a PEM block is incomplete or isn't Base64: such a
    file is still being written.
    """
    certs: list[ClientCert] = []
    remarks: list[str] = _astray(data)
    distrusted: set[bytes] = set()
    for number, (label, der) in enumerate(_blocks(data), 1):
        if number > MAX_CERTIFICATES:
            raise ValueError(f"more than {MAX_CERTIFICATES} certificates", "use several files")
        try:
            cert = _read(label, der)
        except ValueError as error:
            remarks.append(f"certificate {number} is left out: {error}")
            if isinstance(error, Distrusted):
                distrusted.add(error.der)
            continue
        certs.append(cert)
        if why := _key_fault(cert):
            remarks.append(f"certificate {number} ({_name(cert)}) verifies nothing: {why}")
    certs = [cert for cert in certs if cert.der not in distrusted]
    if not certs:
        why = "; ".join(remarks[:3]) or "none found"
        raise ValueError(f"the file has no usable certificate ({why})", _HINT)
    return Bundle(tuple(certs), tuple(remarks))


def read_certificates(data: bytes) -> tuple[ClientCert, ...]:
    """Read every different certificate of a file, in file order; trusted purposes are ignored.

    Raises ValueError, also if one certificate can't be parsed.
    """
    found: dict[str, ClientCert] = {}
    for label, der in _blocks(data):
        stop = tlv(der, 0, len(der)).stop if label == _TRUSTED else len(der)
        cert = from_der(der[:stop])
        found[cert.sha256] = cert
        if len(found) > MAX_CERTIFICATES:
            raise ValueError(f"more than {MAX_CERTIFICATES} certificates", "use several files")
    return tuple(found.values())


def _astray(data: bytes) -> list[str]:
    """Tell of blocks with characters beside `-----BEGIN CERTIFICATE-----`, by line."""
    if begins_as_der(data):
        return []
    text = plain_pem(data)
    lines = [text.count(b"\n", 0, found.start()) + 1 for found in islice(_ASTRAY.finditer(text), 3)]
    why = "a certificate is left out: -----BEGIN CERTIFICATE----- isn't alone on line"
    return [f"{why} {line}" for line in lines]


def _name(cert: ClientCert) -> str:
    return printable(cert.dn[:200])


def _key_fault(cert: ClientCert) -> str:
    try:
        public_key(cert.spki)
    except UnusableKey as error:
        return str(error)
    return ""


def _blocks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield label and DER of every certificate in a file.  Raises ValueError."""
    if begins_as_der(data) or (data[:1] == b"\x30" and not _BLOCK.search(plain_pem(data))):
        yield b"CERTIFICATE", data
        return
    data, at = plain_pem(data), 0
    while found := _BLOCK.search(data, at):
        label, body, _ = found.groups()
        end = b"-----END " + label + b"-----"
        if not data.startswith(end, found.end(2)):
            raise ValueError("a PEM block has no end", "write the whole file again")
        yield label, _decode(body)
        at = found.end(2) + len(end)


def _decode(body: bytes) -> bytes:
    """Decode a PEM block to DER; skip header lines, which end at an empty line."""
    head, blank, rest = body.partition(b"\n\n")
    text = rest if blank and b":" in head else body
    try:
        return base64.b64decode(text.translate(None, b" \t\n"), validate=True)
    except binascii.Error:
        raise ValueError("the Base64 of a PEM block is broken", "write it again") from None


def _read(label: bytes, der: bytes) -> ClientCert:
    """Parse one certificate.  Raises ValueError if it must be left out."""
    if label != _TRUSTED:
        return from_der(der)
    end = tlv(der, 0, len(der)).stop
    if end < len(der) and not _is_trusted_for_clients(der[end:]):
        raise Distrusted(der[:end])
    return from_der(der[:end])


def _is_trusted_for_clients(trust: bytes) -> bool:
    """Return whether OpenSSL's CertAux allows the purpose TLS client.

    It must be in `trust`, if that is present, and not in `reject`.

    CertAux ::= SEQUENCE { trust SEQUENCE OF OID OPTIONAL, reject [0] SEQUENCE OF OID OPTIONAL, … }
    Raises ValueError.
    """
    outer = only(trust, SEQUENCE)
    trusted: set[bytes] | None = None
    rejected: set[bytes] = set()
    for part in children(trust, outer.start, outer.stop):
        if part.tag == SEQUENCE and trusted is None:
            trusted = _oids(trust, part.start, part.stop)
        elif part.tag == 0xA0:
            rejected = _oids(trust, part.start, part.stop)
    if rejected.intersection(_CLIENTS):
        return False
    return trusted is None or bool(trusted.intersection(_CLIENTS))


def _oids(der: bytes, start: int, stop: int) -> set[bytes]:
    return {der[at.start : at.stop] for at in children(der, start, stop) if at.tag == OID}

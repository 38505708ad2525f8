"""The certificates of a file of authorities: PEM, one or more, or DER, one.

PEM is read as OpenSSL reads nginx's `ssl_client_certificate`: text around the blocks, older labels
and `BEGIN TRUSTED CERTIFICATE` (`openssl x509 -trustout`) are taken, blocks of other kinds are
passed over.  A trusted certificate says what it is trusted for; where that isn't TLS clients it is
left out, as OpenSSL verifies nothing by it.  Whatever is left out is told in `Bundle.remarks`.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import overload

from sidecar.core.errors import printable

from .certificate import ClientCert, from_der
from .der import OID, SEQUENCE, children, only, tlv
from .keys import UnusableKey, public_key

MAX_CERTIFICATES = 10_000
"""Most certificates of one file: more are no list of authorities."""

_HINT = "write a PEM file that begins with -----BEGIN CERTIFICATE-----"

_BLOCK = re.compile(
    rb"^-----BEGIN ((?:X509 |TRUSTED )?CERTIFICATE)-----[ \t]*\r?\n(.*?)(-----|\Z)",
    re.DOTALL | re.MULTILINE,
)
_TRUSTED = b"TRUSTED CERTIFICATE"

# What OpenSSL takes for trust in TLS clients: clientAuth and anyExtendedKeyUsage.
_CLIENTS = (bytes.fromhex("2b06010505070302"), bytes.fromhex("551d2500"))


class Distrusted(ValueError):
    """A TRUSTED CERTIFICATE that isn't trusted for TLS clients; nor is a plain copy beside it."""

    def __init__(self, der: bytes) -> None:
        super().__init__("it is a TRUSTED CERTIFICATE that isn't trusted for TLS clients")
        self.der = der


@dataclass(frozen=True, slots=True)
class Bundle(Sequence[ClientCert]):
    """The certificates of one file; `remarks` say what of it is left out or useless, and why."""

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
    """The certificates of a PEM file, or the one of a DER file.

    Raises ValueError where there is none, and where a PEM block is broken off or isn't Base64: such
    a file is still being written.
    """
    certs: list[ClientCert] = []
    remarks: list[str] = []
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
        raise ValueError(f"no certificate in it that can be used ({why})", _HINT)
    return Bundle(tuple(certs), tuple(remarks))


def read_certificates(data: bytes) -> tuple[ClientCert, ...]:
    """Every different certificate of a file, whatever it is trusted for, in its order.

    Raises ValueError, also where one of them can't be read.
    """
    found: dict[str, ClientCert] = {}
    for label, der in _blocks(data):
        stop = tlv(der, 0, len(der)).stop if label == _TRUSTED else len(der)
        cert = from_der(der[:stop])
        found[cert.sha256] = cert
        if len(found) > MAX_CERTIFICATES:
            raise ValueError(f"more than {MAX_CERTIFICATES} certificates", "use several files")
    return tuple(found.values())


def _name(cert: ClientCert) -> str:
    return printable(cert.dn[:200])


def _key_fault(cert: ClientCert) -> str:
    try:
        public_key(cert.spki)
    except UnusableKey as error:
        return str(error)
    return ""


def _blocks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The label and DER of every certificate.  Raises ValueError."""
    if data.startswith(b"\x30"):
        yield b"CERTIFICATE", data
        return
    at = 0
    while found := _BLOCK.search(data, at):
        label, body, _ = found.groups()
        end = b"-----END " + label + b"-----"
        if not data.startswith(end, found.end(2)):
            raise ValueError("a PEM block has no end", "write the whole file again")
        yield label, _decode(body)
        at = found.end(2) + len(end)


def _decode(body: bytes) -> bytes:
    """The DER within a PEM block; header lines before an empty one are passed over."""
    head, blank, rest = body.replace(b"\r\n", b"\n").partition(b"\n\n")
    text = rest if blank and b":" in head else body
    try:
        return base64.b64decode(text.translate(None, b" \t\r\n"), validate=True)
    except binascii.Error:
        raise ValueError("the Base64 of a PEM block is broken", "write it again") from None


def _read(label: bytes, der: bytes) -> ClientCert:
    """One certificate.  Raises ValueError where it is to be left out."""
    if label != _TRUSTED:
        return from_der(der)
    end = tlv(der, 0, len(der)).stop
    if end < len(der) and not _is_trusted_for_clients(der[end:]):
        raise Distrusted(der[:end])
    return from_der(der[:end])


def _is_trusted_for_clients(trust: bytes) -> bool:
    """Whether OpenSSL's CertAux allows TLS clients: in `trust`, if that is there, not in `reject`.

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

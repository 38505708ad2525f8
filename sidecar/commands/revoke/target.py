"""Parse the target of `revoke`: a certificate's file, a serial number or a SHA-256 fingerprint.

An enrolled client can also be named (see `named_clients`).  An ambiguous target is refused with a
list of options: a wrong guess would deny nobody, or somebody else.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from sidecar.core.errors import MalformedCertificate
from sidecar.core.policy.patterns import PatternError, parse_fingerprint, parse_serial
from sidecar.core.x509.bundle import read_certificates
from sidecar.core.x509.certificate import MAX_SERIAL, ClientCert
from sidecar.runtime.files import MAX_POLICY, read_file

DIGESTS = {32: "an MD5", 40: "a SHA-1", 96: "a SHA-384", 128: "a SHA-512"}
"""Other digests than SHA-256 by their number of hexadecimal digits."""

LOOKS_DECIMAL = 16
"""Minimum digits of a serial number without A to F that is probably decimal."""


@dataclass(frozen=True, slots=True)
class Target:
    """A target: the kind of the entry, its value, and the certificate if it is known."""

    kind: str
    value: str
    who: str = ""
    cert: ClientCert | None = None


def read_target(text: str, *, form: str = "", key: bool = False) -> Target:
    """Parse a target; `form` is `file`, `serial` or `fingerprint` if an option states it.

    With `key`, the target is the certificate's public key, so that every certificate with this key
    is denied.  Raises ValueError and OSError.
    """
    form = form or form_of(text)
    if form == "file":
        return _of_file(text, key)
    if form == "fingerprint":
        try:
            return Target("spki_sha256" if key else "sha256", parse_fingerprint(text))
        except PatternError as error:
            raise ValueError(*error.args) from None
    if key:
        raise ValueError("--key goes with a certificate's file or a key's fingerprint")
    return Target("serial", _serial(text))


def form_of(text: str) -> str:
    """Determine the form of a target.  Raises ValueError if it is ambiguous."""
    digits = _hex_digits(text)
    if os.path.lexists(text):
        if digits:
            raise ValueError(
                f"{text!r} could be the file of that name, or a {_by_length(digits)}: say "
                f"--file {text}, or --{_by_length(digits).split()[0]} {text}"
            )
        return "file"
    if len(digits) == 64:
        return "fingerprint"
    if len(digits) in DIGESTS and not text.strip().lower().startswith(("0x", "-")):
        raise ValueError(
            f"{text!r} could be a serial number, or {DIGESTS[len(digits)]} fingerprint, which "
            f"can't be revoked by: say --serial {text}, or give the certificate's file or what "
            "`openssl x509 -noout -fingerprint -sha256 -in CERT` prints behind the ="
        )
    if digits:
        return "serial"
    raise ValueError(
        f"{text!r} is neither a file nor a serial number (in hexadecimal) nor a SHA-256 fingerprint"
    )


def _hex_digits(text: str) -> str:
    """Return the hexadecimal digits of a serial number or fingerprint; "" for other text."""
    digits = text.strip().lower().replace(":", "").removeprefix("-").removeprefix("0x")
    return digits if re.fullmatch(f"[0-9a-f]{{1,{2 * MAX_SERIAL}}}", digits) else ""


def _by_length(digits: str) -> str:
    return "fingerprint" if len(digits) == 64 else "serial number"


def _serial(text: str) -> str:
    try:
        parse_serial(text)
    except PatternError as error:
        raise ValueError(*error.args) from None
    if re.fullmatch(f"[0-9]{{{LOOKS_DECIMAL},}}", text):
        raise ValueError(
            f"serial {text} looks decimal, and serial numbers are hexadecimal here: say "
            f"0x{int(text):X} if it is decimal, 0x{text} if it is hexadecimal"
        )
    return text


# -- a certificate's file


def _of_file(text: str, key: bool) -> Target:
    if os.path.islink(text) and not Path(text).exists():
        raise ValueError(f"{text} is a link to a file that isn't there")
    data = read_file(text, MAX_POLICY)
    try:
        certs = read_certificates(data)
    except MalformedCertificate as error:
        certs, why = (), f"{text} can't be read as a certificate: {error}"
    except ValueError as error:
        certs, why = (), f"{text}: {'; '.join(map(str, error.args))}"
    else:
        why = f"{text} holds no certificate"
    if len(certs) > 1:
        listed = ", ".join(f"{cert.dn[:100]} (sha256 {cert.sha256})" for cert in certs[:5])
        raise ValueError(
            f"{text} holds {len(certs)} certificates: {listed}: revoke one by its fingerprint"
        )
    if not certs:
        raise ValueError(f"{why}; {_instead(data, text)}")
    cert = certs[0]
    kind, value = ("spki_sha256", cert.spki_sha256) if key else ("sha256", cert.sha256)
    return Target(kind, value, cert.dn, cert)


_OTHER = re.compile(rb"-----BEGIN ([A-Z0-9 #]{1,40})-----")
_PKCS12 = re.compile(rb"\x30(?:[\x00-\x7f]|\x80|[\x81-\x84].{1,4}?)\x02\x01\x03\x30", re.DOTALL)


def _instead(data: bytes, text: str) -> str:
    """Suggest what to do with a file that is not a certificate."""
    if _PKCS12.match(data):
        return (
            f"it is PKCS #12: take the certificate out with `openssl pkcs12 -in {text} -clcerts "
            "-nokeys -out alice.crt`, and revoke that"
        )
    if b"-----BEGIN PKCS7-----" in data:
        return f"take the certificate out with `openssl pkcs7 -in {text} -print_certs -out a.crt`"
    if found := _OTHER.search(data):
        return f"it holds a {found[1].decode()}; give the certificate as PEM or DER"
    return "give the certificate as PEM or DER, or its serial number or SHA-256 fingerprint"

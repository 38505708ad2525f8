"""What `revoke TARGET` is about: a certificate's file, a serial number or a SHA-256 fingerprint.

A client who was enrolled can be named, too: see named_clients.

A target that could be more than one of these is refused with the ways to say it: a wrong guess
would deny nobody, or somebody else.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from sidecar.core.errors import MalformedCertificate
from sidecar.core.policy.patterns import PatternError, parse_fingerprint, parse_serial
from sidecar.core.x509.bundle import read_certificates
from sidecar.core.x509.certificate import ClientCert
from sidecar.runtime.files import MAX_POLICY, read_file

FORMS = ("file", "serial", "fingerprint")
"""What a target can be said to be: `--file`, `--serial`, `--fingerprint`."""

DIGESTS = {32: "an MD5", 40: "a SHA-1", 96: "a SHA-384", 128: "a SHA-512"}
"""What a hexadecimal target of so many digits could be, beside a serial number."""

LOOKS_DECIMAL = 16
"""Digits from which on a serial number without A to F is more likely decimal."""


@dataclass(frozen=True, slots=True)
class Target:
    """What is to be denied: the kind of entry, its value, and whose it is if that is known."""

    kind: str
    value: str
    who: str = ""
    cert: ClientCert | None = None


def read_target(text: str, *, form: str = "", key: bool = False) -> Target:
    """The target that is meant; `form` is one of `FORMS` where that was said.

    With `key` the certificate's public key is meant, so that every certificate made for it is
    denied.  Raises ValueError and OSError.
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
    """The one form of `FORMS` that a target can have.  Raises ValueError."""
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
        f"{text!r} is no file, no serial number (in hexadecimal) and no SHA-256 fingerprint"
    )


def _hex_digits(text: str) -> str:
    """The digits of what could be a serial number or a fingerprint; nothing for what couldn't."""
    digits = text.strip().lower().replace(":", "").removeprefix("-").removeprefix("0x")
    return digits if re.fullmatch("[0-9a-f]{1,128}", digits) else ""


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
    """What to do about a file that is no certificate."""
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

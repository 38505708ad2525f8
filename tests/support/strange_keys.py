"""Authorities whose public keys `cryptography` can't use, made by OpenSSL."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

STRANGE = ("SM2", "brainpoolP512t1", "sect283k1", "secp160r1")
"""Curves that OpenSSL has and `cryptography` has not."""


@dataclass(frozen=True)
class StrangeCA:
    """A self-signed authority, certificate only."""

    pem: bytes

    @property
    def der(self) -> bytes:
        return x509.load_pem_x509_certificate(self.pem).public_bytes(Encoding.DER)


@cache
def strange_ca(curve: str) -> StrangeCA:
    """An authority named `Strange CURVE`."""
    with TemporaryDirectory() as place:
        key, cert = Path(place, "ca.key"), Path(place, "ca.crt")
        _openssl("ecparam", "-name", curve, "-genkey", "-noout", "-out", str(key))
        subject = f"/CN=Strange {curve}"
        new = ("req", "-x509", "-new", "-key", str(key), "-subj", subject, "-out", str(cert))
        _openssl(*new, "-days", "3650", "-sm3" if curve == "SM2" else "-sha256")
        return StrangeCA(cert.read_bytes())


def _openssl(*arguments: str) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)

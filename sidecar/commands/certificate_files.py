"""Read the certificates of files and directories, for questions about clients."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from sidecar.core.errors import MalformedCertificate, brief
from sidecar.core.seen_clients import SeenClient
from sidecar.core.x509.bundle import read_certificates
from sidecar.core.x509.certificate import ClientCert
from sidecar.runtime.files import MAX_BUNDLE, read_file

SUFFIXES = {".crt", ".pem", ".cer", ".der"}
"""Suffixes of files read in a directory; a file that is named itself may have any name."""


def given_certificates(places: Iterable[str]) -> tuple[dict[str, ClientCert], list[str]]:
    """Read every different certificate, by its SHA-256; also return the errors in directories.

    Raises OSError and ValueError for a file that was named itself.
    """
    found: dict[str, ClientCert] = {}
    unread: list[str] = []
    for place in places:
        path = Path(place)
        if not path.is_dir():
            certs = _read(path)
            if not certs:
                raise ValueError(f"{path}: no certificate in it", "give PEM or DER")
            found |= certs
            continue
        for each in _files(path):
            try:
                found |= _read(each)
            except OSError as error:
                unread.append(f"{each}: {error.strerror or error}")
            except ValueError as error:
                unread.append(str(error))
    return found, unread


def seen_certificates(seen: Mapping[str, SeenClient]) -> dict[str, ClientCert]:
    """Parse the certificates of seen clients; leave out those that can't be parsed."""
    found = {}
    for sha256, client in seen.items():
        with contextlib.suppress(MalformedCertificate):
            found[sha256] = client.cert
    return found


def _files(directory: Path) -> Iterator[Path]:
    for path in sorted(directory.rglob("*")):
        if path.suffix.lower() in SUFFIXES and path.is_file():
            yield path


def _read(path: Path) -> dict[str, ClientCert]:
    try:
        return {cert.sha256: cert for cert in read_certificates(read_file(path, MAX_BUNDLE))}
    except ValueError as error:
        raise ValueError(f"{path}: {brief(error)}") from None

"""Tell the two sources of a CRL apart: a file, or an address that the fetcher downloads."""

from __future__ import annotations

import hashlib
import re

SECRET = re.compile(r"(?i)(?:(?<=://)|(?<=\bhttp:)(?!//)|(?<=\bhttps:)(?!//)).*@")
"""User and password within an address, also where it is mistyped, or its password has a `/`."""


def is_address(text: str) -> bool:
    """Return whether a CRL's place is an http(s) address (else it is a file)."""
    return "://" in text


def shown(place: str) -> str:
    """Return a CRL's place for logs, metrics and answers: without user and password."""
    return SECRET.sub("", place)


def crl_file_name(trust: str, url: str) -> str:
    """Name the state directory's file for the CRL that is downloaded from an address."""
    digest = hashlib.sha256(f"{trust}\n{url}".encode()).hexdigest()
    return f"crl/{digest}.crl"

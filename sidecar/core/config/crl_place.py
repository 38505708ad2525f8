"""Where a CRL comes from: a file, or an address that the fetcher downloads it from."""

from __future__ import annotations

import hashlib
import re


def is_address(text: str) -> bool:
    """Whether a CRL's place is an http(s) address, for the fetcher, rather than a file."""
    return "://" in text


def shown(place: str) -> str:
    """A CRL's place as logs, metrics and answers have it: an address without user and password."""
    return re.sub("(?<=://)[^/?#]*@", "", place)


def crl_file_name(trust: str, url: str) -> str:
    """Name the file, within the state directory, of the CRL that was downloaded from an address."""
    digest = hashlib.sha256(f"{trust}\n{url}".encode()).hexdigest()
    return f"crl/{digest}.crl"

"""Ask denylists about a certificate, in every encoding that its holder can give it.

About the authorities above it, a denylist is asked whatever a trust's `chain` says: whoever writes
an authority's fingerprint into it means all of its clients.  Their serial numbers are not compared:
a client's `serial 01` must not deny everybody below an authority that has the number 1, too.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import zip_longest

from sidecar.core.x509.certificate import ClientCert
from sidecar.core.x509.equivalent_fingerprints import equivalent_fingerprints
from sidecar.core.x509.equivalent_keys import equivalent_keys

from .denylist import Denylist
from .status import Answer


def denied(denylists: Iterable[Denylist], cert: ClientCert, now: float) -> Answer | None:
    """Return REVOKED if a line denies the certificate now, else None."""
    for denylist in denylists:
        if not denylist.entries:
            continue
        for sha256, spki_sha256 in _fingerprints(cert):
            found = denylist.lookup(cert.serial, sha256, spki_sha256, now)
            if found is not None:
                return found
    return None


def denied_above(
    denylists: Iterable[Denylist], authorities: Sequence[ClientCert], now: float
) -> Answer | None:
    """Return REVOKED if a line denies one of these authorities, or its key, now; else None."""
    filled = [denylist for denylist in denylists if denylist.entries]
    for authority in authorities if filled else ():
        for sha256, spki_sha256 in _fingerprints(authority):
            for denylist in filled:
                found = denylist.lookup(None, sha256, spki_sha256, now)
                if found is not None:
                    return found
    return None


def _fingerprints(cert: ClientCert) -> Iterator[tuple[str, str]]:
    """Yield the fingerprints of a certificate and its key, in every encoding that they have."""
    certs = (cert.sha256, *equivalent_fingerprints(cert))
    keys = (cert.spki_sha256, *equivalent_keys(cert))
    for sha256, spki_sha256 in zip_longest(certs, keys, fillvalue=""):
        yield sha256 or cert.sha256, spki_sha256 or cert.spki_sha256

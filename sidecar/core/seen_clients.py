"""Clients that were seen: their certificates, and what was decided about each of them last.

Only certificates that passed verification are kept, up to a number and a weight.  Beyond these
the ones that have ended are evicted first, then those seen at one moment only, then those not
seen for longest.  A client is one line of JSON.  A later line about the same certificate adds to
the earlier one, and may leave the certificate out.
"""

from __future__ import annotations

import binascii
import hashlib
import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from sidecar.core.x509.certificate import ClientCert, from_der

MAX_DER = 16 * 1024
"""Longest certificate that is kept, in bytes."""

MAX_LOCATIONS = 16
"""Most locations kept for one client: the last ones."""

MAX_TEXT = 512
"""Longest name of a rule or a location that is taken from a file."""

MAX_SUBJECT = 256
"""Most characters kept of a subject."""

WEIGHT = 4096
"""Bytes for each client that may be kept."""

ROOM_MADE = 0.1
"""The part of the clients that is evicted at once."""


class Visit(NamedTuple):
    """The last decision about one client at one location; `at` in seconds since the epoch."""

    at: float
    decision: str
    reason: str
    rule: str

    @property
    def shadowed(self) -> bool:
        """Whether monitor mode alone let the client in."""
        return self.decision == "allow" and self.reason != "allowed"


@dataclass(slots=True)
class SeenClient:
    """One certificate that was seen.  Moments are in seconds since the epoch.

    `subject` is its DN, or else its first URI or DNS name, cut.
    """

    sha256: str
    der: bytes
    not_after: float
    first_seen: float
    subject: str = ""
    visits: dict[str, Visit] = field(default_factory=dict)

    @property
    def last_seen(self) -> float:
        """When the client was seen last, anywhere."""
        return max((visit.at for visit in list(self.visits.values())), default=self.first_seen)

    @property
    def last(self) -> tuple[str, Visit]:
        """The location of the last decision, and that decision."""
        return max(list(self.visits.items()), key=lambda item: item[1].at)

    @property
    def cert(self) -> ClientCert:
        """The certificate, read anew.  Raises `MalformedCertificate`."""
        return from_der(self.der)

    @property
    def weight(self) -> int:
        """About how many bytes it takes."""
        return 500 + len(self.der) + 200 * len(self.visits)

    def note(self, location: str, visit: Visit) -> None:
        """Take a decision; the location not visited for longest gives way."""
        self.visits[location] = visit
        if len(self.visits) > MAX_LOCATIONS:
            del self.visits[min(self.visits, key=lambda name: self.visits[name].at)]


class SeenClients:
    """The clients by SHA-256, at most `most` of them."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.by_sha256: dict[str, SeenClient] = {}
        self._weight = 0

    def note(self, cert: ClientCert, location: str, visit: Visit) -> bool:
        """Take a decision; whether it tells more than a later moment.

        A certificate that is not known must have passed verification.
        """
        known = self.by_sha256.get(cert.sha256)
        if known is None:
            if not 0 < len(cert.der) <= MAX_DER:
                return False
            known = SeenClient(
                cert.sha256, cert.der, cert.not_after, visit.at, name_of(cert)[:MAX_SUBJECT]
            )
            self.by_sha256[cert.sha256] = known
            self._weight += known.weight
        before = known.visits.get(location)
        self._weight -= known.weight
        known.note(location, visit)
        self._weight += known.weight
        return before is None or before[1:] != visit[1:]

    def read(self, lines: Iterable[bytes]) -> int:
        """Take lines of a file; how many of them were broken."""
        broken = 0
        for line in lines:
            try:
                self._take(json.loads(line))
            except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
                broken += 1
        self._weight = sum(client.weight for client in self.by_sha256.values())
        return broken

    def _take(self, found: dict[str, Any]) -> None:
        sha256 = _text(found["sha256"])
        client = self.by_sha256.get(sha256)
        visits = {_text(name): _visit(given) for name, given in found["at"].items()}
        if client is None:
            der = binascii.a2b_base64(found["der"], strict_mode=True)
            if len(der) > MAX_DER or hashlib.sha256(der).hexdigest() != sha256:
                raise ValueError("another certificate")
            ends, first = _moment(found["not_after"]), _moment(found["first"])
            subject = _text(found["subject"])[:MAX_SUBJECT]
            client = SeenClient(sha256, der, ends, first, subject)
            self.by_sha256[sha256] = client
        for name, visit in visits.items():
            client.note(name, visit)

    def evict(self, now: float) -> bool:
        """Make room where there are too many; whether any was evicted."""
        allowed = self.most * WEIGHT
        if len(self.by_sha256) <= self.most and self._weight <= allowed:
            return False
        worth = sorted(self.by_sha256.values(), key=lambda client: _worth(client, now))
        fewer, lighter = self.most * (1 - ROOM_MADE), allowed * (1 - ROOM_MADE)
        for client in worth:
            if len(self.by_sha256) <= fewer and self._weight <= lighter:
                break
            del self.by_sha256[client.sha256]
            self._weight -= client.weight
        return True

    def lines(self) -> Iterator[bytes]:
        """Every client as a line."""
        return map(line, self.by_sha256.values())


def name_of(cert: ClientCert) -> str:
    """What a person knows a certificate by."""
    return cert.dn or next(iter((*cert.uri, *cert.dns, *cert.email)), "(empty subject)")


def _worth(client: SeenClient, now: float) -> tuple[bool, bool, float]:
    last = client.last_seen
    return client.not_after >= now, last > client.first_seen, last


def line(client: SeenClient, locations: Iterable[str] | None = None) -> bytes:
    """A client as a line of a file; with `locations`, only what was decided there."""
    wanted = client.visits if locations is None else locations
    visits = {name: list(client.visits[name]) for name in wanted if name in client.visits}
    told: dict[str, object] = {"sha256": client.sha256, "at": visits}
    if locations is None:
        der = binascii.b2a_base64(client.der, newline=False).decode()
        told["subject"] = client.subject
        told |= {"first": client.first_seen, "not_after": client.not_after, "der": der}
    return json.dumps(told).encode() + b"\n"


def _visit(given: Any) -> Visit:
    at, decision, reason, rule = given
    return Visit(_moment(at), _text(decision), _text(reason), _text(rule))


def _text(given: object) -> str:
    if not isinstance(given, str) or len(given) > MAX_TEXT:
        raise ValueError("not a short text")
    return given


def _moment(given: object) -> float:
    if type(given) not in (int, float) or not math.isfinite(found := float(str(given))):
        raise ValueError("not a moment")
    return found

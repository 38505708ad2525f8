"""Clients that were seen: what is kept of them, what is evicted, and how a file is read."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from pki import CA

from sidecar.core.seen_clients import MAX_DER, MAX_LOCATIONS, SeenClients, Visit, line
from sidecar.core.x509.certificate import ClientCert, from_der

staff = CA("Staff")
alice = from_der(staff.issue("alice").der)
bob = from_der(staff.issue("bob").der)


def visit(at: float, decision: str = "allow", reason: str = "allowed", rule: str = "a") -> Visit:
    return Visit(at, decision, reason, rule)


def numbered(number: int, not_after: float = 9e9, size: int = 1000) -> ClientCert:
    """A certificate that is told from others by its number alone."""
    return replace(alice, sha256=f"{number:064x}", der=bytes(size), not_after=not_after)


def test_a_client_is_kept_with_its_last_decision_at_each_location() -> None:
    """First and last moment, the certificate, and per location the decision, reason and rule."""
    clients = SeenClients(10)
    assert clients.note(alice, "site", visit(100.0))
    assert not clients.note(alice, "site", visit(200.0))
    assert clients.note(alice, "admin", visit(150.0, "deny", "not_allowed", ""))
    assert clients.note(alice, "site", visit(210.0, rule="b"))
    [client] = clients.by_sha256.values()
    assert (client.first_seen, client.last_seen) == (100.0, 210.0)
    assert client.last == ("site", visit(210.0, rule="b"))
    assert client.cert.dn == alice.dn
    assert set(client.visits) == {"site", "admin"}


def test_lines_are_read_back_as_they_were() -> None:
    """A file of whole lines and of later ones without the certificate gives the same clients."""
    clients = SeenClients(10)
    clients.note(alice, "site", visit(100.0))
    clients.note(bob, 'a"\n<b>', visit(101.0))
    first = list(clients.lines())
    clients.note(alice, "site", visit(300.0, "deny", "revoked", ""))
    read = SeenClients(10)
    assert read.read([*first, line(clients.by_sha256[alice.sha256], ["site"])]) == 0
    assert read.by_sha256 == clients.by_sha256


def broken(**changes: object) -> bytes:
    clients = SeenClients(10)
    clients.note(alice, "site", visit(100.0))
    return json.dumps({**json.loads(next(clients.lines())), **changes}).encode()


@pytest.mark.parametrize(
    "told",
    [
        b"",
        b"\xff",
        b"[]",
        b"1",
        b"{}",
        b"[" * 100_000,
        broken()[:-10],
        broken(sha256="00" * 32),
        broken(der="!"),
        broken(der=""),
        broken(first="soon"),
        broken(first=None),
        broken(not_after=True),
        broken(at=[]),
        broken(at={"site": [1.0, "allow", "allowed"]}),
        broken(at={"site": [float("nan"), "allow", "allowed", ""]}),
        broken(at={"site": [10**400, "allow", "allowed", ""]}),
        broken(at={"site": [1.0, "allow", "allowed", "x" * 10_000]}),
    ],
)
def test_a_broken_line_is_left_out(told: bytes) -> None:
    """Whatever stands in a line, no error leaves the reader and the other lines count."""
    clients = SeenClients(10)
    assert clients.read([told, broken()]) == 1
    assert list(clients.by_sha256) == [alice.sha256]


def test_ended_certificates_are_evicted_first() -> None:
    """Then those seen once; a client that comes again outlives any number that come once."""
    clients = SeenClients(100)
    for moment in (1000.0, 2000.0):
        clients.note(alice, "site", visit(moment))
    for number in range(30):
        clients.note(numbered(number, not_after=5.0), "site", visit(9000.0 + number))
    for number in range(30, 1000):
        clients.note(numbered(number), "site", visit(3000.0 + number))
        clients.evict(8000.0)
    assert len(clients.by_sha256) <= 100
    assert alice.sha256 in clients.by_sha256
    assert f"{0:064x}" not in clients.by_sha256
    assert f"{999:064x}" in clients.by_sha256


def test_large_certificates_are_bounded_by_weight() -> None:
    """Fewer of them are kept, and none that is larger than certificates are."""
    clients = SeenClients(100)
    assert not clients.note(numbered(0, size=MAX_DER + 1), "site", visit(1.0))
    for number in range(200):
        clients.note(numbered(number, size=MAX_DER), "site", visit(float(number)))
        clients.evict(1.0)
    assert sum(len(each.der) for each in clients.by_sha256.values()) <= 100 * 4096


def test_the_last_locations_of_a_client_are_kept() -> None:
    """A client that goes everywhere takes no more room than for so many locations."""
    clients = SeenClients(10)
    for number in range(100):
        clients.note(alice, f"l{number}", visit(float(number)))
    visits = clients.by_sha256[alice.sha256].visits
    assert list(visits) == [f"l{number}" for number in range(100 - MAX_LOCATIONS, 100)]

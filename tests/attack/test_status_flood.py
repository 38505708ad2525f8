"""Strangers against the store of clients seen and the status page: they displace nobody, nothing
grows, and decisions go on."""

from __future__ import annotations

import random
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from daemon import Daemon
from pki import CA

from sidecar.authorizer.client_store import ClientStore
from sidecar.core.decision import Decision, Reason
from sidecar.core.x509.certificate import from_der
from sidecar.runtime.seen_clients_file import seen_clients, seen_clients_path

staff = CA("Staff")
alice, bob = staff.issue("alice"), staff.issue("bob")
POLICY = """\
version: 1
trust: {staff: {ca: ca.crt, verify: sidecar}}
locations:
  - {name: site, allow: [{cn: alice}]}
"""
STRANGE = (Reason.UNTRUSTED_ISSUER, Reason.EXPIRED, Reason.NOT_YET_VALID)


def test_self_made_certificates_never_enter_the_store(tmp_path: Path) -> None:
    """A hundred thousand of them, for each reason: one client stays, and the file stays small."""
    store = ClientStore(tmp_path, 100)
    cert = from_der(alice.der)
    store.note(Decision(Reason.ALLOWED, "site", "allow[0]", subject=cert), 1.0)
    store.save()
    size = seen_clients_path(tmp_path).stat().st_size
    for number in range(100_000):
        stranger = replace(cert, sha256=f"{number:064x}")
        reason = STRANGE[number % len(STRANGE)]
        store.note(Decision(reason, "site", subject=stranger), 2.0)
    store.save()
    assert list(seen_clients(tmp_path)) == [alice.sha256]
    assert seen_clients_path(tmp_path).stat().st_size == size
    # The holder's own certificate, once it has ended, is told as what it is.
    store.note(Decision(Reason.EXPIRED, "site", subject=cert), 3.0)
    store.save()
    assert seen_clients(tmp_path)[alice.sha256].visits["site"].reason == "expired"


def test_strangers_with_certificates_of_their_own_stay_one_line(tmp_path: Path) -> None:
    """Where every chain is verified here, real self-made certificates reach the daemon: the page
    tells them as one, and still tells the client who was denied before them."""
    mine = CA("Mallory")
    strangers = [mine.issue(f"stranger {n}") for n in range(200)]
    with Daemon(tmp_path, POLICY, ca_crt=staff.pem) as daemon, daemon.client() as client:
        client.ask("site", bob, {"X-Request-ID": "b" * 32})
        client.ask("site", alice)
        for _ in range(5):
            for leaf in strangers:
                assert client.ask("site", leaf).reason == "untrusted_issuer"
        page = daemon.get("/")[1]
        assert page.count('class="denial"') == 2
        assert "1,000</b>" in page
        assert "CN=bob" in daemon.get("/?q=" + "b" * 32)[1]
    assert set(seen_clients(tmp_path / "state")) == {alice.sha256, bob.sha256}


def test_a_flood_of_searches_holds_up_no_decision(tmp_path: Path) -> None:
    """Pages of different searches are rendered one after the other, beside the decisions; memory
    stays bounded, and metrics come in between."""
    many = "".join(f"  - {{name: l{n}, allow: public}}\n" for n in range(3000))
    with Daemon(tmp_path, POLICY + many, ca_crt=staff.pem) as daemon:
        with daemon.client() as client:
            for n in range(3000):
                client.ask(f"l{n}")
        daemon.get("/")
        before = daemon.rss()
        end = time.monotonic() + 3

        def search() -> None:
            while time.monotonic() < end:
                with suppress(OSError):
                    daemon.get(f"/?q={random.randbytes(40).hex()}")

        with ThreadPoolExecutor(24) as pool, daemon.client() as client:
            floods = [pool.submit(search) for _ in range(24)]
            answered = 0
            while not all(each.done() for each in floods):
                assert client.ask("site", alice).status == 204
                answered += 1
                time.sleep(0.001)
        assert answered > 50
        assert daemon.rss() - before < 60 << 20
        daemon.until(lambda: daemon.status("/metrics") == 200, seconds=30)

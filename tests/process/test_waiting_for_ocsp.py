"""Requests that wait for an OCSP answer: nginx's side → daemon → fetcher → responder, and back."""

from __future__ import annotations

import contextlib
import hashlib
import socket
import threading
import time
from collections import Counter
from pathlib import Path

import ocsp_pki
import pytest
from aiohttp import web
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp
from daemon import Daemon, question
from fetch_server import Answer, Server, openssl
from ocsp_pki import OCSP_SIGNING
from ocsp_stack import (
    ALICE,
    AUTHORITY,
    BOB,
    GOOD,
    POLICY,
    REVOKED,
    SAYS_GOOD,
    SAYS_REVOKED,
    behind,
    beside,
    says,
)
from pki import CA, Leaf

MALLORY = CA("Nobody").issue("mallory")


def test_a_question_is_answered_when_the_responder_has(tmp_path: Path) -> None:
    """Good is let in, revoked is not, by the very first request of each."""

    def check(daemon: Daemon) -> None:
        assert daemon.ask("site", ALICE).reason == "allowed"
        assert daemon.ask("site", BOB).reason == "revoked"

    beside(tmp_path, check)


def test_a_responder_that_is_replaced_locks_nobody_out(tmp_path: Path) -> None:
    """Its certificate is revoked, and it has another one: the answers by that count at once, though
    those of the old one would be good for a long time; also after a restart."""
    signers = [ocsp_pki.issue(name, AUTHORITY, eku=[OCSP_SIGNING]) for name in ("one", "two")]
    used = signers[:1]
    ocsp_pki.write_index(tmp_path / "index.txt", good=[GOOD], revoked=[REVOKED])

    async def answer(request: web.Request) -> web.StreamResponse:
        return await openssl(tmp_path, "-nmin", "10", signer=used[0])(request)

    def check(daemon: Daemon, _: list[Server]) -> None:
        assert daemon.ask("site", ALICE).reason == "allowed"
        daemon.write("deny.txt", f"sha256 {hashlib.sha256(signers[0].der).hexdigest()}\n")
        daemon.until(lambda: daemon.ask("site", ALICE).reason == "revocation_unknown")
        used[:] = signers[1:]
        daemon.until(lambda: daemon.ask("site", ALICE).reason == "allowed", 8)
        assert daemon.ask("site", BOB).reason == "revoked"
        daemon.stop()
        daemon.start()
        assert daemon.ask("site", ALICE).reason == "allowed"

    behind(
        tmp_path,
        POLICY.replace("ocsp:", "denylist: deny.txt, ocsp:"),
        [answer],
        check,
        deny_txt=b"",
    )


def test_who_sends_more_while_he_waits_gets_no_answer_but_400(tmp_path: Path) -> None:
    """While one waits, another connection is served; a byte from him ends it with 400."""
    asked = threading.Event()
    told = threading.Event()

    def wait() -> None:
        asked.set()
        assert told.wait(10)

    def check(daemon: Daemon) -> None:
        with daemon.client() as client:
            client.send(question("site", ALICE))
            assert asked.wait(10)
            assert daemon.ask("open").reason == "public"
            client.send(b"G")
            answer = client.receive()
            assert answer is not None
            assert answer.reason == "bad_request"
            assert client.closed()
        told.set()
        daemon.until(lambda: daemon.ask("site", ALICE).reason == "allowed")

    beside(tmp_path, check, wait)


def test_who_never_reads_while_he_waits_takes_little_memory(tmp_path: Path) -> None:
    """Hundreds of megabytes behind a request that waits are never read into memory."""
    asked, told = threading.Event(), threading.Event()

    def wait() -> None:
        asked.set()
        assert told.wait(20)

    def check(daemon: Daemon) -> None:
        before = daemon.rss()
        with daemon.client() as client:
            client.socket.settimeout(1)
            client.send(question("site", ALICE))
            assert asked.wait(10)
            flood = question("site", ALICE) * 2000
            with contextlib.suppress(TimeoutError, BrokenPipeError, ConnectionResetError):
                for _ in range(100):
                    client.send(flood)
            assert daemon.rss() < before + 40 * 2**20
        told.set()

    beside(tmp_path, check, wait)


def test_who_leaves_while_he_waits_is_forgotten(tmp_path: Path) -> None:
    """A peer that shuts its side down still gets its answer; one that closes holds nothing."""
    asked, told = threading.Event(), threading.Event()

    def wait() -> None:
        asked.set()
        assert told.wait(10)

    def check(daemon: Daemon) -> None:
        with daemon.client() as gone, daemon.client() as client:
            gone.send(question("site", ALICE))
            client.send(question("site", ALICE))
            client.socket.shutdown(socket.SHUT_WR)
            assert asked.wait(10)
            gone.socket.close()
            told.set()
            answer = client.receive()
            assert answer is not None
            assert answer.reason == "allowed"
            assert client.closed()
        daemon.until(lambda: daemon.metric("mtls_sidecar_connections") == 0)

    beside(tmp_path, check, wait)


def test_an_answer_that_was_waited_for_is_nobody_else_s(tmp_path: Path) -> None:
    """A request that is refused right behind one that waited isn't known by that one's answer.

    The refused one says what its sender is twice, so it is answered 400, however often it comes.
    """
    refused = question("dark", MALLORY, {"SSL_Client_Verify": "SUCCESS"})

    def check(daemon: Daemon) -> None:
        with daemon.client() as client:
            assert client.ask("site", ALICE).reason == "allowed"
            client.send(refused)
            assert client.receive() is not None
        for _ in range(4):
            with daemon.client() as client:
                client.send(refused)
                answer = client.receive()
                assert answer is not None
                assert answer.reason == "bad_request"

    beside(tmp_path, check)


def leaf(pair: ocsp_pki.Pair) -> Leaf:
    return Leaf(pair.cert.subject.rfc4514_string(), pair.der, pair.key)


def reasons(daemon: Daemon, location: str, pairs: list[ocsp_pki.Pair]) -> Counter[str]:
    """What all are told who ask at the same time."""
    clients = [daemon.client() for _ in pairs]
    with contextlib.ExitStack() as stack:
        for client, pair in zip(clients, pairs, strict=True):
            stack.enter_context(client)
            client.send(question(location, leaf(pair)))
        answers = [client.receive() for client in clients]
    return Counter(answer.reason for answer in answers if answer is not None)


@pytest.mark.parametrize(
    ("revocation", "status", "reason"),
    [("required", SAYS_GOOD, "allowed"), ("best_effort", SAYS_REVOKED, "revoked")],
)
def test_many_at_once_wait_for_their_turn(
    tmp_path: Path, revocation: str, status: bytes, reason: str
) -> None:
    """A hundred clients ask in the same moment of a responder that takes a moment: each waits for
    its answer, so no right one is refused, and no revoked one let in."""
    pairs = [ocsp_pki.issue(f"client {number}", AUTHORITY) for number in range(100)]
    statuses = {pair.cert.serial_number: status for pair in pairs}

    def check(daemon: Daemon, _: list[Server]) -> None:
        assert reasons(daemon, "site", pairs) == {reason: len(pairs)}

    policy = f"""
version: 1
trust: {{{{staff: {{{{ca: ca.pem, ocsp: "{{}}", revocation: {revocation}}}}}}}}}
locations: [{{{{name: site, allow: verified}}}}]
"""
    responder = says(statuses, pairs=pairs, seconds=0.2)
    behind(tmp_path, policy, [responder], check, settings="limits: {ocsp_timeout: 30}\n")


def test_a_responder_that_hangs_holds_no_other_one_up(tmp_path: Path) -> None:
    """While a hundred wait for one responder, those of another trust are answered."""
    other = ocsp_pki.issue("Other CA", ca=True)
    slow = [ocsp_pki.issue(f"client {number}", AUTHORITY) for number in range(100)]
    quick = [ocsp_pki.issue(f"client {number}", other) for number in range(10)]
    statuses = {pair.cert.serial_number: SAYS_GOOD for pair in (*slow, *quick)}
    hangs = says(statuses, pairs=slow, seconds=60)
    answers = says(statuses, pairs=quick, signer=other, issuer=other)

    def check(daemon: Daemon, servers: list[Server]) -> None:
        with contextlib.ExitStack() as stack:
            for pair in slow:
                client = stack.enter_context(daemon.client())
                client.send(question("site", leaf(pair)))
            deadline = time.monotonic() + 10
            while not servers[0].seen and time.monotonic() < deadline:
                time.sleep(0.01)
            time.sleep(0.3)
            assert reasons(daemon, "site", quick) == {"allowed": len(quick)}

    policy = """
version: 1
trust:
  slow: {{ca: ca.pem, ocsp: "{}"}}
  quick: {{ca: other.pem, ocsp: "{}"}}
locations: [{{name: site, allow: verified}}]
"""
    pem = other.cert.public_bytes(Encoding.PEM)
    behind(tmp_path, policy, [hangs, answers], check, other_pem=pem)


def test_every_answer_of_a_chain_is_waited_for(tmp_path: Path) -> None:
    """With `chain: all` the first request waits for the client's answer, then for its CA's."""
    issuing = ocsp_pki.issue("Issuing CA", AUTHORITY, ca=True)
    carol = ocsp_pki.issue("carol", issuing)
    by_root = says({issuing.cert.serial_number: SAYS_GOOD}, pairs=[issuing])
    by_issuing = says(
        {carol.cert.serial_number: SAYS_GOOD}, signer=issuing, issuer=issuing, pairs=[carol]
    )

    async def answer(request: web.Request) -> web.StreamResponse:
        serial = ocsp.load_der_ocsp_request(await request.read()).serial_number
        return await (by_root if serial == issuing.cert.serial_number else by_issuing)(request)

    def check(daemon: Daemon, _: list[Server]) -> None:
        assert daemon.ask("site", leaf(carol)).reason == "allowed"

    policy = """
version: 1
trust: {{staff: {{ca: ca.pem, intermediates: [mid.pem], ocsp: "{}", chain: all}}}}
locations: [{{name: site, allow: verified}}]
"""
    pem = issuing.cert.public_bytes(Encoding.PEM)
    behind(tmp_path, policy, [answer], check, mid_pem=pem)


TWO = """
version: 1
trust:
  a: {{{{ca: ca.pem, ocsp: "{{}}", revocation: {0}}}}}
  b: {{{{ca: ca.pem, ocsp: "{{}}", revocation: {0}}}}}
locations:
  - {{{{name: a, trust: [a], allow: verified}}}}
  - {{{{name: b, trust: [b], allow: verified}}}}
  - {{{{name: both, trust: [a, b], allow: verified}}}}
  - {{{{name: turned, trust: [b, a], allow: verified}}}}
"""
"""Two trusts of one CA, each with a responder."""

KNOWS = says({GOOD.cert.serial_number: SAYS_GOOD, REVOKED.cert.serial_number: SAYS_REVOKED})
DEAD = says({})
STALE = says(dict.fromkeys((GOOD.cert.serial_number, REVOKED.cert.serial_number), SAYS_GOOD))


@pytest.mark.parametrize("revocation", ["required", "best_effort"])
@pytest.mark.parametrize("other", [DEAD, STALE])
@pytest.mark.parametrize("first", ["a", "both", "turned"])
def test_two_trusts_of_one_ca_have_a_responder_each(
    tmp_path: Path, revocation: str, other: Answer, first: str
) -> None:
    """Each trust goes by its own responder, whatever was asked before: where both apply, either
    one's *revoked* denies, and under `required` both must answer, as with CRLs."""

    def check(daemon: Daemon, _: list[Server]) -> None:
        required, dead = revocation == "required", other is DEAD
        daemon.ask(first, BOB)
        unknown = "revocation_unknown" if required and dead else ""
        assert daemon.ask("b", BOB).reason == "revoked"
        assert daemon.ask("both", BOB).reason == "revoked"
        assert daemon.ask("turned", BOB).reason == "revoked"
        assert daemon.ask(first, ALICE).reason == (unknown or "allowed")
        assert daemon.ask("b", ALICE).reason == "allowed"
        for location in ("a", "both", "turned"):
            assert daemon.ask(location, ALICE).reason == (unknown or "allowed")

    behind(tmp_path, TWO.format(revocation), [other, KNOWS], check)

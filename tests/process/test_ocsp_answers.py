"""OCSP end to end: daemon's store → unix socket → fetcher → http → `openssl ocsp`, and back."""

from __future__ import annotations

import asyncio
import os
import socket
import stat
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import fetch_server
import ocsp_pki as pki
import pytest
from aiohttp import web
from cryptography.x509 import ocsp
from der import tlv
from fetch_server import giving, serving, write_policy
from lingering import lingering, pass_along
from prometheus_client import CollectorRegistry

from sidecar.authorizer import ocsp_answers, ocsp_queue
from sidecar.authorizer.ocsp_answers import OcspAnswers, StoredResponse
from sidecar.authorizer.ocsp_queue import OcspClient
from sidecar.core.evaluate import OcspQuestion
from sidecar.core.revocation.ocsp.response import OcspKey, ocsp_key, verify_response
from sidecar.core.revocation.status import RevocationStatus
from sidecar.core.x509.certificate import from_der
from sidecar.fetcher import ocsp_service
from sidecar.fetcher.ocsp_service import OCSP_LIMITS
from sidecar.fetcher.service import FetchOptions, run_fetcher
from sidecar.runtime import fetch_protocol

CA = pki.authority()
ALICE, BOB, EVE = pki.leaf("alice"), pki.leaf("bob"), pki.leaf("eve")


def run(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(main(), 30))


def question(pair: pki.Pair, trust: str = "staff", issuer: pki.Pair = CA) -> OcspQuestion:
    cert, ca = from_der(pair.der), from_der(issuer.der)
    return OcspQuestion(ocsp_key(cert, ca, 300), trust, cert, ca)


def openssl(directory: Path, *options: str, signer: pki.Pair = CA) -> fetch_server.Answer:
    """A responder that says: alice is good, bob revoked, eve not known."""
    pki.write_index(directory / "index.txt", good=[ALICE], revoked=[BOB])
    return fetch_server.openssl(directory, *options, signer=signer)


def crafted(status: bytes = b"\x80\x00", **times: float) -> fetch_server.Answer:
    """A responder that says the same about whatever certificate of ours it is asked about."""

    async def answer(request: web.Request) -> web.StreamResponse:
        serial = ocsp.load_der_ocsp_request(await request.read()).serial_number
        about = next(p for p in (ALICE, BOB, EVE) if p.cert.serial_number == serial)
        one = pki.single(about.cert, CA.cert, status=status, **times)  # type: ignore[arg-type]
        return web.Response(body=pki.craft(CA, [one]))

    return answer


REVOKED = tlv(0xA1, tlv(0x18, b"20260101000000Z"))


async def hanging(_: web.Request) -> web.StreamResponse:
    await asyncio.sleep(20)
    return web.Response()


@dataclass
class Bench:
    """A responder, a fetcher and the daemon's store; `now` is added to the clock."""

    responder: fetch_server.Server
    answers: OcspAnswers
    client: OcspClient
    registry: CollectorRegistry
    ahead: float = 0.0

    async def status(self, pair: pki.Pair, deadline: float = 5.0) -> RevocationStatus | None:
        asked = question(pair)
        await self.answers.ensure(asked, 5.0, deadline)
        answer = self.answers.get(asked.key)
        return answer.status if answer else None

    @property
    def asked(self) -> int:
        return len(self.responder.seen)


@asynccontextmanager
async def bench(
    directory: Path, answer: fetch_server.Answer, patience: float = 8.0, **settings: Any
) -> AsyncIterator[Bench]:
    async with serving(answer) as responder:
        policy = write_policy(directory, ocsp=responder.url)
        path = directory / "fetch.sock"
        stop, ready = asyncio.Event(), asyncio.Event()
        registry = CollectorRegistry()
        told = FetchOptions(
            policy, directory / "state", path, ocsp_limits=replace(OCSP_LIMITS, total=patience)
        )
        task = asyncio.create_task(run_fetcher(told, stop, registry=registry, ready=ready.set))
        await ready.wait()
        client = OcspClient(path)
        here: list[Bench] = []
        answers = OcspAnswers(client, clock=lambda: time.time() + here[0].ahead, **settings)
        here.append(Bench(responder, answers, client, registry))
        try:
            yield here[0]
        finally:
            stop.set()
            await task


# -- end to end --------------------------------------------------------------------------------


def test_openssl_end_to_end(tmp_path: Path) -> None:
    """Good and revoked answers reach the store; a certificate not known to it gets none."""

    async def check() -> None:
        async with bench(tmp_path, openssl(tmp_path, "-nmin", "10")) as b:
            assert await b.status(ALICE) is RevocationStatus.GOOD
            assert await b.status(BOB) is RevocationStatus.REVOKED
            assert await b.status(EVE) is None
            assert b.answers.failures == {"no_answer": 1}
            assert b.responder.seen[0].headers["Content-Type"] == "application/ocsp-request"

    run(check)


def test_openssl_delegated_responder_end_to_end(tmp_path: Path) -> None:
    """A delegated responder's certificate travels with its answer."""
    signer = pki.issue("responder", CA, eku=[pki.OCSP_SIGNING])

    async def check() -> None:
        async with bench(tmp_path, openssl(tmp_path, "-nmin", "10", signer=signer)) as b:
            assert await b.status(BOB) is RevocationStatus.REVOKED

    run(check)


def test_the_raw_client_brings_a_response_that_verifies(tmp_path: Path) -> None:
    """`ask` gives DER, to be verified by who asked, and None where there is no answer."""

    async def check() -> None:
        async with bench(tmp_path, openssl(tmp_path, "-nmin", "10")) as b:
            der = await b.client.ask("staff", ALICE.der, CA.der, 5.0)
            assert der is not None
            answer = verify_response(der, from_der(ALICE.der), from_der(CA.der), time.time(), 5.0)
            assert answer.status is RevocationStatus.GOOD
            assert await b.client.ask("staff", EVE.der, CA.der, 5.0) is None

    run(check)


def test_an_answer_is_asked_for_once(tmp_path: Path) -> None:
    """Twenty requests at the same time, and all later ones, cost one question."""

    async def check() -> None:
        async with bench(tmp_path, crafted()) as b:
            found = await asyncio.gather(*(b.status(ALICE) for _ in range(20)))
            assert set(found) == {RevocationStatus.GOOD}
            assert await b.status(ALICE) is RevocationStatus.GOOD
            assert b.asked == 1

    run(check)


# -- the responder is down ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "answer",
    [
        hanging,
        giving(b"", 500),
        giving(b"rubbish"),
        giving(b""),
        crafted(start=-7200, end=-3600),
    ],
)
def test_a_failure_is_never_an_answer(tmp_path: Path, answer: fetch_server.Answer) -> None:
    """No answer, and once the responder is well again, and the pause over, the right one."""

    async def check() -> None:
        async with bench(tmp_path, answer, patience=1.0, pause=0.2) as b:
            assert await b.status(ALICE, 0.3) is None  # whoever waits does so for 0.3 s only
            assert len(b.answers) == 0
            b.responder.answer = crafted(REVOKED)
            deadline = time.monotonic() + 15
            while await b.status(ALICE) is None and time.monotonic() < deadline:
                await asyncio.sleep(0.1)
            assert await b.status(ALICE) is RevocationStatus.REVOKED

    run(check)


def test_requests_do_not_each_wait_for_a_responder_that_is_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After one wait, the others of that trust get their `no answer` at once, for a moment."""
    monkeypatch.setattr(ocsp_queue, "ASK_SECONDS", 0.3)

    async def check() -> None:
        async with bench(tmp_path, hanging, pause=30.0) as b:
            assert await b.status(ALICE) is None
            start = time.monotonic()
            for pair in (ALICE, BOB, EVE) * 10:
                assert await b.status(pair) is None
            assert time.monotonic() - start < 2  # not thirty times 0.3
            assert b.asked == 1
            b.responder.answer = crafted()
            b.ahead = 31
            assert await b.status(BOB) is RevocationStatus.GOOD

    run(check)


def test_one_certificate_without_answer_holds_no_other_up(tmp_path: Path) -> None:
    """A certificate that the responder doesn't know pauses itself, not the trust."""

    async def check() -> None:
        async with bench(tmp_path, openssl(tmp_path, "-nmin", "10"), pause=60.0) as b:
            assert await b.status(EVE) is None
            assert await b.status(EVE) is None
            assert b.asked == 1
            assert await b.status(ALICE) is RevocationStatus.GOOD

    run(check)


def test_the_last_answer_serves_until_its_end(tmp_path: Path) -> None:
    """With the responder down a good answer is fresh until `until`, and then it is not."""

    async def check() -> None:
        async with bench(tmp_path, crafted(end=100)) as b:
            assert await b.status(ALICE) is RevocationStatus.GOOD
            b.responder.answer = giving(b"", 500)
            key = question(ALICE).key
            b.ahead = 99
            assert b.answers.fresh(key)
            b.answers.refresh_due()
            await until(lambda: b.asked == 2)
            assert b.answers.fresh(key)
            b.ahead = 106
            assert not b.answers.fresh(key)
            assert not await b.answers.ensure(question(ALICE), 5.0, 0.5)

    run(check)


def test_an_old_answer_that_says_revoked_stays(tmp_path: Path) -> None:
    """What has ended is dropped, but for a revocation: only a later answer takes its place."""

    async def check() -> None:
        async with bench(tmp_path, crafted(REVOKED, end=100)) as b:
            await b.status(BOB)
            b.responder.answer = crafted(end=100)
            await b.status(ALICE)
            b.responder.answer = giving(b"", 500)
            b.ahead = 1000
            b.answers.refresh_due()
            assert list(b.answers) == [question(BOB).key]
            assert not b.answers.fresh(question(BOB).key)

    run(check)


def test_no_fetcher_no_answer(tmp_path: Path) -> None:
    """Without the fetcher there is no answer, at once and without an exception."""

    async def check() -> None:
        answers = OcspAnswers(OcspClient(tmp_path / "absent.sock"))
        assert not await answers.ensure(question(ALICE), 5.0, 5.0)
        assert answers.failures == {"fetcher": 1}

    run(check)


def test_a_clock_that_goes_back_forgets_an_answer(tmp_path: Path) -> None:
    """Before its `thisUpdate` an answer proves nothing; once the clock is right, it does again."""

    async def check() -> None:
        async with bench(tmp_path, crafted(start=-60, end=3600)) as b:
            assert await b.status(ALICE) is RevocationStatus.GOOD
            key = question(ALICE).key
            b.responder.answer = giving(b"", 500)
            b.ahead = -86_400
            assert not b.answers.fresh(key)
            assert not await b.answers.ensure(question(ALICE), 5.0, 5.0)
            b.ahead = 0
            assert b.answers.fresh(key)

    run(check)


def test_a_later_answer_from_the_future_holds_nobody_up(tmp_path: Path) -> None:
    """Kept while the clock was a day ahead: the right one takes its place, unless it revoked."""

    async def check() -> None:
        async with bench(tmp_path, crafted(start=86_000, end=90_000)) as b:
            b.ahead = 86_400
            b.client.query = lying(86_000)  # type: ignore[method-assign]  # a clock can't be set
            assert await b.status(ALICE) is RevocationStatus.GOOD
            b.client.query = lying(-60)  # type: ignore[method-assign]  # as above
            b.ahead = 0
            assert await b.status(ALICE) is RevocationStatus.GOOD
            assert b.answers.fresh(question(ALICE).key)

    run(check)


def lying(start: float) -> Any:
    """A fetcher's answer that begins so many seconds from now."""

    async def query(trust: str, cert: bytes, issuer: bytes, *_: object) -> bytes:
        return pki.craft(CA, [pki.single(ALICE.cert, CA.cert, start=start, end=start + 4000)])

    return query


# -- ahead of time -----------------------------------------------------------------------------


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.01)


def test_answers_in_use_are_asked_for_ahead_of_time(tmp_path: Path) -> None:
    """Before the end a new answer is there, and what turned is told; nobody has waited."""
    turned: list[object] = []

    async def check() -> None:
        async with bench(tmp_path, crafted(start=0, end=100), changed=turned.append) as b:
            await b.status(ALICE)
            b.answers.refresh_due()
            assert b.asked == 1  # too early
            b.responder.answer = crafted(REVOKED, start=1, end=1000)
            b.ahead = 90
            keeping = asyncio.create_task(b.answers.keep_fresh(0.01))
            key = question(ALICE).key
            await until(lambda: b.answers[key].status is RevocationStatus.REVOKED)
            assert b.asked == 2
            assert turned == [key]
            keeping.cancel()

    run(check)


def test_answers_that_nobody_reads_are_let_go(tmp_path: Path) -> None:
    """An answer is refreshed if it was read since the last one, else it ends."""

    async def check() -> None:
        async with bench(tmp_path, crafted(start=0, end=100)) as b:
            await b.status(ALICE)
            b.responder.answer = crafted(start=1, end=200)
            b.ahead = 95
            b.answers.refresh_due()
            await until(lambda: b.asked == 2)
            await asyncio.sleep(0.1)
            b.responder.answer = crafted(start=2, end=300)
            b.ahead = 195
            b.answers.refresh_due()
            await asyncio.sleep(0.1)
            assert b.asked == 2
            b.ahead = 210
            b.answers.refresh_due()
            assert len(b.answers) == 0

    run(check)


def test_a_revocation_that_ends_sooner_is_told() -> None:
    """How long a denial may be remembered is counted anew, not by the answer that it replaced."""
    turned: list[OcspKey] = []
    answers = OcspAnswers(OcspClient(Path("/nowhere")), changed=turned.append)
    for end, times in ((600, 0), (20, 1), (600, 1)):
        one = pki.single(ALICE.cert, CA.cert, status=REVOKED, end=end)
        record = StoredResponse("staff", ALICE.der, CA.der, pki.craft(CA, [one]), time.time())
        assert answers.restore(record, 5)
        assert len(turned) == times


def test_an_older_answer_does_not_take_the_place_of_a_later_one(tmp_path: Path) -> None:
    """A replayed `good` from before the revocation changes nothing."""

    async def check() -> None:
        async with bench(tmp_path, crafted(REVOKED, start=-10, end=100)) as b:
            assert await b.status(ALICE) is RevocationStatus.REVOKED
            b.responder.answer = crafted(start=-60, end=3600)
            b.ahead = 95
            b.answers.refresh_due()
            await until(lambda: "older" in b.answers.failures)
            assert b.answers[question(ALICE).key].status is RevocationStatus.REVOKED

    run(check)


def test_memory_is_bounded(tmp_path: Path) -> None:
    """An older answer makes room for the newest."""

    async def check() -> None:
        async with bench(tmp_path, crafted(), size=2) as b:
            await b.status(ALICE)
            await b.status(BOB)
            await b.status(ALICE)
            await b.status(EVE)
            assert len(b.answers) == 2
            assert question(EVE).key in b.answers

    run(check)


def test_memory_is_bounded_by_bytes_and_a_revocation_goes_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of answers that find no room the good ones go, though a revocation was read before them."""
    monkeypatch.setattr(ocsp_answers, "MAX_BYTES", 2 * 3000)

    async def check() -> None:
        async with bench(tmp_path, openssl(tmp_path, "-nmin", "10")) as b:
            assert await b.status(BOB) is RevocationStatus.REVOKED
            b.responder.answer = crafted()
            for pair in (ALICE, EVE, ALICE, EVE):
                assert await b.status(pair) is RevocationStatus.GOOD
            assert question(BOB).key in b.answers
            assert len(b.answers) == 2
            assert 0 < b.answers._bytes.total() <= 2 * 3000

    run(check)


# -- what the fetcher refuses to ask ------------------------------------------------------------


def asking(**fields: str) -> dict[str, str]:
    own = {
        "trust": "staff",
        "cert": fetch_protocol.pack(ALICE.der),
        "issuer": fetch_protocol.pack(CA.der),
    }
    return {**own, **fields}


@pytest.mark.parametrize(
    "wrong",
    [
        {"trust": "other"},
        {"trust": ""},
        {"cert": fetch_protocol.pack(b"rubbish")},
        {"cert": "***"},
        {"cert": ""},
        {"issuer": fetch_protocol.pack(pki.authority("Other CA").der)},
        {"cert": fetch_protocol.pack(pki.issue("x", pki.authority("Other CA")).der)},
        {"cert": fetch_protocol.pack(pki.issue("x", pki.issue("Test CA", ca=True)).der)},
        {"nonce": fetch_protocol.pack(bytes(129))},
    ],
)
def test_only_what_the_policy_names_is_asked(tmp_path: Path, wrong: dict[str, str]) -> None:
    """Other trusts, other issuers and certificates they didn't sign never leave the machine."""

    async def check() -> None:
        async with bench(tmp_path, crafted()) as b:
            reply = await b.client._exchange(fetch_protocol.encode(asking(**wrong)))
            assert reply["kind"] == "refused"
            assert b.asked == 0
            reply = await b.client._exchange(fetch_protocol.encode(asking()))
            assert "response" in reply

    run(check)


@pytest.mark.parametrize(
    "garbage",
    [
        b"\xff\xff\xff\xff",
        b"GET / HTTP/1.1\r\n\r\n",
        b"\0\0\0\2[]",
        b"\0\0\0\4rub!",
        b'\0\0\0\7{"a":1}',
        b"\0\0\0\x10{}",
        b"\0\0",
        b"\0\1\0\0" + b"[" * 65536,
    ],
)
def test_garbage_on_the_socket_ends_that_connection_only(tmp_path: Path, garbage: bytes) -> None:
    """The fetcher hangs up on what is no message, and goes on serving."""

    async def check() -> None:
        async with bench(tmp_path, crafted()) as b:
            reader, writer = await asyncio.open_unix_connection(str(b.client.path))
            writer.write(garbage)
            writer.write_eof()
            assert await reader.read() == b""
            writer.close()
            assert await b.status(ALICE) is RevocationStatus.GOOD

    run(check)


def test_too_many_questions_at_once_are_told_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fetcher has a bound on what it does at the same time."""
    monkeypatch.setattr(ocsp_service, "MAX_QUESTIONS", 1)

    async def check() -> None:
        async with bench(tmp_path, hanging) as b:
            first = asyncio.create_task(b.client.ask("staff", ALICE.der, CA.der, 5.0))
            await until(lambda: b.asked == 1)
            reply = await b.client._exchange(fetch_protocol.encode(asking()))
            assert reply["kind"] == "busy"
            first.cancel()

    run(check)


FLOOD = """
import os, resource, socket, sys, time
os.setgroups([])
os.setgid(64321)
os.setuid(64321)
resource.setrlimit(resource.RLIMIT_NOFILE, (1000, 1000))
question, held = sys.stdin.buffer.read(), []
for number in range(300):
    peer = socket.socket(socket.AF_UNIX)
    peer.connect(sys.argv[1])
    held.append(peer)
    try:
        peer.sendall(question if number < 100 else question[: len(question) // 2])
    except OSError:
        pass
print("holds", flush=True)
time.sleep(60)
"""
"""Another user, who takes of a socket what there is: questions, and halves of them."""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_another_user_takes_nothing_of_the_daemon_s(tmp_path: Path) -> None:
    """Whoever of the service's group holds all connections, questions and exchanges with the
    responder that they get, the daemon's questions are answered as before."""
    share_with_everybody(tmp_path)

    async def check() -> None:
        async with bench(tmp_path, hanging) as b:
            b.client.path.chmod(0o666)
            flood = await asyncio.create_subprocess_exec(
                sys.executable,
                "-c",
                FLOOD,
                str(b.client.path),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
            )
            assert flood.stdin is not None
            assert flood.stdout is not None
            try:
                flood.stdin.write(fetch_protocol.encode(asking()))
                flood.stdin.close()
                assert await flood.stdout.readline() == b"holds\n"
                await until(lambda: b.asked == 16)
                b.responder.answer = crafted()
                found = await asyncio.gather(*(b.status(pair) for pair in (ALICE, BOB, EVE)))
                assert found == [RevocationStatus.GOOD] * 3
                assert not b.answers.failures
            finally:
                flood.kill()
                await flood.wait()

    run(check)


def share_with_everybody(directory: Path) -> None:
    """Let every user pass root's directories on the way to one, and itself."""
    for place in (directory, *directory.parents):
        mode = place.stat().st_mode
        if place.stat().st_uid == 0 and not mode & stat.S_IXOTH:
            place.chmod(mode | stat.S_IXOTH)


def test_the_daemon_believes_no_fetcher(tmp_path: Path) -> None:
    """A response that a fetcher hands over without verifying it is not kept."""
    path = tmp_path / "fetch.sock"
    forged = pki.craft(pki.issue("Test CA", ca=True), [pki.single(ALICE.cert, CA.cert)])

    async def lie(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await fetch_protocol.read(reader)
        writer.write(fetch_protocol.encode({"response": fetch_protocol.pack(forged)}))
        writer.close()

    async def check() -> None:
        async with await asyncio.start_unix_server(lie, str(path)):
            answers = OcspAnswers(OcspClient(path))
            assert not await answers.ensure(question(ALICE), 5.0, 5.0)
            assert answers.failures == {"unverified": 1}

    run(check)


def test_questions_are_counted(tmp_path: Path) -> None:
    """The fetcher's metrics tell answered questions from failures, by trust."""

    async def check() -> None:
        async with bench(tmp_path, openssl(tmp_path, "-nmin", "10")) as b:
            await b.status(ALICE)
            await b.status(EVE)
            for result in ("answered", "no_answer"):
                labels = {"trust": "staff", "result": result}
                name = "mtls_sidecar_fetch_ocsp_queries_total"
                assert b.registry.get_sample_value(name, labels) == 1

    run(check)


def test_a_descriptor_in_the_fetchers_answer_holds_nothing_up(tmp_path: Path) -> None:
    """A fetcher taken over sends a connection along whose close lingers, for the kernel to close
    where the answer is read: the daemon goes on, and the question ends at its deadline."""
    sent = threading.Event()

    def answer(listening: socket.socket) -> socket.socket:
        asking, _ = listening.accept()
        pass_along(asking, b"\x00\x00\x00\x02", ours.fileno())
        sent.set()
        ours.close()
        return asking

    def goes_on(loop: asyncio.AbstractEventLoop) -> bool:
        def said() -> bool:
            heard = threading.Event()
            loop.call_soon_threadsafe(heard.set)
            return heard.wait(10)

        sent.wait()
        try:
            return all(said() for _ in range(5))  # by then it has read
        finally:
            peer.close()  # so ends what lingers

    async def check() -> None:
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(str(tmp_path / "fetch.sock"))
            listening.listen()
            fetcher = asyncio.create_task(asyncio.to_thread(answer, listening))
            watch = asyncio.create_task(asyncio.to_thread(goes_on, asyncio.get_running_loop()))
            client = OcspClient(tmp_path / "fetch.sock")
            asked = asyncio.create_task(client.ask("staff", ALICE.der, CA.der, 20))
            assert await watch
            (await fetcher).close()
            assert await asked is None

    with lingering() as (ours, peer):
        run(check)

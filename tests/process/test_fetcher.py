"""The fetcher, against local http servers: what it brings, what it refuses, what it leaves."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import fetch_server as web_of
import ocsp_pki as pki
import pytest
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from der import pem
from fetch_server import giving, giving_with_etag, make_crl, serving, write_policy
from pki import CA as PkiCA
from prometheus_client import CollectorRegistry

from sidecar.core.config.crl_place import shown
from sidecar.core.config.settings import Address
from sidecar.core.errors import PolicyError
from sidecar.core.revocation.crl.index import CrlFile, read_crls
from sidecar.fetcher import crl_job
from sidecar.fetcher.crl_job import CrlJob
from sidecar.fetcher.http_client import HttpLimits, max_age, new_session
from sidecar.fetcher.metrics import FetchMetrics
from sidecar.fetcher.plan import CrlSource, PlanReader, kept_plan, plan_path, save_plan
from sidecar.fetcher.service import Fetcher, FetchOptions, fetch_once, main, run_fetcher
from sidecar.runtime.files import crl_state_path, revoking_path
from sidecar.runtime.listen import ListenError

ROOT = Path(__file__).parents[2]
CA = pki.authority()
staff = PkiCA("Staff")
QUICK = HttpLimits(size=1 << 20, total=1.0, silence=0.5, connect=0.5)


def run(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(main(), 30))


class Bench:
    """One job with its state directory, and what came of it."""

    def __init__(self, url: str, session: aiohttp.ClientSession, state: Path) -> None:
        self.registry = CollectorRegistry()
        self.session, self.state, self.url = session, state, url
        (state / "crl").mkdir(parents=True, exist_ok=True)
        self.path = crl_state_path(state, "staff", url)
        self.ahead = 0.0
        self.job = self.new_job()

    def new_job(self, limits: HttpLimits = QUICK) -> CrlJob:
        """The same job as a process started anew would have it."""
        source = CrlSource("staff", self.url, (CA.der,))
        metrics = FetchMetrics(CollectorRegistry())
        self.registry = metrics.registry
        clock = lambda: time.time() + self.ahead  # noqa: E731
        return CrlJob(source, self.state, self.session, metrics, limits=limits, clock=clock)

    async def download(self) -> str:
        return (await self.job.download())[0]

    def count(self, result: str) -> float:
        labels = {"trust": "staff", "result": result}
        return self.registry.get_sample_value("mtls_sidecar_fetch_total", labels) or 0.0


@asynccontextmanager
async def bench(state: Path, url: str) -> AsyncIterator[Bench]:
    async with new_session() as session:
        yield Bench(url, session, state)


# -- bringing ----------------------------------------------------------------------------------


def test_large_downloads_of_a_trust_wait_for_each_other(tmp_path: Path) -> None:
    """A server that the policy names often fills the memory by one of them only, a small CRL
    doesn't wait, and each has its turn."""
    sent: list[int] = []
    held = asyncio.Event()

    async def large(request: web.Request) -> web.StreamResponse:
        if request.path != "/x":
            return web.Response(body=make_crl(CA))
        response, number = web.StreamResponse(), len(sent)
        sent.append(0)
        await response.prepare(request)
        for _ in range(48):
            await response.write(bytes(2**20))
            sent[number] += 1
        await held.wait()
        return response

    async def check() -> None:
        async with serving(large) as server, new_session() as session:
            turn, metrics = asyncio.Lock(), FetchMetrics(CollectorRegistry())
            (tmp_path / "crl").mkdir()
            urls = [*(f"{server.url}?{n}" for n in range(3)), server.url.replace("/x", "/small")]
            jobs = [
                CrlJob(CrlSource("staff", url, (CA.der,)), tmp_path, session, metrics, turn=turn)
                for url in urls
            ]
            tasks = [asyncio.create_task(job.download()) for job in jobs]
            assert (await tasks[3])[0] == "updated"
            while 48 not in sent:
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.2)
            assert sorted(sent)[1] < 40
            held.set()
            assert [result for result, _ in await asyncio.gather(*tasks[:3])] == ["invalid"] * 3

    run(check)


def test_a_slow_server_keeps_no_turn_of_another_one_of_its_trust(tmp_path: Path) -> None:
    """It never ends a large answer; another authority's large CRL is brought meanwhile."""
    begun, brought = asyncio.Event(), asyncio.Event()
    crl = b"#" * 2**21 + b"\n" + pem("X509 CRL", make_crl(CA))

    async def slowly(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(bytes(2**21))
        begun.set()
        await brought.wait()
        return response

    async def at_once(_: web.Request) -> web.StreamResponse:
        await begun.wait()
        return web.Response(body=crl)

    async def check() -> None:
        async with serving(slowly) as slow, serving(at_once) as quick, new_session() as session:
            policy = write_policy(tmp_path, crl=f"{slow.url}, {quick.url}")
            limits = HttpLimits(total=5.0)
            fetcher = Fetcher(
                replace(options(tmp_path, policy), limits=limits),
                session,
                FetchMetrics(CollectorRegistry()),
            )
            await fetcher.load()
            task = asyncio.create_task(fetcher.download_all())
            place = crl_state_path(tmp_path / "state", "staff", quick.url)
            while not place.is_file() and not task.done():
                await asyncio.sleep(0.01)
            assert not task.done()
            brought.set()
            assert not await task
            assert place.read_bytes() == crl

    run(check)


def test_a_crl_is_brought_and_stands_whole(tmp_path: Path) -> None:
    """The verified bytes stand in the state directory, readable for the daemon, nothing beside."""
    crl = make_crl(CA)

    async def check() -> None:
        async with serving(giving(crl)) as server, bench(tmp_path, server.url) as b:
            assert await b.download() == "updated"
            assert b.path.read_bytes() == crl
            assert b.path.stat().st_mode & 0o777 == 0o644
            assert await b.download() == "unchanged"
            assert {p.suffix for p in b.path.parent.iterdir()} == {".crl", ".json"}
            assert b.count("updated") == b.count("unchanged") == 1
            assert "cookie" not in server.seen[0].headers
            assert server.seen[0].headers["Accept-Encoding"] == "identity"

    run(check)


def test_etag_is_honoured_across_restarts(tmp_path: Path) -> None:
    """The second question names the ETag, also by a new process, and 304 leaves the CRL."""
    crl = make_crl(CA)

    async def check() -> None:
        async with (
            serving(giving_with_etag(crl, '"one"')) as server,
            bench(tmp_path, server.url) as b,
        ):
            assert await b.download() == "updated"
            assert await b.download() == "not_modified"
            b.job = b.new_job()
            assert await b.download() == "not_modified"
            asked = [r.headers.get("If-None-Match") for r in server.seen]
            assert asked == [None, '"one"', '"one"']
            assert b.path.read_bytes() == crl

    run(check)


def test_last_modified_is_given_back(tmp_path: Path) -> None:
    """Without an ETag, Last-Modified serves."""
    date = "Mon, 23 Nov 2026 10:00:00 GMT"

    async def check() -> None:
        async with (
            serving(giving(make_crl(CA), Last_Modified=date)) as server,
            bench(tmp_path, server.url) as b,
        ):
            await b.download()
            await b.download()
            assert server.seen[1].headers["If-Modified-Since"] == date

    run(check)


@pytest.mark.parametrize("chosen", ["*", '"two"', "date"])
@pytest.mark.parametrize("life", [3600.0, 30 * 86400.0], ids=["an-hour", "a-month"])
def test_who_gives_an_old_crl_once_keeps_the_next_ones_away_for_a_day_at_most(
    tmp_path: Path, chosen: str, life: float
) -> None:
    """On the way of plain http, an answer's ETag or date may be chosen so that the right server
    takes its CRL for the one held: after a day, or its end, it is asked for without a condition."""
    old, new = make_crl(CA, 1, end=life), make_crl(CA, 2, start=-30.0, end=60 * 86400.0)
    date = "Thu, 31 Dec 2099 23:59:59 GMT"
    by_date, by_tag = giving(old, Last_Modified=date), giving(old, ETag=chosen)

    async def right(request: web.Request) -> web.StreamResponse:
        asked = request.headers.get("If-None-Match"), request.headers.get("If-Modified-Since")
        if asked[0] in ("*", '"two"') or asked[1] == date:
            return web.Response(status=304)
        return web.Response(body=new)

    async def check() -> None:
        async with (
            serving(by_date if chosen == "date" else by_tag) as server,
            bench(tmp_path, server.url) as b,
        ):
            await b.download()
            server.answer = right
            assert await b.download() == "not_modified"
            b.ahead = min(life, 86400.0) + 1.0
            assert await b.download() == "updated"
            assert b.path.read_bytes() == new

    run(check)


def test_an_answer_without_a_crl_to_a_question_without_a_condition_is_none(tmp_path: Path) -> None:
    """304 for ever, also where the whole CRL is asked for, is a failure."""

    async def check() -> None:
        crl = make_crl(CA)
        async with (
            serving(giving_with_etag(crl, '"one"')) as server,
            bench(tmp_path, server.url) as b,
        ):
            await b.download()
            server.answer = giving(b"", 304)
            assert await b.download() == "not_modified"
            b.ahead = 86401.0
            assert await b.download() == "http_error"
            assert b.path.read_bytes() == crl

    run(check)


@pytest.mark.parametrize("damage", ["file", "other", "notes", "gone"])
def test_no_etag_for_bytes_that_are_not_those_it_belongs_to(tmp_path: Path, damage: str) -> None:
    """A CRL file that was damaged or lost is asked for whole, and is whole again."""
    crl = make_crl(CA, 2)

    async def check() -> None:
        async with (
            serving(giving_with_etag(crl, '"one"')) as server,
            bench(tmp_path, server.url) as b,
        ):
            await b.download()
            if damage == "file":
                b.path.write_bytes(b"rubbish")
            elif damage == "other":
                b.path.write_bytes(make_crl(CA, 1, start=-120))
            elif damage == "gone":
                b.path.unlink()
            else:
                b.path.with_suffix(".json").write_text('{"etag": 7, "x": []}')
            b.job = b.new_job()
            assert await b.download() in ("updated", "unchanged")
            assert b.path.read_bytes() == crl

    run(check)


def test_a_newer_crl_replaces_the_older(tmp_path: Path) -> None:
    """What has a higher number takes the place."""

    async def check() -> None:
        async with serving(giving(make_crl(CA, 1))) as server, bench(tmp_path, server.url) as b:
            await b.download()
            newer = make_crl(CA, 2, revoked=3)
            server.answer = giving(newer)
            assert await b.download() == "updated"
            assert b.path.read_bytes() == newer

    run(check)


def test_a_large_crl_is_verified_in_another_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From a size on the event loop's process doesn't parse; the outcome is the same."""
    monkeypatch.setattr(crl_job, "LARGE_CRL", 1)

    async def check() -> None:
        async with serving(giving(make_crl(CA, 2))) as server, bench(tmp_path, server.url) as b:
            assert await b.download() == "updated"
            server.answer = giving(b"rubbish")
            assert await b.download() == "invalid"

    run(check)


def test_a_download_and_what_is_in_place_are_parsed_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A CRL of a million entries takes seconds; nothing that only revokes is beside it."""
    parsed: list[bytes] = []

    def counted(data: bytes, *others: Any) -> CrlFile:
        parsed.append(data)
        return read_crls(data, *others)

    monkeypatch.setattr(crl_job, "read_crls", counted)
    old, new = make_crl(CA, 1), make_crl(CA, 2)

    async def check() -> None:
        async with serving(giving(old)) as server, bench(tmp_path, server.url) as b:
            assert await b.download() == "updated"
            server.answer = giving(new)
            assert await b.download() == "updated"
            assert await b.download() == "unchanged"

    run(check)
    assert parsed == [old, new, old, new]


# -- refusing ----------------------------------------------------------------------------------


async def slowly(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    for _ in range(100):
        await response.write(b"0")
        await asyncio.sleep(0.1)
    return response


async def endlessly(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    for _ in range(40):
        await response.write(b"0" * 65536)
    return response


async def silently(_: web.Request) -> web.StreamResponse:
    await asyncio.sleep(5)
    return web.Response()


async def cut_off(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Length": "100000"})
    await response.prepare(request)
    await response.write(make_crl(CA, 3))
    assert request.transport is not None
    request.transport.close()
    return response


def one_bit_off(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1])


REFUSED = {
    "rubbish": (giving(b"<html>not found</html>"), "invalid"),
    "empty": (giving(b""), "invalid"),
    "another authority": (giving(make_crl(pki.issue("Other CA", ca=True), 3)), "invalid"),
    "same name, other key": (giving(make_crl(pki.issue("Test CA", ca=True), 3)), "invalid"),
    "cut short": (giving(make_crl(CA, 3)[:-1]), "invalid"),
    "one bit": (giving(one_bit_off(make_crl(CA, 3))), "invalid"),
    "backwards": (giving(make_crl(CA, 1, start=-600)), "backwards"),
    "too large": (giving(bytes(QUICK.size + 1)), "too_large"),
    "endless": (endlessly, "too_large"),
    "slow": (slowly, "timeout"),
    "silent": (silently, "timeout"),
    "hung up": (cut_off, "network_error"),
    "not found": (giving(make_crl(CA, 3), 404), "http_error"),
    "broken": (giving(make_crl(CA, 3), 500), "http_error"),
    "partial": (giving(make_crl(CA, 3), 206), "http_error"),
    "compressed": (
        giving(gzip.compress(make_crl(CA, 3)), Content_Encoding="gzip"),
        "encoded",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_bad_never_replaces_what_is_good(tmp_path: Path, case: str) -> None:
    """Whatever a server sends, the good CRL stays as it was, and the failure is counted."""
    answer, expected = REFUSED[case]
    good = make_crl(CA, 2)

    async def check() -> None:
        async with serving(giving(good)) as server, bench(tmp_path, server.url) as b:
            assert await b.download() == "updated"
            server.answer = answer
            assert await b.download() == expected
            assert b.path.read_bytes() == good
            assert b.count(expected) == 1
            server.answer = giving(good)
            assert await b.download() == "unchanged"

    run(check)


@pytest.mark.parametrize("how", ["backwards", "critical", "beside rubbish"])
def test_what_is_refused_is_put_beside_to_revoke(tmp_path: Path, how: str) -> None:
    """A CRL that goes backwards, that isn't understood, or that stands beside something broken,
    doesn't replace the good one; it stands beside until the address gives one that is taken."""
    unknown = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\5\0")
    refused = {
        "backwards": make_crl(CA, 4),
        "critical": make_crl(CA, 6, more=[unknown]),
        "beside rubbish": pem("X509 CRL", make_crl(CA, 6)) + pem("X509 CRL", make_crl(CA, 6)[:-1]),
    }[how]

    async def check() -> None:
        async with serving(giving(make_crl(CA, 5))) as server, bench(tmp_path, server.url) as b:
            await b.download()
            beside = revoking_path(b.path)
            server.answer = giving(refused)
            assert await b.download() in ("backwards", "invalid")
            assert beside.read_bytes() == refused
            server.answer = giving(b"rubbish")
            assert await b.download() == "invalid"
            assert beside.exists()
            server.answer = giving(make_crl(CA, 7))
            assert await b.download() == "updated"
            assert not beside.exists()

    run(check)


def test_what_is_level_with_the_crl_in_place_and_lists_fewer_is_refused(tmp_path: Path) -> None:
    """It revokes beside it until a newer one comes, even if the first is given again."""
    at = datetime.now(UTC)
    one, other, both = (make_crl(CA, 5, at=at, serials=s) for s in ([1], [2], [1, 2]))

    async def check() -> None:
        async with serving(giving(one)) as server, bench(tmp_path, server.url) as b:
            beside = revoking_path(b.path)
            for answer, expected, refused in (
                (one, "updated", None),
                (other, "backwards", other),
                (one, "unchanged", other),
                (both, "updated", None),
                (one, "backwards", one),
                (make_crl(CA, 6), "updated", None),
            ):
                server.answer = giving(answer)
                b.job = b.new_job()
                assert await b.download() == expected
                assert (beside.read_bytes() if beside.exists() else None) == refused

    run(check)


def test_what_was_refused_outlasts_older_ones_that_are_given_again(tmp_path: Path) -> None:
    """A newer CRL that isn't understood revokes until a still newer one is taken: neither the one
    in place, given again, nor an older one takes it away, nor one beside which it has its room."""
    at, unknown = datetime.now(UTC), x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2"), b"")
    seven = make_crl(CA, 7, at=at, serials=[1], more=[unknown])
    same = make_crl(CA, 7, at=at, serials=[2], more=[unknown])
    both = pem("X509 CRL", seven) + pem("X509 CRL", same)

    async def check() -> None:
        five = make_crl(CA, 5, at=at - timedelta(hours=2))
        async with serving(giving(five)) as server, bench(tmp_path, server.url) as b:
            await b.download()
            beside = revoking_path(b.path)
            for answer, expected, refused in (
                (seven, "invalid", [seven]),
                (make_crl(CA, 4, at=at - timedelta(hours=3)), "backwards", [seven]),
                (five, "unchanged", [seven]),
                (same, "invalid", [seven, same]),
                (seven, "invalid", [seven, same]),
                (both, "invalid", [seven, same]),
                (five, "unchanged", [seven, same]),
                (make_crl(CA, 8, at=at), "updated", []),
            ):
                server.answer = giving(answer)
                b.job = b.new_job()
                assert await b.download() == expected
                data = beside.read_bytes() if beside.exists() else b""
                found = x509.load_pem_x509_crl if data.startswith(b"-") else x509.load_der_x509_crl
                parts = [each for each in data.split(b"-----END X509 CRL-----") if each.strip()]
                end = b"-----END X509 CRL-----" if data.startswith(b"-") else b""
                whole = [found(each + end).public_bytes(Encoding.DER) for each in parts]
                assert whole == refused

    run(check)


def test_backwards_is_refused_across_restarts(tmp_path: Path) -> None:
    """A process started anew still knows the number that it has seen."""

    async def check() -> None:
        async with serving(giving(make_crl(CA, 5))) as server, bench(tmp_path, server.url) as b:
            await b.download()
            b.job = b.new_job()
            server.answer = giving(make_crl(CA, 4))
            assert await b.download() == "backwards"

    run(check)


def test_an_ended_crl_is_kept_but_not_called_a_success(tmp_path: Path) -> None:
    """The newest that there is may be past its nextUpdate: stored, counted as stale, retried."""
    old = make_crl(CA, 2, start=-7200, end=-3600)

    async def check() -> None:
        async with serving(giving(old)) as server, bench(tmp_path, server.url) as b:
            assert await b.download() == "stale"
            assert b.path.read_bytes() == old
            assert await b.download() == "stale"

    run(check)


def test_nobody_listening(tmp_path: Path) -> None:
    """A server that is down is a failure, and nothing is written."""

    async def check() -> None:
        async with bench(tmp_path, "http://127.0.0.1:1/x") as b:
            assert await b.download() == "network_error"
            assert list(b.path.parent.iterdir()) == []

    run(check)


def test_no_proxy_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`http_proxy` doesn't divert the fetcher."""
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")

    async def check() -> None:
        async with serving(giving(make_crl(CA))) as server, bench(tmp_path, server.url) as b:
            assert await b.download() == "updated"

    run(check)


# -- redirects ---------------------------------------------------------------------------------


def redirecting(to: str) -> web_of.Answer:
    async def answer(request: web.Request) -> web.StreamResponse:
        if request.path == "/x":
            return web.Response(status=302, headers={"Location": to})
        return web.Response(body=make_crl(CA))

    return answer


def test_a_redirect_within_the_host_is_followed(tmp_path: Path) -> None:
    """Another path on the same server is fine."""

    async def check() -> None:
        async with serving(redirecting("/new/crl")) as server, bench(tmp_path, server.url) as b:
            assert await b.download() == "updated"

    run(check)


@pytest.mark.parametrize(
    "target",
    ["http://localhost:{port}/y", "http://127.0.0.1:1/y", "file:///etc/passwd", "//127.0.0.2/y"],
)
def test_a_redirect_elsewhere_is_refused(tmp_path: Path, target: str) -> None:
    """Another host, port or scheme isn't asked: the policy doesn't name it."""

    async def check() -> None:
        async with serving(giving(b"")) as server, bench(tmp_path, server.url) as b:
            port = server.url.split(":")[2].removesuffix("/x")
            server.answer = redirecting(target.format(port=port))
            assert await b.download() == "redirect_refused"
            assert len(server.seen) == 1

    run(check)


@pytest.mark.parametrize(
    ("target", "comes"),
    [
        ("/y", "updated"),
        ("http://127.0.0.1:1/y", "redirect_refused"),
        ("http://user:secret@127.0.0.1:1/y", "redirect_refused"),
        ("http://else:secret@127.0.0.1/y", "redirect_refused"),
        ("/x", "redirect_refused"),
    ],
)
def test_no_password_reaches_the_log(
    tmp_path: Path, target: str, comes: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The user and password of an address stay secret when its redirect is refused; a relative
    redirect is followed with them."""

    async def check() -> None:
        async with serving(redirecting(target)) as server:
            with_user = server.url.replace("://", "://user:secret@")
            async with bench(tmp_path, with_user) as b:
                assert await b.download() == comes
                assert all("Authorization" in request.headers for request in server.seen)

    run(check)
    assert "secret" not in caplog.text


def test_a_redirect_in_circles_ends(tmp_path: Path) -> None:
    """After a few redirects it is enough."""

    async def check() -> None:
        async with serving(redirecting("/x")) as server, bench(tmp_path, server.url) as b:
            assert await b.download() == "redirect_refused"
            assert len(server.seen) == 4

    run(check)


# -- when again --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, None),
        ({"cache-control": "public, max-age=600"}, 600),
        ({"cache-control": 'Max-Age="60"', "age": "20"}, 40),
        ({"cache-control": "s-maxage=5"}, None),
        ({"cache-control": "max-age=10", "age": "99"}, 0),
        ({"cache-control": "max-age=-1"}, None),
    ],
)
def test_max_age(headers: dict[str, str], expected: float | None) -> None:
    """RFC 9111's max-age, less the age that the answer already has."""
    assert max_age(headers) == expected


@pytest.mark.parametrize(
    ("max_age", "life", "low", "high"),
    [
        ("600", 864000, 540, 600),  # the server's word
        ("1", 864000, 54, 60),  # not more often than once a minute
        ("9999999", 8640000, 77760, 86400),  # not less often than once a day
        ("0", 864000, 3240, 3600),  # "always ask" is once an hour
        ("86400", 3600, 3180, 3420),  # before nextUpdate, in its last tenth
        ("600", 100, 80, 95),
    ],
)
def test_when_the_next_try_is(
    tmp_path: Path, max_age: str, life: float, low: float, high: float
) -> None:
    """max-age within bounds, but ahead of nextUpdate; with jitter."""
    answer = giving(make_crl(CA, start=0, end=life), Cache_Control=f"max-age={max_age}")

    async def check() -> None:
        async with serving(answer) as server, bench(tmp_path, server.url) as b:
            delays = [await b.job.step() for _ in range(8)]
            assert low - 3 <= min(delays) <= max(delays) <= high + 3
            assert len(set(delays)) > 1

    run(check)


def test_failures_back_off_and_a_success_ends_that(tmp_path: Path) -> None:
    """The pauses double up to an hour; Retry-After makes one longer, but no longer than that."""

    async def check() -> None:
        async with serving(giving(b"", 500)) as server, bench(tmp_path, server.url) as b:
            delays = [await b.job.step() for _ in range(10)]
            for at, delay in enumerate(delays):
                assert min(30 * 2**at, 3600) / 2 <= delay <= min(30 * 2**at, 3600)
            server.answer = giving(b"", 503, Retry_After="86400")
            assert await b.job.step() == 3600
            server.answer = giving(make_crl(CA, start=0, end=600))
            await b.job.step()
            server.answer = giving(b"", 503, Retry_After="86400")
            assert 145 <= await b.job.step() <= 150
            server.answer = giving(make_crl(CA, 2, start=0))
            await b.job.step()
            server.answer = giving(b"rubbish", Cache_Control="max-age=86400")
            assert await b.job.step() <= 30

    run(check)


def test_a_try_that_fails_by_our_own_mistake_is_not_the_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is raised, there is a next try, and it is counted."""

    async def check() -> None:
        async with serving(giving(make_crl(CA))) as server, bench(tmp_path, server.url) as b:
            with monkeypatch.context() as broken:
                broken.setattr(crl_job, "judge", None)
                assert 15 <= await b.job.step() <= 30
            assert b.count("error") == 1
            assert await b.job.step() > 30

    run(check)


def test_names_in_a_crl_forge_no_log_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Whoever answers for the address can't write lines of his own, nor move the cursor."""
    forged = "x\nINFO trust staff: CRL updated\x1b[2K\u202e"
    evil = pki.authority(forged)

    async def check() -> None:
        async with serving(giving(make_crl(evil))) as server, bench(tmp_path, server.url) as b:
            assert (await b.job.download())[0] == "invalid"

    run(check)
    said = caplog.records[-1].getMessage()
    assert "issued by a name that can't be read" in said
    assert not {"\n", "\x1b", "\u202e"} & set(said)


# -- the plan ----------------------------------------------------------------------------------


def test_state_path_differs_by_trust_and_address(tmp_path: Path) -> None:
    """Two trusts with one address keep a file each; no name can leave the directory."""
    paths = {
        crl_state_path(tmp_path, trust, url)
        for trust in ("a", "ab", "../..")
        for url in ("http://x/", "http://x/b", "http://x/../../b")
    }
    assert len(paths) == 9
    assert {path.parent for path in paths} == {tmp_path / "crl"}


def test_plan_takes_addresses_of_the_policy_only(tmp_path: Path) -> None:
    """Files, and trusts that name no address, are not the fetcher's."""
    policy = write_policy(tmp_path, crl="http://a/x, http://a/x, crl.pem", ocsp="http://o/")
    reader = PlanReader(policy)
    plan = reader.read()
    assert [(s.trust, s.url, s.authorities) for s in plan.crls] == [
        ("staff", "http://a/x", (CA.der,))
    ]
    assert plan.responders["staff"].url == "http://o/"
    assert set(reader.seen) == {policy, tmp_path / "ca.pem"}
    write_policy(tmp_path, crl="crl.pem")
    assert reader.changed()
    assert reader.read().crls == ()


def test_plan_says_what_is_wrong(tmp_path: Path) -> None:
    """A file of authorities that isn't one is a mistake, by name; the trust stays as it was."""
    policy = write_policy(tmp_path, crl="http://a/x")
    reader = PlanReader(policy)
    good = reader.read()
    (tmp_path / "ca.pem").write_text("rubbish")
    assert reader.changed()
    assert reader.read(good).crls == good.crls
    assert reader.read().crls == ()
    assert "ca.pem: " in str(reader.mistakes[0])
    assert not reader.changed()
    write_policy(tmp_path, crl="http://a/x")  # and mending that file alone is seen
    assert reader.changed()


def test_a_policy_that_anyone_may_write_is_refused(tmp_path: Path) -> None:
    """Who may write the policy chooses whom the fetcher asks: with `trusted_only`, not anyone."""
    policy = write_policy(tmp_path, crl="http://a/x")
    policy.chmod(0o666)
    assert PlanReader(policy).read().crls
    with pytest.raises(PermissionError):
        PlanReader(policy, trusted_only=True).read()


def test_no_password_is_shown() -> None:
    """Logs and metrics have the address without its user and password."""
    assert shown("http://me:secret@host:1/x") == "http://host:1/x"
    assert shown("http://me:p@ss@host/a%40b?c") == "http://host/a%40b?c"
    assert shown("pki/staff@home.crl") == "pki/staff@home.crl"


# -- the process -------------------------------------------------------------------------------


def options(tmp_path: Path, policy: Path) -> FetchOptions:
    return FetchOptions(policy, tmp_path / "state", tmp_path / "fetch.sock", poll_seconds=0.05)


def test_once_tells_by_its_result(tmp_path: Path) -> None:
    """0: every CRL is there; 1: one isn't; what could be brought stands all the same."""
    crl = make_crl(CA)

    async def check() -> None:
        async with serving(giving(crl)) as server:
            policy = write_policy(tmp_path, crl=server.url)
            assert await fetch_once(options(tmp_path, policy)) == 0
            policy = write_policy(tmp_path, crl=f"http://127.0.0.1:1/x, {server.url}2")
            assert await fetch_once(options(tmp_path, policy)) == 1
            path = crl_state_path(tmp_path / "state", "staff", f"{server.url}2")
            assert path.read_bytes() == crl

    run(check)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives a directory away")
def test_once_as_root_is_led_nowhere_by_the_daemons_user(tmp_path: Path) -> None:
    """Whose the directory above is could put a link there: it is refused, and nothing is written;
    a directory that is root's, or gone, is no reason to work as root."""
    state, ours = tmp_path / "state", tmp_path / "ours"
    state.mkdir()
    ours.mkdir()
    for each in (tmp_path, *tmp_path.parents):
        if each.stat().st_mode & 0o001 == 0:
            each.chmod(each.stat().st_mode | 0o001)
    os.chown(state, 65534, 65533)
    policy = write_policy(tmp_path)
    code = (
        "import pathlib, sys; from sidecar.fetcher.service import FetchOptions, main\n"
        "policy, state = map(pathlib.Path, sys.argv[1:])\n"
        "sys.exit(main(FetchOptions(policy, state), once=True))"
    )

    def once() -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", code, str(policy), str(state)]
        # The other user can't write where coverage is measured.
        env = {name: value for name, value in os.environ.items() if "COVERAGE" not in name}
        return subprocess.run(
            command, capture_output=True, text=True, check=False, cwd=ROOT, env=env
        )

    (state / "crl").symlink_to(ours)
    done = once()
    assert (done.returncode, "it is a link; look at who" in done.stderr) == (2, True)
    assert not list(ours.iterdir())
    (state / "crl").unlink()
    assert once().returncode == 0
    assert (state / "crl").stat().st_uid == 65534


def test_main_exit_codes(tmp_path: Path) -> None:
    """0 with nothing to bring, 1 with nobody there, 2 for a policy that can't be read.

    What it named before is brought all the same; without that, no service is started.
    """
    policy = write_policy(tmp_path)
    assert main(options(tmp_path, policy), once=True) == 0
    write_policy(tmp_path, crl="http://127.0.0.1:1/x")
    assert main(options(tmp_path, policy), once=True) == 1
    policy.write_text("version: 2")
    assert main(options(tmp_path, policy), once=True) == 2
    shutil.rmtree(tmp_path / "state")
    assert main(options(tmp_path, policy)) == 2
    assert main(options(tmp_path, tmp_path / "absent"), once=True) == 2


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.02)


@asynccontextmanager
async def running(told: FetchOptions, registry: CollectorRegistry) -> AsyncIterator[asyncio.Event]:
    stop, reload, ready = asyncio.Event(), asyncio.Event(), asyncio.Event()
    task = asyncio.create_task(
        run_fetcher(told, stop, registry=registry, ready=ready.set, reload=reload)
    )
    try:
        await asyncio.wait({task, asyncio.create_task(ready.wait())}, return_when="FIRST_COMPLETED")
        yield reload
    finally:
        stop.set()
        await task


def test_the_policy_is_followed_while_it_runs(tmp_path: Path) -> None:
    """A new address is brought at once, a broken policy changes nothing, one gone is let be."""
    crl = make_crl(CA)
    registry = CollectorRegistry()

    def reloads(result: str) -> float:
        labels = {"result": result}
        return registry.get_sample_value("mtls_sidecar_fetch_policy_reloads_total", labels) or 0

    async def check() -> None:
        async with serving(giving(crl)) as one, serving(giving(crl)) as two:
            policy = write_policy(tmp_path, crl=one.url)
            told = options(tmp_path, policy)
            async with running(told, registry) as reload:
                await until(lambda: len(one.seen) == 1)
                policy.write_text("version: 1\nlocations: [")
                await until(lambda: reloads("refused") == 1)
                write_policy(tmp_path, crl=two.url)
                await until(lambda: reloads("loaded") == 2)
                path = crl_state_path(told.state_dir, "staff", two.url)
                await until(path.exists)
                reload.set()
                await until(lambda: reloads("loaded") == 3)
                assert (len(one.seen), len(two.seen)) == (1, 1)
            assert told.socket is not None
            assert not told.socket.exists()

    run(check)


def write_two_trusts(directory: Path, one: str, two: str) -> Path:
    """A policy of two trusts of the same authority, each with its file and its address."""
    for name in ("one.pem", "two.pem"):
        (directory / name).write_bytes(CA.cert.public_bytes(Encoding.PEM))
    policy = directory / "policy.yaml"
    policy.write_text(
        f"version: 1\ntrust:\n  one: {{ca: one.pem, crl: '{one}'}}\n"
        f"  two: {{ca: two.pem, crl: '{two}'}}\nlocations: [{{name: site, allow: verified}}]\n"
    )
    return policy


@pytest.mark.parametrize("broken", ["rubbish", "", None])
def test_a_broken_ca_file_holds_up_no_other_trust(tmp_path: Path, broken: str | None) -> None:
    """One trust's CA can't be read, at the start or later: the others' CRLs are brought."""
    crl = make_crl(CA)

    async def check() -> None:
        async with serving(giving(crl)) as server:
            policy = write_two_trusts(tmp_path, server.url, f"{server.url}2")
            told = options(tmp_path, policy)
            one, two = (
                crl_state_path(told.state_dir, name, url)
                for name, url in (("one", server.url), ("two", f"{server.url}2"))
            )
            (tmp_path / "one.pem").unlink()
            if broken is not None:
                (tmp_path / "one.pem").write_text(broken)
            assert await fetch_once(told) == 1
            assert two.read_bytes() == crl
            assert not one.exists()
            async with running(told, CollectorRegistry()):
                (tmp_path / "new.pem").write_bytes(CA.cert.public_bytes(Encoding.PEM))
                (tmp_path / "new.pem").rename(tmp_path / "one.pem")
                await until(one.exists)

    run(check)


@pytest.mark.parametrize("broken", ["version: 1\nlocations: [", "", None])
def test_a_start_beside_a_broken_policy_brings_what_it_named(
    tmp_path: Path, broken: str | None
) -> None:
    """A fetcher that is restarted while the policy is broken brings CRLs and carries OCSP on."""
    crl = make_crl(CA)

    async def check() -> None:
        async with serving(giving(crl)) as server:
            policy = write_policy(tmp_path, crl=server.url, ocsp="http://o/")
            told = options(tmp_path, policy)
            path = crl_state_path(told.state_dir, "staff", server.url)
            assert await fetch_once(told) == 0
            path.unlink()
            policy.unlink()
            if broken is not None:
                policy.write_text(broken)
            async with running(told, CollectorRegistry()):
                await until(path.exists)
            path.unlink()
            with pytest.raises((PolicyError, OSError)):
                await fetch_once(told)
            assert path.exists()
            assert (told.state_dir / "crl" / "plan.json").stat().st_mode & 0o777 == 0o600

    run(check)


HELD = {"authorities": {"a": [""]}, "crls": [["a", "file:///etc/shadow"]], "responders": []}


@pytest.mark.parametrize(
    "spoilt", ["", "null", "[]", "{}", "[" * 100_000, json.dumps(HELD), "a FIFO", "a directory"]
)
def test_a_spoilt_plan_is_as_good_as_none(tmp_path: Path, spoilt: str) -> None:
    """Whatever stands in its place: nothing is brought by it, and a sound policy replaces it."""
    place = plan_path(tmp_path)
    place.parent.mkdir()
    if spoilt == "a FIFO":
        os.mkfifo(place)
    elif spoilt == "a directory":
        place.mkdir()
    else:
        place.write_text(spoilt)
    assert kept_plan(place) is None
    plan = PlanReader(write_policy(tmp_path, crl="http://a/x", ocsp="http://o/")).read()
    save_plan(place, plan)
    kept = kept_plan(place)
    assert kept is not None
    assert kept.crls == plan.crls
    assert kept.responders.keys() == plan.responders.keys()


def test_metrics_are_shown_where_asked(tmp_path: Path) -> None:
    """The fetcher's own listener has its counters, by trust and result."""
    policy = write_policy(tmp_path, crl="http://127.0.0.1:1/x")
    at = tmp_path / "admin.sock"

    async def check() -> None:
        told = replace(options(tmp_path, policy), admin=Address(path=str(at)))
        async with running(told, CollectorRegistry()):
            connector = aiohttp.UnixConnector(str(at))
            async with aiohttp.ClientSession(connector=connector) as session:
                text = ""
                while "network_error" not in text:
                    text = await (await session.get("http://x/metrics")).text()
                    await asyncio.sleep(0.02)
                line = 'mtls_sidecar_fetch_total{result="network_error",trust="staff"} 1.0'
                assert line in text
                assert (await session.get("http://x/livez")).status == 200

    run(check)


def test_a_live_socket_is_not_taken_over(tmp_path: Path) -> None:
    """A second fetcher on the same socket refuses to start; a stale file is replaced."""
    policy = write_policy(tmp_path)
    told = options(tmp_path, policy)

    async def check() -> None:
        async with running(told, CollectorRegistry()):
            with pytest.raises(ListenError):
                await run_fetcher(told, asyncio.Event())

    run(check)
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(told.socket))
    run(check)


PROCESS = """
import sys
from pathlib import Path
from sidecar.fetcher.service import FetchOptions, main
policy, state, sock = map(Path, sys.argv[1:])
raise SystemExit(main(FetchOptions(policy, state, sock), ready=lambda: print("ready", flush=True)))
"""


def test_signals_end_the_process(tmp_path: Path) -> None:
    """SIGHUP reads the policy anew, SIGTERM ends it: exit code 0, its socket gone."""
    policy = write_policy(tmp_path, crl="http://127.0.0.1:1/x")
    told = options(tmp_path, policy)
    command = [sys.executable, "-W", "error", "-c", PROCESS]
    command += [str(told.policy), str(told.state_dir), str(told.socket)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        assert told.socket is not None
        assert told.socket.stat().st_mode & 0o777 == 0o660
        process.send_signal(signal.SIGHUP)
        time.sleep(0.1)
        process.terminate()
        assert process.wait(10) == 0
        assert process.stderr is not None
        assert "Traceback" not in process.stderr.read()
    assert not told.socket.exists()


def test_time_is_an_argument(tmp_path: Path) -> None:
    """A CRL that is fresh today is stale under tomorrow's clock."""

    async def check() -> None:
        async with serving(giving(make_crl(CA, end=60))) as server, new_session() as session:
            (tmp_path / "crl").mkdir()
            source = CrlSource("staff", server.url, (CA.der,))
            metrics = FetchMetrics(CollectorRegistry())
            job = CrlJob(source, tmp_path, session, metrics, clock=lambda: time.time() + 86400)
            assert (await job.download())[0] == "stale"

    run(check)


# -- what stands in the state directory, planted or broken


@pytest.mark.parametrize("suffix", [".crl", ".json"])
@pytest.mark.parametrize("how", ["FIFO", "directory", "link", "500 MiB", "garbage"])
def test_what_is_planted_holds_up_no_fetch(tmp_path: Path, suffix: str, how: str) -> None:
    """It is set aside or replaced: the CRL is brought, and the next one."""
    crl = make_crl(CA)

    async def check() -> None:
        async with serving(giving(crl)) as server, bench(tmp_path, server.url) as b:
            place = b.path.with_suffix(suffix)
            if how == "FIFO":
                os.mkfifo(place)
            elif how == "directory":
                place.mkdir()
            elif how == "link":
                place.symlink_to("/dev/zero")
            else:
                place.write_bytes(b"garbage")
                if how == "500 MiB":
                    os.truncate(place, 500 << 20)
            assert await b.download() == "updated"
            assert b.path.read_bytes() == crl
            again, _ = await b.new_job().download()
            assert again == "unchanged"

    run(check)


def judged(data: bytes, held: bytes | None, *authorities: bytes) -> str:
    old = None if held is None else read_crls(held, "", authorities)
    return crl_job.judge(read_crls(data, "", authorities), old, time.time()).result


def test_a_crl_of_the_future_gives_way_to_the_right_one() -> None:
    """Though older by number and time: what isn't in force yet is nothing to go back behind."""
    ahead = staff.crl(number=9, this_update=datetime.now(UTC) + timedelta(hours=1), der=True)
    right = staff.crl(number=6, der=True)
    assert judged(right, ahead, staff.der) == "updated"
    assert judged(right, staff.crl(number=7), staff.der) == "backwards"


def test_two_crls_in_one_answer_are_taken() -> None:
    """As one PEM file of an address; the earlier end counts, and each may not go back."""
    other = PkiCA("Other")
    both = staff.crl(number=6) + other.crl(number=6)
    older = staff.crl(number=6) + other.crl(number=5)
    assert judged(both, None, staff.der, other.der) == "updated"
    assert judged(older, both, staff.der, other.der) == "backwards"
    assert judged(both, None, staff.der) == "invalid"

"""Answer repeated requests without parsing, exactly as if each had been parsed."""

from __future__ import annotations

import json
import random
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import timedelta
from itertools import pairwise
from pathlib import Path

import pytest
from daemon import Client, Daemon, question
from fuzz_targets import Transport, silent
from hypothesis import given, settings
from hypothesis import strategies as st
from pki import CA, now

from sidecar.authorizer.connection import Connection, Service
from sidecar.authorizer.decision_cache import Engine
from sidecar.authorizer.telemetry.counters import Counts
from sidecar.authorizer.telemetry.decision_log import DecisionLog
from sidecar.authorizer.telemetry.recorder import BATCH, UNCOUNTED, DecisionRecorder
from sidecar.core.config.settings import Limits
from sidecar.core.policy.compile import compile_policy
from sidecar.runtime.direct_sources import DirectSources

staff = CA("Staff")
alice, bob = staff.issue("alice"), staff.issue("bob")

POLICY = """\
version: 1
trust: {staff: {ca: ca.crt, revocation: off, denylist: [denylist.txt]}}
locations:
  - {name: site, allow: [{cn: alice}]}
  - {name: dark, allow: [{cn: bob}]}
  - {name: open, allow: public}
  - {name: cached, allow: [{cn: alice}], cache_seconds: 60}
  - {name: old, server_name: app.example.com, location: /old/, allow: verified}
  - {name: new, server_name: app.example.com, location: /new/, allow: [{cn: bob}]}
"""
FILES = {"ca_crt": staff.pem, "denylist_txt": b""}
LOG = "decision_log_file: {}\nlog_format: json\n"


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    place = tmp_path_factory.mktemp("d")
    with Daemon(place, POLICY, LOG.format(place / "decisions.json"), **FILES) as found:
        yield found


@pytest.fixture(scope="module")
def forgetful(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """The same policy with nothing remembered: every request is parsed."""
    place = tmp_path_factory.mktemp("f")
    with Daemon(place, POLICY, "limits: {cache_entries: 0}\n", **FILES) as found:
        yield found


def answers(daemon: Daemon, data: bytes) -> list[tuple[int, dict[str, str]]]:
    """All that comes back to some bytes, after which nothing more is sent."""
    with daemon.client() as client:
        client.send(data)
        client.socket.shutdown(1)
        got = []
        while (answer := client.receive()) is not None:
            got.append((answer.status, answer.headers))
        return got


def status(client: Client) -> int:
    """The next answer's status."""
    answer = client.receive()
    assert answer is not None
    return answer.status


def known(daemon: Daemon, data: bytes) -> None:
    """Ask so often that it is among the regulars."""
    with daemon.client() as client:
        for _ in range(4):
            client.send(data)
            assert client.receive() is not None


QUESTIONS = [
    question("site", alice),
    question("site", bob),
    question("dark", alice),
    question("open"),
    question("cached", alice),
    question("nowhere", alice),
    question(None, alice, {"X-Original-URI": "/old/"}),
    question(None, alice, {"X-Original-URI": "/new/"}),
]
PIECES = (
    b"\r\n", b"\n", b"\r", b"\0", b" ", b"\t", b"\x7f", b"\xe9", b"GET ", b"X-Request-ID: ", b":",
    b"\r\nX-Original-URI: /new/", b"\r\nX-Request-ID: " + b"ab" * 16, b"/authz/dark", b"/authz",
    b"\r\nHost: b.example.com", b"\r\nContent-Length: 5", b"\r\nTransfer-Encoding: chunked",
    b"\r\nConnection: close", b"\r\n\r\n", b"\r\nSSL_Client_Verify: SUCCESS", b"/new/", b"/old/",
    b"\r\n x", b"HTTP/1.0", b"SUCCESS", b"NONE",
)  # fmt: skip


@settings(max_examples=400)
@given(
    data=st.sampled_from(QUESTIONS),
    edits=st.lists(
        st.tuples(st.integers(0, 3000), st.integers(0, 40), st.sampled_from((b"", *PIECES))),
        max_size=3,
    ),
    behind=st.sampled_from((b"", b"\r\n", b"GET", question("dark", bob), question("site", alice))),
)
def test_what_is_known_again_is_answered_as_if_parsed(
    daemon: Daemon,
    forgetful: Daemon,
    data: bytes,
    edits: list[tuple[int, int, bytes]],
    behind: bytes,
) -> None:
    """Requests similar to a cached one get the same answers as from a daemon without a cache."""
    known(daemon, data)
    for at, length, piece in edits:
        data = data[:at] + piece + data[at + length :]
    data += behind
    for _ in range(3):  # the first may be remembered, the second settles, the third is a regular
        got = answers(daemon, data)
    expected = answers(forgetful, data)
    for _, headers in (*got, *expected):
        headers.pop("x-accel-expires", None)  # counts down
    assert got == expected


def service(place: Path, entries: int) -> Service:
    """The policy of these tests, without a daemon around."""
    for name, data in FILES.items():
        (place / name.replace("_", ".")).write_bytes(data)
    policy = compile_policy(POLICY.encode(), "policy.yaml", DirectSources(place, place))
    return Service(Engine(policy, entries=entries, answers={}), silent(), Limits())


def told(by: Service, data: bytes, cuts: Sequence[int] = ()) -> bytes:
    """What a connection of its own is told, the bytes in pieces; but for what counts down."""
    connection, transport = Connection(by), Transport()
    connection.connection_made(transport)  # type: ignore[arg-type]  # one in all but name
    for start, stop in pairwise((0, *cuts, len(data))):
        if not transport.closed and start < stop:
            connection.data_received(data[start:stop])
    connection.connection_lost(None)
    return re.sub(rb"X-Accel-Expires: \d+", b"", transport.sent)


def test_thousands_of_odd_requests_are_answered_as_if_nothing_were_remembered(
    tmp_path: Path,
) -> None:
    """Edited, divided and concatenated requests get the same answers with a filled cache as without
    one."""
    remembering, forgetful = service(tmp_path, 4096), service(tmp_path, 0)
    for each in QUESTIONS * 4:
        told(remembering, each)
    rng = random.Random(7)
    for _ in range(6000):
        data = rng.choice(QUESTIONS)
        for _ in range(rng.randrange(4)):
            at, length = rng.randrange(len(data) + 1), rng.choice((0, rng.randrange(41)))
            data = data[:at] + rng.choice((b"", *PIECES)) + data[at + length :]
        data += rng.choice((b"", b"\r\n", b"GET", *QUESTIONS[:2]))
        cuts = sorted(rng.sample(range(len(data) + 1), rng.choice((0, 0, 1, 2)) if data else 0))
        end = data.find(b"\r\n\r\n") + 4  # cut there, the first is answered before the rest comes
        cuts = [at for at in cuts if at != end]
        expected = told(forgetful, data)
        for _ in range(3):
            assert told(remembering, data, cuts) == expected, (data, cuts)


def test_a_known_certificate_that_failed_is_not_taken_for_none(daemon: Daemon) -> None:
    """With and without a known certificate, each request gets its own reason."""
    with daemon.client() as client:
        for _ in range(3):
            assert client.ask("site", alice).reason == "allowed"
            for verify in ("NONE", ""):
                headers = {"SSL-Client-Verify": verify}
                assert client.ask("site", alice, headers).reason == "verify_failed"
                assert client.ask("site", None, headers).reason == "no_certificate"


def test_the_end_of_another_request_is_not_taken_for_one_of_its_own(daemon: Daemon) -> None:
    """A peer can't teach it a wrong answer by a piece that looks like a request.

    The second piece is the rest of a header of the first, and so belongs to a question about
    `site`, which is allowed; asked on its own it is about `dark`, which is not.
    """
    dark = question("dark", alice)
    with daemon.client() as client:
        for _ in range(5):
            client.send(b"GET /authz/site HTTP/1.1\r\nX-Rest: ")
            time.sleep(0.02)  # so that they arrive as two
            client.send(dark)
            assert status(client) == 204
            client.send(dark)
            assert status(client) == 403


def test_the_uri_and_the_id_of_each_request_are_logged(daemon: Daemon) -> None:
    """Each log line has its own URI and id, and otherwise equal content, whether cached or not."""
    uris = [f'/logged/{i}?a="b\\c"%20é'.encode().decode("latin-1") for i in range(3)]
    uris += [f'/logged/{i}?a="b\\c"' for i in range(3, 9)]
    with daemon.client() as client:
        for i, uri in enumerate(uris):
            client.ask("site", alice, {"X-Original-URI": uri, "X-Request-ID": f"{i:032x}"})
    path = daemon.directory / "decisions.json"

    def lines() -> list[dict[str, object]]:
        found = [json.loads(line) for line in path.read_text().splitlines()]
        return [line for line in found if str(line.get("uri", "")).startswith("/logged/")]

    daemon.until(lambda: len(lines()) == len(uris))
    assert [line["uri"] for line in lines()] == uris
    assert [line["id"] for line in lines()] == [f"{i:032x}" for i in range(len(uris))]
    varying = ("time", "uri", "id", "us")
    rests = [{k: v for k, v in line.items() if k not in varying} for line in lines()]
    assert all(rest == rests[0] for rest in rests)


def test_each_is_counted(daemon: Daemon) -> None:
    """Every decision is counted in counters and histogram, whether cached or not."""
    name = 'mtls_sidecar_decisions_total{decision="deny",location="dark",reason="not_allowed"}'
    all_of_them = "mtls_sidecar_decision_duration_seconds_count"
    before, total = daemon.metric(name), daemon.metric(all_of_them)
    with daemon.client() as client:
        for _ in range(20):
            assert client.ask("dark", alice).status == 403
    assert daemon.metric(name) == before + 20
    assert daemon.metric(all_of_them) == total + 20


def test_thousands_of_different_requests_are_all_counted(tmp_path: Path) -> None:
    """More requests than the queue of uncounted ones holds are all counted, exactly once."""
    counts = Counts()
    recorder = DecisionRecorder(counts, DecisionLog("off", "text", "stderr"))
    by = replace(service(tmp_path, 1 << 16), recorder=recorder)
    different = [question("site", alice, {"Host": f"h{i}.example.com"}) for i in range(5000)]
    for _ in range(4):
        for data in different:
            told(by, data)
        assert len(recorder._uncounted) <= UNCOUNTED + BATCH
    counts.settle()
    assert counts.decisions == {("site", "allow", "allowed"): 20_000}
    assert sum(counts.buckets) == 20_000
    counts.settle()
    assert sum(counts.decisions.values()) == 20_000


def test_a_revocation_ends_what_was_known(daemon: Daemon) -> None:
    """A cached client is denied by the first request after its denylist was read."""
    known(daemon, question("site", alice))
    daemon.write("denylist.txt", f"sha256 {alice.sha256}\n")
    with daemon.client() as client:
        daemon.until(lambda: client.ask("site", alice).reason == "revoked")
        daemon.write("denylist.txt", "")
        daemon.until(lambda: client.ask("site", alice).status == 204)


def test_a_certificate_s_end_ends_what_was_known(daemon: Daemon) -> None:
    """A cached client is denied from the moment its certificate ends."""
    brief = staff.issue("alice", not_after=now() + timedelta(seconds=3))
    with daemon.client() as client:
        assert [client.ask("site", brief).status for _ in range(5)] == [204] * 5
        daemon.until(lambda: client.ask("site", brief).status == 401)
        assert client.ask("site", brief).reason == "expired"


def test_each_answer_is_to_its_own_request(daemon: Daemon) -> None:
    """On one connection each answer belongs to its own request, whether cached or not."""
    asked = {204: question("site", alice), 403: question("dark", alice)}
    for each in asked.values():
        known(daemon, each)
    order = random.Random(7).choices((204, 403), k=1000)
    with daemon.client() as client:
        for expected in order:
            client.send(asked[expected])
            assert status(client) == expected


def test_strangers_are_not_remembered(daemon: Daemon) -> None:
    """Large certificates of unknown issuers use no memory, in any number."""
    names = [f"{i}.{j}" for i in range(100) for j in range(40)]
    stranger = CA("Nobody")
    few = [stranger.issue(f"mallory{i}", dns=names) for i in range(10)]
    before = daemon.rss()
    with daemon.client() as client:
        for _ in range(3):
            for leaf in few:
                assert client.ask("site", leaf).reason == "untrusted_issuer"
        for i in range(150):
            leaf = stranger.issue(f"mallory{i}", dns=names)
            assert client.ask("site", leaf).reason == "untrusted_issuer"
    assert daemon.rss() < before + 40 * 2**20


def test_only_requests_as_nginx_writes_them_are_known_again(tmp_path: Path) -> None:
    """A request with an unusual id or URI, or without one, is parsed."""
    by, whole = service(tmp_path, 4096), question("site", alice)

    def is_known(data: bytes) -> bool:
        return by.engine.request_cache.find(data, time.time()) is not None

    assert not is_known(whole)
    told(by, whole)
    assert is_known(whole)
    assert is_known(whole.replace(b"X-Original-URI: /", b"X-Original-URI: /other?a=b"))
    assert is_known(whole.replace(b"0123456789abcdef", b"fedcba9876543210"))
    for bad in (b"a b", b"/\x7f", b"/\x00", b"/\xe9", b" /", b"/\t"):
        assert not is_known(whole.replace(b"X-Original-URI: /", b"X-Original-URI: " + bad))
    assert not is_known(whole.replace(b"0123456789abcdef", b"01234567 9abcdef"))
    for odd in (
        whole.replace(b"X-Original-URI", b"X-Other"),
        whole.replace(b"X-Request-ID", b"X-Other"),
        whole.replace(b"0123456789abcdef", b"0123456789abcde"),
        whole.replace(b"0123456789abcdef", b"0123456789abcdef0"),
        whole + whole,
        whole[:-1],
        b"\r\n" + whole,
    ):
        told(by, odd)
        assert not is_known(odd), odd


def test_the_uri_counts_wherever_it_chooses_the_location(tmp_path: Path) -> None:
    """If the URI chooses the location, it is part of the key, even if blanks move the target."""
    remembering, forgetful = service(tmp_path, 4096), service(tmp_path, 0)
    for blanks in range(1, 12):
        for uri in ("/old/", "/new/", "/old/", "/new/"):
            data = question(None, alice, {"X-Original-URI": uri})
            data = data.replace(b"GET ", b"GET" + b" " * blanks, 1)
            assert told(remembering, data) == told(forgetful, data)


@pytest.mark.parametrize("first", ["/first", ""])
def test_an_empty_uri_is_logged_as_empty(tmp_path: Path, first: str) -> None:
    """An empty URI is logged as empty, even if a similar cached request had one."""
    log = tmp_path / "decisions.json"
    recorder = DecisionRecorder(Counts(), DecisionLog("all", "json", str(log)))
    by = replace(service(tmp_path, 4096), recorder=recorder)
    uris = [first, "", "/second", "", first]
    for uri in uris * 2:
        told(by, question("site", alice, {"X-Original-URI": uri}))
    recorder.settle()
    recorder._decisions.close()
    assert [json.loads(line)["uri"] for line in log.read_text().splitlines()] == uris * 2


def test_endless_long_values_take_little_memory(daemon: Daemon) -> None:
    """Different targets, URIs, methods, addresses and hosts of 60 KB are not kept."""
    before = daemon.rss()
    with daemon.client() as client:
        for i in range(1500):
            long = f"{i}".ljust(60_000, "x")
            client.ask(long[:50_000])
            for name in (
                "X-Original-URI",
                "X-Original-Method",
                "X-Real-IP",
                "Host",
                "X-Request-ID",
            ):
                client.ask("open", None, {name: "/" + long})
            client.send(question(None, None, {"X-Original-URI": "/old/" + long}))
            assert client.receive() is not None
    assert daemon.rss() < before + 100 * 2**20


def test_what_may_come_in_pieces_is_not_known_again(tmp_path: Path) -> None:
    """A request longer than one read of the kernel is parsed each time."""
    by, whole = service(tmp_path, 4096), question("site", alice, {"X-Other": "x" * 33_000})
    for _ in range(3):
        assert told(by, whole).startswith(b"HTTP/1.1 204")
        assert by.engine.request_cache.find(whole, time.time()) is None

"""HTTP/2: what nginx makes of `:authority` and `:path` is what the sidecar makes of them, and what
only HTTP/2 can say lets nobody in."""

from __future__ import annotations

import random
import socket
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from differential import (
    COUNT,
    FIXED,
    SEED,
    Answer,
    Case,
    Site,
    answer_of,
    cases,
    compare,
    conf,
    random_policy,
)
from http2 import Field, Reply, ask, get
from nginx import Nginx, free_port
from pki import Leaf
from stack import HOST, Stack
from tools import NginxBinary

from sidecar.core.nginx.locations import Chooser

SHARE = max(2000, COUNT // 8)
"""How many of the requests are asked over HTTP/2."""

BATCH = 100
"""Streams of one connection; nginx takes 128 at once."""


# -- the same location --------------------------------------------------------------------------


def answers(port: int, asked: list[Case]) -> Iterator[tuple[Case, Answer]]:
    """All answers.  What nginx ends the connection for has status 0; the rest is asked again."""
    at = 0
    while at < len(asked):
        batch = asked[at : at + BATCH]
        requests = [(get(case.target, case.host or b""), None) for case in batch]
        with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
            replies = ask(connection, requests)
        for case, reply in zip(batch, replies, strict=True):
            at += 1
            yield case, answer_of(reply.status, reply.body)
            if not reply.status:
                break


def test_authority_and_path_choose_as_nginx(nginx_binary: NginxBinary, tmp_path: Path) -> None:
    """Random and hostile ones, over h2: the sidecar chooses the location that nginx chose.

    nginx refuses more than over HTTP/1.1, and then nobody is served.
    """
    dice = random.Random(SEED)
    print(f"MTLS_SIDECAR_SEED={SEED} over HTTP/2: {SHARE}")
    policies = [FIXED, FIXED, *(random_policy(dice) for _ in range(8))]
    sites = [
        Site(blocks, i % 2 == 0, free_port(), mixed=i % 3 == 0) for i, blocks in enumerate(policies)
    ]
    strict = nginx_binary.version >= (1, 31)
    seen: Counter[str] = Counter()
    text = conf(sites).replace(" default_server;", " default_server http2;")
    with Nginx(nginx_binary, text, tmp_path):
        for site in sites:
            chooser = Chooser(site.entries)
            asked = [c for c in cases(site, SHARE // len(sites), dice) if c.host]
            for case, answer in answers(site.port, asked):
                if answer.status == 200:
                    compare(site, chooser, strict, case, answer)
                    seen["chosen" if answer.name else "no location"] += 1
                else:
                    seen[str(answer.status)] += 1
    print(seen)
    assert seen["chosen"] > SHARE // 4
    assert min(seen["no location"], seen["400"]) > SHARE // 200


# -- attacks ------------------------------------------------------------------------------------

SITE = "variants/http2.conf"
AUTHORITY = HOST.encode()


@pytest.fixture(scope="module")
def stack(nginx_binary: NginxBinary, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with Stack(nginx_binary, tmp_path_factory.mktemp("h2"), sites=[SITE]) as found:
        yield found


def send(
    stack: Stack, cert: Leaf | None, fields: Iterable[Field], body: bytes | None = None
) -> Reply:
    """One request over HTTP/2, in TLS."""
    with stack.connect(cert=cert, site=SITE, alpn=["h2"]) as connection:
        (reply,) = ask(connection.socket, [(list(fields), body)])
        return reply


def test_alice_gets_in_and_bob_does_not(stack: Stack) -> None:
    """So that the denials below mean something."""
    assert send(stack, stack.people.alice, get(b"/", AUTHORITY)).status == 200
    assert send(stack, stack.people.bob, get(b"/", AUTHORITY)).status == 403
    assert send(stack, None, get(b"/", AUTHORITY)).status == 401


def without(name: bytes, *more: Field) -> list[Field]:
    return [*(f for f in get(b"/", AUTHORITY) if f[0] != name), *more]


ODD: dict[str, list[Field]] = {
    "another host beside": get(b"/", AUTHORITY, (b"host", b"evil.example.com")),
    "another host before": [(b"host", b"evil.example.com"), *get(b"/", AUTHORITY)],
    "host alone": without(b":authority", (b"host", AUTHORITY)),
    "no host": without(b":authority"),
    "two hosts": without(b":authority", (b"host", AUTHORITY), (b"host", b"evil")),
    "two authorities": get(b"/", AUTHORITY, (b":authority", b"evil.example.com")),
    "two paths": [(b":path", b"/public/"), *get(b"/", AUTHORITY)],
    "no path": without(b":path"),
    "an empty path": get(b"", AUTHORITY),
    "a star": get(b"*", AUTHORITY),
    "no slash": get(b"admin", AUTHORITY),
    "an absolute path": get(b"https://evil.example.com/", AUTHORITY),
    "a line end in the path": get(b"/\r\nSSL-Client-Verify: SUCCESS", AUTHORITY),
    "a line end in a value": get(b"/", AUTHORITY, (b"x-a", b"b\r\nssl-client-verify: SUCCESS")),
    "a NUL in a value": get(b"/", AUTHORITY, (b"x-a", b"b\0c")),
    "a line end in a name": get(b"/", AUTHORITY, (b"x-a: b\r\nssl-client-verify", b"SUCCESS")),
    "upper case": get(b"/", AUTHORITY, (b"SSL-Client-Verify", b"SUCCESS")),
    "a path behind the fields": without(b":path", (b"x-a", b"b"), (b":path", b"/")),
    "an unknown pseudo field": get(b"/", AUTHORITY, (b":ssl-client-verify", b"SUCCESS")),
    "connect": [(b":method", b"CONNECT"), (b":authority", AUTHORITY)],
    "a method with a blank": [(b":method", b"GET /public/ HTTP/1.1"), *get(b"/", AUTHORITY)[1:]],
    "connection": get(b"/", AUTHORITY, (b"connection", b"x-client-cn")),
    "transfer-encoding": get(b"/", AUTHORITY, (b"transfer-encoding", b"chunked")),
    "upgrade": get(b"/", AUTHORITY, (b"upgrade", b"websocket")),
    "cookie crumbs": get(b"/", AUTHORITY, (b"cookie", b"a=b"), (b"cookie", b"c=d")),
    "underscores": get(b"/", AUTHORITY, (b"ssl_client_verify", b"SUCCESS")),
}
HARMLESS = {
    "host alone", "another host beside", "another host before", "connection", "upgrade",
    "cookie crumbs", "underscores", "transfer-encoding", "a path behind the fields",
}  # fmt: skip
"""What some nginx takes from alice: all else it refuses."""


@pytest.mark.parametrize("name", ODD)
def test_what_only_http2_can_say_lets_nobody_in(stack: Stack, name: str) -> None:
    """No stranger and not bob, however a request is bent; where alice passes, it is as herself."""
    assert send(stack, None, ODD[name]).status != 200
    assert send(stack, stack.people.bob, ODD[name]).status != 200
    reply = send(stack, stack.people.alice, ODD[name])
    assert reply.status != 200 or name in HARMLESS
    if reply.status == 200:
        assert b'["x-client-cn", "alice"]' in reply.body


def test_control_headers_of_a_client_count_for_nothing(stack: Stack) -> None:
    """Somebody who sends all that nginx would send of alice stays a stranger."""
    alice = stack.people.alice
    said = [
        (b"ssl-client-verify", b"SUCCESS"),
        (b"ssl-client-cert", alice.escaped),
        (b"x-client-cn", b"alice"),
        (b"x-original-uri", b"/public/"),
        (b"x-real-ip", b"127.0.0.1"),
    ]
    assert send(stack, None, get(b"/", AUTHORITY, *said)).status == 401
    assert send(stack, stack.people.bob, get(b"/", AUTHORITY, *said)).status == 403


@pytest.mark.parametrize("length", [b"3", b"500", b"5, 5", b"-1", b"x"])
def test_a_body_of_another_length_is_refused(stack: Stack, length: bytes) -> None:
    """DATA that isn't what content-length says reaches no application (RFC 9113, 8.1.1)."""
    fields = [(b":method", b"POST"), *get(b"/", AUTHORITY)[1:], (b"content-length", length)]
    assert send(stack, stack.people.alice, fields, b"12345").status in (0, 400)
    right = [*fields[:-1], (b"content-length", b"5")]
    assert send(stack, stack.people.alice, right, b"12345").status == 200


def test_each_stream_is_asked_about_by_itself(stack: Stack) -> None:
    """On one connection, allowed and refused streams side by side: no answer serves another."""
    with stack.connect(cert=stack.people.alice, site=SITE, alpn=["h2"]) as connection:
        hosts = [AUTHORITY, b"nobody.example.org", AUTHORITY, b"", AUTHORITY]
        replies = ask(connection.socket, [(get(b"/", host), None) for host in hosts])
    assert [reply.status for reply in replies][::2] == [200, 200, 200]
    assert replies[3].status != 200

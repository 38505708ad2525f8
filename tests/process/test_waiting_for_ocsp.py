"""Requests that wait for an OCSP answer: nginx's side → daemon → fetcher → responder, and back."""

from __future__ import annotations

import contextlib
import socket
import threading
from pathlib import Path

from daemon import Daemon, question
from ocsp_stack import ALICE, BOB, beside
from pki import CA

MALLORY = CA("Nobody").issue("mallory")


def test_a_question_is_answered_when_the_responder_has(tmp_path: Path) -> None:
    """Good is let in, revoked is not, by the very first request of each."""

    def check(daemon: Daemon) -> None:
        assert daemon.ask("site", ALICE).reason == "allowed"
        assert daemon.ask("site", BOB).reason == "revoked"

    beside(tmp_path, check)


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

"""Run `mtls-sidecar enroll serve`: startup, main loop, shutdown."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import resource
import signal
import socket
import time
import warnings
from collections.abc import Mapping
from contextlib import AsyncExitStack
from pathlib import Path

from aiohttp import web
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from sidecar import __version__
from sidecar.core.errors import brief
from sidecar.runtime.files import MAX_BUNDLE
from sidecar.runtime.guarded_server import Room, start_server
from sidecar.runtime.http_runner import HttpRunner
from sidecar.runtime.listen import ListenError, open_listener, remove_socket
from sidecar.runtime.log_lines import log_in_thread
from sidecar.runtime.systemd import Notifier, listen_fds

from .bundles import ProfileSigner
from .connections import MAX_HEADERS, MOST, Connections
from .issuance import Issuance
from .issuer import load_chain, load_issuer, read_secret
from .notices import give_notices
from .settings import EnrollSettings, SignSettings
from .store import Store, StoreError
from .web import EnrollWeb

log = logging.getLogger(__name__)

NOTICE_SECONDS = 3600.0
"""How often it is looked for certificates that end soon."""

SHUTDOWN_SECONDS = 20.0
"""How long requests under way have at the end."""


def main(settings: EnrollSettings, environ: Mapping[str, str]) -> int:
    """Serve until SIGTERM; the exit code: 0, or 2 where it can't start."""
    log_in_thread()
    warnings.simplefilter("ignore")  # aiohttp's tell of each odd form, and keep the text
    with contextlib.suppress(OSError):  # a unit's filter may forbid it, and has LimitCORE=0
        # A private key must not get into a core file.
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        issuance = make_issuance(settings, environ)
        asyncio.run(_serve(settings, issuance))
    except (ListenError, StoreError, OSError, ValueError) as error:
        log.error("can't start: %s", _said(error))
        return 2
    return 0


def _said(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return "; ".join(map(str, error.args)) or brief(error)


def make_issuance(settings: EnrollSettings, environ: Mapping[str, str]) -> Issuance:
    """Load everything that issues.  Raises `StoreError`, OSError and ValueError."""
    store = Store(settings.database)
    store.require()
    issuer = load_issuer(settings.issuer, environ)
    signer = load_signer(settings.sign) if settings.sign else None
    issuance = Issuance(settings, store, issuer, time.time, signer)
    issuance.recover()
    return issuance


def load_signer(settings: SignSettings) -> ProfileSigner:
    """Load the server's key that signs profiles.  Raises OSError and ValueError."""
    chain = tuple(load_chain(settings.cert))
    try:
        data = read_secret(settings.key_, MAX_BUNDLE)
        key = serialization.load_pem_private_key(data, None)
    except (ValueError, TypeError):
        raise ValueError(f"{settings.key_} can't be read as an unencrypted private key") from None
    if not isinstance(key, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey):
        raise ValueError(f"{settings.key_}: the key that signs profiles is RSA or EC")
    if key.public_key() != chain[0].public_key():
        raise ValueError(f"{settings.key_} is not the key of the certificate {settings.cert}")
    return ProfileSigner(key, chain)


async def _serve(settings: EnrollSettings, issuance: Issuance) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with AsyncExitStack() as stack:
        listeners = _listeners(settings, stack)
        pages = EnrollWeb(settings, issuance)
        logging.getLogger("aiohttp.server").addFilter(_one_line)
        runner = HttpRunner(
            pages.application(),
            access_log=None,
            handle_signals=False,
            shutdown_timeout=SHUTDOWN_SECONDS,
            max_headers=MAX_HEADERS,
        )
        await runner.setup()
        assert runner.server is not None  # set up
        stack.push_async_callback(runner.cleanup)
        connections = Connections(runner.server, pages.under_way)
        room = Room(MOST)
        for each in listeners:
            stack.callback((await start_server(connections.accept, each, room)).close)
        notifier = Notifier(os.environ)
        notifier.ready(f"invitations at {settings.url}")
        log.info("mtls-sidecar %s ready: invitations at %s", __version__, settings.url)
        tasks = [asyncio.create_task(connections.sweep())]
        if settings.notify:
            tasks.append(asyncio.create_task(_notify(settings, issuance.store)))
        await stop.wait()
        notifier.stopping()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _one_line(record: logging.LogRecord) -> bool:
    """Make one line of a request that is no HTTP: anybody can send one, again and again.

    Whose peer has gone has none.
    """
    error = record.exc_info[1] if record.exc_info else None
    if isinstance(error, ConnectionError):
        return False
    no_http = type(error).__module__ == "aiohttp.http_exceptions"
    if error is not None and (no_http or isinstance(error, web.RequestPayloadError)):
        record.levelno, record.levelname = logging.INFO, "INFO"
        record.msg, record.args = "a request can't be read: %s", (brief(error)[:300],)
        record.exc_info = record.exc_text = None
    return True


def _listeners(settings: EnrollSettings, stack: AsyncExitStack) -> list[socket.socket]:
    """Listen on the sockets that systemd hands over, or else on the configured address."""
    handed = listen_fds(os.environ, os.getpid()).get("enroll", [])
    if handed:
        return handed
    address = settings.listen
    if address.path:
        Path(address.path).parent.mkdir(mode=0o750, parents=True, exist_ok=True)
    found = open_listener(address, settings.socket_mode, settings.socket_group)
    if address.path:
        stack.callback(remove_socket, address.path)
    return [found]


async def _notify(settings: EnrollSettings, store: Store) -> None:
    """Give notices now and every hour, until cancelled."""
    assert settings.notify is not None
    notify, stopping = settings.notify, False
    try:
        while True:
            try:
                await asyncio.to_thread(give_notices, store, notify, time.time, lambda: stopping)
            except StoreError as error:
                log.error("no notices now: %s", error)
            except Exception:  # a mistake of our own must not end the notices
                log.exception("no notices now")
            await asyncio.sleep(NOTICE_SECONDS)
    finally:
        stopping = True

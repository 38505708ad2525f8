"""Serve metrics and health by HTTP, with limits so that the service itself is not slowed down.

Local users can reach it, and a web page in an administrator's browser can send requests to it.
So input is limited to `MAX_HEAD` octets, connections are few and short, one rendering at a time
runs in a thread, and the request's host must be one that no foreign DNS name can resolve to it.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import re
import socket
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar, cast

from aiohttp import web

from sidecar.core.config.settings import Address

from .guarded_server import Room, Server, start_server
from .http_runner import HttpRunner
from .listen import ListenError, open_listener, remove_socket

log = logging.getLogger("mtls-sidecar")

HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}

MAX_CONNECTIONS = 16
"""Maximum number of connections; a new one closes the oldest."""

AT_ONCE = 4
"""Maximum number of connections that are accepted before the oldest ones are closed."""

MAX_HEAD = 8192
"""Maximum octets of request line and header fields together; nothing after them is read."""

DEADLINE = 20.0
"""Seconds that a connection has for its request and its answer."""

SHUTDOWN = 1.0
"""Seconds for what is under way when the listener is closed."""

MAX_WAITING = 16
"""Maximum number of different renderings that wait; each waits on when its client has gone."""

SELDOM = 60.0
"""Seconds between two log records about failed requests, which anybody can send without end."""

REST = 4.0
"""Pause after a rendering, as a multiple of the time that it took."""

RETRY = 5.0
"""Seconds between two attempts to listen on an address that another process uses."""

T = TypeVar("T")

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Renderer:
    """Render answers in a thread, one rendering at a time.

    Requests that arrive during a rendering share the next one, so an answer is never older than its
    request.  `before` runs in the event loop immediately before each rendering.
    """

    def __init__(self, before: Callable[[], object] = int) -> None:
        self._before = before
        self._one_at_a_time = asyncio.Lock()
        self._next: dict[str, asyncio.Task[Any]] = {}
        self._rest_until = 0.0

    @property
    def waiting(self) -> int:
        """How many different renderings wait for their turn."""
        return len(self._next)

    async def get(self, name: str, render: Callable[[], T]) -> T:
        """Return the result of a new call of `render`; requests for the same `name` share it.

        Raises the exceptions of `render`, and HTTPServiceUnavailable if too many wait.
        """
        task: asyncio.Task[T] | None = self._next.get(name)
        if task is None:
            if len(self._next) >= MAX_WAITING:
                raise web.HTTPServiceUnavailable
            task = self._next[name] = asyncio.create_task(self._run(name, render))
        return await asyncio.shield(task)

    async def _run(self, name: str, render: Callable[[], T]) -> T:
        async with self._one_at_a_time:
            await asyncio.sleep(self._rest_until - time.monotonic())
            del self._next[name]
            self._before()
            start = time.monotonic()
            try:
                return await asyncio.to_thread(render)
            finally:
                end = time.monotonic()
                self._rest_until = end + REST * (end - start)


class _Seldom(logging.Filter):
    """Drop records about what is no HTTP or has gone, and of the others all but one a minute."""

    _next = 0.0

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether to log a record."""
        error = record.exc_info[1] if record.exc_info else None
        now = time.monotonic()
        is_no_http = type(error).__module__ == "aiohttp.http_exceptions"
        if is_no_http or isinstance(error, ConnectionError) or now < self._next:
            return False
        self._next = now + SELDOM
        return True


_requests = logging.getLogger("mtls-sidecar.requests")
_requests.addFilter(_Seldom())


class AdminListener:
    """Serve an application on sockets, with few connections of one request each.

    `hosts` are accepted host names, beside those of `host_is_ours`; `headers` are added to every
    answer.
    """

    def __init__(
        self,
        routes: dict[str, Handler],
        hosts: tuple[str, ...] = (),
        headers: dict[str, str] | None = None,
    ) -> None:
        app = web.Application(middlewares=[_hardened(hosts, {**HEADERS, **(headers or {})})])
        app.add_routes([web.get(path, handler) for path, handler in routes.items()])
        self._runner = HttpRunner(
            app,
            access_log=None,
            logger=_requests,
            handle_signals=False,
            lingering_time=0.0,
            shutdown_timeout=SHUTDOWN,
        )
        self._servers: list[Server] = []
        self._sweeping: asyncio.Task[None] | None = None

    async def start(self, listeners: list[socket.socket]) -> None:
        """Serve on these sockets until closed."""
        await self._runner.setup()
        room = Room(MAX_CONNECTIONS + AT_ONCE)
        for listener in listeners:
            self._servers.append(await start_server(self._accept, listener, room, AT_ONCE))
        self._sweeping = asyncio.create_task(self._sweep())

    async def close(self) -> None:
        """Stop accepting, and close all connections."""
        if self._sweeping is not None:
            self._sweeping.cancel()
        for server in self._servers:
            server.close()
        await self._runner.cleanup()

    def _open(self) -> list[web.RequestHandler]:
        server = self._runner.server
        return server.connections if server is not None else []

    def _accept(self) -> asyncio.Protocol:
        server = self._runner.server
        assert server is not None  # set up before the first listener
        for oldest in self._open()[: 1 - MAX_CONNECTIONS or None]:
            _cut(oldest)
        return _OneRequest(server())

    async def _sweep(self) -> None:
        """Close connections that have exceeded their deadline."""
        since: dict[web.RequestHandler, float] = {}
        while True:
            await asyncio.sleep(1)
            now = time.monotonic()
            since = {each: since.get(each, now) for each in self._open()}
            for each, start in since.items():
                if now - start > DEADLINE:
                    _cut(each)


def _cut(connection: web.RequestHandler) -> None:
    if connection.transport is not None:
        connection.transport.abort()


class _OneRequest(asyncio.Protocol):
    """Pass one request's head, of limited size, to the HTTP server; ignore all later bytes."""

    def __init__(self, server: web.RequestHandler) -> None:
        self._server = server
        self._head: bytes | None = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._server.connection_made(transport)

    def data_received(self, data: bytes) -> None:
        if self._head is None:
            return
        self._head += data[:MAX_HEAD]
        end = self._head.find(b"\r\n\r\n", 0, MAX_HEAD)
        if end >= 0:
            head, self._head = self._head[: end + 4], None
            self._transport.pause_reading()
            self._server.data_received(head)
        elif len(self._head) >= MAX_HEAD:
            self._head = None
            self._transport.write(b"HTTP/1.1 431 Too Large\r\nConnection: close\r\n\r\n")
            self._transport.close()

    def eof_received(self) -> bool | None:
        return self._server.eof_received()  # type: ignore[func-returns-value]  # None: close

    def connection_lost(self, exc: BaseException | None) -> None:
        self._server.connection_lost(exc)

    def pause_writing(self) -> None:
        self._server.pause_writing()

    def resume_writing(self) -> None:
        self._server.resume_writing()


# -- access


def host_is_ours(host: str, hosts: tuple[str, ...] = ()) -> bool:
    """Return whether a Host header can't be a foreign DNS name (protection from DNS rebinding).

    Accepted are IP addresses, names without a dot, `localhost`, this machine's own host name and
    `hosts`.  The owner of any other name could let it resolve to this address, so that a web page
    reads the answer.
    """
    name = re.sub(r":\d*\Z", "", host).lower()
    if "." not in name and ":" not in name:
        return True
    try:
        ipaddress.ip_address(name.removeprefix("[").removesuffix("]"))
    except ValueError:
        return name in {socket.gethostname().lower(), *(each.lower() for each in hosts)}
    return True


def _hardened(hosts: tuple[str, ...], headers: dict[str, str]) -> Any:
    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        by_name = request.transport is not None and _is_tcp(request.transport)
        if by_name and not host_is_ours(request.headers.get("Host", ""), hosts):
            text = "421 Misdirected Request: ask by address, or list the name in admin_hosts\n"
            response: web.StreamResponse = web.Response(status=421, text=text)
        else:
            try:
                response = await handler(request)
            except web.HTTPException as error:
                response = web.Response(
                    status=error.status, text=f"{error.status} {error.reason}\n"
                )
        response.headers.update(headers)
        response.force_close()  # one request per connection, so that none is held open
        return response

    return middleware


def _is_tcp(transport: asyncio.BaseTransport) -> bool:
    found = transport.get_extra_info("socket")
    return found is not None and found.family != socket.AF_UNIX


# -- start


async def open_eventually(address: Address, mode: int, group: str) -> socket.socket:
    """Listen on an address; retry until it is available, and log each new error once."""
    told = ""
    while True:
        try:
            listener = open_listener(address, mode, group)
        except ListenError as error:
            if str(error) != told:
                told = str(error)
                log.error("no metrics and no /readyz for now: %s; will retry", error)
            await asyncio.sleep(RETRY)
        else:
            if told:
                log.info("metrics are served on %s now", address)
            return listener


async def serve_admin(
    listener: AdminListener,
    handed: list[socket.socket],
    address: Address,
    mode: int,
    group: str = "",
) -> None:
    """Serve on sockets of the service manager, or else on an address; until cancelled.

    If the address is not available, retry: metrics must never prevent a service from running.
    """
    opened = [] if handed or not address else [await open_eventually(address, mode, group)]
    try:
        await listener.start([*handed, *opened])
        await asyncio.Event().wait()
    finally:
        await listener.close()
        if opened and address.path:
            remove_socket(address.path)

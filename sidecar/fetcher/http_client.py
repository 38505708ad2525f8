"""Make the only outbound connections of the project: http(s) to addresses in the policy.

- No proxy from the environment, no cookies, no decompression (an encoded body is refused).
- A redirect is followed only within the same host: to another path, or from http to https; at
  most `MAX_REDIRECTS` times, and never from https to http.  So a compromised server can't direct
  the fetcher to hosts that the policy doesn't name.
- Every answer is limited in size, in total time and in idle time between two parts.
- https verifies the server with the system's authorities (`SSL_CERT_FILE` changes them).
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

import aiohttp
from yarl import URL

from sidecar.core.config.crl_place import shown
from sidecar.core.errors import brief, printable

MAX_REDIRECTS = 3

LARGE = 1024 * 1024
"""Octets of a body beyond which the caller can have it wait for its turn."""
_REDIRECTS = frozenset({301, 302, 303, 307, 308})


class Failure(StrEnum):
    """The reason of a failed download; a closed set, because it is a metric label."""

    NETWORK = "network_error"
    TIMEOUT = "timeout"
    STATUS = "http_error"
    REDIRECT = "redirect_refused"
    TOO_LARGE = "too_large"
    ENCODED = "encoded"


class FetchError(Exception):
    """The download failed.  `retry_after` is the server's wish in seconds, or None.

    The detail is for logs and metrics: it has neither control characters nor passwords.
    """

    def __init__(self, failure: Failure, detail: str, retry_after: float | None = None) -> None:
        super().__init__(shown(printable(detail)))
        self.failure = failure
        self.retry_after = retry_after


@dataclass(frozen=True, slots=True)
class HttpLimits:
    """HttpLimits of one exchange: bytes of the body, total seconds, idle seconds."""

    size: int = 64 * 1024 * 1024
    total: float = 120.0
    silence: float = 20.0
    connect: float = 10.0

    def timeout(self) -> aiohttp.ClientTimeout:
        return aiohttp.ClientTimeout(
            total=self.total, sock_connect=self.connect, sock_read=self.silence
        )


@dataclass(frozen=True, slots=True)
class Fetched:
    """One answer with status 200 or 304; header names are in lower case."""

    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


def new_session(connections: int = 64, per_host: int = 16) -> aiohttp.ClientSession:
    """Create a client session that obeys the rules above, with limits of connections."""
    return aiohttp.ClientSession(
        trust_env=False,
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        connector=aiohttp.TCPConnector(limit=connections, limit_per_host=per_host),
        headers={"User-Agent": "nginx-mtls-sidecar", "Accept-Encoding": "identity"},
    )


async def fetch(
    session: aiohttp.ClientSession,
    url: str,
    limits: HttpLimits,
    *,
    headers: Mapping[str, str] | None = None,
    body: bytes | None = None,
    turn: Callable[[], Awaitable[None]] | None = None,
) -> Fetched:
    """GET `url`, or POST `body` to it.  Raises only `FetchError`, except on cancellation.

    An answer of more than `LARGE` octets is read on when `turn` has returned.
    """
    try:
        async with asyncio.timeout(limits.total):
            return await _follow(session, URL(url), limits, dict(headers or {}), body, turn)
    except TimeoutError:
        raise FetchError(Failure.TIMEOUT, f"no complete answer in {limits.total:g} s") from None
    except (aiohttp.ClientError, OSError, ValueError) as error:
        raise FetchError(Failure.NETWORK, brief(error)) from None


async def _follow(
    session: aiohttp.ClientSession,
    url: URL,
    limits: HttpLimits,
    headers: dict[str, str],
    body: bytes | None,
    turn: Callable[[], Awaitable[None]] | None,
) -> Fetched:
    for _ in range(MAX_REDIRECTS + 1):
        async with session.request(
            "GET" if body is None else "POST",
            url,
            data=body,
            headers=headers,
            timeout=limits.timeout(),
            allow_redirects=False,
        ) as response:
            if response.status not in _REDIRECTS:
                return await _read(response, limits, turn)
            url = _redirected(url, response)
    raise FetchError(Failure.REDIRECT, f"more than {MAX_REDIRECTS} redirects")


def _redirected(url: URL, response: aiohttp.ClientResponse) -> URL:
    """Return the target of a redirect within the same host.  Raises `FetchError` otherwise."""
    target = url.join(URL(response.headers.get("Location", "")))
    upgrade = (url.scheme, url.port, target.scheme, target.port) == ("http", 80, "https", 443)
    same = (url.scheme, url.port) == (target.scheme, target.port)
    # A relative address keeps user and password of its base.
    stranger = target.user not in (None, url.user)
    if target.host != url.host or not (same or upgrade) or stranger:
        place = f"{target.scheme}://{target.host}:{target.port}"
        raise FetchError(Failure.REDIRECT, f"redirected to {place}")
    return target


async def _read(
    response: aiohttp.ClientResponse,
    limits: HttpLimits,
    turn: Callable[[], Awaitable[None]] | None,
) -> Fetched:
    headers = {name.lower(): value for name, value in response.headers.items()}
    if response.status not in (200, 304):
        after = _retry_after(headers) if response.status in (429, 503) else None
        raise FetchError(Failure.STATUS, f"HTTP status {response.status}", after)
    if headers.get("content-encoding", "identity").lower() != "identity":
        raise FetchError(Failure.ENCODED, "an encoded body, which was not requested")
    if (response.content_length or 0) > limits.size:
        raise _too_large(limits)
    body = bytearray()
    async for part in response.content.iter_any():
        body += part
        if len(body) > limits.size:
            raise _too_large(limits)
        if turn is not None and len(body) > LARGE:
            await turn()
            turn = None
    return Fetched(response.status, bytes(body), headers)


def _too_large(limits: HttpLimits) -> FetchError:
    return FetchError(Failure.TOO_LARGE, f"larger than {limits.size} bytes")


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Parse Retry-After in seconds (RFC 9110, 10.2.3); its date form is ignored."""
    text = headers.get("retry-after", "").strip()
    return float(text) if re.fullmatch(r"[0-9]{1,6}", text) else None


def max_age(headers: Mapping[str, str]) -> float | None:
    """Return the seconds that an answer stays fresh (RFC 9111, 4.2.1), or None if not stated."""
    control = headers.get("cache-control", "").lower()
    found = re.search(r"(?:^|[\s,])max-age\s*=\s*\"?([0-9]{1,9})", control)
    if found is None:
        return None
    age = headers.get("age", "").strip()
    passed = float(age) if re.fullmatch(r"[0-9]{1,9}", age) else 0.0
    return max(0.0, float(found[1]) - passed)

"""Answer what nginx passes on: the page of an invitation, its file, and renewals.

The service's socket is nginx's alone, and of the request's headers two are taken from nginx, which
must set them: `X-Real-IP` on every request, and on `URL/renew` `X-Client-Fingerprint` of the
certificate that the sidecar has allowed.  On other paths `X-Client-Fingerprint` is ignored.
"""

from __future__ import annotations

import asyncio
import logging
import re
import socket
from collections.abc import Awaitable, Callable
from urllib.parse import parse_qsl

from aiohttp import web

from sidecar.core.errors import brief, printable
from sidecar.core.x509.certificate import from_header

from .bundles import File
from .certificate_profile import Identity
from .invitations import InvitationState
from .issuance import Issuance, Wanted
from .issuer import IssuerError
from .names import parse_device
from .pages import HEADERS, invitation_page, message_page, renewal_page, waiting_page
from .rate_limit import RateLimit, client_key
from .refused import Refused
from .same_origin import why_foreign
from .settings import FORMATS, EnrollSettings
from .signing_request import UnusableRequest
from .store import StoreError
from .undelivered import UndeliveredFiles

log = logging.getLogger(__name__)

MAX_BODY = 64 * 1024
"""Most octets of a form."""

MAX_FIELDS = 8
"""Most fields of a form: twice as many as a page has."""

MAX_TYPE = 200
"""Most characters of its Content-Type, whose many parameters would take long to parse."""

BODY_SECONDS = 20.0
"""How long a form may take to arrive; nginx sends it whole."""

AT_ONCE = 4
"""Most certificates made at the same time."""

MAX_TURNS = 8
"""Most requests about one link or certificate at a time, the rest of which wait: a button pressed
again.  Whoever has one would take every connection, while another CA's command takes its time.
"""

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class EnrollWeb:
    """The routes."""

    def __init__(self, settings: EnrollSettings, issuance: Issuance) -> None:
        self._settings, self._issuance = settings, issuance
        self._clients = RateLimit(settings.limits.client)
        self._unknown = RateLimit(settings.limits.unknown)
        self._total = RateLimit(settings.limits.total)
        self._at_once = asyncio.Semaphore(AT_ONCE)
        self._one_at_a_time: dict[str, tuple[asyncio.Lock, int]] = {}
        self._undelivered = UndeliveredFiles()
        self.under_way: set[object] = set()
        """The connections with a request under way."""

    def application(self) -> web.Application:
        """Return what aiohttp serves."""
        app = web.Application(middlewares=[self._answer], client_max_size=MAX_BODY)
        app.router.add_route("*", "/{path:.*}", self._route)
        return app

    # -- what every answer has

    @web.middleware
    async def _answer(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Turn every outcome into an answer, with the headers of all answers."""
        connection = request.protocol
        self.under_way.add(connection)
        try:
            response = await handler(request)
        except Refused as refusal:
            response = _page(refusal.status, HEADINGS.get(refusal.status, "Refused"), str(refusal))
        except _TooMany as refusal:
            response = _page(429, "Too many requests", "Wait a little, then try again.")
            response.headers["Retry-After"] = str(refusal.seconds)
        except UnusableRequest as error:
            response = _page(400, "This CSR can't be used", f"{error}.", STILL_GOOD)
        except IssuerError as error:
            log.error("no certificate was made: %s", error)
            response = _page(502, "No certificate was made", NOT_MADE, STILL_GOOD)
        except StoreError as error:
            log.error("%s", error)
            response = _page(503, "Not now", "Try again in a minute.", STILL_GOOD)
            response.headers["Retry-After"] = "60"
        except web.HTTPException as error:
            response = _page(error.status, error.reason or "Refused", "")
            if isinstance(error, web.HTTPMethodNotAllowed):
                response.headers["Allow"] = "GET, HEAD, POST"
        except (asyncio.CancelledError, ConnectionError):
            raise
        except Exception:
            log.exception("a request failed")
            response = _page(500, "That failed", "Whoever runs this finds the reason in the log.")
        finally:
            self.under_way.discard(connection)
        response.headers.update(HEADERS)
        return response

    async def _route(self, request: web.Request) -> web.StreamResponse:
        """Lead a request to its handler by the path as it was sent, undecoded."""
        if request.method not in ("GET", "HEAD", "POST"):
            raise web.HTTPMethodNotAllowed(request.method, ["GET", "HEAD", "POST"])
        self._count(request)
        path = request.raw_path.partition("?")[0]
        base = self._settings.base_path + "/"
        if not path.startswith(base):
            raise Refused(404, "There is nothing here.")
        last = path.removeprefix(base)
        if last == "renew":
            return await self._renew(request)
        return await self._invitation(request, last)

    def _count(self, request: web.Request) -> None:
        client = _client(request)
        if not self._clients.take(client):
            raise _TooMany(self._clients.wait(client))
        if not self._unknown.allows(client):
            raise _TooMany(self._unknown.wait(client))

    # -- invitations

    async def _invitation(self, request: web.Request, token: str) -> web.StreamResponse:
        try:
            if request.method == "POST":
                return await self._redeem(request, token)
            return await self._show(request, token)
        except Refused as refusal:
            if refusal.status == 404:
                self._unknown.take(_client(request))
            raise

    async def _show(self, request: web.Request, token: str) -> web.Response:
        issuance = self._issuance
        found = await asyncio.to_thread(issuance.find, token)
        if found.state is InvitationState.WAITING:
            return _html(200, waiting_page(found))
        profile = self._settings.profiles[found.profile]
        identity = Identity(found.name, found.device or self._settings.default_device, profile)
        text = invitation_page(
            found,
            identity,
            issuance.password(token, found),
            f"{self._settings.url}/{token}",
            self._settings.host,
            request.headers.get("User-Agent", ""),
        )
        return _html(200, text)

    async def _redeem(self, request: web.Request, token: str) -> web.StreamResponse:
        # First of all whether it is good: whoever has no link learns nothing else.
        if not self._undelivered.has(token):
            await asyncio.to_thread(self._issuance.find, token)
        self._refuse_foreign(request)
        wanted = await _wanted(request)
        async with self._turn(token):
            file = self._undelivered.take(token, wanted)
            if file is None:
                file = await self._make(lambda: self._issuance.redeem(token, wanted))
            if file is not None and _is_gone(request):
                self._undelivered.put(token, wanted, file)
        if file is None:
            found = await asyncio.to_thread(self._issuance.find, token)
            return _html(202, waiting_page(found))
        return _download(file)

    def _refuse_foreign(self, request: web.Request) -> None:
        headers = request.headers
        origins = headers.getall("Origin", [])
        sites = headers.getall("Sec-Fetch-Site", [])
        if why := why_foreign(origins, sites, self._settings.origin):
            log.warning("a POST from another site was refused: %s", why)
            raise Refused(403, "This request came from another site. Open the link itself.")

    async def _make(self, make: Callable[[], File | None]) -> File | None:
        """Make a certificate in a thread; to its end, even where the client is gone."""
        if not self._total.take("all"):
            raise _TooMany(self._total.wait("all"))
        try:
            async with self._at_once:
                return await asyncio.shield(asyncio.to_thread(make))
        except (Refused, UnusableRequest, IssuerError) as error:
            if not isinstance(error, IssuerError) or error.certificate is None:
                self._total.give_back("all")  # nothing was issued: the room is for others
            raise

    def _turn(self, key: str) -> _Turn:
        return _Turn(self._one_at_a_time, key)

    # -- renewal

    async def _renew(self, request: web.Request) -> web.StreamResponse:
        sha256 = _fingerprint(request)
        issuance = self._issuance
        if request.method == "POST":
            self._refuse_foreign(request)
            wanted = await _wanted(request)
            async with self._turn(sha256):
                file = await self._make(lambda: issuance.renew(sha256, wanted))
            assert file is not None  # a renewal doesn't wait for approval
            return _download(file)
        found = await asyncio.to_thread(issuance.renewable, sha256)
        identity = Identity(found.name, found.device, self._settings.profiles[found.profile])
        text = renewal_page(
            identity,
            issuance.renewal_password(found),
            f"{self._settings.url}/renew",
            self._settings.host,
            request.headers.get("User-Agent", ""),
            found.not_after,
        )
        return _html(200, text)


class _TooMany(Exception):
    """Beyond the rate; `seconds` until there is room again."""

    def __init__(self, seconds: int) -> None:
        super().__init__(seconds)
        self.seconds = seconds


class _Turn:
    """Lets requests about one thing wait for each other; what nobody waits for is forgotten."""

    def __init__(self, locks: dict[str, tuple[asyncio.Lock, int]], key: str) -> None:
        self._locks, self._key = locks, key

    async def __aenter__(self) -> None:
        lock, users = self._locks.get(self._key, (asyncio.Lock(), 0))
        if users >= MAX_TURNS:
            raise _TooMany(5)
        self._locks[self._key] = (lock, users + 1)
        try:
            await lock.acquire()
        except BaseException:
            self._leave()
            raise

    async def __aexit__(self, *_: object) -> None:
        self._locks[self._key][0].release()
        self._leave()

    def _leave(self) -> None:
        lock, users = self._locks[self._key]
        if users == 1:
            del self._locks[self._key]
        else:
            self._locks[self._key] = (lock, users - 1)


HEADINGS = {
    400: "That can't be done",
    403: "Not allowed",
    404: "Not found",
    409: "Not now",
    410: "This link was used or has ended",
}

STILL_GOOD = "The invitation is still good."

NOT_MADE = "The CA has refused, or can't be reached. Whoever runs this finds the reason in the log."


# -- reading a request


def _is_gone(request: web.Request) -> bool:
    """Whether the client has closed its connection, so that nothing can be delivered."""
    return request.transport is None or request.transport.is_closing()


def _client(request: web.Request) -> str:
    return client_key(request.headers.get("X-Real-IP", ""))


def _fingerprint(request: web.Request) -> str:
    """The client's certificate, by nginx's word.  Raises `Refused`.

    A TCP port can be opened by every local user, who could name any certificate.
    """
    transport = request.transport
    used = transport.get_extra_info("socket") if transport is not None else None
    if used is None or used.family != socket.AF_UNIX:
        raise Refused(403, "Certificates are renewed through a unix socket alone.")
    found = request.headers.getall("X-Client-Fingerprint", [])
    verified = request.headers.getall("SSL-Client-Verify", ["SUCCESS"])
    if len(found) != 1 or not re.fullmatch("[0-9a-f]{64}", found[0]) or verified != ["SUCCESS"]:
        raise Refused(403, "Open this page with the client certificate that is to be renewed.")
    for cert in request.headers.getall("SSL-Client-Cert", []):
        try:
            same = from_header(cert.encode("latin-1")).sha256 == found[0]
        except ValueError:
            same = False
        if not same:
            raise Refused(403, "Open this page with the client certificate that is to be renewed.")
    return found[0]


async def _wanted(request: web.Request) -> Wanted:
    """Read the form.  Raises `Refused`."""
    try:
        fields = await asyncio.wait_for(_fields(request), BODY_SECONDS)
    except TimeoutError:
        raise Refused(400, "The form didn't arrive.") from None
    except (Refused, web.HTTPException, ConnectionError):
        raise
    except Exception as error:  # noqa: BLE001 - aiohttp's readers of forms raise whatever there is
        log.info("a form can't be read: %s", brief(error))
        raise Refused(400, "The form can't be read.") from None
    wanted = fields.get("format", "")
    if wanted not in FORMATS:
        raise Refused(400, f"format is one of {', '.join(FORMATS)}.")
    device = fields.get("device", "").strip()
    try:
        device = parse_device(device) if device else ""
    except ValueError as error:
        raise Refused(400, f"{error.args[0]}: {error.args[1]}.") from None
    return Wanted(wanted, device, fields.get("csr", "") if wanted == "csr" else "")


async def _fields(request: web.Request) -> dict[str, str]:
    """Read the fields, each once; of two `csr` (a file and a text) the one that isn't empty.

    Raises `Refused`, and what aiohttp raises for a form that is broken.
    """
    if len(request.headers.get("Content-Type", "")) > MAX_TYPE:
        raise Refused(400, "The form's Content-Type is too long.")
    if request.content_type == "multipart/form-data":
        pairs = await _multipart(request)
    elif request.content_type == "application/x-www-form-urlencoded":
        pairs = _urlencoded(await request.read())
    else:
        raise Refused(400, "A form is expected: application/x-www-form-urlencoded.")
    found: dict[str, str] = {}
    for name, text in pairs:
        if name not in ("format", "csr", "device"):
            raise Refused(400, f"The form has an unknown field: {printable(name[:80])}.")
        if text and found.get(name):
            raise Refused(400, "The form has a field twice.")
        found[name] = text or found.get(name, "")
    return found


def _urlencoded(body: bytes) -> list[tuple[str, str]]:
    """Read the fields as UTF-8, whatever the request says: a client could choose a slow codec.

    Raises ValueError.
    """
    text = body.decode().rstrip()
    return parse_qsl(text, keep_blank_values=True, errors="strict", max_num_fields=MAX_FIELDS)


async def _multipart(request: web.Request) -> list[tuple[str, str]]:
    """Read the parts of a form in memory: what is sent by mistake never gets into a file."""
    pairs: list[tuple[str, str]] = []
    room = MAX_BODY
    reader = await request.multipart()
    while (part := await reader.next()) is not None:
        if len(pairs) == MAX_FIELDS:
            raise Refused(400, "The form has too many fields.")
        data = bytearray()
        while chunk := await part.read_chunk(8192):  # type: ignore[union-attr]  # fails if nested
            data += chunk
            if len(data) > room:
                raise web.HTTPRequestEntityTooLarge(max_size=MAX_BODY, actual_size=MAX_BODY + 1)
        room -= len(data)
        pairs.append((part.name or "", data.decode()))  # type: ignore[union-attr]  # as above
    return pairs


# -- answers


def _html(status: int, text: str) -> web.Response:
    return web.Response(status=status, text=text, content_type="text/html", charset="utf-8")


def _page(status: int, heading: str, text: str, more: str = "") -> web.Response:
    return _html(status, message_page(heading, text, more))


def _download(file: File) -> web.Response:
    how = "inline" if file.inline else "attachment"
    headers = {
        "Content-Type": file.media_type,
        "Content-Disposition": f'{how}; filename="{file.name}"',
    }
    return web.Response(body=file.data, headers=headers)

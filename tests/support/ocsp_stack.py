"""Daemon, fetcher and responder together, for two certificates: alice is good, bob is revoked."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import ocsp_pki
from aiohttp import web
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp
from daemon import Daemon
from der import tlv
from fetch_server import Answer, Server, openssl, serving
from pki import Leaf

from sidecar.fetcher.service import FetchOptions, run_fetcher

AUTHORITY = ocsp_pki.authority()
GOOD, REVOKED = ocsp_pki.leaf("alice"), ocsp_pki.leaf("bob")
ALICE, BOB = Leaf("alice", GOOD.der, GOOD.key), Leaf("bob", REVOKED.der, REVOKED.key)

SAYS_GOOD = b"\x80\x00"
SAYS_REVOKED = tlv(0xA1, tlv(0x18, b"20260101000000Z"))
UNAUTHORIZED = bytes.fromhex("30030a0106")
NONCE = bytes.fromhex("2b0601050507300102")

POLICY = """\
version: 1
trust: {{staff: {{ca: ca.pem, ocsp: "{}"}}}}
locations:
  - {{name: site, allow: verified}}
  - {{name: dark, allow: [{{cn: nobody}}]}}
  - {{name: open, allow: public}}
"""


def beside(
    directory: Path, check: Callable[[Daemon], None], wait: Callable[[], object] = int
) -> None:
    """Run `check` on a daemon with its fetcher and a responder, which answers after `wait`."""

    ocsp_pki.write_index(directory / "index.txt", good=[GOOD], revoked=[REVOKED])
    responder = openssl(directory, "-nmin", "10", wait=wait)
    behind(directory, POLICY, [responder], lambda daemon, _: check(daemon))


def says(
    statuses: Mapping[int, bytes],
    *,
    signer: ocsp_pki.Pair = AUTHORITY,
    delegated: bool = False,
    issuer: ocsp_pki.Pair = AUTHORITY,
    pairs: Sequence[ocsp_pki.Pair] = (GOOD, REVOKED),
    seconds: float = 0.0,
    nonce: bytes = b"",
    produced: float = -60,
    **times: float | None,
) -> Answer:
    """A responder of `issuer` that says the status of each serial number, after some `seconds`.

    About a serial number without a status it answers unauthorized.  `nonce` is sent back instead of
    the one asked with; `times` are those of `ocsp_pki.single`.
    """
    known = {pair.cert.serial_number: pair for pair in pairs}
    more = [ocsp_pki.extension(NONCE, False, tlv(4, nonce))] if nonce else []

    async def answer(request: web.Request) -> web.StreamResponse:
        serial = ocsp.load_der_ocsp_request(await request.read()).serial_number
        await asyncio.sleep(seconds)
        if serial not in statuses:
            return web.Response(body=UNAUTHORIZED)
        about = known[serial].cert
        one = ocsp_pki.single(about, issuer.cert, status=statuses[serial], **times)  # type: ignore[arg-type]
        certs = [signer] if delegated else []
        body = ocsp_pki.craft(signer, [one], certs=certs, extensions=more, produced=produced)
        return web.Response(body=body)

    return answer


def behind(
    directory: Path,
    policy: str,
    answers: Sequence[Answer],
    check: Callable[[Daemon, list[Server]], None],
    ca: ocsp_pki.Pair = AUTHORITY,
    settings: str = "",
    **files: bytes,
) -> None:
    """Run `check` on a daemon and its fetcher, with a responder for each answer.

    `policy` is formatted with the responders' addresses.
    """

    async def main() -> None:
        async with AsyncExitStack() as stack:
            servers = [await stack.enter_async_context(serving(each)) for each in answers]
            text = policy.format(*(server.url for server in servers))
            pem = ca.cert.public_bytes(Encoding.PEM)
            daemon = Daemon(directory, text, settings, ca_pem=pem, **files)
            stop, ready = asyncio.Event(), asyncio.Event()
            options = FetchOptions(daemon.policy, directory / "state", directory / "fetch.sock")
            fetcher = asyncio.create_task(run_fetcher(options, stop, ready=ready.set))
            await ready.wait()

            def inside() -> None:
                with daemon:
                    check(daemon, servers)

            try:
                await asyncio.to_thread(inside)
            finally:
                stop.set()
                await fetcher

    asyncio.run(asyncio.wait_for(main(), 120))

"""Local http servers that give CRLs and OCSP answers, rightly or wrongly as a test says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import ocsp_pki as pki
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


def make_crl(
    issuer: pki.Pair,
    number: int = 1,
    *,
    revoked: int = 0,
    start: float = -60.0,
    end: float = 86400.0,
    more: Sequence[x509.ExtensionType] = (),
    at: datetime | None = None,
    serials: Sequence[int] = (),
) -> bytes:
    """A DER CRL with `revoked` entries, and `serials`; `start` and `end` are seconds from now.

    `more` are critical extensions; `at` stands for now.
    """
    now = at or datetime.now(UTC)
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(issuer.cert.subject)
        .last_update(now + timedelta(seconds=start))
        .next_update(now + timedelta(seconds=end))
        .add_extension(x509.CRLNumber(number), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.key.public_key()),
            critical=False,
        )
    )
    for extension in more:
        builder = builder.add_extension(extension, critical=True)
    for serial in (*range(1, revoked + 1), *serials):
        entry = x509.RevokedCertificateBuilder(serial, now - timedelta(days=1)).build()
        builder = builder.add_revoked_certificate(entry)
    return builder.sign(issuer.key, hashes.SHA256()).public_bytes(Encoding.DER)


@dataclass
class Server:
    """One running server: `url` of `/x`, the requests seen, and what it answers next."""

    answer: Answer
    url: str = ""
    seen: list[web.BaseRequest] = field(default_factory=list)


@asynccontextmanager
async def serving(answer: Answer, host: str = "127.0.0.1") -> AsyncIterator[Server]:
    """Serve every request by `server.answer` on a free loopback port."""
    server = Server(answer)

    async def one(request: web.Request) -> web.StreamResponse:
        server.seen.append(request)
        return await server.answer(request)

    app = web.Application(client_max_size=1 << 20)
    app.router.add_route("*", "/{tail:.*}", one)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, host, 0)
    await site.start()
    server.url = f"http://{host}:{runner.addresses[0][1]}/x"
    try:
        yield server
    finally:
        await runner.cleanup()


def giving(body: bytes, status: int = 200, **headers: str) -> Answer:
    """An answer that is always the same; header names with `_` for `-`."""

    async def answer(_: web.Request) -> web.StreamResponse:
        return web.Response(
            body=body, status=status, headers={k.replace("_", "-"): v for k, v in headers.items()}
        )

    return answer


def giving_with_etag(body: bytes, etag: str) -> Answer:
    """Answers 304 to whoever names the ETag."""

    async def answer(request: web.Request) -> web.StreamResponse:
        if request.headers.get("If-None-Match") == etag:
            return web.Response(status=304, headers={"ETag": etag})
        return web.Response(body=body, headers={"ETag": etag})

    return answer


def openssl(
    directory: Path,
    *options: str,
    signer: pki.Pair | None = None,
    wait: Callable[[], object] = int,
) -> Answer:
    """A responder in front of `openssl ocsp`, asked when `wait` has returned.

    It answers for the test authority from DIRECTORY/index.txt.
    """
    ca = pki.authority()

    def respond(der: bytes) -> bytes:
        wait()
        return pki.respond(directory, der, signer or ca, ca, *options)

    async def answer(request: web.Request) -> web.StreamResponse:
        body = await asyncio.to_thread(respond, await request.read())
        return web.Response(body=body, content_type="application/ocsp-response")

    return answer


def write_policy(directory: Path, *, crl: str = "", ocsp: str = "", name: str = "staff") -> Path:
    """A policy of one trust under the test authority, and the authority's file."""
    pem = pki.authority().cert.public_bytes(Encoding.PEM)
    (directory / "ca.pem").write_bytes(pem)
    lines = ["version: 1", "trust:", f"  {name}:", "    ca: ca.pem"]
    lines += [f"    crl: [{crl}]"] if crl else []
    lines += [f"    ocsp: {ocsp}"] if ocsp else []
    lines += ["locations:", "  - {name: site, location: /, allow: verified}", ""]
    policy = directory / "policy.yaml"
    policy.write_text("\n".join(lines))
    return policy

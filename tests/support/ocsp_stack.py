"""Daemon, fetcher and responder together, for two certificates: alice is good, bob is revoked."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import ocsp_pki
from cryptography.hazmat.primitives.serialization import Encoding
from daemon import Daemon
from fetch_server import openssl, serving
from pki import Leaf

from sidecar.fetcher.service import FetchOptions, run_fetcher

AUTHORITY = ocsp_pki.authority()
GOOD, REVOKED = ocsp_pki.leaf("alice"), ocsp_pki.leaf("bob")
ALICE, BOB = Leaf("alice", GOOD.der, GOOD.key), Leaf("bob", REVOKED.der, REVOKED.key)

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

    async def main() -> None:
        ocsp_pki.write_index(directory / "index.txt", good=[GOOD], revoked=[REVOKED])
        async with serving(openssl(directory, "-nmin", "10", wait=wait)) as server:
            pem = AUTHORITY.cert.public_bytes(Encoding.PEM)
            daemon = Daemon(directory, POLICY.format(server.url), ca_pem=pem)
            stop, ready = asyncio.Event(), asyncio.Event()
            options = FetchOptions(daemon.policy, directory / "state", directory / "fetch.sock")
            fetcher = asyncio.create_task(run_fetcher(options, stop, ready=ready.set))
            await ready.wait()

            def inside() -> None:
                with daemon:
                    check(daemon)

            try:
                await asyncio.to_thread(inside)
            finally:
                stop.set()
                await fetcher

    asyncio.run(asyncio.wait_for(main(), 60))

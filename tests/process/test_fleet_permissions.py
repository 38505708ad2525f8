"""deploy/fleet/nats.conf in a real server: what each role may do, by its certificate."""

from __future__ import annotations

import asyncio
import contextlib
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import nats
import pytest
from fleet_cluster import WEB1
from fleet_hosts import PATIENCE, Fleet, until
from fleet_secured import Secured
from pki import CA

LAST = "nobody.may"
"""A subject that no role may write to."""


@pytest.fixture
def secured(tmp_path: Path) -> Iterator[Secured]:
    server = Secured(tmp_path / "nats")
    with server:
        yield server


def refusals(server: Secured, name: str, *subjects: str, listen: str = "") -> list[str]:
    """What the server logs about messages to these subjects, and about listening to one."""
    log = server.directory / "log.txt"
    before = log.stat().st_size

    async def ignore(_: Exception) -> None:
        return

    async def go() -> None:
        client = await nats.connect(
            server.url,
            tls=server.context(name),
            inbox_prefix=f"_INBOX_{name}".encode(),
            allow_reconnect=False,
            error_cb=ignore,
        )
        for subject in subjects:
            await client.publish(subject, b"x")
        if listen:
            await client.subscribe(listen)
        await client.publish(LAST, b"x")  # nobody may: once it is logged, all before it was handled
        end = time.monotonic() + PATIENCE
        while LAST.encode() not in log.read_bytes()[before:]:
            assert time.monotonic() < end, log.read_text()
            await asyncio.sleep(0.02)
        with contextlib.suppress(Exception):
            await client.close()

    asyncio.run(go())
    lines = log.read_bytes()[before:].decode().splitlines()
    return [line for line in lines if "Violation" in line and LAST not in line]


def test_every_role_can_do_its_work(secured: Secured, tmp_path: Path) -> None:
    """Publisher, keeper, agent and daemon, with a certificate each, over TLS."""
    fleet = Fleet(tmp_path / "fleet", secured)
    settings = fleet.settings(f"state_dir: {tmp_path}/publisher", tls=secured.tls("publisher"))
    fleet.config.write_text(settings)
    policy = tmp_path / "policy"
    policy.mkdir()
    (policy / "policy.yaml").write_text("version: 1\nlocations: [{name: site, allow: verified}]\n")
    fleet.run("publish", str(policy))
    host = fleet.host("web1", tls=secured.tls("web1"))
    publisher = fleet.config.read_text()
    fleet.config.write_text(publisher.replace("/publisher.", "/keeper."))
    fleet.keep()
    try:
        host.has(1)
        until(lambda: 0 < host.daemon.metric("mtls_sidecar_fleet_head_age_seconds") < 60, "a head")
        fleet.config.write_text(publisher)
        fleet.run("revoke", "--serial", "0A", "--wait")
        assert host.sequence() == 2
        assert fleet.status()["nodes"][0]["sequence"] == 2
    finally:
        fleet.stop()
    told = (secured.directory / "log.txt").read_text()
    assert "Permissions Violation" not in told, told[-2000:]


def test_a_node_can_do_nothing_else(secured: Secured) -> None:
    """Not write the log, a head, a file or another's report; not make, empty or remove streams."""
    api = "$JS.API.STREAM"
    forbidden = [
        "fleet.prod.put.1.1", "fleet.prod.log.1.1", "fleet.prod.head.1", "fleet.prod.blob.ab.0",
        "fleet.prod.report.web2", f"{api}.CREATE.FLEET-prod-1", f"{api}.DELETE.FLEET-prod-1",
        f"{api}.PURGE.FLEET-prod-data", f"{api}.INFO.FLEET-prod-data",
        "$JS.API.DIRECT.GET.FLEET-prod-data.fleet.prod.report.web2",
        "$JS.API.CONSUMER.CREATE.FLEET-prod-1",
    ]  # fmt: skip
    found = "\n".join(refusals(secured, "web1", *forbidden))
    assert [each for each in forbidden if f'"{each}"' not in found] == []
    for subject in ("fleet.prod.report.>", "fleet.>", "_INBOX_publisher.>", "$SYS.>"):
        assert refusals(secured, "web1", listen=subject), subject
    assert not refusals(secured, "web1", "fleet.prod.report.web1", listen="fleet.prod.log.1.*")


def test_a_keeper_can_write_heads_alone(secured: Secured) -> None:
    """The machine that is online all the time publishes nothing."""
    for subject in ("fleet.prod.put.1.1", "fleet.prod.blob.ab.0", "fleet.prod.report.web1"):
        assert refusals(secured, "keeper", subject), subject
    assert not refusals(secured, "keeper", "fleet.prod.head.1")


def test_a_certificate_that_no_role_has_gets_nothing(secured: Secured) -> None:
    """Though the fleet's authority issued it; so does one of another authority."""
    with pytest.raises(nats.errors.Error):
        refusals(secured, "stranger", "fleet.prod.put.1.1")
    stranger = CA("Staff").issue("publisher", o="fleet prod")
    (secured.directory / "other.crt").write_bytes(stranger.pem)
    (secured.directory / "other.key").write_bytes(stranger.key_pem)
    with pytest.raises((OSError, nats.errors.Error)):
        refusals(secured, "other", "fleet.prod.put.1.1")


def test_a_node_whose_block_is_removed_is_shut_out_at_once(secured: Secured) -> None:
    """Also of the connection that it has: a reload closes it, and its certificate opens no other.
    Nobody else is disconnected."""

    async def ignore(_: Exception) -> None:
        return

    async def go() -> None:
        clients = {
            name: await nats.connect(
                secured.url, tls=secured.context(name), allow_reconnect=False, error_cb=ignore
            )
            for name in ("web1", "keeper")
        }
        text = re.sub(WEB1, "", secured.conf.read_text())
        assert "CN=web1" not in text
        secured.conf.write_text(text)
        assert secured.process is not None
        secured.process.send_signal(signal.SIGHUP)
        end = time.monotonic() + PATIENCE
        while not clients["web1"].is_closed:
            assert time.monotonic() < end, (secured.directory / "log.txt").read_text()
            await asyncio.sleep(0.02)
        assert clients["keeper"].is_connected
        await clients["keeper"].close()
        with pytest.raises(nats.errors.Error, match="Authorization Violation"):
            await nats.connect(
                secured.url, tls=secured.context("web1"), allow_reconnect=False, error_cb=ignore
            )

    asyncio.run(go())

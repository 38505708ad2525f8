"""Three NATS servers on this machine, with TLS and roles as in deploy/fleet/nats.conf."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import shutil
import signal
import ssl
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import nats
from fleet_hosts import ROOT, Fleet, Host, Nats, nats_server, until
from nats.js.api import StreamInfo
from nginx import free_port
from pki import CA, CLIENT_AUTH, SERVER_AUTH
from tcp_links import Links

from sidecar.core.config.settings import read_settings
from sidecar.fleet.ledger import Ledger
from sidecar.fleet.nats_client import SetBack, Unreachable, connected
from sidecar.fleet.publisher import Beaten, Publisher
from sidecar.fleet.signer import signer_of

PATIENCE = 60.0
SHIPPED = ROOT / "deploy/fleet/nats.conf"
NODES = ("web1", "web2", "web3", "web4")
ROLES = (*NODES, "keeper", "publisher")
NOBODY = 9
"""A port at which nothing listens."""
WEB1 = r'(?ms)^ {6}\{\n {8}user: "CN=web1,.*?^ {6}\}\n'
"""The block of a node in the file that is shipped."""


class Server(Nats):
    """One of the three; it reads its own configuration."""

    @property
    def url(self) -> str:
        return f"tls://localhost:{self.port}"

    @property
    def conf(self) -> Path:
        return self.directory / "nats.conf"

    @property
    def log(self) -> Path:
        return self.directory / "log.txt"

    def start(self) -> Server:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [nats_server(), "-c", self.conf], stdout=log, stderr=log
            )
        until(self.is_up, "nats-server listens")
        return self

    def pause(self) -> None:
        """Cut it off: nothing that it is sent is answered or refused."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Bring it back, with all that it was sent meanwhile."""
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)


class Cluster(Nats):
    """Three servers, of which any two carry the fleet.  `url` is what `servers: […]` takes."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.port = 0
        self.authority = CA("Fleet CA")
        self.process = None
        self.servers = [Server(directory / f"nats{number}") for number in (1, 2, 3)]
        self.routes = [free_port() for _ in self.servers]
        self.links = Links(self.routes)
        directory.mkdir()
        (directory / "fleet-ca.crt").write_bytes(self.authority.pem)
        for role in ROLES:
            leaf = self.authority.issue(role, o="fleet prod")
            (directory / f"{role}.crt").write_bytes(leaf.pem)
            (directory / f"{role}.key").write_bytes(leaf.key_pem)
        for number, server in enumerate(self.servers):
            self._prepare(server, number)

    def _prepare(self, server: Server, number: int) -> None:
        """The shipped file with this server's name, addresses and paths, and more nodes."""
        place = server.directory
        place.mkdir()
        usages = [SERVER_AUTH, CLIENT_AUTH]  # it opens routes to the others, as their client
        leaf = self.authority.issue(place.name, dns=["localhost"], ip=["127.0.0.1"], eku=usages)
        (place / "server.crt").write_bytes(leaf.pem)
        (place / "server.key").write_bytes(leaf.key_pem)
        text = SHIPPED.read_text()
        text = text.replace("server_name: nats1", f"server_name: {place.name}")
        text = text.replace("0.0.0.0:4222", f"127.0.0.1:{server.port}")
        text = text.replace("0.0.0.0:6222", f"127.0.0.1:{self.routes[number]}")
        for at, port in enumerate(self.routes):
            way = port if at == number else self.links.port(number, at)
            text = text.replace(f"nats{at + 1}.example.com:6222", f"127.0.0.1:{way}")
        # Or the servers would tell each other of ways around the links.
        text = text.replace("  name: prod\n", f"  name: prod\n  advertise: 127.0.0.1:{NOBODY}\n")
        text = text.replace("/var/lib/nats", str(place / "store"))
        text = text.replace("/etc/nats/fleet-ca.crt", str(self.directory / "fleet-ca.crt"))
        text = text.replace("/etc/nats", str(place))
        text = re.sub(
            WEB1, lambda found: "".join(found[0].replace("web1", name) for name in NODES), text
        )
        server.conf.write_text(text)

    @property
    def url(self) -> str:
        return ", ".join(server.url for server in self.servers)

    def start(self) -> Cluster:
        for server in self.servers:
            server.start()
        return self

    def stop(self, number: int = signal.SIGKILL) -> None:
        for server in self.servers:
            server.stop(number)

    def cut(self, server: Server) -> contextlib.AbstractContextManager[None]:
        """Let nothing through between one server and the others, until the block ends."""
        return self.links.cut(self.servers.index(server))

    def allow_epoch(self, epoch: int) -> None:
        """Have the servers' rights name the streams of another epoch, too; reload them."""
        for server in self.servers:
            more = rf"\g<0>, \1FLEET-prod-{epoch}\2"
            text = re.sub(r'("[^"]*)FLEET-prod-1([^"]*")', more, server.conf.read_text())
            server.conf.write_text(text)
            assert server.process is not None
            server.process.send_signal(signal.SIGHUP)

    def __enter__(self) -> Cluster:
        self.links.start()
        return self.start()

    def __exit__(self, *error: object) -> None:
        self.stop()
        self.links.stop()

    def wipe(self) -> None:
        for server in self.servers:
            shutil.rmtree(server.directory / "store")

    def tls(self, role: str) -> str:
        """The section `tls` of sidecar.yaml."""
        place = self.directory / role
        return f"{{ca: {self.directory}/fleet-ca.crt, cert: {place}.crt, key: {place}.key}}"

    def context(self, role: str = "") -> ssl.SSLContext:
        """What a client with this role's certificate, or with none, connects with."""
        context = ssl.create_default_context(cafile=str(self.directory / "fleet-ca.crt"))
        if role:
            place = self.directory / role
            context.load_cert_chain(f"{place}.crt", f"{place}.key")
        return context

    def told(self) -> str:
        return "\n".join(server.log.read_text()[-1500:] for server in self.servers)


@dataclass
class Scene:
    """The cluster, the fleet's publisher, and the node web1."""

    cluster: Cluster
    fleet: Fleet
    directory: Path
    acknowledged: list[str] = field(default_factory=list)

    @property
    def host(self) -> Host:
        return self.fleet.hosts[0]

    def publish(self, *arguments: str) -> int:
        """One command of the publisher, again until the servers can do it; the log's end."""
        until(lambda: self.fleet.run(*arguments, check=False).returncode == 0, str(arguments), 60)
        return self.end()

    def end(self) -> int:
        ledger = self.fleet.directory / "publisher/fleet-publisher/log.1"
        return len(ledger.read_bytes().splitlines())

    def lines(self) -> list[bytes]:
        return (self.fleet.directory / "publisher/fleet-publisher/log.1").read_bytes().splitlines()

    def info(self, stream: str) -> StreamInfo | None:
        """What a server says of a stream; None where it can't."""

        async def ask() -> StreamInfo:
            client = await nats.connect(
                self.cluster.url.split(", "),
                tls=self.cluster.context("publisher"),
                inbox_prefix=b"_INBOX_publisher",
                allow_reconnect=False,
                error_cb=ignore,
            )
            try:
                return await client.jetstream(timeout=2).stream_info(stream)
            finally:
                await client.close()

        with contextlib.suppress(nats.errors.Error, OSError, TimeoutError):
            return asyncio.run(ask())
        return None

    def leader(self) -> Server:
        """The server that leads the log."""

        def find() -> Server | None:
            info = self.info("FLEET-prod-1")
            name = info.cluster.leader if info and info.cluster else ""
            return next(
                (each for each in self.cluster.servers if each.directory.name == name), None
            )

        found = until(find, f"the log has a leader: {self.cluster.told()}", PATIENCE)
        assert isinstance(found, Server)
        return found

    def flood(
        self, count: int, at: Mapping[int, Callable[[], object]], server: Server | None = None
    ) -> None:
        """Publish revocations one behind the other; `at` some, do something while it is under way.

        What the servers did not acknowledge is published again.  `server`: at this one only.
        """
        text = self.fleet.config.read_text()
        text = text if server is None else only(server, text)
        asyncio.run(asyncio.wait_for(self._flood(count, dict(at), text), 180))

    async def _flood(self, count: int, at: dict[int, Callable[[], object]], text: str) -> None:
        settings = read_settings(text.encode(), str(self.fleet.config)).fleet
        assert settings is not None
        directory = self.fleet.directory / "publisher/fleet-publisher"
        signer = signer_of(settings.signer, self.fleet.key)
        first = len(self.acknowledged)
        with contextlib.closing(Ledger(directory, settings, only_copy=True)) as ledger:
            while (done := len(self.acknowledged) - first) < count:
                try:
                    async with connected(settings, "publisher") as bus:
                        publisher = Publisher(bus, ledger, signer)
                        await publisher.sync()
                        for number in range(done, count):
                            value = f"{first + number:064x}"
                            body = {"deny": "sha256", "value": value, "comment": ""}
                            task = asyncio.create_task(publisher.publish("revocation", body))
                            await asyncio.sleep(0)  # the task has begun
                            at.pop(number, int)()
                            await task
                            self.acknowledged.append(value)
                except SetBack:
                    raise  # a false alarm: nothing is lost while two servers are there
                except (Unreachable, Beaten):
                    await asyncio.sleep(0.1)  # nobody tells when a server is there again

    def whole(self) -> None:
        """All that was acknowledged is in the log, in order, on every server and on the node."""
        lines = self.lines()
        entries = [json.loads(line)["entry"] for line in lines]
        assert [entry["sequence"] for entry in entries] == list(range(1, len(lines) + 1))
        values = [entry["body"].get("value") for entry in entries]
        places = [values.index(value) for value in self.acknowledged]
        assert places == sorted(places)
        self.everywhere(lines)
        for host in self.fleet.hosts:
            self.took_all(host)

    def took_all(self, host: Host) -> None:
        """Wait until a node has the whole log; it took each entry once, in order, and no other."""
        lines = self.lines()
        until(lambda: host.sequence() == len(lines), host.told(), PATIENCE)
        for log in ("fleet", "fleet-in-force"):
            assert (host.state / log / "log.1").read_bytes().splitlines() == lines
        text = host.daemon.get("/metrics")[1]
        refused = re.findall(r"(?m)^mtls_sidecar_fleet_refused_total\{.*\} (\S+)", text)
        assert {float(each) for each in refused} == {0.0}, text

    @contextlib.contextmanager
    def keeper(self, server: Server) -> Iterator[None]:
        """Run a keeper that knows one server only."""
        name = server.directory.name
        text = self.fleet.config.read_text().replace("/publisher", "/keeper")
        text = text.replace(f"{self.fleet.directory}/keeper", f"{self.fleet.directory}/at-{name}")
        config = self.fleet.directory / f"keeper-{name}.yaml"
        config.write_text(only(server, text))
        keeper = self.fleet.keep(config)
        try:
            yield
        finally:
            self.fleet.keepers.remove(keeper)
            keeper.terminate()
            keeper.wait()

    @contextlib.contextmanager
    def node(self, name: str, server: Server, **more: str) -> Iterator[Host]:
        """Run a host whose agent knows one server only."""
        tls = self.cluster.tls(name)
        host = self.fleet.host(name, serve=False, agent=False, tls=tls, **more)
        host.daemon.config.write_text(only(server, host.daemon.config.read_text()))
        host.start_agent()
        host.daemon.start(wait=False)
        try:
            yield host
        finally:
            host.stop()
            self.fleet.hosts.remove(host)

    def everywhere(self, lines: Sequence[bytes]) -> None:
        """Wait until every server has these entries, and no others; a follower may be behind."""
        for server in self.cluster.servers:
            until(partial(self.holds, server, lines), f"{server.url} has all", PATIENCE)

    def holds(self, server: Server, lines: Sequence[bytes]) -> bool:
        """Whether a server has these entries in its own files, and shows no others."""
        blocks = server.directory.glob("store/jetstream/FLEET/streams/FLEET-prod-1/msgs/*.blk")
        stored = b"".join(each.read_bytes() for each in blocks)
        return all(line in stored for line in lines) and self.stored(server) == lines

    def stored(self, server: Server) -> list[bytes]:
        """The log as one server's clients read it."""
        text = only(server, self.fleet.config.read_text())
        settings = read_settings(text.encode(), "one").fleet
        assert settings is not None

        async def read() -> list[bytes]:
            async with connected(settings, "publisher") as bus:
                return await bus.entries(1)

        with contextlib.suppress(Unreachable):
            return asyncio.run(read())
        return []


def only(server: Server, text: str) -> str:
    """A sidecar.yaml that names one server."""
    return re.sub(r"servers: \[.*\]", f"servers: [{server.url}]", text)


async def ignore(_: Exception) -> None:
    """An error callback for the client, which would log what is expected here."""
    return

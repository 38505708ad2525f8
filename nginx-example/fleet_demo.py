"""The demo of a fleet: python fleet_demo.py [--check]; see fleet-demo.sh."""

from __future__ import annotations

import grp
import http.client
import json
import os
import pwd
import shlex
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from demo_client import Line, wait_until
from demo_pki import Authority, pem, write
from find_nginx import find_nginx

HERE = Path(__file__).resolve().parent
SCRIPTS = Path(sysconfig.get_path("scripts"))
SIDECAR = SCRIPTS / "mtls-sidecar"
HOSTS = ("web1", "web2", "web3")

POLICY = """\
version: 1
trust: {staff: {ca: pki/ca.crt}}
locations:
  - {name: site, allow: [{cn: [alice]}]}
tests:
  - {location: site, cert: {cn: alice}, expect: allow}
"""

NGINX = """\
USER
pid nginx.pid;
worker_processes 1;
events { }
http {
    TEMPORARY
    access_log off;
    ssl_certificate server.crt;
    ssl_certificate_key server.key;
    ssl_client_certificate client-ca.crt;
    ssl_verify_client optional;
    include snippets/mtls-sidecar.conf;
    server {
        listen 127.0.0.1:PORT ssl;
        server_name localhost;
        include snippets/authz-location.conf;
        include snippets/identity.conf;
        root html;
        location / {
            auth_request /authz/site;
        }
    }
}
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Processes:
    """What was started, by name; each has a log of its own."""

    directory: Path
    running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def start(self, name: str, *command: str | Path) -> None:
        with (self.directory / f"{name}.log").open("ab") as log:
            self.running[name] = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def stop(self, name: str, number: int = signal.SIGTERM) -> None:
        process = self.running.pop(name)
        process.send_signal(number)
        process.wait(30)

    def stop_all(self) -> None:
        for name in reversed(list(self.running)):
            self.stop(name)


class FleetDemo:
    """A directory with the fleet in it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.processes = Processes(directory)
        self.nats_port = free_port()
        self.ports = {name: free_port() for name in HOSTS}
        self.nginx = find_nginx()
        self.release, self.publisher = directory / "policy", directory / "publisher"

    # -- setting up

    def make(self) -> None:
        """Write everything: keys, certificates, a policy, and each host's files."""
        self.directory.chmod(0o711)
        staff, servers = Authority("Demo Staff CA"), Authority("Demo Server CA")
        for name in ("alice", "bob"):
            write(self.directory / f"{name}.pem", b"".join(staff.issue(name, [])), 0o600)
        write(self.directory / "server-ca.crt", pem(servers.cert))
        write(self.release / "policy.yaml", POLICY.encode())
        write(self.release / "pki/ca.crt", pem(staff.cert))
        self.publisher.mkdir()
        key = self.run(f"{SIDECAR} fleet keygen {self.publisher}/fleet.key").strip()
        fleet = (
            f"fleet: {{name: demo, servers: ['nats://127.0.0.1:{self.nats_port}'], keys: [{key}]"
        )
        state = f"state_dir: {self.publisher}\n"
        write(self.publisher / "sidecar.yaml", f"{state}{fleet}}}\n".encode())
        for name in HOSTS:
            self.make_host(name, fleet)
            nginx = self.directory / name / "nginx"
            cert, secret = servers.issue("localhost", ["localhost"], server=True)
            write(nginx / "server.crt", cert)
            write(nginx / "server.key", secret, 0o600)
            write(nginx / "client-ca.crt", pem(staff.cert))

    def make_host(self, name: str, fleet: str) -> None:
        """Write a host's sidecar.yaml and nginx.conf, with the snippets as they are shipped."""
        place = self.directory / name
        as_root = os.geteuid() == 0
        group = grp.getgrgid(pwd.getpwnam("nobody").pw_gid).gr_name if as_root else ""
        settings = [
            f"listen: unix:{place}/authz.sock",
            f"socket_group: {group}" if as_root else "",
            f"admin: unix:{place}/admin.sock",
            f"state_dir: {place}/state",
            f"fetch_socket: {place}/fetch.sock",
            f"{fleet}, node: {name}}}",
        ]
        write(place / "sidecar.yaml", "\n".join([*settings, ""]).encode())
        temporary = "".join(
            f"{each}_temp_path {place}/nginx/{each}; "
            for each in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        conf = NGINX.replace("USER", f"user nobody {group};" if as_root else "")
        conf = conf.replace("TEMPORARY", temporary).replace("PORT", str(self.ports[name]))
        write(place / "nginx/nginx.conf", conf.encode())
        write(place / "nginx/html/index.html", f"this is {name}\n".encode())
        for each in (HERE / "snippets").glob("*.conf"):
            text = each.read_text().replace("/run/mtls-sidecar/authz.sock", f"{place}/authz.sock")
            write(place / "nginx/snippets" / each.name, text.encode())

    def start(self) -> None:
        """Start all of it.  Raises SystemExit where it doesn't come up."""
        self.start_nats()
        for name in HOSTS:
            config = self.directory / name / "sidecar.yaml"
            self.processes.start(f"agent-{name}", SIDECAR, "fleet", "node", "--config", config)
            self.start_sidecar(name)
            nginx = self.directory / name / "nginx"
            self.processes.start(
                f"nginx-{name}",
                *(self.nginx, "-p", f"{nginx}/", "-c", "nginx.conf"),
                *("-e", "error.log", "-g", "daemon off;"),
            )
        config = self.publisher / "sidecar.yaml"
        self.processes.start("keeper", SIDECAR, "fleet", "keeper", "--config", config)
        if not wait_until(lambda: all(each.isdigit() for each in self.ask("bob").split()), 60):
            for log in self.directory.glob("*.log"):
                print(f"{log.name}: {log.read_text()}", file=sys.stderr)
            sys.exit("fleet-demo.sh: it did not start, see above")

    def start_nats(self) -> None:
        store = self.directory / "nats"
        self.processes.start(
            "nats",
            *(SCRIPTS / "nats-server", "-js", "-sd", store),
            *("-a", "127.0.0.1", "-p", str(self.nats_port)),
        )

    def start_sidecar(self, name: str) -> None:
        config = self.directory / name / "sidecar.yaml"
        self.processes.start(f"sidecar-{name}", SIDECAR, "serve", "--config", config)

    # -- asking

    def get(self, who: str, host: str) -> str:
        """The status of one request to a host's nginx.  Raises OSError."""
        context = ssl.create_default_context(cafile=str(self.directory / "server-ca.crt"))
        context.load_cert_chain(self.directory / f"{who}.pem")
        connection = http.client.HTTPSConnection(
            "localhost", self.ports[host], timeout=10, context=context
        )
        try:
            connection.request("GET", "/")
            return str(connection.getresponse().status)
        finally:
            connection.close()

    def ask(self, who: str) -> str:
        """The status on every host."""
        found = []
        for host in HOSTS:
            try:
                found.append(self.get(who, host))
            except OSError as error:
                found.append(type(error).__name__)
        return " ".join(found)

    def becomes(self, who: str, expected: str) -> str:
        """Wait until every host says so; what they say in the end."""
        wait_until(lambda: self.ask(who) == expected, 20)
        return self.ask(who)

    @staticmethod
    def run(command: str) -> str:
        """Run a line as typed; what it prints.  Raises CalledProcessError."""
        return subprocess.run(
            ["sh", "-c", command], capture_output=True, text=True, check=True, timeout=120
        ).stdout

    # -- lines to try

    def fleet(self, command: str) -> str:
        config = f"--config {self.publisher}/sidecar.yaml"
        return f"{shlex.quote(str(SIDECAR))} fleet {command} {config}"

    def curl(self, who: str) -> str:
        """One line that asks every host."""
        port = "{" + ",".join(map(str, self.ports.values())) + "}"
        files = f"--cacert {self.directory}/server-ca.crt --cert {self.directory}/{who}.pem"
        return f"curl -s -o /dev/null -w '%{{http_code}} ' {files} 'https://localhost:{port}/'"

    def line(
        self, shows: str, typed: str, expected: str, who: str, before: Callable[[], object]
    ) -> Line:
        """A command, and what every host then says to somebody."""

        def seen() -> str:
            before()
            return self.becomes(who, expected)

        return Line(shows, typed, expected, seen)

    def typed(self, shows: str, typed: str, expected: str, who: str) -> Line:
        return self.line(shows, typed, expected, who, lambda: self.run(typed))

    def lines(self) -> Iterator[Line]:
        """In this order: what each does, the next ones see."""
        publish = self.fleet(f"publish {self.release} --wait")
        yield self.typed("publish: alice is let in everywhere", publish, "200 200 200", "alice")
        yield self.typed("bob isn't", "true", "403 403 403", "bob")
        add = (
            f"sed -i 's/cn: \\[alice\\]/cn: [alice, bob]/' {self.release}/policy.yaml && {publish}"
        )
        yield self.typed("change the policy of every host", add, "200 200 200", "bob")
        revoke = self.fleet(f"revoke {self.directory}/alice.pem --wait")
        yield self.typed("revoke alice on every host", revoke, "403 403 403", "alice")
        kill = f"kill -9 {self.processes.running['nats'].pid}"
        yield self.line(
            "kill the server: every host goes on",
            kill,
            "200 200 200",
            "bob",
            lambda: self.processes.stop("nats", signal.SIGKILL),
        )
        yield self.line(
            "a sidecar that starts meanwhile has the policy and the revocation, too",
            f"# web1's sidecar is started anew; alice: {self.directory}/alice.pem",
            "403 403 403",
            "alice",
            self.restart_sidecar,
        )
        yield self.line(
            "start the server again, and take the revocation back",
            self.fleet("undo 3 --wait"),
            "200 200 200",
            "alice",
            self.undo,
        )
        yield Line(
            "every host has all of it in force",
            self.fleet("status"),
            "web1 4, web2 4, web3 4",
            self.status,
        )

    def restart_sidecar(self) -> None:
        self.processes.stop("sidecar-web1")
        self.start_sidecar("web1")

    def undo(self) -> None:
        self.start_nats()
        done = self.fleet("undo 3 --wait")
        if not wait_until(lambda: self.succeeds(done), 60):
            self.run(done)

    def succeeds(self, command: str) -> bool:
        try:
            self.run(command)
        except subprocess.CalledProcessError:
            return False
        return True

    def status(self) -> str:
        def told() -> str:
            nodes = json.loads(self.run(self.fleet("status --json") + " || true"))["nodes"]
            return ", ".join(f"{each['name']} {each['sequence']}" for each in nodes)

        wait_until(lambda: told() == "web1 4, web2 4, web3 4", 20)
        return told()


def check(demo: FleetDemo) -> int:
    """Run the lines; 1 where one went otherwise than expected."""
    wrong = 0
    for line in demo.lines():
        start = time.monotonic()
        try:
            seen = line.run()
        except (OSError, subprocess.SubprocessError) as error:
            seen = f"{type(error).__name__}: {error} {getattr(error, 'stderr', '')}"
        wrong += seen != line.expected
        verdict = "ok   " if seen == line.expected else "WRONG"
        print(f"{verdict} {line.shows} ({time.monotonic() - start:.1f} s)\n      $ {line.typed}")
        print(f"      expected: {line.expected:<24} seen: {seen}", flush=True)
    print(f"{wrong} of the lines above went wrong" if wrong else "all as expected")
    return 1 if wrong else 0


def show(demo: FleetDemo) -> int:
    """Print the lines to try, and wait for Ctrl-C."""
    for line in demo.lines():
        print(f"# {line.shows}: {line.expected}\n{line.typed}\n")
    for name, port in demo.ports.items():
        to = f"https://localhost:{port}/"
        print(
            f"curl --cacert {demo.directory}/server-ca.crt --cert {demo.directory}/alice.pem {to}"
        )
        print(f"    asks {name}")
    print("The lines above can be tried in another shell, in this order.  Ctrl-C ends it.")
    signal.pause()
    return 0


def main(arguments: list[str]) -> int:
    with ExitStack() as stack:
        directory = Path(tempfile.mkdtemp(prefix="mtls-sidecar-fleet-demo.", dir="/tmp"))
        stack.callback(shutil.rmtree, directory, ignore_errors=True)
        demo = FleetDemo(directory)
        stack.callback(demo.processes.stop_all)
        demo.make()
        demo.start()
        return check(demo) if arguments == ["--check"] else show(demo)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)

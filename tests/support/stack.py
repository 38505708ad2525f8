"""A real nginx, a real sidecar and an application behind, with the files of nginx-example/.

    with Stack(nginx_binary, tmp_path) as stack:
        alice = stack.people.alice
        assert stack.get("/admin/", cert=alice).status == 200
        stack.edit_policy(stack.policy.replace("alice", "bob"))
        with stack.connect(cert=alice) as connection:      # one TLS connection, kept alive
            assert connection.get("/admin/").status == 403

`sites` are files of nginx-example/: `nginx.conf`, or any number of `variants/NAME.conf`, each of
which then has ports of its own.  The examples' paths and ports are replaced by the test's (and by
`more`), and nothing else: see `adapt`.  `conf` is a whole nginx.conf instead, written like the
examples.
"""

from __future__ import annotations

import json
import re
import socket
import ssl
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cached_property
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import yaml
from daemon import UNMEASURED, Daemon
from https import Answer, Connection
from nginx import Nginx, free_port
from pki import CA, Leaf, now
from tools import NginxBinary

EXAMPLES = Path(__file__).resolve().parents[2] / "nginx-example"
HOST = "app.example.com"
APP_PORTS = (8080, 8000, 8081, 8096, 8123, 2283, 3000, 3001)
"""Where the examples' applications are."""

SERVER_NAMES = [HOST, "*.example.com", "*.customers.example.com", "localhost"]


# -- who is there


@dataclass
class People:
    """The authorities of the examples, and a certificate of each kind."""

    staff: CA = field(default_factory=lambda: CA("Example Staff CA"))
    partners: CA = field(default_factory=lambda: CA("Example Partners CA"))
    stranger: CA = field(default_factory=lambda: CA("Somebody Else's CA"))
    server: CA = field(default_factory=lambda: CA("Example Server CA"))
    root: CA = field(default_factory=lambda: CA("Example Root"))
    invited: CA = field(default_factory=lambda: CA("Example Invited CA"))

    @cached_property
    def issuing(self) -> CA:
        """Below `root`."""
        return CA("Example Issuing CA", issuer=self.root)

    @cached_property
    def alice(self) -> Leaf:
        return self.staff.issue("alice", dns=["alice.example.com"])

    @cached_property
    def bob(self) -> Leaf:
        return self.staff.issue("bob")

    @cached_property
    def acme(self) -> Leaf:
        """Staff's CA, for the host acme.customers.example.com."""
        return self.staff.issue("acme", dns=["acme.customers.example.com"])

    @cached_property
    def partner(self) -> Leaf:
        return self.partners.issue("shop")

    @cached_property
    def mallory(self) -> Leaf:
        """Alice by name, from a CA that nobody here knows."""
        return self.stranger.issue("alice")

    @cached_property
    def expired(self) -> Leaf:
        """Alice, until yesterday."""
        start = now() - timedelta(days=9)
        return self.staff.issue("alice", not_before=start, not_after=now() - timedelta(days=1))

    def write_policy_files(self, directory: Path) -> None:
        """What policy.yaml refers to."""
        pki = directory / "pki"
        pki.mkdir(parents=True, exist_ok=True)
        (pki / "staff-ca.crt").write_bytes(self.staff.pem)
        (pki / "partners-ca.crt").write_bytes(self.partners.pem)
        (pki / "invited-ca.crt").write_bytes(self.invited.pem)
        (pki / "staff.crl").write_bytes(self.staff.crl())
        (pki / "root.crt").write_bytes(self.root.pem)
        (pki / "issuing.crt").write_bytes(self.issuing.pem)
        (directory / "denylist.txt").write_text("# nobody yet\n")

    def write_nginx_files(self, directory: Path) -> None:
        """What nginx.conf refers to."""
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "client-cas.crt").write_bytes(
            self.staff.pem + self.partners.pem + self.invited.pem
        )
        server = self.server.server(*SERVER_NAMES)
        (directory / "server.crt").write_bytes(server.chain_pem)
        (directory / "server.key").write_bytes(server.key_pem)


# -- the application behind


class _App(BaseHTTPRequestHandler):
    """Answers any request with what it saw of it, as JSON; speaks enough WebSocket to greet."""

    protocol_version = "HTTP/1.1"
    server: _AppServer

    def _answer(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length).decode("latin-1")
        if self.headers.get("Upgrade", "").lower() == "websocket":
            return self._greet()
        saw = {
            "app": True,
            "method": self.command,
            "uri": self.path,
            "headers": [[name.lower(), value] for name, value in self.headers.items()],
            "body": body,
        }
        self._note()
        data = json.dumps(saw).encode()
        if page := self.server.pages.get(self.path):
            return self._page(page)
        status = re.match("/status/([1-5][0-9]{2})$", self.path)
        self.send_response(int(status[1]) if status else 200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)
        return None

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = do_OPTIONS = do_PATCH = do_TRACE = _answer

    def _greet(self) -> None:
        who = self.headers.get("X-Client-CN", "nobody").encode()
        self._note()
        self.send_response(101)
        self.send_header("Upgrade", "websocket")
        self.send_header("Connection", "Upgrade")
        self.end_headers()
        self.wfile.write(bytes([0x81, len(who)]) + who)  # RFC 6455, 5.2: one text frame
        self.close_connection = True

    def _page(self, page: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(page)))
        self.end_headers()
        self.wfile.write(page)

    def _note(self) -> None:
        self.server.seen.append(f"{self.command} {self.path}")

    def log_message(self, format: str, *args: object) -> None:
        pass


class _AppServer(ThreadingHTTPServer):
    """`seen` has the method and path of each request that reached the application; `pages` are
    HTML pages that it serves, by path."""

    daemon_threads = True

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.seen: list[str] = []
        self.pages: dict[str, bytes] = {}

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that goes away is no concern of a test."""


# -- the examples' files


def example(name: str) -> str:
    """A file of nginx-example/."""
    return (EXAMPLES / name).read_text()


def before_servers() -> str:
    """nginx.conf up to its first `server { }`: where a variant goes."""
    main = example("nginx.conf")
    return main[: main.index("    server {\n        listen")]


def policy_with(sites: Iterable[str]) -> str:
    """policy.yaml, with what the headings of these variants say goes into it."""
    policy = yaml.safe_load(example("policy.yaml"))
    for site in sites:
        found = re.search(r"(?m)^# policy\.yaml:\n((?:#   .*\n)+)", example(site))
        more = yaml.safe_load(re.sub(r"(?m)^#   ", "", found[1])) if found else {}
        policy["trust"] |= more.get("trust", {})
        policy["locations"] += more.get("locations", [])
    if policy == yaml.safe_load(example("policy.yaml")):
        return example("policy.yaml")
    return str(yaml.safe_dump(policy, sort_keys=False))


def adapt(text: str, replacements: Mapping[str, str]) -> str:
    """An example with the test's paths and ports; the only changes that are made to it."""
    text = re.sub(r"(?m)^(user|pid|error_log|\s*access_log) (?!off|/dev/null).*\n", "", text)
    for old, new in replacements.items():
        text = re.sub(rf"(?<![\w.]){re.escape(old)}" + r"(?!\w)" * old[-1].isalnum(), new, text)
    return text


# -- the whole


class Stack:
    """nginx, sidecar, application.  `sites` and `policy` default to the main example's."""

    def __init__(
        self,
        binary: NginxBinary,
        directory: Path,
        *,
        sites: Sequence[str] = ("nginx.conf",),
        conf: str | None = None,
        policy: str | None = None,
        settings: str = "",
        people: People | None = None,
        more: Mapping[str, str] | None = None,
    ) -> None:
        self.directory, self.people = directory, people or People()
        self._more = dict(more or {})
        self.app = _AppServer(("127.0.0.1", 0), _App)
        self.ports = {site: free_port() for site in sites}
        self.plain_ports = {site: free_port() for site in sites}
        self.daemon = Daemon(_made(directory / "sidecar"), policy or policy_with(sites), settings)
        self.daemon.environ |= UNMEASURED
        self.people.write_policy_files(self.daemon.directory)
        etc = directory / "nginx"
        self.people.write_nginx_files(etc / "pki")
        self._install(etc)
        given = self.adapted(conf) if conf else self._conf(sites)
        self.nginx = Nginx(binary, given, etc)

    # -- setting up

    def replacements(self, site: str) -> dict[str, str]:
        """What of an example stands for something else here."""
        return {
            "/run/mtls-sidecar/authz.sock": str(self.daemon.socket),
            "/run/mtls-sidecar-enroll/enroll.sock": f"{self.directory}/enroll/enroll.sock",
            "/etc/nginx/": f"{self.directory}/nginx/",
            "/var/cache/nginx/": f"{self.directory}/cache-",
            "/var/cache/nginx-authz": f"{self.directory}/cache-authz",
            "set_real_ip_from 192.0.2.1": "set_real_ip_from 127.0.0.1",
            **{f"127.0.0.1:{port}": f"127.0.0.1:{self.app.server_port}" for port in APP_PORTS},
            "listen 443": f"listen 127.0.0.1:{self.ports[site]}",
            "listen 80": f"listen 127.0.0.1:{self.plain_ports[site]}",
            **self._more,
        }

    def adapted(self, conf: str) -> str:
        """A whole nginx.conf, written like the examples, with the test's paths and ports."""
        return adapt(conf, self.replacements(next(iter(self.ports))))

    def _install(self, etc: Path) -> None:
        (etc / "snippets").mkdir(exist_ok=True)
        site = next(iter(self.ports))
        for each in (EXAMPLES / "snippets").iterdir():
            text = adapt(each.read_text(), self.replacements(site))
            (etc / "snippets" / each.name).write_text(text)

    def _conf(self, sites: Sequence[str]) -> str:
        texts = [adapt(example(site), self.replacements(site)) for site in sites]
        if "nginx.conf" in sites:
            return texts[0]
        around = adapt(before_servers(), self.replacements(sites[0]))
        return "\n".join([around, *texts, "}"])

    # -- life

    def __enter__(self) -> Self:
        threading.Thread(target=self.app.serve_forever, args=(0.05,), daemon=True).start()
        try:
            self.daemon.start()
            self.nginx.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        self.nginx.stop()
        self.daemon.stop()
        self.app.shutdown()
        self.app.server_close()

    # -- asking

    def connect(
        self,
        *,
        cert: Leaf | None = None,
        sni: str | bytes | None = HOST,
        site: str | None = None,
        session: ssl.SSLSession | None = None,
        alpn: Sequence[str] = (),
        port: int | None = None,
        context: ssl.SSLContext | None = None,
        source: str = "",
    ) -> Connection:
        """A TLS connection to a site (by default the first) with this certificate and SNI.

        `source` is the client's own address, such as 127.0.0.2.
        """
        context = context or self.context(cert)
        if alpn:
            context.set_alpn_protocols(list(alpn))
        port = port or self.ports[site or next(iter(self.ports))]
        plain = socket.create_connection(
            ("127.0.0.1", port), timeout=15, source_address=(source, 0) if source else None
        )
        try:
            stream = context.wrap_socket(plain, server_hostname=sni, session=session)
        except BaseException:
            plain.close()
            raise
        return Connection(stream, sni if isinstance(sni, str) else HOST)

    def context(self, cert: Leaf | None = None) -> ssl.SSLContext:
        """A client's TLS settings.  A session of one connection resumes only under the same."""
        context = ssl.create_default_context(cadata=self.people.server.pem.decode())
        context.check_hostname = False  # a test may well say a name that the server hasn't
        if cert is not None:
            context.load_cert_chain(*cert.write(self.directory / "clients" / cert.sha256[:16]))
        return context

    def get(
        self,
        path: str,
        *,
        cert: Leaf | None = None,
        host: str | None = None,
        sni: str | None = None,
        site: str | None = None,
        port: int | None = None,
        method: str = "GET",
        headers: Mapping[str, str] | Sequence[tuple[str, str]] = (),
        body: bytes = b"",
    ) -> Answer:
        """One request on a connection of its own.  `sni` is the host, unless it says another."""
        name = sni or host or HOST
        with self.connect(cert=cert, sni=name, site=site, port=port) as connection:
            return connection.get(
                path, host=host or name, method=method, headers=headers, body=body
            )

    # -- the sidecar

    @property
    def policy(self) -> str:
        return self.daemon.policy.read_text()

    def edit_policy(self, text: str, *, good: bool = True) -> None:
        """Save another policy and wait until the sidecar has taken it, or refused it."""
        result = "success" if good else "error"
        name = f'mtls_sidecar_policy_reloads_total{{result="{result}"}}'
        before = self.daemon.metric(name)
        self.daemon.write("policy.yaml", text)
        self.daemon.until(lambda: self.daemon.metric(name) > before)

    def metrics(self) -> str:
        return self.daemon.get("/metrics")[1]

    def decisions(self, location: str, reason: str) -> float:
        """How often this was decided."""
        decision = "allow" if reason in ("allowed", "public") else "deny"
        labels = f'decision="{decision}",location="{location}",reason="{reason}"'
        return self.daemon.metric(f"mtls_sidecar_decisions_total{{{labels}}}")

    @property
    def decision_log(self) -> str:
        return self.daemon.log.read_text()


def _made(directory: Path) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    return directory

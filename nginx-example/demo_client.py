"""The demo's client: python demo_client.py COMMAND ...

ports PORT          is PORT free?  Prints two more that are (for the application and the metrics)
wait DIR ...        until the demo answers
lines DIR ...       print the lines to try
check DIR ...       run them, print what was expected beside what was seen; 0 if all hold
where ... is PORT ADMIN_PORT MTLS_SIDECAR
"""

from __future__ import annotations

import html
import http.client
import shlex
import socket
import ssl
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlencode, urlsplit

from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    pkcs12,
)

PATIENCE = 15.0
APP, ACME, OTHER = (f"{name}.example.com" for name in ("app", "acme.customers", "other.customers"))


@dataclass
class Line:
    """One line to try: what it shows, what to type, what comes out."""

    shows: str
    typed: str
    expected: str
    run: Callable[[], str]


class Demo:
    """A running demo: its directory, its ports, its sidecar."""

    def __init__(self, directory: str, port: str, admin: str, sidecar: str) -> None:
        self.directory, self.port, self.sidecar = Path(directory), int(port), sidecar
        self.metrics_url = f"http://127.0.0.1:{admin}/metrics"
        self.policy = self.directory / "sidecar/policy.yaml"
        self.kept: dict[str, http.client.HTTPConnection] = {}

    # -- asking

    def connect(self, who: str, host: str) -> http.client.HTTPConnection:
        """What `curl --cert WHO.pem --resolve HOST:PORT:127.0.0.1` does.  Raises OSError."""
        context = ssl.create_default_context(cafile=str(self.directory / "server-ca.crt"))
        if who:
            context.load_cert_chain(self.directory / f"{who}.pem")
        connection = http.client.HTTPConnection(host, self.port, timeout=10)
        plain = socket.create_connection(("127.0.0.1", self.port), timeout=10)
        try:
            connection.sock = context.wrap_socket(plain, server_hostname=host)
        except BaseException:
            plain.close()
            raise
        return connection

    def get(self, who: str, host: str, path: str) -> str:
        connection = self.connect(who, host)
        try:
            return ask(connection, path)
        finally:
            connection.close()

    def get_kept(self, who: str, path: str) -> str:
        """The same, always on one connection, which must not be opened anew."""
        if who not in self.kept:
            self.kept[who] = self.connect(who, APP)
        connection = self.kept[who]
        return ask(connection, path) if connection.sock else "the connection was closed"

    def metrics(self) -> str:
        with urllib.request.urlopen(self.metrics_url, timeout=10) as answer:
            return str(answer.read(), "utf-8")

    # -- lines

    def curl(self, shows: str, who: str, host: str, path: str, expected: str) -> Line:
        cert = f" --cert {self.directory}/{who}.pem" if who else ""
        typed = f"curl -K {self.directory}/curlrc{cert} https://{host}:{self.port}{path}"
        return Line(shows, typed, expected, lambda: self.get(who, host, path))

    def lines(self) -> Iterator[Line]:
        """In this order: what each does to the policy, the next ones see."""
        yield self.curl("public: no certificate is needed", "", APP, "/public/", "200")
        yield self.curl("no certificate, no admin", "", APP, "/admin/", "401")
        yield self.curl("alice is on the list", "alice", APP, "/admin/", "200")
        yield self.curl("bob isn't", "bob", APP, "/admin/", "403")
        yield self.curl("but has a certificate that verifies", "bob", APP, "/", "200")
        yield self.curl("acme's certificate names acme's domain", "acme", ACME, "/", "200")
        yield self.curl("and no other", "acme", OTHER, "/", "403")
        yield self.curl("alice's doesn't", "alice", ACME, "/", "403")
        yield self.curl("partners have another CA", "partner", APP, "/partners/", "200")
        yield self.curl("which opens nothing else", "partner", APP, "/", "403")
        yield from self.edits()
        yield from self.revocation()
        yield from self.invitation()
        yield Line(
            "Prometheus sees it",
            f"curl -s {self.metrics_url} | grep decisions_total",
            "all there",
            self.see_metrics,
        )

    def edits(self) -> Iterator[Line]:
        policy = shlex.quote(str(self.policy))
        add = f"sed -i 's/cn: \\[alice,/cn: [alice, bob,/' {policy}"
        spoil = f"sed -i 's/^groups:/gruops:/' {policy}"
        mend = f"sed -i 's/^gruops:/groups:/' {policy}"
        yield Line(
            "edit the policy: bob is let in, nginx isn't reloaded",
            add,
            "403, then 200",
            lambda: self.turns("bob", "/admin/", add, "200", within=2),
        )
        yield Line(
            "spoil the policy: it is refused, the old one stays",
            spoil,
            "refused, 200",
            lambda: self.spoil(spoil),
        )
        yield Line(
            "what is wrong with it",
            f"{self.command('check')} {policy}",
            "exit 2, names the line",
            lambda: self.check_says_where(),
        )
        yield Line("mend it", mend, "200", lambda: self.mend(mend))

    def revocation(self) -> Iterator[Line]:
        certificate = f"{self.directory}/alice.pem"
        revoke = f"{self.command('revoke')} --reason 'laptop stolen' {certificate}"
        yield Line(
            "revoke alice: out within a second, on the connection she has",
            revoke,
            "200, then 403",
            lambda: self.turns("alice", "/admin/", revoke, "403", within=1),
        )

    def invitation(self) -> Iterator[Line]:
        enroll = f"--config {self.directory}/sidecar/enroll.yaml"
        invite = f"{shlex.quote(self.sidecar)} invite guest {enroll}"
        yield Line(
            "invite a guest: the link's page gives a certificate, once, which opens the site",
            invite,
            "401, 200, 410",
            lambda: self.redeem(invite),
        )
        yield Line(
            "who was invited, and which certificates there are",
            f"{shlex.quote(self.sidecar)} clients {enroll}",
            "guest/laptop",
            lambda: self.clients(enroll),
        )

    def redeem(self, invite: str) -> str:
        """Open a link as a browser does, take the file, and use what is in it."""
        before = self.get("", APP, "/")
        path = urlsplit(run(invite).stdout.split()[0]).path
        page = self.form(path)[1].decode()
        password = html.unescape(page.partition('id="password">')[2].partition("<")[0])
        fields = {"format": "p12", "device": "laptop"}
        status, file = self.form(path, fields)
        if status != 200:
            return f"the page answers {status}"
        key, cert, _ = pkcs12.load_key_and_certificates(file, password.encode())
        assert key is not None
        assert cert is not None
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        (self.directory / "guest.pem").write_bytes(cert.public_bytes(Encoding.PEM) + pem)
        return f"{before}, {self.get('guest', APP, '/')}, {self.form(path, fields)[0]}"

    def form(self, path: str, fields: dict[str, str] | None = None) -> tuple[int, bytes]:
        """Open a page, or send its form; status and body."""
        connection = self.connect("", "localhost")
        body = urlencode(fields) if fields else None
        headers = {"Origin": f"https://localhost:{self.port}", "Sec-Fetch-Site": "same-origin"}
        if body:
            headers["Content-Type"] = "application/x-www-form-urlencoded"
        try:
            connection.request("POST" if fields else "GET", path, body, headers)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def enrolment_listens(self) -> bool:
        """Whether its socket is there: nginx counts a client's requests, also those that fail."""
        return (self.directory / "sidecar" / "enroll.sock").exists()

    def clients(self, enroll: str) -> str:
        found = run(f"{shlex.quote(self.sidecar)} clients {enroll}").stdout
        return found.split()[0]

    def command(self, name: str) -> str:
        config = f"--config {self.directory}/sidecar/sidecar.yaml"
        return f"{shlex.quote(self.sidecar)} {name} {config}"

    # -- what is more than one request

    def turns(self, who: str, path: str, command: str, to: str, *, within: float) -> str:
        """Status before and after a command, on one connection that stays open."""
        before = self.get_kept(who, path)
        run(command)
        end = time.monotonic() + within
        while (after := self.get_kept(who, path)) != to and time.monotonic() < end:
            time.sleep(0.02)
        return f"{before}, then {after}"

    def spoil(self, command: str) -> str:
        refused = self.reloads("error")
        run(command)
        taken = wait_until(lambda: self.reloads("error") > refused)
        return f"{'refused' if taken else 'not seen'}, {self.get_kept('bob', '/admin/')}"

    def mend(self, command: str) -> str:
        """The policy is the one in force, so that there may be nothing to reload."""
        run(command)
        return self.get_kept("bob", "/admin/")

    def check_says_where(self) -> str:
        done = run(f"{self.command('check')} {shlex.quote(str(self.policy))}", fails=True)
        lines = self.policy.read_text().splitlines()
        where = f"{self.policy}:{lines.index('gruops:') + 1}:"
        return f"exit {done.returncode}, {'names' if where in done.stderr else 'not'} the line"

    def reloads(self, result: str) -> float:
        return value(self.metrics(), "policy_reloads_total", f'result="{result}"')

    def see_metrics(self) -> str:
        text = self.metrics()
        for labels in [
            ('decision="allow"', 'location="admin"', 'reason="allowed"'),
            ('decision="deny"', 'location="admin"', 'reason="no_certificate"'),
            ('decision="deny"', 'location="admin"', 'reason="revoked"'),
            ('decision="deny"', 'location="customers"', 'reason="host_mismatch"'),
        ]:
            if not value(text, "decisions_total", *labels):
                return f"no {','.join(labels)}"
        return "all there"


def ask(connection: http.client.HTTPConnection, path: str) -> str:
    connection.request("GET", path)
    answer = connection.getresponse()
    answer.read()
    return str(answer.status)


def run(command: str, *, fails: bool = False) -> subprocess.CompletedProcess[str]:
    """Run a line as typed.  Raises CalledProcessError, unless it is to fail."""
    return subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=not fails)


def value(text: str, name: str, *labels: str) -> float:
    """Of the first such line of the metrics; 0 if there is none."""
    for line in text.splitlines():
        if line.startswith(f"mtls_sidecar_{name}{{") and all(label in line for label in labels):
            return float(line.rpartition(" ")[2])
    return 0.0


def wait_until(holds: Callable[[], bool], seconds: float = PATIENCE) -> bool:
    end = time.monotonic() + seconds
    while True:
        try:
            if holds():
                return True
        except OSError:
            pass
        if time.monotonic() > end:
            return False
        time.sleep(0.05)


# -- commands


def ports(port: str) -> int:
    """Two ports that are free, if the wanted one is."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", int(port)))
            probe.listen()
        except (OSError, OverflowError) as error:
            why = getattr(error, "strerror", None) or str(error)
            print(f"demo.sh: port {port}: {why}; choose another: --port N", file=sys.stderr)
            return 1
        with socket.socket() as one, socket.socket() as two:
            for each in (one, two):
                each.bind(("127.0.0.1", 0))
            print(one.getsockname()[1], two.getsockname()[1])
    return 0


def wait(demo: Demo) -> int:
    answers = wait_until(
        lambda: (
            demo.get("", APP, "/public/") == "200"
            and bool(demo.metrics())
            and demo.enrolment_listens()
            and demo.get("", APP, "/enroll/") == "404"
        )
    )
    return 0 if answers else 1


def lines(demo: Demo) -> int:
    for line in demo.lines():
        print(f"# {line.shows}: {line.expected}\n{line.typed}\n")
    return 0


def check(demo: Demo) -> int:
    wrong = 0
    for line in demo.lines():
        try:
            seen = line.run()
        except (OSError, http.client.HTTPException, subprocess.CalledProcessError) as error:
            seen = f"{type(error).__name__}: {error}"
        good = seen == line.expected
        wrong += not good
        verdict = "ok   " if good else "WRONG"
        print(f"{verdict} {line.shows}\n      $ {line.typed}")
        print(f"      expected: {line.expected:<24} seen: {seen}", flush=True)
    print(f"{wrong} of the lines above went wrong" if wrong else "all as expected")
    return 1 if wrong else 0


if __name__ == "__main__":
    command, *rest = sys.argv[1:]
    if command == "ports":
        sys.exit(ports(*rest))
    sys.exit({"wait": wait, "lines": lines, "check": check}[command](Demo(*rest)))

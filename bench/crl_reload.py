"""A CRL of a million entries: load time, memory, and decisions while it is read anew."""

from __future__ import annotations

import os
import re
import tempfile
import threading
import time
from pathlib import Path

from daemon import Daemon
from work import Work

SUCCESS = 'mtls_sidecar_policy_reloads_total{result="success"}'
HERE = Path(__file__).resolve().parent


def latencies(daemon: Daemon, done: threading.Event) -> list[float]:
    """Microseconds of one decision after another on one connection, until `done`."""
    found = []
    with daemon.client() as client:
        while not done.is_set():
            start = time.perf_counter()
            client.ask("site")
            found.append((time.perf_counter() - start) * 1e6)
            time.sleep(0.0002)
    return sorted(found)


def quantiles(values: list[float]) -> str:
    marks = [values[min(int(len(values) * q), len(values) - 1)] for q in (0.5, 0.99, 0.999, 1)]
    return " | ".join(f"{mark:,.0f}" for mark in marks)


def rss(daemon: Daemon) -> float:
    assert daemon.process is not None
    found = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{daemon.process.pid}/status").read_text())
    assert found
    return int(found[1]) / 1024


def main() -> None:
    """Measure and append to the results."""
    work = Work(locations=1, names=10, revoked=1_000_000)
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        work.write(directory)
        policy = (directory / "policy.yaml").read_text().replace("name: l0", "name: site")
        daemon = Daemon(directory, policy, "decision_log: off\n")
        start = time.monotonic()
        daemon.start(wait=False)
        daemon.until(lambda: daemon.status("/readyz") == 200, 120)
        loaded = time.monotonic() - start
        memory = rss(daemon)
        quiet_end = threading.Event()
        threading.Timer(5, quiet_end.set).start()
        quiet = latencies(daemon, quiet_end)
        before, reloaded = daemon.metric(SUCCESS), threading.Event()

        def reload() -> None:
            os.utime(directory / "crl.der")
            daemon.until(lambda: daemon.metric(SUCCESS) > before, 120)
            reloaded.set()

        start = time.monotonic()
        threading.Thread(target=reload).start()
        busy = latencies(daemon, reloaded)
        took = time.monotonic() - start
        after = rss(daemon)
        daemon.stop()
    text = (
        "\n## A CRL of 1,000,000 entries\n\n"
        f"Start to ready {loaded:.1f} s; a reload takes {took:.1f} s, in a process of its own, with\n"
        f"decisions going on; resident memory {memory:.0f} MiB after start, {after:.0f} MiB after\n"
        "the reload.\n\n"
        "| decisions, µs over the socket | p50 | p99 | p99.9 | most |\n"
        "| --- | --- | --- | --- | --- |\n"
        f"| quiet | {quantiles(quiet)} |\n| during the reload | {quantiles(busy)} |\n"
    )
    print(text)
    with (HERE / "results.md").open("a") as file:
        file.write(text)


if __name__ == "__main__":
    main()

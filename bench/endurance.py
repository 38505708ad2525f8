"""Does the daemon stay as it was?  Millions of decisions, certificates that come and go, reloads.

    PYTHONPATH=.:tests/support .venv/bin/python bench/endurance.py [DECISIONS] [--seconds N]

By default 10 million.  Prints, every so often and at the end beside the start: memory, descriptors,
CPU of the daemon per decision and latency.  Every answer is compared with what it has to be; exit 1
where one was wrong or missing.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from daemon import Daemon, question
from pki import CA, Leaf

ACTIVE = 300
"""Certificates in use at a time; a new one takes an old one's place all the time."""

CONNECTIONS = 16
PER_CERTIFICATE = 400
"""Decisions between two new certificates."""

PER_RELOAD = 20_000
"""Decisions between two changes of a file."""

PROBES = 2000

POLICY = """\
version: 1
trust: {{staff: {{ca: ca.crt, crl: [staff.crl], denylist: [list.txt]}}}}
locations:
  - {{name: site, allow: verified}}
  - {{name: admin, allow: [{{cn: "admin-*"}}, {{cn: edit{edit}}}]}}
  - {{name: open, allow: public}}
"""


@dataclass(frozen=True)
class Sample:
    """How the daemon stands."""

    decisions: int
    rss: float
    descriptors: int
    micros: float
    median: float
    p99: float

    def __str__(self) -> str:
        return (
            f"{self.decisions:>10,} {self.rss:>8.1f} {self.descriptors:>12} "
            f"{self.micros:>8.1f} {self.median:>8.0f} {self.p99:>8.0f}"
        )


HEAD = f"{'decisions':>10} {'RSS MiB':>8} {'descriptors':>12} {'CPU µs':>8} {'p50 µs':>8} {'p99 µs':>8}"


class Run:
    """One daemon and what it is asked."""

    def __init__(self, directory: Path) -> None:
        self.ca, self.stranger = CA("Staff"), CA("Stranger")
        self.key = self.ca.issue("key").private
        self.serial = 0
        self.revoked: list[Leaf] = []
        self.active = [self.issue() for _ in range(ACTIVE)]
        self.asked, self.wrong, self.edits = 0, 0, 0
        log = directory / "decisions.log"
        log.symlink_to(os.devnull)  # every line is made, and none kept
        self.daemon = Daemon(
            directory,
            POLICY.format(edit=0),
            f"decision_log_file: {log}\n",
            ca_crt=self.ca.pem,
            staff_crl=self.ca.crl(),
            list_txt=b"",
        )

    def issue(self) -> Leaf:
        self.serial += 1
        return self.ca.issue(f"user{self.serial}", key=self.key)

    def connect(self) -> None:
        self.clients = [self.daemon.client() for _ in range(CONNECTIONS)]

    def disconnect(self) -> None:
        for client in self.clients:
            client.socket.close()

    def ask(self, pairs: list[tuple[bytes, int]]) -> None:
        """Questions, one on each connection at a time, and the status that each must have."""
        for start in range(0, len(pairs), CONNECTIONS):
            part = pairs[start : start + CONNECTIONS]
            for client, (data, _) in zip(self.clients, part, strict=False):
                client.send(data)
            for client, (_, expected) in zip(self.clients, part, strict=False):
                answer = client.receive()
                self.wrong += answer is None or answer.status != expected
        self.asked += len(pairs)

    def batch(self) -> list[tuple[bytes, int]]:
        """About `PER_CERTIFICATE` questions: known clients, a new one, strangers, a revoked one."""
        new = self.issue()
        self.active[self.serial % ACTIVE] = new
        pairs = []
        for i in range(PER_CERTIFICATE):
            leaf = self.active[(self.asked + i) * 7919 % ACTIVE]
            name, expected = (("site", 204), ("admin", 403), ("open", 204))[i % 16 % 3]
            headers = {"X-Request-ID": f"{self.asked + i:032x}", "X-Original-URI": f"/{i}"}
            pairs.append((question(name, leaf, headers), expected))
        foreign = self.stranger.issue("user1", key=self.key)
        pairs += [(question("site", foreign), 403), (question("site"), 401)]
        pairs += [(question("site", leaf), 403) for leaf in self.revoked[-2:]]
        return pairs

    def reload(self) -> None:
        """Change a file: policy, CRL, denylist, or a policy with a mistake, in turn."""
        self.edits += 1
        kind = self.edits % 4
        if kind == 0:
            self.daemon.write("policy.yaml", POLICY.format(edit=self.edits))
        elif kind == 1:
            self.revoked.append(self.issue())
            self.daemon.write("list.txt", f"sha256 {self.revoked[-1].sha256}\n")
            with self.daemon.client() as client:
                self.daemon.until(lambda: client.ask("site", self.revoked[-1]).status == 403, 30)
            self.revoked = self.revoked[-1:]
        elif kind == 2:
            self.daemon.write("staff.crl", self.ca.crl(number=1 + self.edits))
        else:
            self.daemon.write("policy.yaml", POLICY.format(edit=self.edits) + "mistake: 1\n")
        self.disconnect()
        self.connect()

    def sample(self, cpu: float) -> Sample:
        """Measure latency one by one, and read what the kernel says."""
        assert self.daemon.process is not None
        took = []
        data = question("site", self.active[0])
        with self.daemon.client() as client:
            for _ in range(PROBES):
                start = time.perf_counter()
                client.send(data)
                client.receive()
                took.append((time.perf_counter() - start) * 1e6)
        took.sort()
        descriptors = len(list(Path(f"/proc/{self.daemon.process.pid}/fd").iterdir()))
        rss = self.daemon.rss() / 2**20
        middle, p99 = statistics.median(took), took[int(len(took) * 0.99)]
        return Sample(self.asked, rss, descriptors, cpu, middle, p99)

    def cpu(self) -> float:
        """Seconds of CPU that the daemon has had."""
        assert self.daemon.process is not None
        fields = (
            Path(f"/proc/{self.daemon.process.pid}/stat").read_text().rpartition(")")[2].split()
        )
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def endure(run: Run, decisions: int, seconds: float) -> list[Sample]:
    """Ask until the number or the time is up; a sample every 20th of it."""
    end = time.monotonic() + seconds
    samples: list[Sample] = []
    step = max(PER_RELOAD, min(decisions // 20, 500_000))
    with run.daemon:
        run.connect()
        print(HEAD)
        while run.asked < decisions and time.monotonic() < end:
            before, asked = run.cpu(), run.asked
            spent = 0.0  # CPU of the daemon while it was asked, reloads and probes left out
            while run.asked < asked + step and time.monotonic() < end:
                until = run.asked + PER_RELOAD
                before = run.cpu()
                while run.asked < until:
                    run.ask(run.batch())
                spent += run.cpu() - before
                run.reload()
            samples.append(run.sample(spent / max(1, run.asked - asked) * 1e6))
            print(samples[-1], flush=True)
        run.disconnect()
    return samples


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("decisions", nargs="?", type=int, default=10_000_000)
    parser.add_argument("--seconds", type=float, default=86_400.0, help="at most so long")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        run = Run(Path(name))
        samples = endure(run, options.decisions, options.seconds)
    print(f"\nstart and end\n{HEAD}\n{samples[0]}\n{samples[-1]}")
    print(f"{run.serial:,} certificates, {run.edits} changes of files, {run.wrong} wrong answers")
    return 1 if run.wrong else 0


if __name__ == "__main__":
    sys.exit(main())

"""How cost grows: rules, locations, clients, revoked.  Each size in a process of its own.

Measures, without sockets: seconds to compile, MiB of memory, microseconds of CPU for a decision
about a certificate never seen before, and for one that is remembered.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from pki import CA
from work import Work

HERE = Path(__file__).resolve().parent
AXES = {
    "rules": [1, 10, 100, 1_000, 10_000, 100_000],
    "locations": [1, 10, 100, 1_000, 10_000],
    "clients": [1, 10, 100, 1_000, 10_000, 100_000],
    "revoked": [1, 1_000, 10_000, 100_000, 1_000_000],
}
SHOWN = ("compile s", "MiB", "new µs", "remembered µs")
Row = dict[str, float]


def policy(axis: str, size: int, directory: Path, work: Work) -> str:
    """A policy with so much of one thing and little of the others."""
    work.revoked = size if axis == "revoked" else 0
    (directory / "ca.crt").write_bytes(work.ca.pem)
    crl = ""
    if work.revoked:
        (directory / "crl.der").write_bytes(work.crl)
        crl = ", crl: [crl.der]"
    rules = size if axis == "rules" else 10
    places = size if axis == "locations" else 1
    lines = ["version: 1", f"trust: {{bench: {{ca: ca.crt{crl}}}}}", "groups:", "  all:"]
    lines += [f"    - {{cn: user{i}}}" for i in range(rules)]
    lines += ["    - {cn: user*}", "locations:"]
    lines += [f"  - {{name: l{i}, allow: [all], location: /l{i}/}}" for i in range(places)]
    return "\n".join(lines) + "\n"


def one(axis: str, size: int) -> Row:
    """Measure one size, in this process."""
    from sidecar.authorizer.decision_cache import Engine
    from sidecar.core.policy.compile import compile_policy
    from sidecar.core.request import assemble_request
    from sidecar.runtime.direct_sources import DirectSources

    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        work = Work(ca=CA("Bench"))
        text = policy(axis, size, directory, work).encode()
        before, start = memory(), time.process_time()
        sources = DirectSources(directory, directory)
        engine = Engine(compile_policy(text, "policy.yaml", sources), entries=4096, answers={})
        compiled = time.process_time() - start
        key = work.ca.issue("user0").private
        some = [
            work.ca.issue(f"user{i}", key=key).escaped
            for i in range(min(size if axis == "clients" else 300, 3000))
        ]
        asked = [
            assemble_request("l0", {"verify": b"SUCCESS", "cert": c, "host": b"a", "uri": b"/l0/"})
            for c in some
        ]
        start = time.process_time()
        for request in asked:
            assert engine.decide(request).decision.allowed
        new = (time.process_time() - start) / len(asked)
        turns = max(1, 20_000 // len(asked))
        start = time.process_time()
        for _ in range(turns):
            for request in asked:
                engine.decide(request)
        again = (time.process_time() - start) / len(asked) / turns
        if axis == "clients" and size > len(asked):  # a working set beyond the memory: as if new
            again = new
        return {
            "compile s": compiled,
            "MiB": memory() - before,
            "new µs": new * 1e6,
            "remembered µs": again * 1e6,
        }


def memory() -> float:
    """Resident memory in MiB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 2**20


def main() -> None:
    """Measure every size and draw the plots."""
    (HERE / "plots").mkdir(exist_ok=True)
    found: dict[str, dict[int, Row]] = {}
    for axis, sizes in AXES.items():
        found[axis] = {}
        for size in sizes:
            done = subprocess.run(
                [sys.executable, __file__, axis, str(size)],
                capture_output=True,
                text=True,
                check=True,
            )
            found[axis][size] = json.loads(done.stdout)
            print(axis, size, {k: round(v, 2) for k, v in found[axis][size].items()}, flush=True)
        (HERE / "plots" / f"{axis}.svg").write_text(plot(axis, found[axis]))
    (HERE / "growth.json").write_text(json.dumps(found, indent=1))
    with (HERE / "results.md").open("a") as file:
        file.write(tables(found))


def tables(found: dict[str, dict[int, Row]]) -> str:
    lines = ["", "## How cost grows", ""]
    for axis, rows in found.items():
        lines += [f"| {axis} | {' | '.join(SHOWN)} |", "| --- " * 5 + "|"]
        lines += [
            f"| {size:,} | {' | '.join(f'{row[name]:,.2f}' for name in SHOWN)} |"
            for size, row in rows.items()
        ]
        lines.append("")
    return "\n".join(lines)


COLOURS = ("#1b6ca8", "#a83232", "#2e8b57", "#8a5a00")


def plot(axis: str, rows: dict[int, Row]) -> str:
    """Both scales logarithmic; a line for each measure."""
    width, height, edge = 640, 400, 60
    values = [max(row[name], 0.01) for row in rows.values() for name in SHOWN]
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    last = math.log10(max(rows)) or 1

    def x(size: float) -> float:
        return edge + (width - 2 * edge) * math.log10(size) / last

    def y(value: float) -> float:
        part = (math.log10(max(value, 0.01)) - low) / ((high - low) or 1)
        return height - edge - (height - 2 * edge) * part

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        'font-family="sans-serif" font-size="12"><rect width="100%" height="100%" fill="#fff"/>'
    ]
    for power in range(low, high + 1):
        at = f"{y(10**power):.1f}"
        parts += [
            f'<line x1="{edge}" x2="{width - edge}" y1="{at}" y2="{at}" stroke="#ddd"/>',
            f'<text x="{edge - 8}" y="{at}" text-anchor="end">{10**power:g}</text>',
        ]
    low_edge = height - edge + 18
    parts += [
        f'<text x="{x(size):.1f}" y="{low_edge}" text-anchor="middle">{size:,}</text>'
        for size in rows
    ]
    for position, (name, colour) in enumerate(zip(SHOWN, COLOURS, strict=True)):
        points = " ".join(f"{x(size):.1f},{y(row[name]):.1f}" for size, row in rows.items())
        parts.append(
            f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>'
        )
        parts.append(f'<text x="{edge + position * 130}" y="24" fill="{colour}">{name}</text>')
    parts.append(
        f'<text x="{width / 2}" y="{height - 12}" text-anchor="middle">{axis}</text></svg>'
    )
    return "\n".join(parts)


if __name__ == "__main__":
    if len(sys.argv) == 3:
        print(json.dumps(one(sys.argv[1], int(sys.argv[2]))))
    else:
        main()

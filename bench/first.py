"""What comes once: a certificate never seen before, and the start."""

from __future__ import annotations

import gc
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from daemon import question
from pki import CA, Leaf
from work import Work

ROOT = Path(__file__).resolve().parent.parent
CERTIFICATES = 400
SMALL = "version: 1\nlocations:\n  - {name: l0, allow: [{cn: user0}]}\n"


def new_certificate(kind: str) -> tuple[float, float]:
    """Microseconds of CPU for a decision, and for OpenSSL's check of its signature alone."""
    from sidecar.authorizer.decision_cache import Engine
    from sidecar.core.policy.compile import compile_policy
    from sidecar.core.request import assemble_request
    from sidecar.runtime.direct_sources import DirectSources

    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        work = Work(ca=CA("Bench", key="rsa" if kind == "rsa" else "ec"))
        work.write(place)
        text = (place / "policy.yaml").read_bytes()
        policy = compile_policy(text, "policy.yaml", DirectSources(place, place))
        engine = Engine(policy, entries=4096, answers={})
        private = work.ca.issue("user0").private
        leaves = [
            work.ca.issue(f"user{i}", dns=[f"user{i}.example.com"], key=private)
            for i in range(3 * CERTIFICATES)
        ]
    asked = [
        assemble_request("l0", {"verify": b"SUCCESS", "cert": leaf.escaped, "host": b"a"})
        for leaf in leaves
    ]
    gc.disable()  # as in the daemon, where hundreds of requests lie between two collections
    decided = each([partial(engine.decide, request) for request in asked])
    verified = each(list(map(checking(work.ca), leaves)))
    gc.enable()
    return decided, verified


def checking(ca: CA) -> Callable[[Leaf], Callable[[], None]]:
    """What makes of a certificate OpenSSL's check of its signature, ready to be timed."""
    key = ca.cert.public_key()

    def check(leaf: Leaf) -> Callable[[], None]:
        signature, signed = leaf.cert.signature, leaf.cert.tbs_certificate_bytes
        if isinstance(key, rsa.RSAPublicKey):
            return partial(key.verify, signature, signed, padding.PKCS1v15(), hashes.SHA256())
        assert isinstance(key, ec.EllipticCurvePublicKey)
        return partial(key.verify, signature, signed, ec.ECDSA(hashes.SHA256()))

    return check


def each(tasks: Sequence[Callable[[], object]]) -> float:
    """Microseconds of CPU for one of them: the median of three turns."""
    turns = []
    for at in range(0, len(tasks), CERTIFICATES):
        start = time.process_time()
        for task in tasks[at : at + CERTIFICATES]:
            task()
        turns.append((time.process_time() - start) / CERTIFICATES * 1e6)
    return statistics.median(turns)


def start(work: Work, policy: str | None) -> tuple[float, float]:
    """Seconds from exec to the first decision (median of seven), and MiB resident after it."""
    seconds, memory = [], 0.0
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        work.write(place)
        if policy is not None:
            (place / "policy.yaml").write_text(policy)
        (place / "sidecar.yaml").write_text(
            f"listen: unix:{place}/authz.sock\nadmin: unix:{place}/admin.sock\n"
            f"policy: {place}/policy.yaml\nstate_dir: {place}\ndecision_log: off\n"
        )
        for _ in range(7):
            begun = time.perf_counter()
            process = subprocess.Popen(
                [sys.executable, "-m", "sidecar", "serve", "--config", f"{place}/sidecar.yaml"],
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                stderr=subprocess.DEVNULL,
            )
            answer = first_answer(place / "authz.sock", question("l0", work.allowed[0]))
            seconds.append(time.perf_counter() - begun)
            assert b" 204 " in answer.partition(b"\r\n")[0], answer
            time.sleep(0.5)  # the admin listener is loaded behind it
            status = Path(f"/proc/{process.pid}/status").read_text()
            memory = int(status.partition("VmRSS:")[2].split()[0]) / 1024
            process.terminate()
            process.wait(20)
    return statistics.median(seconds), memory


def first_answer(path: Path, request: bytes) -> bytes:
    """Connect as soon as that is possible, and ask."""
    while True:
        with socket.socket(socket.AF_UNIX) as peer:
            try:
                peer.connect(str(path))
            except OSError:
                time.sleep(0.001)
                continue
            peer.sendall(request)
            return peer.recv(4096)


def measure(work: Work) -> str:
    """The table."""
    rows = ["", "## Once", "", "| | measured |", "| --- | --- |"]
    for kind, label in (("rsa", "RSA 2048"), ("ec", "P-256")):
        done = subprocess.run(
            [sys.executable, __file__, kind], capture_output=True, text=True, check=True
        )
        decided, verified = json.loads(done.stdout)
        rows.append(
            f"| a certificate never seen before, signed by {label} | {decided:.0f} µs of CPU, of "
            f"which OpenSSL's check of the signature is {verified:.0f} |"
        )
    large, small = start(work, None), start(work, SMALL)
    rows.append(f"| start to first decision, the policy above | {large[0]:.2f} s |")
    rows.append(f"| the same, a small policy | {small[0]:.2f} s |")
    rows.append(f"| resident, the policy above | {large[1]:.0f} MiB |")
    rows.append(f"| resident, a small policy | {small[1]:.0f} MiB |")
    return "\n".join(rows) + "\n"


if __name__ == "__main__":
    print(json.dumps(new_certificate(sys.argv[1])))

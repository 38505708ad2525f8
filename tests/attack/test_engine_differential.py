"""The engine with all that it remembers, against a fresh decision of each request.

Connections, repeated requests, remembered decisions and OCSP answers on one side; `evaluate` and
`render` with nothing remembered on the other.  Random policies, requests, reloads, answers that
arrive, turn and end, and a clock that steps both ways.  `MTLS_SIDECAR_ENGINE_SECONDS=600` makes it
ten minutes long, `MTLS_SIDECAR_ENGINE_SEED` repeats a run.
"""

from __future__ import annotations

import os
import random
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

import asking
import ocsp_pki
from daemon import question
from fuzz_targets import Transport, silent
from pki import CA

from sidecar.authorizer.connection import Connection, Service
from sidecar.authorizer.decision_cache import Engine
from sidecar.authorizer.ocsp_answers import OcspAnswers, StoredResponse
from sidecar.authorizer.ocsp_queue import OcspClient
from sidecar.authorizer.request_head import read_head
from sidecar.core.answer import render
from sidecar.core.config.settings import Limits
from sidecar.core.evaluate import evaluate
from sidecar.core.policy.model import Policy

SECONDS = float(os.environ.get("MTLS_SIDECAR_ENGINE_SECONDS", "20"))
NOW = float(int(time.time()))
TOLERANCE = 5

staff, partner = CA("Staff"), CA("Partner")
DELEGATE = staff.issue("responder", eku=[ocsp_pki.OCSP_SIGNING])


def at(offset: float) -> datetime:
    return datetime.fromtimestamp(NOW + offset, UTC)


LEAVES = [
    staff.issue("alice", dns=["app.example.com"]),
    staff.issue("bob", not_before=at(-20), not_after=at(60)),
    staff.issue("carol", not_before=at(10)),
    partner.issue("alice", dns=["app.example.com"]),
    CA("Nobody").issue("alice"),
]


def stamp(offset: float) -> str:
    return f"{at(offset):%Y-%m-%dT%H:%M:%SZ}"


@dataclass
class World:
    """One seed's policy, clock and answers, with the daemon's engine over them."""

    rng: random.Random
    now: float = NOW
    policies: int = 0
    asked: int = 0
    kinds: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.answers = OcspAnswers(
            OcspClient(Path("/nowhere")),
            clock=lambda: self.now,
            changed=lambda _: self.service.engine.forget(),
        )
        self.service = Service(self.engine(), silent(), Limits())
        self.connection, self.transport = self.connect()

    def connect(self) -> tuple[Connection, Transport]:
        connection, transport = Connection(self.service), Transport()
        connection.connection_made(transport)  # type: ignore[arg-type]  # one in all but name
        return connection, transport

    def engine(self) -> Engine:
        self.policies += 1
        entries = self.rng.choice((0, 4, 64, 4096))
        policy = self.policy()
        return Engine(policy, entries=entries, answers=self.answers, clock=lambda: self.now)

    # -- what may happen

    def policy(self) -> Policy:
        rng = self.rng
        turn = f"{rng.choice(('from', 'until'))}: {stamp(rng.randrange(-30, 60))}"
        rules = [
            "{cn: alice}", "{cn: [alice, bob], " + turn + "}", "{dns: app.example.com}",
            "{cn: bob}", "{cn: carol, client_ip: 192.0.2.0/24}", "{cn: alice, method: GET}",
        ]  # fmt: skip
        lines = []
        for name in ("site", "dark", "host"):
            allow = rng.choice(("verified", f"[{', '.join(rng.sample(rules, 2))}]"))
            deny = f", deny: [{rng.choice(rules)}]" if rng.random() < 0.3 else ""
            more = rng.choice(("", ", cache_seconds: 30", ", mode: monitor"))
            more += ", san_matches_host: true" if name == "host" else ""
            lines.append(f"  - {{name: {name}, allow: {allow}{deny}{more}}}")
        lines.append(
            "  - {name: old, server_name: app.example.com, location: /old/, allow: verified}"
        )
        ocsp = rng.choice(("", f', ocsp: "http://r/", clock_tolerance: {TOLERANCE}'))
        mode = rng.choice(("off", "required", "best_effort"))
        crl = rng.choice(("", ", crl: [staff.crl]"))
        if mode == "off" or not (ocsp or crl):
            mode, ocsp, crl = "off", "", ""
        trusts = [f"staff: {{ca: staff.crt, denylist: [deny.txt], revocation: {mode}{ocsp}{crl}}}"]
        if rng.random() < 0.5:
            trusts.append("partner: {ca: partner.crt, revocation: off}")
        text = f"version: 1\ntrust: {{{', '.join(trusts)}}}\nlocations:\n" + "\n".join(lines) + "\n"
        files = {"staff.crt": staff.pem, "partner.crt": partner.pem, "deny.txt": self.denylist()}
        if crl:
            files["staff.crl"] = self.crl()
        return asking.policy(text, **{name.replace(".", "_"): data for name, data in files.items()})

    def denylist(self) -> bytes:
        lines = [
            f"sha256 {leaf.sha256} until {stamp(self.rng.randrange(-30, 60))}\n"
            for leaf in (*LEAVES, DELEGATE)
            if self.rng.random() < 0.15
        ]
        return "".join(lines).encode()

    def crl(self) -> bytes:
        start = self.rng.choice((-60, 0, 20))
        listed = [leaf for leaf in LEAVES if self.rng.random() < 0.15]
        end = at(start + self.rng.choice((30, 600)))
        return staff.crl(listed, this_update=at(start), next_update=end)

    def reload(self) -> None:
        self.service.engine = self.engine()

    def step(self) -> None:
        """The clock: mostly on, by fractions; at times a jump, either way."""
        near = self.rng.choice((0.0, 0.001, 0.5, 1.0, 3.0))
        far = self.rng.choice((-86_400.0, -40.0, -10.0, -1.0, -0.5, 10.0, 40.0, 86_400.0))
        self.now += near if self.rng.random() < 0.8 else far
        if abs(self.now - NOW) > 200_000 or self.rng.random() < 0.05:
            self.now = NOW + self.rng.choice((-30.0, 0.0, 10.0, 59.5, 60.0, 60.5, 61.0))

    def answer(self) -> None:
        """An OCSP answer comes in, right at its time, and takes its place if it may."""
        leaf = self.rng.choice(LEAVES[:3])
        start, length, kind = (
            self.rng.randrange(-60, 60, 15),
            self.rng.choice((10, 60, 600)),
            self.rng.choice(("good", "good", "revoked")),
        )
        der = response(LEAVES.index(leaf), kind, start, length, self.rng.random() < 0.4)
        record = StoredResponse("staff", leaf.der, staff.der, der, self.now, "http://r/")
        self.kinds.add(f"answer taken: {self.answers.restore(record, TOLERANCE)}")

    def ask(self) -> None:
        rng = self.rng
        location = rng.choice(("site", "dark", "host", "old", None, "nowhere"))
        leaf = rng.choice((*LEAVES, None))
        headers = {
            "X-Original-URI": rng.choice(("/old/", "/new/", "/")),
            "X-Request-ID": f"{rng.randrange(1 << 64):032x}",
            "Host": rng.choice(("app.example.com", "b.example.com")),
        }
        if rng.random() < 0.2:
            headers["X-Real-IP"] = rng.choice(("203.0.113.1", "192.0.2.1"))
        if rng.random() < 0.1:
            headers["SSL-Client-Verify"] = rng.choice(("NONE", "FAILED:x", "SUCCESS"))
        data = question(location, leaf, headers)
        got, cached = split(self.told(data))
        expected, longest = split(self.fresh(data))
        assert got == expected, f"at {self.now - NOW}: {location} {leaf and leaf.name} {headers}"
        assert cached <= longest  # what was decided earlier may be kept for less, never for longer
        self.asked += 1
        self.kinds.add(re.search(rb"X-Auth-Reason: (\S+)", got)[1].decode())  # type: ignore[index]

    def told(self, data: bytes) -> bytes:
        if self.rng.random() < 0.05:
            self.connection.connection_lost(None)
            self.connection, self.transport = self.connect()
        self.transport.sent = b""
        cut = self.rng.randrange(1, len(data)) if self.rng.random() < 0.1 else 0
        for part in (data[:cut], data[cut:]) if cut else (data,):
            self.connection.data_received(part)
        return self.transport.sent

    def fresh(self, data: bytes) -> bytes:
        policy = self.service.engine.policy
        decision = evaluate(policy, read_head(data).request, self.now, self.answers)
        return render(decision, policy.hash, self.now) + b"\r\n"


def split(answer: bytes) -> tuple[bytes, int]:
    """An answer without `X-Accel-Expires`, and how many seconds that says."""
    found = re.search(rb"X-Accel-Expires: (\d+)", answer)
    return re.sub(rb"X-Accel-Expires: \d+", b"", answer), int(found[1]) if found else 0


@cache
def response(index: int, kind: str, start: float, length: int, delegated: bool) -> bytes:
    """An OCSP response that is right; `start` and `length` in seconds from `NOW`."""
    status = b"\x80\x00" if kind == "good" else b"\xa1\x11\x18\x0f20260101000000Z"
    start += NOW - time.time()
    one = ocsp_pki.single(
        LEAVES[index].cert, staff.cert, status=status, start=start, end=start + length
    )
    by = (DELEGATE.cert, DELEGATE.private) if delegated else (staff.cert, staff.key)
    signer = ocsp_pki.Pair(*by)  # type: ignore[arg-type]  # EC keys, both
    return ocsp_pki.craft(signer, [one], certs=[signer] if delegated else [], produced=start)


def runs() -> Iterator[int]:
    """Seeds, for as long as it is to go on."""
    given = os.environ.get("MTLS_SIDECAR_ENGINE_SEED")
    if given is not None:
        yield int(given)
        return
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        yield random.SystemRandom().randrange(1 << 32)


def test_what_is_remembered_changes_no_decision() -> None:
    """Each answer of the engine is the one of a fresh decision at that moment, byte by byte."""
    kinds: set[str] = set()
    asked = 0
    for seed in runs():
        print(f"MTLS_SIDECAR_ENGINE_SEED={seed}")
        world = World(random.Random(seed))
        happens = (world.ask, world.step, world.answer, world.reload)
        for _ in range(1500):
            world.rng.choices(happens, (70, 24, 5, 1))[0]()
        kinds |= world.kinds
        asked += world.asked
    print(f"{asked} answers: {', '.join(sorted(kinds))}")
    assert {"allowed", "revoked", "answer taken: True"} <= kinds

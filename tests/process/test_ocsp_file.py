"""OCSP answers across a restart, with nobody there to ask again."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable
from pathlib import Path

import ocsp_pki
import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from daemon import Daemon
from ocsp_stack import ALICE, AUTHORITY, BOB, GOOD, POLICY, REVOKED, beside

from sidecar.runtime.fetch_protocol import pack

NOBODY = "http://127.0.0.1:1/"
SETTINGS = "limits: {ocsp_timeout: 1}\n"


SINCE_JANUARY = b"\xa1\x11\x18\x0f20260101000000Z"
"""CertStatus: revoked."""


def again(directory: Path, policy: str = POLICY, pem: bytes = b"") -> Daemon:
    """The daemon with the state that another left, and neither fetcher nor responder."""
    pem = pem or AUTHORITY.cert.public_bytes(Encoding.PEM)
    return Daemon(directory, policy.format(NOBODY), SETTINGS, ca_pem=pem)


def kept(directory: Path) -> Path:
    return directory / "state" / "ocsp-answers.jsonl"


def line(der: bytes, cert: bytes = GOOD.der, **fields: object) -> str:
    """A line of the file."""
    found = {"trust": "staff", "at": time.time(), "cert": pack(cert), "response": pack(der)}
    return json.dumps({**found, "issuer": pack(AUTHORITY.der), **fields}) + "\n"


def good(**times: float) -> bytes:
    one = ocsp_pki.single(GOOD.cert, AUTHORITY.cert, **times)  # type: ignore[arg-type]  # times
    return ocsp_pki.craft(AUTHORITY, [one])


@pytest.mark.parametrize("kill", [False, True])
def test_answers_outlive_a_restart(tmp_path: Path, kill: bool) -> None:
    """With the fetcher down: who was good is let in, who was revoked isn't; also after kill -9."""

    def check(daemon: Daemon) -> None:
        assert daemon.ask("site", ALICE).reason == "allowed"
        assert daemon.ask("site", BOB).reason == "revoked"
        if kill:
            lines = 2
            daemon.until(lambda: kept(tmp_path).exists() and count(kept(tmp_path)) == lines)

    beside(tmp_path, check)
    policy = (tmp_path / "policy.yaml").read_text().replace("{", "{{").replace("}", "}}")
    for _ in range(2):
        with again(tmp_path, policy) as daemon:
            assert daemon.ask("site", ALICE).reason == "allowed"
            assert daemon.ask("site", BOB).reason == "revoked"
            if kill:
                daemon.signal(signal.SIGKILL)
                assert daemon.process is not None
                daemon.process.wait()
                daemon.process = None


def count(path: Path) -> int:
    return len(path.read_bytes().splitlines())


def test_a_revocation_outlives_its_end(tmp_path: Path) -> None:
    """`revoked` still revokes after its `nextUpdate`; `good` is worth nothing then."""
    revoked = ocsp_pki.single(
        REVOKED.cert, AUTHORITY.cert, status=SINCE_JANUARY, start=-7200, end=-3600
    )
    early = time.time() - 5400
    path = kept(tmp_path)
    path.parent.mkdir()
    path.write_text(
        line(ocsp_pki.craft(AUTHORITY, [revoked], produced=-7200), REVOKED.der, at=early)
        + line(good(start=-7200, end=-3600), at=early)
    )
    with again(tmp_path, POLICY.replace("ocsp:", "revocation: best_effort, ocsp:")) as daemon:
        assert daemon.ask("site", BOB).reason == "revoked"
        assert daemon.ask("site", ALICE).reason == "allowed"  # best_effort: unknown lets in
    with again(tmp_path) as daemon:
        assert daemon.ask("site", ALICE).reason == "revocation_unknown"


HOSTILE: dict[str, Callable[[], str]] = {
    "garbage": lambda: "\0\xff garbage",
    "deep": lambda: "[" * 100_000,
    "not an object": lambda: "[1]\n",
    "no number": lambda: line(good(), at="now"),
    "not a number": lambda: line(good(), at=float("nan")),
    "no base64": lambda: line(good(), response="***"),
    "a list for a name": lambda: line(good(), trust=["staff"]),
    "cut off": lambda: line(good())[:-50],
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_broken_file_is_set_aside_and_nothing_else(tmp_path: Path, name: str) -> None:
    """The daemon starts, says so, keeps the file beside, and takes the lines that are right."""
    path = kept(tmp_path)
    path.parent.mkdir()
    path.write_bytes((line(good()) + HOSTILE[name]()).encode())
    before = path.read_bytes()
    with again(tmp_path) as daemon:
        assert daemon.ask("site", ALICE).reason == "allowed"
        assert path.with_name(path.name + ".broken").read_bytes() == before
        assert "set aside" in daemon.log.read_text()
        daemon.until(lambda: path.exists() and count(path) == 1)
    with again(tmp_path) as daemon:
        assert daemon.ask("site", ALICE).reason == "allowed"


@pytest.mark.parametrize("kind", ["directory", "fifo", "link to itself"])
def test_what_is_no_file_keeps_nobody_from_starting(tmp_path: Path, kind: str) -> None:
    """Whatever stands in its place."""
    import os

    path = kept(tmp_path)
    path.parent.mkdir()
    if kind == "directory":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    else:
        path.symlink_to(path.name)
    with again(tmp_path) as daemon:
        assert daemon.ask("open").status == 204
        assert "set aside" in daemon.log.read_text()


FORGED: dict[str, Callable[[], str]] = {
    "another authority's signature": lambda: line(
        ocsp_pki.craft(
            ocsp_pki.issue("Test CA", ca=True), [ocsp_pki.single(GOOD.cert, AUTHORITY.cert)]
        )
    ),
    "about another certificate": lambda: line(good(), REVOKED.der),
    "ended": lambda: line(good(start=-7200, end=-3600)),
    "ended, said to be verified before": lambda: line(
        good(start=-7200, end=-3600), at=time.time() - 5400
    ),
    "not yet": lambda: line(good(start=86_000, end=90_000), at=time.time() + 86_400),
    "an issuer that the policy doesn't name": lambda: line(
        good(), issuer=pack(ocsp_pki.issue("Test CA", ca=True).der)
    ),
}


@pytest.mark.parametrize("name", FORGED)
def test_the_file_proves_nothing_by_itself(tmp_path: Path, name: str) -> None:
    """Each line is verified again for the present policy, now."""
    path = kept(tmp_path)
    path.parent.mkdir()
    path.write_text(FORGED[name]())
    with again(tmp_path) as daemon:
        for leaf in (ALICE, BOB):
            assert daemon.ask("site", leaf).reason == "revocation_unknown"


def test_an_authority_that_was_replaced_speaks_no_more(tmp_path: Path) -> None:
    """A right answer by an authority that the policy no longer names lets nobody in."""
    path = kept(tmp_path)
    path.parent.mkdir()
    path.write_text(line(good()))
    other = ocsp_pki.issue("Test CA", ca=True)
    with again(tmp_path, pem=other.cert.public_bytes(Encoding.PEM)) as daemon:
        assert daemon.ask("site", ALICE).reason == "untrusted_issuer"


def test_what_one_instance_has_learnt_counts_in_the_other(tmp_path: Path) -> None:
    """Two daemons share a state directory, and one has an older good: revoked denies in both
    within seconds, and after a restart."""
    state = tmp_path / "state"
    state.mkdir()
    kept(tmp_path).write_text(line(good(start=-120.0)))
    revoked = ocsp_pki.single(GOOD.cert, AUTHORITY.cert, status=SINCE_JANUARY, start=-60.0)
    with again(tmp_path) as daemon:
        assert daemon.ask("site", ALICE).reason == "allowed"
        aside = state / "aside"
        aside.write_text(line(ocsp_pki.craft(AUTHORITY, [revoked])))
        aside.rename(kept(tmp_path))  # as another instance writes it
        daemon.until(lambda: daemon.ask("site", ALICE).reason == "revoked")
    with again(tmp_path) as daemon:
        assert daemon.ask("site", ALICE).reason == "revoked"

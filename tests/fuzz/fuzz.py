"""Hostile bytes for everything that reads them: wire, certificate, policy, CRL, denylist.

    python tests/fuzz/fuzz.py TARGET [SECONDS] [SEED]

Each target takes any bytes and may answer or refuse, but raise nothing else.  With atheris at hand
(`pip install atheris`) the search is guided by coverage; without, inputs of the corpus are mutated
at random, the same ones for the same seed.
"""

from __future__ import annotations

import importlib
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent.parent)]

from asking import Memory, site  # noqa: E402  # the tests' own folder has to be on the path first

from sidecar.core.certificate import MalformedCertificate, from_header  # noqa: E402  # as above
from sidecar.core.crl import CrlError, read_crl  # noqa: E402  # as above
from sidecar.core.errors import PolicyError  # noqa: E402  # as above
from sidecar.core.pdp import Question  # noqa: E402  # as above
from sidecar.core.policy import compile_policy  # noqa: E402  # as above
from sidecar.core.revocation import parse_denylist  # noqa: E402  # as above
from sidecar.core.settings import Limits  # noqa: E402  # as above
from sidecar.core.wire import AuthzRequest  # noqa: E402  # as above
from sidecar.daemon.authz import Connection, Service  # noqa: E402  # as above
from sidecar.daemon.engine import Engine  # noqa: E402  # as above
from sidecar.daemon.repeats import Answered  # noqa: E402  # as above

_RULES = site("verified")


class _Outright(Service):
    """A service that doesn't turn a failed decision into an answer: here it shall be seen."""

    def decide(self, request: AuthzRequest, questions: list[Question] | None = None) -> Answered:
        return self.engine.decide(request, questions)


class _Transport:
    """As much of a transport as a connection needs; keeps what was answered."""

    def __init__(self) -> None:
        self.sent = b""
        self.closed = False

    def write(self, data: bytes) -> None:
        self.sent += data

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    def get_extra_info(self, name: str) -> _Transport:
        return self

    def fileno(self) -> int:
        return -1

    def get_write_buffer_size(self) -> int:
        return 1  # so that everything comes by `write`

    abort = write_eof = close


def _unrecorded(*_: object) -> None:
    """Neither counted nor logged."""


def wire(data: bytes) -> None:
    """The authorization socket, with the bytes split where the first of them says.

    Nothing without a certificate that verifies may ever be allowed.
    """
    engine = Engine(_RULES, entries=16, answers={})
    service = _Outright(engine, _unrecorded, _unrecorded, Limits())
    connection, transport = Connection(service), _Transport()
    connection.connection_made(transport)  # type: ignore[arg-type]  # one in all but name
    step = (data[0] if data else 0) + 1
    for at in range(0, len(data), step):
        connection.data_received(data[at : at + step])
    assert b" 204 " not in transport.sent
    assert b"callback" not in transport.sent


def certificate(data: bytes) -> None:
    """The `SSL-Client-Cert` header."""
    try:
        from_header(data)
    except MalformedCertificate:
        return


def policy(data: bytes) -> None:
    """policy.yaml."""
    try:
        compile_policy(data, "policy.yaml", Memory())
    except PolicyError:
        return


def crl(data: bytes) -> None:
    """A CRL, with an authority to check it against."""
    try:
        read_crl(data, "crl", _authority())
    except CrlError:
        return


def _authority() -> tuple[bytes, ...]:
    return ((HERE / "corpus" / "ca.der").read_bytes(),)


def denylist(data: bytes) -> None:
    """denylist.txt."""
    try:
        parse_denylist(data, "denylist.txt")
    except PolicyError:
        return


TARGETS: dict[str, Callable[[bytes], None]] = {
    f.__name__: f for f in (wire, certificate, policy, crl, denylist)
}


def corpus(target: str) -> list[bytes]:
    """The inputs to begin with."""
    return [path.read_bytes() for path in sorted((HERE / "corpus" / target).iterdir())]


def mutate(data: bytes, chance: random.Random) -> bytes:
    """A few random changes: a byte, a run cut out, doubled, or exchanged."""
    found = bytearray(data)
    for _ in range(chance.randint(1, 6)):
        at = chance.randrange(len(found) + 1)
        end = min(len(found), at + chance.randint(1, 16))
        what = chance.randrange(5)
        if what == 0 and at < len(found):
            found[at] = chance.randrange(256)
        elif what == 1:
            del found[at:end]
        elif what == 2:
            found[at:at] = found[at:end]
        elif what == 3:
            found[at:end] = chance.randbytes(end - at)
        else:
            found[at:at] = chance.choice((b"\0", b"\r\n", b"\xff", b"%00", b"{", b"[", b'"', b"~"))
    return bytes(found)


def by_chance(target: str, seconds: float, seed: int) -> int:
    """Mutate for so long; how many inputs that were.  Raises what the target raises."""
    chance, run, inputs = random.Random(seed), TARGETS[target], corpus(target)
    end, count = time.monotonic() + seconds, 0
    for data in inputs:
        run(data)
    while time.monotonic() < end:
        data = mutate(chance.choice(inputs), chance)
        try:
            run(data)
        except BaseException:
            print(f"seed {seed}: {data!r}", file=sys.stderr)
            raise
        count += 1
    return count


def main() -> None:
    """Fuzz one target from the command line."""
    target, seconds = sys.argv[1], float(sys.argv[2]) if len(sys.argv) > 2 else 60.0
    try:
        atheris = importlib.import_module("atheris")
    except ImportError:
        seed = int(sys.argv[3]) if len(sys.argv) > 3 else random.randrange(2**32)
        print(f"{by_chance(target, seconds, seed)} inputs, seed {seed}")
        return
    guided: Any = SimpleNamespace(run=TARGETS[target])
    places = [sys.argv[0], f"-max_total_time={int(seconds)}", str(HERE / "corpus" / target)]
    atheris.Setup(places, guided.run)
    atheris.Fuzz()


if __name__ == "__main__":
    main()

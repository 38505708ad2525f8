"""Revocation waits for nothing: a real daemon, every kind of broken file, and then a revocation.

Each case breaks one file of a daemon that serves, and then saves a denylist line or a CRL that
lists alice: she is denied soon, bob is not, and the broken file is told of.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest
from broken_files import KINDS, holding
from daemon import Daemon
from pki import CA, now
from strange_keys import STRANGE, strange_ca

from sidecar.runtime.files import crl_state_path

STAFF, PARTNER, OTHER = CA("Staff"), CA("Partner"), CA("Other")
MIDDLE = STAFF.intermediate("Middle")
ALICE, BOB, CAROL = STAFF.issue("alice"), STAFF.issue("bob"), PARTNER.issue("carol")
URL = "http://crl.example.com/partner.crl"
POLICY = f"""\
version: 1
trust:
  staff:
    ca: staff.crt
    intermediates: [middle.crt]
    crl: [staff.crl, second.crl]
    denylist: [first.txt, second.txt]
    revocation: best_effort
  partner:
    ca: partner.crt
    crl: ["{URL}"]
    denylist: partner.txt
locations:
  - {{name: site, trust: staff, allow: verified}}
  - {{name: partner, trust: partner, allow: verified}}
"""


@dataclass
class Sound:
    """What each file holds while nothing is broken; each CRL newer than the one before."""

    number: int = 5

    def files(self) -> dict[str, bytes]:
        return {
            "policy.yaml": POLICY.encode(),
            "staff.crt": STAFF.pem,
            "middle.crt": MIDDLE.pem,
            "staff.crl": STAFF.crl(number=self.number),
            "second.crl": MIDDLE.crl(number=self.number),
            "first.txt": b"serial 99\n",
            "second.txt": b"",
            "partner.crt": PARTNER.pem,
            "partner.txt": b"",
            "fetched": PARTNER.crl(number=self.number, der=True),
        }

    def put(self, daemon: Daemon, *names: str) -> None:
        """Make these files sound, whatever stands there."""
        self.number += 1
        for name in names:
            place = place_of(daemon.directory, name)
            place.parent.mkdir(parents=True, exist_ok=True)
            aside = place.with_name(f".{place.name}.sound")
            aside.write_bytes(self.files()[name])
            if place.is_dir():
                place.rmdir()
            aside.rename(place)


@pytest.fixture
def sound() -> Sound:
    return Sound()


@pytest.fixture
def daemon(tmp_path: Path, sound: Sound) -> Iterator[Daemon]:
    """A daemon that lets alice, bob and carol in."""
    daemon = Daemon(tmp_path, POLICY)
    sound.put(daemon, *sound.files())
    with daemon:
        assert daemon.ask("site", ALICE).status == 204
        assert daemon.ask("partner", CAROL).status == 204
        yield daemon


def place_of(directory: Path, name: str) -> Path:
    return fetched(directory) if name == "fetched" else directory / name


STALE = "mtls_sidecar_policy_stale"


def fetched(directory: Path) -> Path:
    return crl_state_path(directory / "state", "partner", URL)


FILES = ("policy.yaml", "staff.crt", "middle.crt", "staff.crl", "second.crl", "first.txt",
         "second.txt", "partner.crt", "partner.txt", "fetched")  # fmt: skip
ODD: dict[str, tuple[str, bytes]] = {
    **{f"{curve} CA": ("staff.crt", STAFF.pem + strange_ca(curve).pem) for curve in STRANGE},
    **{f"{curve} alone": ("partner.crt", strange_ca(curve).pem) for curve in STRANGE},
    "another CA": ("staff.crt", OTHER.pem),
    "another CA of the same name": ("staff.crt", CA("Staff").pem),
    "a leaf for a CA": ("staff.crt", ALICE.pem),
    "a CRL of another CA": ("second.crl", OTHER.crl()),
    "a CRL that goes backwards": ("second.crl", MIDDLE.crl(number=3)),
    "a CRL of the future": ("second.crl", MIDDLE.crl(this_update=now() + timedelta(hours=1))),
    "a CRL that has ended": (
        "second.crl",
        MIDDLE.crl(
            this_update=now() - timedelta(days=2),
            next_update=now() - timedelta(days=1),
        ),
    ),
    "a bad line": ("first.txt", b"serial 99\nserial what\n"),
    "a policy with a typo": ("policy.yaml", POLICY.encode() + b"typo\n"),
    "a policy that names no file": ("policy.yaml", POLICY.replace("staff.crt", "x.crt").encode()),
    "a policy with a bad rule": ("policy.yaml", POLICY.replace("verified", "nobody").encode()),
}
BREAKS: dict[str, tuple[str, Callable[[Path], None]]] = {
    **{f"{name}: {kind}": (name, KINDS[kind]) for name in FILES for kind in KINDS},
    **{kind: (name, holding(data)) for kind, (name, data) in ODD.items()},
}
HARMLESS = {"first.txt: empty", "second.txt: empty", "partner.txt: empty", "second.txt: half",
            "partner.txt: half",
            "a CRL that has ended", "a CRL of the future", "fetched: writable by all",
            *(f"{curve} CA" for curve in STRANGE)}  # fmt: skip
"""What isn't broken, though it looks odd."""


@pytest.mark.parametrize("name", FILES)
def test_a_broken_file_holds_up_no_revocation(daemon: Daemon, sound: Sound, name: str) -> None:
    """Whatever is in a file's place: a line, and a CRL, saved afterwards take effect.

    Nobody else is denied, the broken file is told of, and mended it is in force again.
    """
    for key, (file, put) in BREAKS.items():
        if file == name:
            try:
                _break_revoke_mend(daemon, sound, key, name, put)
            except AssertionError as error:
                raise AssertionError(f"{key}: {error}") from error


def _break_revoke_mend(
    daemon: Daemon, sound: Sound, key: str, name: str, put: Callable[[Path], None]
) -> None:
    def others_are_let_in() -> None:
        assert daemon.ask("site", BOB).status == 204
        assert daemon.ask("partner", CAROL).status == 204
        assert daemon.status("/readyz") == 200

    put(place_of(daemon.directory, name))
    if key not in HARMLESS:
        daemon.until(lambda: daemon.metric(STALE) == 1)
        assert "warning: an older version serves" in daemon.get("/readyz")[1]
    others_are_let_in()
    lines = "second.txt" if name != "second.txt" else "first.txt"
    daemon.write(lines, f"sha256 {ALICE.sha256} # stolen\n")
    daemon.until(lambda: daemon.ask("site", ALICE).reason == "revoked")
    others_are_let_in()
    sound.put(daemon, lines)
    daemon.until(lambda: daemon.ask("site", ALICE).status == 204)
    crl = "staff.crl" if name != "staff.crl" else "second.crl"
    daemon.write(crl, STAFF.crl([ALICE], number=sound.number + 1))
    daemon.until(lambda: daemon.ask("site", ALICE).reason == "revoked")
    others_are_let_in()
    sound.number += 1
    sound.put(daemon, name, "staff.crl", "second.crl")
    daemon.until(lambda: daemon.ask("site", ALICE).status == 204)
    daemon.until(lambda: daemon.metric(STALE) == 0)
    others_are_let_in()

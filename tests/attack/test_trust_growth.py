"""How the cost of trusts, authorities and CRLs grows with their number: by calls of functions."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from functools import cache
from itertools import count
from pathlib import Path

import pytest
from chains import extension, leaf, root, signed
from counted import growth
from der import tlv
from pki import CA

from sidecar.authorizer import file_versions, readings
from sidecar.authorizer.policy_store import Store
from sidecar.core.revocation.crl.index import CrlIndex, crl_facts, read_crl
from sidecar.core.revocation.crl.points import MAX_POINTS
from sidecar.core.revocation.crl.signers import CrlAuthorities
from sidecar.core.x509.certificate import from_der

MOST = 2.4
"""Growth of what is linear, with a little for what isn't counted evenly."""


@cache
def authority(number: int) -> CA:
    return CA(f"CA {number}")


@cache
def below(number: int) -> CA:
    """A chain of authorities, the lowest first."""
    return below(number - 1).intermediate(f"CA {number}") if number else authority(0)


def roots(number: int) -> list[CA]:
    return [authority(at) for at in range(number)]


def chain(number: int) -> list[CA]:
    return [below(at) for at in reversed(range(number))]


@pytest.mark.parametrize("made", [roots, chain])
def test_authorities_and_their_crls(made: Callable[[int], list[CA]]) -> None:
    """Twice as many authorities, each with a CRL, make twice as many calls when all are read."""

    def prepared(number: int) -> Callable[[], object]:
        authorities = made(number)
        der = tuple(each.der for each in authorities)
        crls = [each.crl() for each in authorities]

        def read() -> None:
            CrlAuthorities.of.cache_clear()
            for at, crl in enumerate(crls):
                read_crl(crl, f"{at}.crl", der)

        return read

    assert growth(prepared, 10) < MOST


def test_crls_of_one_scope() -> None:
    """Twice as many CRLs of one issuer and scope make twice as many calls, read and asked."""
    ca = authority(0)
    client = from_der(ca.issue("alice").der)

    def prepared(number: int) -> Callable[[], object]:
        crls = [read_crl(ca.crl(number=at + 1), f"{at}.crl", (ca.der,)) for at in range(number)]

        def ask() -> None:
            CrlIndex(crls).status(crl_facts(client), from_der(ca.der), time.time())
            CrlIndex([], revoking=crls).status(crl_facts(client), from_der(ca.der), time.time())

        return ask

    assert growth(prepared, 20) < MOST


@pytest.fixture
def places(tmp_path: Path) -> Iterator[Path]:
    numbers = count()
    return (tmp_path / str(next(numbers)) for _ in iter(int, 1))


def settled(directory: Path) -> Store:
    """A daemon's policy, read and kept, whose denylist was saved anew."""
    for file in directory.iterdir():
        os.utime(file, (0, 0))
    policy = directory / "policy.yaml"
    store = Store(policy, directory / "state", trusted_only=False, changed=lambda _: None)
    store.load()
    while not (directory / "state/last-good/manifest.json").exists():
        time.sleep(0.01)
    (directory / "deny.txt").write_text("serial 1\n")
    os.utime(directory / "deny.txt", (1, 1))
    store.load()  # which sees it, and lets it settle
    time.sleep(readings.SETTLE_SECONDS)
    return store


LOCATIONS = "locations: [{name: site, allow: verified}]\n"


def one_trust(directory: Path, number: int) -> None:
    for at, ca in enumerate(roots(number)):
        (directory / f"{at}.crl").write_bytes(ca.crl())
    crls = ", ".join(f"{at}.crl" for at in range(number))
    (directory / "ca.crt").write_bytes(b"".join(ca.pem for ca in roots(number)))
    trust = f"{{ca: ca.crt, crl: [{crls}], denylist: [deny.txt], chain: all}}"
    (directory / "policy.yaml").write_text(f"version: 1\ntrust:\n  staff: {trust}\n{LOCATIONS}")


def many_trusts(directory: Path, number: int) -> None:
    policy = "version: 1\ntrust:\n"
    for at, ca in enumerate(roots(number)):
        (directory / f"{at}.crl").write_bytes(ca.crl())
        (directory / f"{at}.crt").write_bytes(ca.pem)
        policy += f"  t{at}: {{ca: {at}.crt, crl: [{at}.crl], denylist: [deny.txt]}}\n"
    (directory / "policy.yaml").write_text(policy + LOCATIONS)


@pytest.mark.parametrize("write", [one_trust, many_trusts])
def test_reload(
    places: Iterator[Path],
    write: Callable[[Path, int], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Twice as many authorities with CRLs make twice as many calls in a reload."""
    monkeypatch.setattr(readings, "PATIENCE", 60.0)  # however busy the machine is
    monkeypatch.setattr(file_versions, "PATIENCE", 60.0)

    def prepared(number: int) -> Callable[[], object]:
        directory = next(places)
        directory.mkdir()
        (directory / "deny.txt").touch()
        write(directory, number)
        return settled(directory).load

    assert growth(prepared, 15) < MOST


@pytest.mark.parametrize(("number", "read"), [(MAX_POINTS, MAX_POINTS), (MAX_POINTS + 1, 0)])
def test_distribution_points(number: int, read: int) -> None:
    """A certificate's distribution points are bounded: each is compared with each CRL's scope."""
    points = tlv(
        0x30,
        *[tlv(0x30, tlv(0xA0, tlv(0xA0, tlv(0x86, b"http://ca/%d" % at)))) for at in range(number)],
    )
    cert = from_der(signed(leaf("alice", extension("2.5.29.31", points)), root()))
    assert len(crl_facts(cert).points) == read


def renamed(directory: Path, number: int) -> Store:
    """A daemon's policy of as many trusts, whose CRLs get other names all at once."""
    many_trusts(directory, number)
    store = settled(directory)
    for at in range(number):
        (directory / f"{at}.crl").rename(directory / f"moved-{at}.crl")
    policy = directory / "policy.yaml"
    policy.write_text(policy.read_text().replace("crl: [", "crl: [moved-"))
    return store


def test_places_with_new_names(places: Iterator[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the CRLs of twice as many trusts get other names, twice as many files are read."""
    monkeypatch.setattr(readings, "START_PATIENCE", 60.0)
    started: list[str] = []
    start = threading.Thread.start

    def note(thread: threading.Thread) -> None:
        started.append(thread.name)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", note)
    read = []
    for number in (8, 16):
        directory = next(places)
        directory.mkdir()
        (directory / "deny.txt").touch()
        renamed(directory, number)
        started.clear()
        time.sleep(readings.SETTLE_SECONDS)
        policy = directory / "policy.yaml"
        Store(policy, directory / "state", trusted_only=False, changed=lambda _: None).load()
        read.append(started.count("reading"))
    assert read[1] < MOST * read[0]

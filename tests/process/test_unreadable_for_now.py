"""A disk's error, no descriptors, no memory, while a file is read: nothing that revoked is lost.

Such a file may be sound: it is neither set aside nor taken for missing, and read until it works.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import ocsp_pki
import pytest
from asking import policy
from cryptography.hazmat.primitives.serialization import Encoding
from pki import CA, Leaf, now

from sidecar.authorizer import policy_store, readings
from sidecar.authorizer.ocsp_answers import OcspAnswers, StoredResponse
from sidecar.authorizer.ocsp_file import OcspFile
from sidecar.authorizer.ocsp_queue import OcspClient
from sidecar.authorizer.policy_store import Store
from sidecar.core.errors import PolicyError
from sidecar.core.revocation.crl import parse
from sidecar.core.revocation.crl.index import crl_facts, read_crls
from sidecar.core.x509.certificate import from_der
from sidecar.fetcher import crl_job, plan
from sidecar.runtime import files
from sidecar.runtime.files import crl_state_path

STAFF = CA("Staff")
ALICE, BOB = STAFF.issue("alice"), STAFF.issue("bob")
START = now() - timedelta(hours=1)
POLICY = """\
version: 1
trust: {staff: {ca: ca.crt, crl: CRL, denylist: denied.txt, revocation: best_effort}}
locations: [{name: site, allow: verified}]
"""
URL, OTHER_URL = "http://127.0.0.1/a.crl", "http://127.0.0.1/b.crl"
ERRORS = pytest.mark.parametrize("number", [errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM])


class Disk:
    """Lets some files fail to be opened, by a part of their path."""

    def __init__(self) -> None:
        self.failing: tuple[str, ...] = ()
        self.number = errno.EIO
        self.failed = 0

    def open(self, path: str | Path, *, follow: bool = True) -> int:
        if any(part in str(path) for part in self.failing):
            self.failed += 1
            raise OSError(self.number, os.strerror(self.number), str(path))
        return _open(path, follow=follow)


_open = files.open_regular


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    """A disk of which nothing fails yet; files may change without a pause."""
    found = Disk()
    monkeypatch.setattr(files, "open_regular", found.open)
    monkeypatch.setattr(readings, "SETTLE_SECONDS", 0.0)
    monkeypatch.setattr(readings, "RETRY_SMALL", (0.0, 0.0))
    yield found
    found.failing = ()


def write(directory: Path, crl: str = "a.crl") -> None:
    (directory / "policy.yaml").write_text(POLICY.replace("CRL", f'["{crl}"]'))
    (directory / "ca.crt").write_bytes(STAFF.pem)
    (directory / "denied.txt").write_text(f"sha256 {BOB.sha256}\n")
    place = crl_state_path(directory / "state", "staff", crl) if "/" in crl else directory / crl
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(STAFF.crl([ALICE], number=5, this_update=START))


def store(directory: Path) -> Store:
    path, state = directory / "policy.yaml", directory / "state"
    return Store(path, state, trusted_only=False, changed=lambda _: None)


def put_into_force(directory: Path) -> None:
    found = store(directory)
    found.load()
    found.keep()


def denied(found: Store) -> list[str]:
    found.load()
    while found._readings.pending:
        found.load()
    assert found.current is not None
    trust = found.current.trusts["staff"]
    assert trust.crls is not None
    moment, issuer = time.time(), from_der(STAFF.der)

    def is_denied(leaf: Leaf) -> bool:
        assert trust.crls is not None
        lists = trust.denylists
        listed = any(d.lookup(leaf.serial, leaf.sha256, leaf.spki_sha256, moment) for d in lists)
        status = trust.crls.status(crl_facts(leaf.cert), issuer, moment).status
        return listed or status.value == "revoked"

    return [leaf.name for leaf in (ALICE, BOB) if is_denied(leaf)]


def another_address(directory: Path) -> None:
    write(directory, URL)
    put_into_force(directory)
    (directory / "policy.yaml").write_text(POLICY.replace("CRL", f'["{OTHER_URL}"]'))


BREAKS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "the manifest": ("manifest.json", lambda d: (d / "denied.txt").write_text("garbage\n")),
    "the marks": (
        "crl-watermarks.json",
        lambda d: (d / "a.crl").write_bytes(STAFF.crl(number=4)),
    ),
    "the copy of a denylist": (
        "last-good/",
        lambda d: (d / "denied.txt").write_text("garbage\n"),
    ),
    "the copy of a CRL": ("last-good/", lambda d: (d / "a.crl").write_text("garbage\n")),
    "the copy of a CRL that is level": (
        "last-good/",
        lambda d: (d / "a.crl").write_bytes(STAFF.crl(number=5, this_update=START)),
    ),
    "the copy of a CA file": ("last-good/", lambda d: (d / "ca.crt").write_text("garbage\n")),
    "the copy of a former address's CRL": ("last-good/", another_address),
}


@ERRORS
@pytest.mark.parametrize("case", BREAKS)
def test_a_start_waits_for_what_revoked(tmp_path: Path, disk: Disk, case: str, number: int) -> None:
    """Nothing is served while it isn't known; then all of it is in force, and nothing set aside."""
    write(tmp_path)
    put_into_force(tmp_path)
    part, spoil = BREAKS[case]
    spoil(tmp_path)
    disk.failing, disk.number = (part,), number
    found = store(tmp_path)
    for _ in range(3):
        with pytest.raises(PolicyError, match="can't be read now"):
            found.load()
        found.keep()
        assert found.moved()
    assert disk.failed
    disk.failing = ()
    assert denied(found) == ["alice", "bob"]
    assert not list(tmp_path.rglob("*.broken"))


@ERRORS
@pytest.mark.parametrize("part", ["denied.txt", "a.crl", "ca.crt", "policy.yaml"])
def test_a_file_that_can_not_be_read_for_now_is_read_again(
    tmp_path: Path, disk: Disk, part: str, number: int
) -> None:
    """In a running daemon, and at a start by the copy: what was denied is, and it is told."""
    write(tmp_path)
    put_into_force(tmp_path)
    running = store(tmp_path)
    running.load()
    (tmp_path / part).touch()
    disk.failing, disk.number = (f"/{part}",), number
    for found in (running, store(tmp_path)):
        assert denied(found) == ["alice", "bob"]
        assert os.strerror(number) in str(found.load().diagnostics)
        assert found.moved()
    disk.failing = ()
    assert denied(running) == ["alice", "bob"]
    assert running.load().ok


def test_what_can_not_be_copied_for_now_is_copied_later(
    tmp_path: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A CA file that can't be opened for its copy; the others are copied, and it is told."""
    write(tmp_path)
    opens, fails = files.open_regular, True

    def fail(path: Path) -> int:
        if fails and path.name == "ca.crt":
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE), str(path))
        return opens(path)

    found = store(tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr("sidecar.authorizer.last_good.open_regular", fail)
        found.load()
        found.keep()
        assert "Too many open files" in caplog.text
        assert not found._last_good.copy_of("ca", "ca.crt")
        assert found._last_good.copy_of("denylist", "denied.txt")
        fails = False
        found.keep()
    assert found._last_good.copy_of("ca", "ca.crt")
    assert policy_store.KEEP_AGAIN_SECONDS < 60


def test_ocsp_answers_that_can_not_be_read_for_now_are_read_later(
    tmp_path: Path, disk: Disk
) -> None:
    """The file is neither set aside nor written over."""
    authority, alice = ocsp_pki.authority(), ocsp_pki.leaf("alice")
    response = ocsp_pki.craft(authority, [ocsp_pki.single(alice.cert, authority.cert)])
    answers = OcspAnswers(OcspClient(Path("/nonexistent")))
    asked = "staff", alice.der, authority.der
    record = StoredResponse(*asked, response, time.time(), "http://ca.test/")
    assert answers.restore(record, 300)
    file = OcspFile(tmp_path, answers)
    file._saved = (-1, -1)
    file.save()
    text = POLICY.replace("crl: CRL, denylist: denied.txt", 'ocsp: "http://ca.test/"')
    trusts = policy(text, ca_crt=authority.cert.public_bytes(Encoding.PEM)).trusts
    again = OcspAnswers(OcspClient(Path("/nonexistent")))
    file = OcspFile(tmp_path, again)
    disk.failing = ("ocsp-answers",)
    assert isinstance(file.read(), OSError)
    assert file.is_unread
    file._saved = (-1, -1)
    file.save()
    disk.failing = ()
    assert file.read() is None
    file.load(trusts)
    assert len(again) == 1
    assert not list(tmp_path.rglob("*.broken"))


def test_the_fetcher_sets_nothing_aside_that_it_can_not_read_for_now(
    tmp_path: Path, disk: Disk, caplog: pytest.LogCaptureFixture
) -> None:
    """A CRL in place, while there are no descriptors."""
    path = tmp_path / "a.crl"
    path.write_bytes(b"x")
    disk.failing, disk.number = ("a.crl",), errno.EMFILE
    with caplog.at_level(logging.WARNING), pytest.raises(OSError, match="Too many open files"):
        asyncio.run(asyncio.to_thread(crl_job._read, path))
    assert path.read_bytes() == b"x"
    assert not caplog.records


@pytest.mark.parametrize("part", ["policy.yaml", "ca.crt"])
def test_the_fetcher_reads_a_policy_again_that_it_can_not_read_for_now(
    tmp_path: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    """Though the file stays as it is."""
    monkeypatch.setattr(plan, "AGAIN_SECONDS", 0.0)
    write(tmp_path, URL)
    reader = plan.PlanReader(tmp_path / "policy.yaml")
    disk.failing = (part,)
    with suppress(OSError):
        assert not reader.read().crls
    assert reader.changed()
    disk.failing = ()
    assert reader.read().crls
    assert not reader.changed()


def test_too_little_memory_is_no_verdict_on_a_crl(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is raised, so that the file is read again."""

    def fail(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr(parse, "read_entries", fail)
    with pytest.raises(MemoryError):
        read_crls(STAFF.crl([ALICE]), "a.crl", [STAFF.der])

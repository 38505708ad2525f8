"""Clients of `enroll` beside a running daemon: revoke, renew, list, CRL, notices, backup."""

from __future__ import annotations

import json
import os
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from daemon import ROOT, Daemon
from enrolled import Enroll, Response, opened
from forked import mtls_sidecar
from pki import Leaf

from sidecar.commands.revoke.command import Call, run
from sidecar.core.config.settings import read_settings
from sidecar.enroll.revocation import EnrolledClients

POLICY = """\
version: 1
trust:
  staff: {ca: enroll-state/ca/ca.crt, denylist: deny.txt, crl: [crl.pem], revocation: best_effort}
locations:
  - {name: site, location: /, allow: verified}
"""


@dataclass
class Place:
    """An enroll service and a daemon whose files stand beside each other."""

    enroll: Enroll
    daemon: Daemon

    def issue(self, name: str, device: str) -> Leaf:
        """A certificate as its holder gets it."""
        invited = self.enroll.invite(name, "--device", device)
        return leaf(name, self.enroll.get(invited), self.enroll.post(invited))

    def revoke(
        self, *arguments: str, program: Sequence[str] = ("-m", "sidecar")
    ) -> subprocess.CompletedProcess[str]:
        arguments = ("revoke", "-c", "sidecar.yaml", *arguments)
        if program == ("-m", "sidecar"):
            return mtls_sidecar(*arguments, cwd=self.enroll.directory)
        return subprocess.run(
            [sys.executable, *program, *arguments],
            cwd=self.enroll.directory,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
        )

    def reason(self, found: Leaf) -> str:
        return self.daemon.ask("site", found).reason


def leaf(name: str, page: Response, answer: Response) -> Leaf:
    assert answer.status == 200, answer.text
    found = opened(answer.body, page.password)
    assert found.cert is not None
    return Leaf(name, found.cert.certificate.public_bytes(Encoding.DER), found.key)  # type: ignore[arg-type]  # EC


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    directory = tmp_path_factory.mktemp("clients")
    enroll = Enroll(directory, "profiles:\n  default: {validity: 10d, renew_before: 12d}\n")
    enroll.run("enroll", "crl", "--out", str(directory / "crl.pem"))
    daemon = Daemon(directory, POLICY, "", deny_txt=b"# nobody yet\n")
    with enroll, daemon:
        yield Place(enroll, daemon)


# -- revoke


def test_a_device_is_revoked_at_once_and_the_others_stay(place: Place) -> None:
    """`revoke alice/phone` denies that certificate when it returns; `clients` tells."""
    phone, laptop = place.issue("alice", "phone"), place.issue("alice", "laptop")
    assert (place.reason(phone), place.reason(laptop)) == ("allowed", "allowed")
    done = place.revoke("alice/phone", "--reason", "lost")
    assert done.returncode == 0, done.stderr
    assert "in force: the daemon of" in done.stdout
    assert "alice/phone, lost" in done.stdout
    assert (place.reason(phone), place.reason(laptop)) == ("revoked", "allowed")
    revoked = {each["device"]: each["revoked"] for each in place.enroll.clients("alice")}
    assert revoked == {"phone": True, "laptop": False}
    assert place.revoke("--undo", "alice/phone").returncode == 0
    assert place.reason(phone) == "allowed"


def test_all_devices_and_open_invitations_of_a_person_are_revoked(place: Place) -> None:
    """`revoke bob` leaves bob no way in: no certificate, and no link that still gives one."""
    found = [place.issue("bob", "phone"), place.issue("bob", "laptop")]
    invited = place.enroll.invite("bob")
    done = place.revoke("bob")
    assert done.returncode == 0, done.stderr
    assert invited.id in done.stdout
    assert [place.reason(each) for each in found] == ["revoked", "revoked"]
    assert place.enroll.post(invited).status == 410
    again = place.revoke("bob")
    assert again.returncode == 0
    assert "denied already" in again.stdout


def test_undo_takes_back_the_last_revocation_only(place: Place) -> None:
    """A phone that was stolen before stays revoked; it takes a word of its own."""
    phone, laptop = place.issue("dave", "phone"), place.issue("dave", "laptop")
    assert place.revoke("dave/phone", "--reason", "stolen").returncode == 0
    assert place.revoke("dave", "--reason", "on leave").returncode == 0
    done = place.revoke("--undo", "dave")
    assert done.returncode == 0, done.stderr
    assert "dave/phone stays revoked" in done.stdout
    assert "stolen" in done.stdout
    assert (place.reason(phone), place.reason(laptop)) == ("revoked", "allowed")
    revoked = {each["device"]: each["revoked"] for each in place.enroll.clients("dave")}
    assert revoked == {"phone": True, "laptop": False}
    assert place.revoke("--undo", "dave/phone").returncode == 0
    assert place.reason(phone) == "allowed"


def test_a_revocation_with_an_end_is_taken_back_by_name(place: Place) -> None:
    """It is in no list of enroll's, but on the denylist; what somebody else denied stays."""
    phone, tablet = place.issue("erin", "phone"), place.issue("erin", "tablet")
    assert place.revoke("--fingerprint", tablet.sha256, "--reason", "stolen").returncode == 0
    assert place.revoke("erin/phone", "--until", "2099-01-31").returncode == 0
    assert (place.reason(phone), place.reason(tablet)) == ("revoked", "revoked")
    done = place.revoke("--undo", "erin")
    assert done.returncode == 0, done.stderr
    assert (place.reason(phone), place.reason(tablet)) == ("allowed", "revoked")
    assert place.revoke("--undo", "erin").returncode == 1


def test_a_key_that_was_revoked_by_name_is_taken_back_by_name(place: Place) -> None:
    """`--undo NAME` removes the line of `revoke NAME --key`; what somebody else denied stays."""
    phone, tablet = place.issue("ivan", "phone"), place.issue("ivan", "tablet")
    assert place.revoke("--key", "--fingerprint", tablet.spki_sha256).returncode == 0
    for more in ([], ["--until", "2099-01-31"]):
        assert place.revoke("ivan/phone", "--key", *more).returncode == 0
        assert place.reason(phone) == "revoked"
        done = place.revoke("--undo", "ivan")
        assert (done.returncode, done.stderr) == (0, "")
        assert "removed: spki_sha256" in done.stdout
        assert (place.reason(phone), place.reason(tablet)) == ("allowed", "revoked")
        revoked = {each["device"]: each["revoked"] for each in place.enroll.clients("ivan")}
        assert revoked == {"phone": False, "tablet": True}
    assert place.revoke("ivan/phone").returncode == 0
    assert place.revoke("ivan/phone", "--key").returncode == 0
    done = place.revoke("--undo", "ivan")
    assert "it is revoked still: denylist" in done.stdout
    assert place.reason(phone) == "revoked"
    assert place.revoke("--undo", "ivan").returncode == 0
    assert place.reason(phone) == "allowed"


@pytest.mark.parametrize("how", ["file", "key", "fingerprint", "serial"])
def test_what_was_not_revoked_by_name_is_noted_and_not_taken_back_by_name(
    place: Place, how: str
) -> None:
    """A phone that was stolen, and then all of its holder's: `--undo NAME` brings back the others.
    `clients` and the CRL have it, nobody renews it, and what its thief has renewed is told."""
    name = f"nina-{how}"
    phone, laptop = place.issue(name, "phone"), place.issue(name, "laptop")
    renewed = leaf(name, *renew(place, phone))
    file = place.enroll.directory / f"{name}.crt"
    file.write_bytes(phone.pem)
    target = {
        "file": [str(file)],
        "key": [str(file), "--key"],
        "fingerprint": ["--fingerprint", phone.sha256],
        "serial": ["--serial", f"{phone.serial:X}"],
    }[how]

    def revoked() -> list[str]:
        return [each["sha256"] for each in place.enroll.clients(name) if each["revoked"]]

    done = place.revoke(*target, "--reason", "stolen")
    assert done.returncode == 0, done.stderr
    assert f"{name}/phone has other certificates" in done.stderr
    assert revoked() == [phone.sha256]
    assert [each.status for each in renew(place, phone)] == [403, 403]
    crl = place.enroll.directory / "nina.pem"
    place.enroll.run("enroll", "crl", "--out", str(crl))
    assert phone.serial in {each.serial_number for each in x509.load_pem_x509_crl(crl.read_bytes())}
    assert place.revoke(name, "--reason", "on leave").returncode == 0
    done = place.revoke("--undo", name)
    assert done.returncode == 0, done.stderr
    assert f"{name}/phone stays revoked" in done.stdout
    found = [place.reason(each) for each in (phone, laptop, renewed)]
    assert found == ["revoked", "allowed", "allowed"]
    assert revoked() == [phone.sha256]
    assert place.revoke("--undo", *target).returncode == 0
    if how in ("key", "serial"):  # beside the line of its holder's name
        assert (place.reason(phone), revoked()) == ("revoked", [phone.sha256])
        assert place.revoke("--undo", f"{name}/phone").returncode == 0
    assert (place.reason(phone), revoked()) == ("allowed", [])


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")
def test_a_certificate_issued_while_its_holder_is_revoked_is_revoked_too(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A link or a renewal that is quicker than `revoke` leaves nobody a certificate that holds."""
    old, invited = place.issue("kim", "phone"), place.enroll.invite("kim", "--device", "laptop")
    given: list[Leaf] = []

    class Late(EnrolledClients):
        def mark(self, target: str, sha256s: Sequence[str], now: float, reason: str) -> list[str]:
            if not given:
                page = place.enroll.get(invited)
                given.append(leaf("kim", page, place.enroll.post(invited)))
                given.append(leaf("kim", *renew(place, old)))
            return super().mark(target, sha256s, now, reason)

    monkeypatch.chdir(place.enroll.directory)
    settings = read_settings(Path("sidecar.yaml").read_bytes(), "sidecar.yaml")
    assert run(Call("kim"), settings, Late(str(place.enroll.config))) == 0
    assert [place.reason(each) for each in (old, *given)] == ["revoked"] * 3
    assert all(each["revoked"] for each in place.enroll.clients("kim"))


def test_a_target_that_could_be_a_client_and_something_else_is_asked_about(place: Place) -> None:
    """A name in hexadecimal, or of a file, is refused with the ways to say it; --name says it."""
    found = place.issue("beef", "phone")
    (place.enroll.directory / "carol").write_bytes(found.pem)
    place.issue("carol", "phone")
    before = (place.enroll.directory / "deny.txt").read_bytes()
    for name, other in (("beef", "serial"), ("carol", "file")):
        done = place.revoke(name)
        assert done.returncode == 2
        assert f"--name {name}, or --{other} {name}" in done.stderr
    assert (place.enroll.directory / "deny.txt").read_bytes() == before
    assert place.revoke("--name", "beef").returncode == 0
    assert place.reason(found) == "revoked"
    assert "knows no client" in place.revoke("--name", "nobody").stderr
    assert "nobody" in place.revoke("nobody").stderr


def test_a_fingerprint_is_revoked_though_the_clients_cannot_be_read(place: Place) -> None:
    """A broken enroll.yaml keeps nobody from revoking by fingerprint; a name is asked about."""
    found = place.issue("dora", "phone")
    whole = place.enroll.config.read_text()
    place.enroll.config.write_text(whole + "nonsense: 1\n")
    try:
        assert "--serial" in place.revoke("dora").stderr
        done = place.revoke(found.sha256)
        assert done.returncode == 0
        assert "unknown key 'nonsense'" in done.stderr
    finally:
        place.enroll.config.write_text(whole)
    assert place.reason(found) == "revoked"


def test_a_fifo_in_the_stores_directory_holds_no_revocation_up(place: Place) -> None:
    """Nor does one that is put there just after it was looked for: whoever has taken the service
    over can do that."""
    found, other = place.issue("olga", "phone"), place.issue("paul", "phone")
    file = place.enroll.directory / "paul.crt"
    file.write_bytes(other.pem)
    fifo = place.enroll.state / "enroll.db-journal"
    os.mkfifo(fifo)
    try:
        done = place.revoke(found.sha256)
        assert done.returncode == 0
        assert f"{fifo}: it is not a regular file" in done.stderr
        assert place.reason(found) == "revoked"
        assert "is not a regular file" in place.enroll.refused("clients")
        late = (
            "import sys; from sidecar.cli import main; from sidecar.enroll.store import Store; "
            "Store._refuse_special_files = lambda self: None; sys.exit(main(sys.argv[1:]))"
        )
        done = place.revoke(str(file), program=("-c", late))
        assert done.returncode == 0, done.stderr
        assert "takes longer than" in done.stderr
        soon = "from sidecar.enroll import commands; commands.LONGEST = 0.5; "
        said = place.enroll.refused("clients", program=("-c", soon + late))
        assert "it takes longer than 0.5 s; see what is there: ls -l " in said
    finally:
        fifo.unlink()
    assert place.reason(other) == "revoked"


# -- the CRL


def test_the_crl_lists_who_is_revoked_and_its_number_grows(place: Place) -> None:
    """`enroll crl` signs a CRL that verifies, and that the daemon takes."""
    found = place.issue("erin", "phone")
    place.revoke("erin")
    file = place.enroll.directory / "crl.pem"
    numbers = []
    for _ in range(2):
        place.enroll.run("enroll", "crl", "--out", str(file))
        crl = x509.load_pem_x509_crl(file.read_bytes())
        numbers.append(crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number)
    assert numbers[1] == numbers[0] + 1
    assert crl.is_signature_valid(place.enroll.ca.public_key())  # type: ignore[arg-type]  # EC
    assert found.serial in {each.serial_number for each in crl}
    entries = 'mtls_sidecar_crl_entries{source="crl.pem",trust="staff"}'
    place.daemon.until(lambda: place.daemon.metric(entries) == len(list(crl)), 30)
    place.enroll.run("enroll", "crl")
    assert x509.load_pem_x509_crl((place.enroll.state / "crl.pem").read_bytes()).issuer


# -- last seen


def test_clients_tells_when_the_authorizer_saw_each_last(place: Place) -> None:
    """A certificate that opened something has `last_seen`, another has none."""
    used, unused = place.issue("frank", "phone"), place.issue("grace", "phone")
    assert place.reason(used) == "allowed"

    def seen() -> dict[str, object]:
        return {each["sha256"]: each["last_seen"] for each in place.enroll.clients()}

    place.daemon.until(lambda: seen()[used.sha256] is not None, 60)
    assert str(seen()[used.sha256]).endswith("Z")
    assert seen()[unused.sha256] is None
    assert "never seen" in place.enroll.run("clients", "grace")
    with_end = place.enroll.clients("--expiring", "11d")
    assert used.sha256 in {each["sha256"] for each in with_end}
    assert place.enroll.clients("--expiring", "1h") == []


# -- renewal


def renew(place: Place, found: Leaf) -> tuple[Response, Response]:
    """The page and the file of a renewal, as nginx asks for one."""
    header = {"X_Client_Fingerprint": found.sha256}
    page = place.enroll.get("/enroll/renew", **header)
    return page, place.enroll.post("/enroll/renew", "p12", {}, **header)


def test_a_certificate_is_renewed_for_the_same_identity(place: Place) -> None:
    """The new one has the same names and another key; the old one serves to its end."""
    old = place.issue("henry", "phone")
    new = leaf("henry", *renew(place, old))
    assert new.cert.subject == old.cert.subject
    assert new.cert.public_key() != old.cert.public_key()
    assert (place.reason(old), place.reason(new)) == ("allowed", "allowed")
    assert {each["device"] for each in place.enroll.clients("henry")} == {"phone"}


def test_a_renewal_is_refused_for_whom_it_is_not(place: Place) -> None:
    """Nobody's, a stranger's, a revoked and an already renewed certificate give nothing."""
    assert place.enroll.get("/enroll/renew").status == 403
    stranger = {"X_Client_Fingerprint": "ab" * 32}
    assert place.enroll.post("/enroll/renew", "p12", {}, **stranger).status == 403
    revoked = place.issue("ivan", "phone")
    place.revoke("ivan")
    assert [each.status for each in renew(place, revoked)] == [403, 403]
    often = place.issue("judy", "phone")
    found = [renew(place, often)[1].status for _ in range(4)]
    assert found == [200, 200, 200, 409]


# -- notices


def test_the_service_gives_notices_at_its_start(tmp_path: Path) -> None:
    """A certificate that ends soon is told to the command, as JSON."""
    told = tmp_path / "told.txt"
    enroll = Enroll(
        tmp_path / "service",
        "profiles: {default: {validity: 10d}}\n"
        f"notify: {{command: [/bin/sh, -c, 'cat >>{told}'], before: [30d, 20d]}}\n",
    )
    with enroll:
        assert enroll.post(enroll.invite("mallory", "--device", "phone")).status == 200
    with enroll:
        enroll.until(lambda: "notice given: mallory/phone" in enroll.told)
    notice = json.loads(told.read_text())
    assert (notice["name"], notice["device"], notice["days_left"]) == ("mallory", "phone", 9)


# -- backup


def test_a_backup_is_whole_and_private(place: Place) -> None:
    """`enroll backup FILE` copies the database in use; the copy can take its place."""
    target = place.enroll.directory / "backup.db"
    assert "the CA's key is not in it" in place.enroll.run("enroll", "backup", str(target))
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    connection = sqlite3.connect(target)
    try:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        (count,) = connection.execute("SELECT count(*) FROM certificates").fetchone()
    finally:
        connection.close()
    assert count == len(place.enroll.clients())
    assert "no such directory" in place.enroll.refused("enroll", "backup", "/nonexistent/x.db")

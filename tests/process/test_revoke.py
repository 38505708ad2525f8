"""`revoke`, as an administrator types it, beside a running daemon and without one."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from cryptography import x509
from daemon import ROOT, UNMEASURED, Daemon
from forked import mtls_sidecar
from pki import CA, Leaf

from sidecar.commands.revoke import denylist_file
from sidecar.commands.revoke.target import Target

staff = CA("Staff")
partners = CA("Partners")
alice = staff.issue("alice")
bob = staff.issue("bob")
USERS = x509.IssuingDistributionPoint(None, None, True, False, None, False, False)
carol = partners.issue("carol")

POLICY = """\
version: 1
trust:
  staff: {ca: ca.crt, denylist: deny.txt}
locations:
  - {name: site, location: /, allow: verified}
"""
TWO = """\
version: 1
trust:
  staff: {ca: ca.crt, denylist: deny.txt}
  partners: {ca: partners.crt}
locations:
  - {name: site, location: /, trust: [staff, partners], allow: verified}
"""
FILES = {"ca_crt": staff.pem, "partners_crt": partners.pem, "deny_txt": b"# nobody yet\n"}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A directory with a policy, its files and certificates, and the settings of no daemon."""
    daemon(tmp_path)
    return tmp_path


def daemon(directory: Path, policy: str = POLICY) -> Daemon:
    """A daemon that isn't started, and certificates beside its files."""
    for leaf in (alice, bob, carol):
        (directory / f"{leaf.name}.crt").write_bytes(leaf.pem)
        (directory / f"{leaf.name}.der").write_bytes(leaf.der)
    return Daemon(directory, policy, "", **FILES)


def run(
    place: Path, *arguments: str, user: int | None = None, groups: tuple[int, ...] = ()
) -> subprocess.CompletedProcess[str]:
    arguments = (arguments[0], "-c", "sidecar.yaml", *arguments[1:])
    if user is None:
        return mtls_sidecar(*arguments, cwd=place)
    return subprocess.run(
        [sys.executable, "-m", "sidecar", *arguments],
        cwd=place,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        # Another user can't write where it is kept what is measured.
        env={**os.environ, "PYTHONPATH": str(ROOT), **UNMEASURED},
        user=user,
        group=user,
        extra_groups=groups,
    )


def revoke(place: Path, *arguments: str) -> str:
    """What a `revoke` that succeeds prints."""
    found = run(place, "revoke", *arguments)
    assert found.returncode == 0, found.stdout + found.stderr
    return found.stdout


def refused(place: Path, *arguments: str, code: int = 2) -> str:
    """What a `revoke` that fails says; nothing was written where the call was wrong."""
    before = (place / "deny.txt").read_bytes()
    found = run(place, "revoke", *arguments)
    assert found.returncode == code, found.stdout + found.stderr
    assert "Traceback" not in found.stderr
    assert "('" not in found.stderr
    if code == 2:
        assert (place / "deny.txt").read_bytes() == before
    return found.stderr


def lines(place: Path) -> list[str]:
    return (place / "deny.txt").read_text().splitlines()


# -- in force


@pytest.mark.parametrize("target", ["alice.crt", "alice.der", "serial", "fingerprint"])
def test_a_revocation_is_in_force_when_revoke_returns(tmp_path: Path, target: str) -> None:
    """The very next request is denied, the other client goes on, and the daemon is named."""
    named = {
        "serial": ("--serial", f"{alice.serial:X}"),
        "fingerprint": (alice.sha256,),
    }.get(target, (target,))
    with daemon(tmp_path) as found:
        assert found.ask("site", alice).status == 204
        assert "in force: the daemon of" in revoke(tmp_path, *named, "--reason", "laptop\nstolen")
        assert found.ask("site", alice).reason == "revoked"
        assert found.ask("site", bob).status == 204
        assert "denied already" in revoke(tmp_path, *named)
    assert len(lines(tmp_path)) == 2
    assert "laptop stolen" in lines(tmp_path)[1]


def test_a_confirmed_revocation_outlives_kill_and_file(tmp_path: Path) -> None:
    """`revoke` returns, the daemon is killed at once, the list destroyed: a start still denies."""
    with daemon(tmp_path) as running:
        running.write("deny.txt", b"# a list that takes its time to be copied\n" * 200_000)
        revoke(tmp_path, alice.sha256)
        running.signal(signal.SIGKILL)
        assert running.process is not None
        running.process.wait(15)
        (tmp_path / "deny.txt").write_bytes(b"\0garbage")
        running.start()
        assert running.ask("site", alice).reason == "revoked"


def test_without_a_daemon_revoke_says_so(place: Path) -> None:
    """The line is written; nothing claims to be in force."""
    told = revoke(place, "alice.crt")
    assert "no daemon is running" in told
    assert f"sha256 {alice.sha256}" in lines(place)[1]
    assert run(place, "explain", "--location", "site", "--cert", "alice.crt").returncode == 1


def test_a_daemon_that_does_not_take_it_over_is_told_of(tmp_path: Path) -> None:
    """The daemon still serves an older policy, without a trust: exit 1, and what to do."""
    with daemon(tmp_path) as found:
        guests = "  guests: {ca: ca.crt, denylist: other.txt}\nlocations:"
        broken = POLICY.replace("locations:", guests).replace("allow:", "trust: nope, allow:")
        found.write("policy.yaml", broken)
        found.until(lambda: found.has_failed(1))
        told = refused(tmp_path, "alice.crt", code=1)
        assert (
            "not known to be in force: the daemon has not taken it over for trust 'guests'" in told
        )
        assert found.ask("site", alice).reason == "revoked"


def test_a_file_that_is_nobodys_denylist_is_told_of(place: Path) -> None:
    """--denylist writes where it is told to, and says that nobody is denied by it."""
    (place / "other.txt").touch()
    told = refused(place, "--denylist", "other.txt", "alice.crt", code=1)
    assert "no trust of" in told
    assert alice.sha256 in (place / "other.txt").read_text()
    assert "no daemon is running" in revoke(place, "--denylist", "deny.txt", "alice.crt")


def test_a_stranger_on_the_authorization_address_is_no_confirmation(place: Path) -> None:
    """Somebody listens, but no daemon with this state directory: exit 1."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(place / "authz.sock"))
        listener.listen()
        assert "--config" in refused(place, "alice.crt", code=1)


@pytest.mark.parametrize("name", ["authz-1.sock", "authz-blue.sock"])
def test_an_instance_that_can_not_be_asked_is_no_confirmation(place: Path, name: str) -> None:
    """One of several instances listens beside `listen`, as mtls-sidecar@.socket has it, and serves
    with another state directory, before a restart, say: that it isn't running is not said."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(place / name))
        listener.listen()
        told = refused(place, "alice.crt", code=1)
        assert f"something answers at unix:{place / name}" in told
    assert "no daemon is running" in revoke(place, "bob.crt")  # its socket is left, and nobody's


def test_a_daemon_of_another_policy_is_no_confirmation(tmp_path: Path) -> None:
    """The daemon at hand serves another policy: exit 1, and which."""
    with daemon(tmp_path):
        shutil.copy(tmp_path / "policy.yaml", tmp_path / "other.yaml")
        told = refused(tmp_path, "alice.crt", "--policy", "other.yaml", code=1)
        assert "serves another policy" in told


def second_instance(first: Daemon) -> Daemon:
    """An instance beside a running one, with its policy and its state directory."""
    place, text = first.config.parent, first.config.read_text()
    second = Daemon(place, first.policy.read_text())  # writes the file of the first anew
    first.config.write_text(text)
    second.socket, second.config = place / "authz-2.sock", place / "second.yaml"
    text = text.replace("authz.sock", "authz-2.sock")
    second.config.write_text(text.replace(f":{first.port}", f":{second.port}"))
    return second


def test_an_instance_that_hung_denies_whom_another_one_did(tmp_path: Path) -> None:
    """It hangs while another client is revoked, and the list is destroyed before it goes on: it is
    named, and denies by what the other instance has copied; so does a start of either."""
    first = daemon(tmp_path)
    with first, second_instance(first) as second:
        both_listen(first)
        assert second.process is not None
        second.signal(signal.SIGSTOP)
        told = refused(tmp_path, "bob.crt", code=1)
        assert f"(process {second.process.pid}) did not answer" in told
        assert first.ask("site", bob).reason == "revoked"
        (tmp_path / "deny.txt").write_bytes(b"\0garbage\n")
        first.until(lambda: first.has_failed(1))
        second.signal(signal.SIGCONT)
        second.until(lambda: second.ask("site", bob).reason == "revoked")
        assert first.ask("site", bob).reason == "revoked"
        for each in (second, first):
            each.signal(signal.SIGKILL)
            assert each.process is not None
            each.process.wait(15)
        first.start()
        second.start()
        assert first.ask("site", bob).reason == "revoked"
        assert second.ask("site", bob).reason == "revoked"


@pytest.mark.parametrize("how", ["garbage", "removed", "older", "another scope"])
def test_an_instance_that_hung_denies_by_the_crl_of_another(tmp_path: Path, how: str) -> None:
    """The CRL is destroyed, set back or exchanged before it goes on."""
    exchanged = {"older": staff.crl(number=5), "another scope": staff.crl(number=7, idp=USERS)}
    policy = POLICY.replace("denylist:", "crl: [ca.crl], denylist:", 1)
    first = daemon(tmp_path)
    (tmp_path / "ca.crl").write_bytes(exchanged["older"])
    first.policy.write_text(policy)
    marks = tmp_path / "state" / "crl-watermarks.json"
    with first, second_instance(first) as second:
        both_listen(first)
        first.until(marks.exists)
        before = marks.read_text()
        second.signal(signal.SIGSTOP)
        first.write("ca.crl", staff.crl([bob], number=6))
        first.until(lambda: first.ask("site", bob).reason == "revoked")
        first.until(lambda: marks.read_text() != before)
        if how == "removed":
            (tmp_path / "ca.crl").unlink()
        else:
            first.write("ca.crl", exchanged.get(how, b"garbage"))
        second.signal(signal.SIGCONT)
        second.until(lambda: second.ask("site", bob).reason == "revoked")
        assert first.ask("site", bob).reason == "revoked"


def both_listen(found: Daemon) -> None:
    state = found.config.parent / "state"
    found.until(lambda: len(list(state.glob("control*.sock"))) == 2)


def test_every_instance_must_confirm(tmp_path: Path) -> None:
    """Two instances share a state directory; while one hangs, nobody says that it is in force."""
    first = daemon(tmp_path)
    with first:
        second = second_instance(first)
        with second:
            both_listen(first)
            assert "all 2 instances" in revoke(tmp_path, "alice.crt")
            assert second.ask("site", alice).reason == "revoked"
            second.signal(signal.SIGSTOP)
            assert "timed out" in refused(tmp_path, "bob.crt", code=1)
            first.stop()
            first.process = None
            assert "timed out" in refused(tmp_path, "bob.crt", code=1)
            second.signal(signal.SIGCONT)
            assert "the daemon of" in revoke(tmp_path, "bob.crt")
            assert second.ask("site", bob).reason == "revoked"
    assert not list((tmp_path / "state").glob("control*.sock"))


def test_the_control_socket_is_the_owners_alone(tmp_path: Path) -> None:
    """Mode 0600; it goes with the daemon, and garbage on it harms nobody."""
    found = daemon(tmp_path)
    with found:
        control = tmp_path / "state/control.sock"
        found.until(control.exists)
        assert stat.S_IMODE(control.stat().st_mode) == 0o600
        for said in (b"\n", b"[]\n", b"{\n", b'{"kind":"x","value":"0"}\n', b"\xff" * 2**21):
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as peer:
                peer.connect(str(control))
                try:
                    peer.sendall(said)
                    peer.shutdown(socket.SHUT_WR)
                    assert b"trusts" not in peer.recv(65536)
                except (BrokenPipeError, ConnectionResetError):
                    pass
        assert found.ask("site", alice).status == 204
        assert "Traceback" not in found.log.read_text()
    assert not control.exists()


def test_a_broken_policy_holds_no_revocation_up(tmp_path: Path) -> None:
    """The trusts are then those that the daemon has in force."""
    with daemon(tmp_path) as found:
        found.write("policy.yaml", "version: [\n")
        found.until(lambda: found.has_failed(1))
        assert "in force" in revoke(tmp_path, "alice.crt")
        assert found.ask("site", alice).reason == "revoked"


def test_a_list_can_be_written_before_there_is_a_policy(place: Path) -> None:
    """--denylist without a policy, and without a daemon: done, and it says that none runs."""
    (place / "policy.yaml").unlink()
    assert "no daemon is running" in revoke(place, "alice.crt", "--denylist", "deny.txt")
    assert "policy.yaml" in refused(place, "alice.crt")


# -- which list


def test_a_trust_without_a_denylist_is_an_error_that_names_it(tmp_path: Path) -> None:
    """Carol's trust has none, while another's has one: nothing is written."""
    with daemon(tmp_path, TWO) as found:
        assert "'partners' has no denylist" in refused(tmp_path, "carol.crt")
        assert "'partners' has no denylist" in refused(tmp_path, "0A1B")
        assert "'partners' has no denylist" in refused(tmp_path, "alice.crt", "--trust", "partners")
        assert "in force" in revoke(tmp_path, "alice.crt")  # partners can't have issued hers
        assert "in force" in revoke(tmp_path, "0A1B", "--trust", "staff")
        assert found.ask("site", alice).reason == "revoked"


def test_a_trust_that_did_not_issue_the_target_is_told(tmp_path: Path) -> None:
    """Carol is denied by no line in staff's list: the call says so, with --trust and --denylist."""
    daemon(tmp_path, TWO.replace("partners.crt}", "partners.crt, denylist: p.txt}"))
    (tmp_path / "p.txt").touch()
    for where in (["--trust", "staff"], ["--denylist", "deny.txt"]):
        found = run(tmp_path, "revoke", "carol.crt", *where)
        assert found.returncode == 0, found.stderr
        assert "warning: no authority of trust 'staff' issued it" in found.stderr
        assert run(tmp_path, "revoke", "alice.crt", *where).stderr == ""
    assert run(tmp_path, "revoke", "carol.crt").stderr == ""
    assert run(tmp_path, "revoke", "0A1B", "--trust", "staff").stderr == ""


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["zzz"], "neither a file nor a serial number"),
        (["alice.crt", "--trust", "nobody"], "it has: staff"),
        (["0A", "--key"], "--key goes with"),
        (["alice.crt", "--until", "soon"], "soon"),
        (["alice.crt", "--until", "2001-01-01"], "has passed"),
        (["alice.crt", "--denylist", "nowhere.txt"], "make it first"),
        (["alice.crt", "--serial", "0A"], "say one target"),
        ([], "say one target"),
        (["--list", "0A"], "say one target"),
    ],
)
def test_revoke_refuses_what_it_can_not_do(place: Path, arguments: list[str], told: str) -> None:
    """A call that is wrong, or would deny nobody: exit 2, nothing written."""
    assert told in refused(place, *arguments)


def test_a_bad_line_elsewhere_does_not_stop_a_revocation(place: Path) -> None:
    """It stays as it is, and the new line is written."""
    (place / "deny.txt").write_bytes(b"serial ??\n\xff\xfe\nserial 0A")
    revoke(place, "alice.crt")
    found = (place / "deny.txt").read_bytes()
    assert found.startswith(b"serial ??\n\xff\xfe\nserial 0A\nsha256 ")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_list_and_a_ca_that_powershell_wrote_deny_nobody_less(
    tmp_path: Path, encoding: str
) -> None:
    """The first authority and the first line count; what `revoke` appends is in force."""
    with daemon(tmp_path) as running:
        assert running.ask("site", carol).reason == "untrusted_issuer"
        both = (partners.pem + staff.pem).decode()
        running.write("ca.crt", both.encode(encoding))
        running.until(lambda: running.ask("site", carol).status == 204)
        listed = f"sha256 {carol.sha256}\r\nsha256 {bob.sha256}\r\n"
        running.write("deny.txt", listed.encode(encoding))
        running.until(lambda: running.ask("site", bob).reason == "revoked")
        assert running.ask("site", carol).reason == "revoked"
        assert running.ask("site", alice).status == 204
        revoke(tmp_path, "alice.crt")
        assert running.ask("site", alice).reason == "revoked"
        assert running.ask("site", carol).reason == "revoked"


# -- what the target is


@pytest.mark.parametrize("name", ["0A1B", alice.sha256, "12"])
def test_a_target_that_is_also_a_file_is_asked_about(place: Path, name: str) -> None:
    """A file of that name, which holds bob's certificate, is not taken, nor is the number."""
    (place / name).write_bytes(bob.pem)
    told = refused(place, name)
    assert f"--file {name}" in told
    assert f"--{'fingerprint' if len(name) == 64 else 'serial'} {name}" in told
    revoke(place, "--file", name)
    assert bob.sha256 in lines(place)[1]
    revoke(place, name, "--fingerprint" if len(name) == 64 else "--serial")
    assert (name if len(name) == 64 else f"serial {name} ") in lines(place)[2]
    revoke(place, f"./{name}")
    assert len(lines(place)) == 3


@pytest.mark.parametrize("digits", [32, 40, 96, 128])
@pytest.mark.parametrize("colons", [False, True])
def test_what_may_be_another_fingerprint_is_asked_about(
    place: Path, digits: int, colons: bool
) -> None:
    """MD5, SHA-1, SHA-384 and SHA-512 fingerprints are as long as serial numbers can be."""
    text = "A1" * (digits // 2)
    text = ":".join(text[at : at + 2] for at in range(0, digits, 2)) if colons else text
    assert f"--serial {text}" in refused(place, text)
    revoke(place, "--serial", text)
    assert f"serial {'A1' * (digits // 2)} " in lines(place)[1]


def test_what_looks_decimal_is_asked_about(place: Path) -> None:
    """Both spellings are told, and each is taken."""
    told = refused(place, "1234567890123456")
    assert "0x462D53C8ABAC0 if it is decimal, 0x1234567890123456 if" in told
    assert "looks decimal" in refused(place, "--serial", "1234567890123456")
    revoke(place, "0x1234567890123456")
    revoke(place, "0x462D53C8ABAC0")


def openssl(place: Path, *arguments: str) -> bytes:
    return subprocess.run(
        ["openssl", *arguments], cwd=place, capture_output=True, check=True
    ).stdout


def test_certificates_in_every_dress_are_taken(place: Path) -> None:
    """DER, `-trustout`, `x509 -text` and the same certificate twice: one and the same line."""
    (place / "t.pem").write_bytes(
        openssl(place, "x509", "-in", "alice.crt", "-trustout", "-addreject", "clientAuth")
    )
    assert b"TRUSTED" in (place / "t.pem").read_bytes()
    (place / "text.pem").write_bytes(openssl(place, "x509", "-in", "alice.crt", "-text"))
    (place / "twice.pem").write_bytes(alice.pem + alice.pem)
    for name in ("alice.crt", "alice.der", "t.pem", "text.pem", "twice.pem"):
        revoke(place, name)
    assert len(lines(place)) == 2
    assert f"sha256 {alice.sha256}" in lines(place)[1]


def test_other_files_are_refused_with_the_way_out(place: Path) -> None:
    """PKCS #12, PKCS #7, a key, a chain, plain text, an empty file, a FIFO, a link to nowhere."""
    key = alice.key_pem
    (place / "alice.key").write_bytes(key)
    export = ["pkcs12", "-export", "-in", "alice.crt", "-inkey", "alice.key", "-passout", "pass:x"]
    (place / "alice.p12").write_bytes(openssl(place, *export))
    (place / "alice.p7b").write_bytes(
        openssl(place, "crl2pkcs7", "-nocrl", "-certfile", "alice.crt")
    )
    (place / "chain.pem").write_bytes(alice.pem + staff.pem)
    (place / "note.txt").write_text("alice's laptop\n")
    (place / "empty.crt").write_bytes(b"")
    (place / "cut.der").write_bytes(alice.der[:-9])
    os.mkfifo(place / "fifo.crt")
    (place / "gone.crt").symlink_to("nowhere.crt")
    assert "openssl pkcs12 -in alice.p12" in refused(place, "alice.p12")
    assert "openssl pkcs7 -in alice.p7b" in refused(place, "alice.p7b")
    assert "PRIVATE KEY" in refused(place, "alice.key")
    told = refused(place, "chain.pem")
    assert "2 certificates" in told
    assert alice.sha256 in told
    for name in ("note.txt", "empty.crt", "cut.der"):
        assert "give the certificate as PEM or DER" in refused(place, name), name
    assert "not a regular file" in refused(place, "fifo.crt")
    assert "isn't there" in refused(place, "gone.crt")
    assert "directory" in refused(place, "--file", ".")


# -- the file


def test_revoke_a_key_denies_every_certificate_of_it(place: Path) -> None:
    """--key writes the key's fingerprint."""
    revoke(place, "alice.crt", "--key")
    assert alice.spki_sha256 in (place / "deny.txt").read_text()
    again: Leaf = staff.issue("alice", key=alice.private)
    (place / "again.crt").write_bytes(again.pem)
    found = run(place, "explain", "--location", "site", "--cert", "again.crt", "--json")
    assert json.loads(found.stdout)["reason"] == "revoked"


def test_a_dangling_link_makes_no_file_elsewhere(place: Path) -> None:
    """The denylist's path is a link to nowhere: an error that names it."""
    (place / "deny.txt").unlink()
    (place / "deny.txt").symlink_to("elsewhere.txt")
    found = run(place, "revoke", "alice.crt")
    assert found.returncode == 2
    assert "it is a link to elsewhere.txt" in found.stderr
    assert not (place / "elsewhere.txt").exists()
    assert not list(place.glob(".deny*"))


def test_a_link_to_the_list_is_followed(place: Path) -> None:
    """The file behind the link gets the line; the link stays."""
    (place / "deny.txt").rename(place / "real.txt")
    (place / "deny.txt").symlink_to("real.txt")
    revoke(place, "alice.crt")
    assert (place / "deny.txt").is_symlink()
    assert alice.sha256 in (place / "real.txt").read_text()


def test_mode_and_hard_links_are_kept(place: Path) -> None:
    """The mode stays, and a file with two names is still one file."""
    (place / "deny.txt").chmod(0o640)
    revoke(place, "alice.crt")
    assert stat.S_IMODE((place / "deny.txt").stat().st_mode) == 0o640
    os.link(place / "deny.txt", place / "same.txt")
    revoke(place, "bob.crt")
    assert bob.sha256 in (place / "same.txt").read_text()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_the_group_of_the_list_is_kept(place: Path) -> None:
    """A user who is not in the list's group leaves owner and group as they are."""
    user, group = 64321, 64322
    for parent in place.parents:
        if parent.stat().st_uid == 0 and not parent.stat().st_mode & stat.S_IXOTH:
            parent.chmod(parent.stat().st_mode | stat.S_IXOTH)
    os.chown(place, user, user)
    for owner in (user, 0):
        os.chown(place / "deny.txt", owner, group)
        (place / "deny.txt").chmod(0o660 if owner else 0o666)
        serial = f"0A{owner:X}"
        found = run(place, "revoke", serial, user=user)
        assert found.returncode == 0, found.stderr
        kept = (place / "deny.txt").stat()
        assert (kept.st_uid, kept.st_gid) == (owner, group)
        assert f"serial {serial.lstrip('0')}" in (place / "deny.txt").read_text().replace(" 0", " ")
    with_group = run(place, "revoke", "0B", user=user, groups=(group,))
    assert with_group.returncode == 0, with_group.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_the_policys_owner_has_root_write_no_file_of_roots(place: Path) -> None:
    """The policy names a file of root's that is no denylist: an error; nothing is written."""
    ours = place / "sudoers"
    ours.write_text("root ALL=(ALL) ALL\n")
    (place / "policy.yaml").write_text(POLICY.replace("deny.txt", "sudoers"))
    os.chown(place / "policy.yaml", 64321, 64321)
    assert f"say --denylist {ours} if it is meant" in refused(place, "alice.crt")
    assert ours.read_text() == "root ALL=(ALL) ALL\n"
    os.chown(place / "policy.yaml", 0, 0)
    revoke(place, "alice.crt")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
def test_the_daemons_user_has_root_write_no_file_of_roots(place: Path) -> None:
    """While the policy is broken, a daemon of another user tells where its denylist is."""
    ours, state = place / "sudoers", place / "state"
    ours.write_text("root ALL=(ALL) ALL\n")
    (place / "policy.yaml").write_text("broken")
    state.mkdir(exist_ok=True)
    os.chown(state, 64321, 64321)
    trusts = {"staff": {"denylists": [str(ours)], "lines": []}}
    told = json.dumps({"policy": str(place / "policy.yaml"), "trusts": trusts}).encode() + b"\n"

    def answer(listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                peer, _ = listener.accept()
                with peer:
                    peer.recv(65536)
                    peer.sendall(told)

    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(state / "control.sock"))
        listener.listen()
        thread = threading.Thread(target=answer, args=(listener,))
        thread.start()
        said = refused(place, "--serial", "0A")
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()
    assert f"say --denylist {ours} if it is meant" in said
    assert ours.read_text() == "root ALL=(ALL) ALL\n"


def test_two_who_revoke_at_once_lose_nothing(place: Path) -> None:
    """Ten at the same time are ten lines."""
    serials = [f"{number:02X}" for number in range(10, 20)]
    threads = [threading.Thread(target=run, args=(place, "revoke", s)) for s in serials]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    text = (place / "deny.txt").read_text()
    assert all(f"serial {serial} " in text for serial in serials)


def test_nobody_else_holds_a_revocation_up(place: Path) -> None:
    """A lock that any user can take, on the directory or on the denylist, is none of ours."""
    with (place / "deny.txt").open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        directory = os.open(place, os.O_RDONLY)
        fcntl.flock(directory, fcntl.LOCK_EX)
        revoke(place, "0A")
        os.close(directory)
    assert stat.S_IMODE((place / ".deny.txt.lock").stat().st_mode) == 0o600


def test_a_directory_that_everyone_may_write_is_refused(place: Path) -> None:
    """There the lock and the list are anybody's: an error with the way out."""
    place.chmod(0o777)
    assert f"chmod o-w {place}" in refused(place, "alice.crt")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_lock_that_somebody_else_planted_is_refused(place: Path) -> None:
    """Also in a sticky directory: whoever made the lock could hold it."""
    place.chmod(0o1777)
    lock = place / ".deny.txt.lock"
    lock.touch()
    lock.chmod(0o600)
    os.chown(lock, 64321, 64321)
    assert f"{lock}: " in refused(place, "alice.crt")


def test_a_revocation_that_waits_too_long_says_so(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Held up by another `revoke` that hangs: an error with the way out, not an endless wait."""
    monkeypatch.setattr(denylist_file, "PATIENCE", 0.1)
    with (place / ".deny.txt.lock").open("ab") as file:
        os.fchmod(file.fileno(), 0o600)
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(OSError, match="another `revoke` holds it"):
            denylist_file.add(place / "deny.txt", Target("serial", "0A"), "", "")


# -- undo and list


def test_undo_takes_back_that_line_alone(tmp_path: Path) -> None:
    """The daemon confirms it, and what revokes the certificate all the same is told."""
    with daemon(tmp_path) as found:
        revoke(tmp_path, "alice.crt")
        revoke(tmp_path, "--serial", f"{alice.serial:X}")
        told = revoke(tmp_path, "--undo", "alice.crt")
        assert "undone: the daemon of" in told
        assert f"it is revoked still: denylist {tmp_path}/deny.txt:2" in told
        assert found.ask("site", alice).reason == "revoked"
        told = revoke(tmp_path, "--undo", "--serial", f"{alice.serial:X}")
        assert "still" not in told
        assert found.ask("site", alice).status == 204
    assert (tmp_path / "deny.txt").read_bytes() == FILES["deny_txt"]
    assert "nothing to undo" in refused(tmp_path, "--undo", "alice.crt", code=1)


def test_list_prints_what_denies_now(place: Path) -> None:
    """By trust and file, with ends and comments; what has ended or can't be read is left out."""
    text = "serial 0A until 2999-01-01 # stolen\nserial 0B until 2001-01-01\nserial ??\n"
    (place / "deny.txt").write_text(text)
    found = run(place, "revoke", "--list")
    assert found.returncode == 0
    assert f"staff: {place}/deny.txt\n  line 1: serial A until 2999-01-02T00:00:00Z # stolen\n" in (
        found.stdout.replace("serial 0A", "serial A")
    )
    assert "0B" not in found.stdout
    assert "deny.txt:3:8" in found.stderr
    listed = json.loads(run(place, "revoke", "--list", "--json").stdout)
    assert [(each["trust"], each["line"], each["kind"]) for each in listed] == [
        ("staff", 1, "serial")
    ]
    assert (listed[0]["until"], listed[0]["comment"]) == ("2999-01-02T00:00:00Z", "stolen")


# -- authorities


def test_revoking_an_authority_denies_everybody_below_it(tmp_path: Path) -> None:
    """An issuing CA of which the key was stolen; it is said whom that denies."""
    issuing = staff.intermediate("Issuing")
    dora = issuing.issue("dora")
    policy = POLICY.replace("denylist:", "intermediates: issuing.crt, denylist:")
    one = daemon(tmp_path, policy)
    (tmp_path / "issuing.crt").write_bytes(issuing.pem)
    with one:
        assert (one.ask("site", dora).status, one.ask("site", alice).status) == (204, 204)
        said = revoke(tmp_path, "issuing.crt")
        assert "in force" in said
        assert "CN=Issuing is an authority: every certificate below it is denied" in said
        assert one.ask("site", dora).reason == "revoked"
        assert one.ask("site", alice).status == 204
        revoke(tmp_path, "--undo", "issuing.crt")
        assert one.ask("site", dora).status == 204


def test_an_authority_whose_clients_go_on_is_not_called_denied(tmp_path: Path) -> None:
    """The line names a certificate that the trust's files lack: exit 1, and what to do instead."""
    issuing = staff.intermediate("Issuing")
    renewed = CA("Issuing", issuer=staff, key=issuing.key)
    dora = renewed.issue("dora")
    one = daemon(tmp_path, POLICY.replace("denylist:", "intermediates: issuing.crt, denylist:"))
    (tmp_path / "issuing.crt").write_bytes(renewed.pem)
    (tmp_path / "old.crt").write_bytes(issuing.pem)
    with one:
        said = refused(tmp_path, "old.crt", code=1)
        assert "CN=Issuing is an authority, but trust 'staff' has another certificate" in said
        assert one.ask("site", dora).status == 204
        assert "every certificate below it is denied" in revoke(tmp_path, "old.crt", "--key")
        assert one.ask("site", dora).reason == "revoked"


# -- full disks


def test_half_a_line_is_never_left(place: Path) -> None:
    """Where the disk fills up in the middle of a line, the file is as before: `serial 0A` of
    `serial 0A1B` would deny somebody else."""
    (place / "deny.txt").write_bytes(b"# nobody\n" * 1000)
    command = [sys.executable, "-m", "sidecar", "revoke", "-c", "sidecar.yaml", "alice.crt"]
    for room in (0, 1, 20):
        limit = f"--fsize={9000 + room}"
        env = {**os.environ, "PYTHONPATH": str(ROOT)}
        found = subprocess.run(
            ["prlimit", limit, *command], cwd=place, capture_output=True, check=False, env=env
        )
        assert found.returncode == 2, found.stderr
        assert b"not revoked in" in found.stderr
        assert (place / "deny.txt").read_bytes() == b"# nobody\n" * 1000


def test_a_confirmation_says_that_nothing_is_kept(tmp_path: Path) -> None:
    """While the state directory can't be written, a revocation is in force, but for the next start
    there is the denylist alone; it is kept as soon as that is possible, without another change."""
    copies = tmp_path / "state" / "last-good"
    with daemon(tmp_path) as one:
        one.until(lambda: (copies / "manifest.json").exists())
        copies.rename(tmp_path / "away")
        copies.write_bytes(b"in the way")
        said = revoke(tmp_path, "alice.crt")
        assert one.ask("site", alice).reason == "revoked"
        assert "in force" in said
        assert "can't copy that" in said
        copies.unlink()
        (tmp_path / "away").rename(copies)
        one.until(lambda: "can't copy" not in revoke(tmp_path, "alice.crt"))
        one.signal(signal.SIGKILL)
        assert one.process is not None
        one.process.wait(15)
        (tmp_path / "deny.txt").write_bytes(b"\0garbage")
        one.start()
        assert one.ask("site", alice).reason == "revoked"

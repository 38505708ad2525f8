"""`check` and the daemon's log, as an administrator sees them."""

from __future__ import annotations

import json
import os
import pwd
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from daemon import ROOT, Daemon
from forked import mtls_sidecar
from pki import CA

from sidecar.commands.check import User, service_user, unreadable
from sidecar.core.policy.spec import read_policy
from sidecar.runtime.files import crl_state_path

staff = CA("Staff")

DOUBTFUL = """\
version: 1
locations:
  - name: site
    allow:
      - {cn: alice, until: 2020-01-31}
      - {dn: 'C=DE,O=Ex,CN=alice'}
"""

CONTRADICTORY = """\
version: 1
locations:
  - name: site
    allow:
      - {all: [{cn: alice}, {cn: bob}]}
      - {cn: mallory, ou: SRE}
      - {cn: alice}
    deny: [{cn: "mal*"}]
"""


def run(place: Path, *arguments: str, **more: object) -> subprocess.CompletedProcess[str]:
    if not more:
        return mtls_sidecar(*arguments, cwd=place)
    command = [sys.executable, "-m", "sidecar", *arguments]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(  # type: ignore[call-overload,no-any-return]  # `more` is stdout or stderr
        command,
        cwd=place,
        text=True,
        timeout=60,
        check=False,
        env=env,
        **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **more},
    )


def test_a_warning_has_its_place_and_is_no_mistake(tmp_path: Path) -> None:
    """`check` prints file, line and column of what will hardly be meant, and exits 0."""
    path = tmp_path / "policy.yaml"
    path.write_text(DOUBTFUL)
    found = run(tmp_path, "check", str(path))
    assert found.returncode == 0, found.stderr
    assert f"warning: {path}:5:28: `until: 2020-01-31` is past" in found.stderr
    assert f"warning: {path}:6:14: dn: the RDNs seem to be in OpenSSL's order" in found.stderr
    assert "write the last RDN first: CN=alice,O=Ex,C=DE" in found.stderr


def test_a_rule_that_contradicts_itself_is_a_warning(tmp_path: Path) -> None:
    """`check` tells what can never match, and what `deny` leaves nobody to, with its place."""
    path = tmp_path / "policy.yaml"
    path.write_text(CONTRADICTORY)
    found = run(tmp_path, "check", str(path))
    assert found.returncode == 0, found.stderr
    assert f"warning: {path}:5:9: rule allow[0] can never match: " in found.stderr
    assert f"warning: {path}:6:9: allow[1] lets nobody into location 'site': " in found.stderr
    assert found.stderr.count("warning") == 2


def test_a_mistake_is_shown_in_its_line(tmp_path: Path) -> None:
    """The line, and a caret under the column; for programs the same as JSON."""
    (tmp_path / "p.yaml").write_text(DOUBTFUL.replace("allow", "alow"))
    found = run(tmp_path, "check", "p.yaml")
    assert found.returncode == 2
    assert found.stderr.splitlines()[1:3] == ["    4 |     alow:", "      |     ^"]
    found = run(tmp_path, "check", "p.yaml", "--json")
    told = json.loads(found.stdout)
    assert (found.returncode, found.stderr, told["ok"]) == (2, "", False)
    [mistake] = told["mistakes"]
    assert (mistake["file"], mistake["line"], mistake["column"]) == ("p.yaml", 4, 5)
    assert mistake["hint"] == "did you mean 'allow'?"


def test_a_good_policy_is_told_as_json(tmp_path: Path) -> None:
    """Its hash, its locations, and the warnings that leave the exit code at 0."""
    (tmp_path / "p.yaml").write_text(DOUBTFUL)
    found = run(tmp_path, "check", "p.yaml", "--json")
    told = json.loads(found.stdout)
    assert (found.returncode, told["ok"], told["locations"]) == (0, True, ["site"])
    assert len(told["policy"]) == 12
    assert [each["line"] for each in told["warnings"]] == [5, 6]


def test_the_daemon_logs_a_warning_and_serves(tmp_path: Path) -> None:
    """What `check` warns of, the daemon says at start, and refuses nothing for it."""
    with Daemon(tmp_path, DOUBTFUL) as daemon:
        assert "is past" in daemon.log.read_text()


def test_a_mistake_in_an_argument_is_told_in_words(tmp_path: Path) -> None:
    """No tuple, no errno: what is wrong and what to write instead."""
    (tmp_path / "policy.yaml").write_text("version: 1\nlocations: [{name: a, allow: verified}]\n")
    explain = ["explain", "--policy", "policy.yaml", "--location", "a"]
    found = run(tmp_path, *explain, "--now", "tomorrow")
    assert found.returncode == 2
    assert found.stderr == (
        "mtls-sidecar: 'tomorrow' is not a date; write 2027-01-31 or 2027-01-31T18:00:00Z\n"
    )
    found = run(tmp_path, "check", "--config", "none.yaml")
    assert (found.returncode, found.stderr) == (
        2,
        "mtls-sidecar: none.yaml: No such file or directory\n",
    )


def test_a_reader_that_goes_away_is_no_error(tmp_path: Path) -> None:
    """`mtls-sidecar schema | head -0` says nothing about a broken pipe."""
    reading, writing = os.pipe()
    os.close(reading)
    found = run(tmp_path, "schema", stdout=writing)
    os.close(writing)
    assert (found.returncode, found.stderr) == (2, "")


@pytest.mark.parametrize("name", ["", "a" * 100])
def test_a_librarys_warning_about_a_name_is_not_told(name: str, tmp_path: Path) -> None:
    """An empty or a long CN is no news for the journal: whoever has one chose it."""
    leaf = staff.forge(cn=name)
    (tmp_path / "leaf.crt").write_bytes(leaf.pem)
    (tmp_path / "ca.crt").write_bytes(staff.pem)
    (tmp_path / "policy.yaml").write_text(
        "version: 1\ntrust: {t: {ca: ca.crt}}\n"
        "locations: [{name: a, allow: [{issuer_cn: Staff}]}]\n"
    )
    found = run(tmp_path, *"explain --policy policy.yaml --location a --cert leaf.crt".split())
    assert (found.returncode, found.stderr) == (0, "")


@pytest.mark.skipif(os.geteuid() != 0, reason="asking as another user takes root")
def test_what_the_services_user_can_not_read_is_told(tmp_path: Path) -> None:
    """A file that root reads and the service doesn't is told with its place in the policy."""
    found = pwd.getpwnam("nobody")
    nobody = User("nobody", found.pw_uid, found.pw_gid, (found.pw_gid,))
    text = "version: 1\ntrust: {t: {ca: ca.crt, denylist: deny.txt}}\nlocations: []\n"
    policy = tmp_path / "policy.yaml"
    policy.write_text(text)
    for name, mode in (("ca.crt", 0o600), ("deny.txt", 0o644)):
        (tmp_path / name).write_bytes(staff.pem)
        (tmp_path / name).chmod(mode)
    spec = read_policy(text.encode(), "policy.yaml")
    for directory in (tmp_path, *tmp_path.parents):
        if directory.stat().st_uid == 0 and not directory.stat().st_mode & stat.S_IXOTH:
            directory.chmod(0o711)
    [told] = unreadable(spec, policy, nobody)
    assert (told.line, told.column) == (2, 17)
    assert "the service's user nobody can't read" in told.message


@pytest.mark.skipif(os.geteuid() != 0, reason="asking as another user takes root")
@pytest.mark.parametrize("name", ["sidecar.yaml", "policy.yaml"])
def test_who_may_not_read_the_configuration_is_told_to_be_root(name: str, tmp_path: Path) -> None:
    """The installed files are for root and the services alone: the message says what to type."""
    policy = tmp_path / "policy.yaml"
    policy.write_text("version: 1\nlocations: []\n")
    (tmp_path / "sidecar.yaml").write_text(f"policy: {policy}\n")
    (tmp_path / name).chmod(0o640)
    script = (
        "import os, sys; from sidecar.cli import main; os.setgroups([]); os.setgid(65534);"
        "os.setuid(65534); sys.exit(main(['check', '--config', sys.argv[1]]))"
    )
    tmp_path.chmod(0o711)
    for directory in tmp_path.parents:
        if directory.stat().st_uid == 0 and not directory.stat().st_mode & stat.S_IXOTH:
            directory.chmod(0o711)
    done = subprocess.run(
        [sys.executable, "-c", script, tmp_path / "sidecar.yaml"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert f"{name}: " in done.stderr
    assert "Permission denied; try it as root (sudo)" in done.stderr


def test_a_file_that_everyone_may_write_is_refused_as_by_the_daemon(tmp_path: Path) -> None:
    """What the daemon wouldn't take, `check` doesn't either, the policy's files included."""
    policy, ca = tmp_path / "policy.yaml", tmp_path / "ca.crt"
    policy.write_text("version: 1\ntrust: {t: {ca: ca.crt}}\nlocations: []\n")
    ca.write_bytes(staff.pem)
    for path in (policy, ca):
        path.chmod(0o666)
        found = run(tmp_path, "check", str(policy))
        assert found.returncode == 2
        assert "everyone may write it" in found.stderr
        (tmp_path / "sidecar.yaml").write_text("allow_writable_policy: true\n")
        found = run(tmp_path, "check", "-c", "sidecar.yaml", str(policy))
        assert found.returncode == 0, found.stderr
        path.chmod(0o644)


def test_without_the_services_user_nobody_is_asked() -> None:
    """On a machine without the user there is nobody to ask as."""
    assert service_user("no-such-user-here") is None
    assert service_user("root") is None


@pytest.mark.parametrize("how", ["garbage", "FIFO", "directory", "link"])
def test_what_was_fetched_and_can_not_be_used_is_a_warning(tmp_path: Path, how: str) -> None:
    """As for the daemon, it counts as not fetched yet: whoever took the fetcher over keeps no
    policy from being checked, and no `systemctl reload` from succeeding."""
    address = "http://ca.test/staff.crl"
    (tmp_path / "ca.crt").write_bytes(staff.pem)
    (tmp_path / "sidecar.yaml").write_text(f"state_dir: {tmp_path}/state\n")
    (tmp_path / "policy.yaml").write_text(
        "version: 1\ntrust:\n"
        f"  staff: {{ca: ca.crt, crl: ['{address}'], revocation: best_effort}}\n"
        "locations: [{name: site, allow: verified}]\n"
    )
    place = crl_state_path(tmp_path / "state", "staff", address)
    place.parent.mkdir(parents=True)
    if how == "garbage":
        place.write_text("garbage")
    elif how == "FIFO":
        os.mkfifo(place)
    elif how == "directory":
        place.mkdir()
    else:
        place.symlink_to("/dev/zero")
    found = run(tmp_path, "check", "policy.yaml", "-c", "sidecar.yaml")
    assert found.returncode == 0, found.stderr
    assert "warning: policy.yaml:3:" in found.stderr
    assert "it counts as not fetched yet" in found.stderr

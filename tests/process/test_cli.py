"""The commands, as an administrator types them."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

import chains
import pytest
from daemon import ROOT
from der import pem
from forked import mtls_sidecar
from pki import CA

from sidecar import cli

staff = CA("Staff")
alice = staff.issue("alice", dns=["app.example.com"])
bob = staff.issue("bob")

POLICY = """\
version: 1
trust:
  staff: {ca: ca.crt, denylist: deny.txt}
locations:
  - {name: admin, location: /admin/, allow: [{name: ops, cn: alice, roles: [op]}]}
  - {name: site, location: /, allow: verified, san_matches_host: true, sni_matches_host: true}
  - {name: lan, allow: [{client_ip: 10.0.0.0/8, method: GET}]}
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "policy.yaml").write_text(POLICY)
    (tmp_path / "ca.crt").write_bytes(staff.pem)
    (tmp_path / "deny.txt").write_text("# nobody yet\n")
    for leaf in (alice, bob):
        (tmp_path / f"{leaf.name}.crt").write_bytes(leaf.pem)
        (tmp_path / f"{leaf.name}.der").write_bytes(leaf.der)
    return tmp_path


def run(place: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    if "--policy" not in arguments and arguments[0] not in ("schema", "check", "clients"):
        arguments = (*arguments, "--policy", str(place / "policy.yaml"))
    return mtls_sidecar(*arguments, cwd=place)


@pytest.mark.parametrize(
    ("arguments", "code", "reason"),
    [
        (["--location", "admin", "--cert", "alice.crt"], 0, "allowed"),
        (["--location", "admin", "--cert", "alice.der"], 0, "allowed"),
        (["--location", "admin", "--cert", "bob.crt"], 1, "not_allowed"),
        (["--location", "admin"], 1, "no_certificate"),
        (["--location", "admin", "--cert", "ca.crt"], 1, "not_allowed"),
        (["--location", "admin", "--cert", "policy.yaml"], 1, "malformed_certificate"),
        (["--location", "admin", "--cert", "alice.crt", "--verify", "NONE"], 1, "verify_failed"),
        (["--location", "admin", "--cert", "alice.crt", "--now", "1999-01-01"], 1, "not_yet_valid"),
        (["--location", "nope"], 1, "unknown_location"),
        (
            ["--host", "App.Example.com:443", "--uri", "/admin/x", "--cert", "alice.crt"],
            0,
            "allowed",
        ),
        (["--host", "app.example.com", "--uri", "/", "--cert", "alice.crt"], 1, "sni_mismatch"),
        (
            "--host app.example.com --uri / --sni app.example.com --cert alice.crt".split(),
            0,
            "allowed",
        ),
        (["--location", "lan", "--cert", "bob.crt", "--client-ip", "10.1.1.1"], 0, "allowed"),
        (
            "--location lan --cert bob.crt --client-ip 10.1.1.1 --method PUT".split(),
            1,
            "not_allowed",
        ),
    ],
)
def test_explain(place: Path, arguments: list[str], code: int, reason: str) -> None:
    """explain answers as the daemon would: exit 0 allow, 1 deny, with each step it took."""
    found = run(place, "explain", *arguments, "--json")
    assert found.returncode == code, found.stderr
    told = json.loads(found.stdout)
    assert {"decision", "reason", "rule", "location", "steps"} <= told.keys()
    assert told["reason"] == reason
    assert told["decision"] == ("allow" if code == 0 else "deny")


def test_explain_takes_octets_that_are_no_text(place: Path) -> None:
    """A path may have any; a method or fields of a certificate with them are told as what they are
    not."""
    asked = ["explain", "--host", "app.example.com", "--uri", "/admin/\udcff"]
    found = run(place, *asked, "--cert", "alice.crt")
    assert (found.returncode, found.stderr) == (0, "")
    for more, told in (
        (["--method", "\udcff"], "is not a method"),
        (["--client-ip", "\udcff"], "is not an address"),
        (["--cert-fields", "{cn: \udcff}"], "--cert-fields:1:6: not UTF-8"),
    ):
        found = run(place, *asked, *more)
        assert found.returncode == 2
        assert told in found.stderr
    assert run(place, "who", "admin", "--host", "\udcff").stderr == ""


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--location", "admin", "--uri", "/"],
        ["--location", "admin", "--cert", "missing.crt"],
        ["--location", "admin", "--cert", "empty.crt"],
        ["--location", "admin", "--cert", ""],
        ["--location", "lan", "--cert", "bob.crt", "--client-ip", "10.1.1"],
        ["--location", "lan", "--cert", "bob.crt", "--method", "GET /"],
        ["--location", "admin", "--now", "soon"],
        ["--location", "admin", "--policy", "missing.yaml"],
        ["--nonsense"],
    ],
)
def test_a_wrong_call_is_2(place: Path, arguments: list[str]) -> None:
    """Exit 2 and a word about it, never a traceback."""
    (place / "empty.crt").touch()
    found = run(place, "explain", *arguments)
    assert found.returncode == 2
    assert found.stderr
    assert "Traceback" not in found.stderr


def test_explain_shows_steps_to_people(place: Path) -> None:
    """Without --json each step is a line, and the last one is the verdict."""
    lines = run(place, "explain", "--location", "admin", "--cert", "bob.crt").stdout.splitlines()
    assert lines[0].split()[:2] == ["ok", "location"]
    assert lines[-2].startswith("STOP allow")
    assert lines[-1] == "deny (not_allowed)"


def test_check(place: Path) -> None:
    """check says ok, or every mistake with its place; exit 0 or 2."""
    found = run(place, "check", "policy.yaml")
    assert (found.returncode, "ok, 3 locations" in found.stdout) == (0, True)
    (place / "bad.yaml").write_text(POLICY.replace("cn:", "cnn:").replace("ca.crt", "no.crt"))
    found = run(place, "check", "bad.yaml")
    assert found.returncode == 2
    assert "bad.yaml:3:15: can't read 'no.crt'" in found.stderr
    assert "bad.yaml:5:58: unknown key 'cnn'; did you mean 'cn'?" in found.stderr
    assert run(place, "check", "missing.yaml").returncode == 2


def test_schema_is_json() -> None:
    """schema prints a JSON Schema for editors."""
    found = run(ROOT, "schema")
    assert json.loads(found.stdout)["title"] == "mtls-sidecar policy"


@pytest.mark.parametrize("kind", ["sm2", "secp160r1"])
def test_check_warns_of_an_authority_whose_key_cannot_be_used(place: Path, kind: str) -> None:
    """`check` names the file and which certificate of it; the policy stands."""
    odd = chains.Spec(chains.name(chains.cn("Odd")), chains.key(kind), (chains.basic(),))
    der = chains.signed(odd, chains.root())
    (place / "ca.crt").write_bytes(staff.pem + pem("CERTIFICATE", der))
    done = run(place, "check", "policy.yaml")
    assert done.returncode == 0, done.stderr
    assert "policy.yaml:3:" in done.stderr
    assert "ca.crt: certificate 2 (CN=Odd) verifies nothing: " in done.stderr
    assert "Traceback" not in done.stderr


CLOSED = (
    ["schema"],
    ["--help"],
    ["explain", "--policy", "policy.yaml", "--location", "admin", "--cert", "alice.crt"],
    ["check", "bad.yaml"],
    ["doctor", "-"],
    ["replay", "-", "--policy", "policy.yaml"],
)


@pytest.mark.parametrize("stream", ["<&-", ">&-", "2>&-"])
def test_a_closed_stream_changes_no_exit_code(place: Path, stream: str) -> None:
    """A command whose input, output or errors are closed ends as usual, without a traceback."""
    (place / "bad.yaml").write_text("version: 2\n")
    codes = [in_shell(place, each, stream) for each in CLOSED]
    assert codes == [(0, ""), (0, ""), (0, ""), (2, ""), (2, ""), (0, "")]


@pytest.mark.parametrize("encoding", ["ascii", "iso-8859-1"])
def test_a_terminal_that_lacks_a_character_shows_an_escape(place: Path, encoding: str) -> None:
    """In a locale other than UTF-8 a command still decides, and escapes what it can't write."""
    new = place / "new.yaml"
    new.write_text(POLICY.replace("cn: alice", "cn: J\u0159"))
    done = subprocess.run(
        [sys.executable, "-m", "sidecar", "diff", place / "policy.yaml", new],
        cwd=place,
        capture_output=True,
        timeout=60,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": encoding},
    )
    assert (done.returncode, done.stderr) == (1, b"")
    assert b"J\\u0159" in done.stdout


def test_the_end_of_input_at_a_question_ends_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-D at a question is an answer like Ctrl-C: exit code 130, no traceback."""

    def asks(_: argparse.Namespace) -> int:
        raise EOFError

    parser = argparse.ArgumentParser()
    parser.set_defaults(run=asks)
    monkeypatch.setattr(cli, "make_parser", lambda: parser)
    assert cli.main([]) == 130


@pytest.mark.parametrize("arguments", [["--help"], ["explain", "--help"], ["schema"]])
def test_a_reader_that_is_gone_and_a_full_disk_are_no_traceback(
    place: Path, arguments: list[str]
) -> None:
    """`--help | head -0` prints nothing more; a device without space is an error in one line."""
    assert in_shell(place, arguments, "| true") == (0, "")
    assert in_shell(place, arguments, "> /dev/full") == (
        2,
        "mtls-sidecar: No space left on device",
    )


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["revoke", "--policy", "{place}/policy.yaml", "ab" * 32], "deny.txt: sha256 abab"),
        (["check", "{place}/policy.yaml"], "policy.yaml: ok, "),
    ],
    ids=["revoke", "check"],
)
def test_where_the_directory_was_removed_whole_names_will_do(
    place: Path, arguments: list[str], told: str
) -> None:
    """A user whose directory root's shell stands in removes it: nothing waits for another one."""
    words = [each.format(place=place) for each in arguments]
    command = [sys.executable, "-I", "-c", f"""if True:
        import os, sys
        os.mkdir("gone"); os.chdir("gone"); os.rmdir("../gone")
        sys.path.insert(0, {str(ROOT)!r})
        from sidecar.cli import main
        sys.exit(main({words!r}))"""]  # fmt: skip
    done = subprocess.run(
        command, cwd=place, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert told in done.stdout


def test_the_callers_umask_lets_nobody_else_write(place: Path) -> None:
    """A state directory that `fetch --once` makes would be everybody's, who could put there what
    confirms a revocation."""
    state = place / "new" / "state"
    command = [sys.executable, "-m", "sidecar", "fetch", "--once", "--state-dir", str(state)]
    done = subprocess.run(
        [*command, "--policy", str(place / "policy.yaml")],
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
        umask=0,
    )
    assert done.returncode == 0, done.stderr
    assert [each.stat().st_mode & 0o022 for each in (state, state.parent, state / "crl")] == [0] * 3


def in_shell(place: Path, arguments: list[str], redirection: str) -> tuple[int, str]:
    """Return the exit code, and the last line of a traceback, or of the errors with `full`."""
    line = " ".join([sys.executable, "-m", "sidecar", *arguments, redirection])
    done = subprocess.run(
        ["sh", "-c", line],
        cwd=place,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    unusual = "Traceback" in done.stderr or "Exception" in done.stderr or "full" in redirection
    return done.returncode, done.stderr.strip().splitlines()[-1] if unusual else ""


@pytest.mark.parametrize(
    "arguments",
    [
        ["explain", "--location", "admin", "--cert", "pki"],
        ["what", "pki"],
        ["test", "pki"],
        ["check", "-c", "pki"],
    ],
)
def test_a_directory_instead_of_a_file_is_named(place: Path, arguments: list[str]) -> None:
    """The error names the directory, not the number of a descriptor."""
    (place / "pki").mkdir()
    done = run(place, *arguments)
    assert (done.returncode, done.stderr) == (2, "mtls-sidecar: pki: it is a directory\n")


@pytest.mark.parametrize(
    "arguments",
    [
        ["check", ""],
        ["check", "-c", ""],
        ["explain", "--policy", "", "--location", "admin"],
        ["test", "--junit", ""],
        ["who", "admin", "-c", ""],
        ["clients", "-c", ""],
    ],
)
def test_an_empty_name_is_not_the_default(place: Path, arguments: list[str]) -> None:
    """A shell variable that isn't set must not lead to another file than was meant."""
    done = run(place, *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert "is empty; write a path, or leave it out" in done.stderr


def test_a_log_without_decisions_proves_nothing(place: Path) -> None:
    """replay warns where no line is a decision, as of nginx's own log."""
    (place / "access.log").write_text('192.0.2.7 - - "GET / HTTP/1.1" 200\n')
    (place / "empty.log").touch()
    wrong = run(place, "replay", "access.log")
    assert wrong.stderr == (
        "warning: no line of access.log is a decision; give the decision log, not nginx's\n"
    )
    assert run(place, "replay", "empty.log").stderr == ""


def test_doctor_and_enroll_name_a_file_once_and_as_it_is(place: Path) -> None:
    """No file is named twice or has a line 0, and an empty enroll.yaml is not called a policy."""
    missing = run(place, "doctor", "nginx.conf").stderr
    assert missing == (
        "mtls-sidecar: nginx's configuration can't be read: nginx.conf: No such file or directory\n"
    )
    (place / "nginx.conf").write_text("events {}\n")
    broken = run(place, "doctor", "nginx.conf", "--policy", "missing.yaml").stdout
    assert "missing.yaml: [broken-policy]" in broken
    (place / "enroll.yaml").touch()
    empty = run(place, "clients", "-c", "enroll.yaml").stderr
    assert empty == (
        "enroll.yaml: the file is empty; write its keys; a policy begins with `version: 1`\n"
    )


@pytest.mark.parametrize("command", [[], ["check"], ["fleet", "log"]], ids=" ".join)
def test_a_file_named_like_an_option_writes_nothing_to_the_terminal(
    place: Path, command: list[str]
) -> None:
    """A shell's `*` brings its name, which is told with its escape sequences escaped."""
    told = run(place, *command, "--\x1b]0;x\x07\u202e").stderr
    assert told.replace("\n", "").isprintable()
    assert "x" in told

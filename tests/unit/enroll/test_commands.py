"""`invite`, `clients` and `enroll …` as an administrator types them, and what they print."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pytest

from sidecar.cli import make_parser
from sidecar.enroll.commands import print_qr_code


class Commands:
    """Commands with one enroll.yaml."""

    def __init__(self, directory: Path, out: pytest.CaptureFixture[str]) -> None:
        self.config, self._out = directory / "enroll.yaml", out

    def run(self, *arguments: str) -> str:
        """What a command prints; its errors are raised."""
        options = make_parser().parse_args([*arguments, "--config", str(self.config)])
        assert options.run(options) == 0
        return self._out.readouterr().out

    def refused(self, *arguments: str) -> str:
        """What a command says that is refused."""
        with pytest.raises((ValueError, OSError)) as error:
            self.run(*arguments)
        return "; ".join(map(str, error.value.args))


@pytest.fixture
def commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Commands:
    found = Commands(tmp_path, capsys)
    found.config.write_text(
        f"url: https://app.example.com/enroll\nstate_dir: {tmp_path}/state\n"
        "profiles: {staff: {max_devices: 1}, mail: {email: '{name}@example.com'}}\n"
    )
    found.run("enroll", "init")
    return found


def test_init_makes_a_first_configuration_and_only_what_is_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A wrong `--url` writes nothing; `init` again changes nothing."""
    found = Commands(tmp_path, capsys)
    assert "say enroll init --url" in found.refused("enroll", "init")
    with pytest.raises(Exception, match="is not an https address"):
        found.run("enroll", "init", "--url", "nonsense")
    assert not found.config.exists()
    text = f"url: https://app.example.com/enroll\nstate_dir: {tmp_path}/state\n"
    found.config.write_text(text)
    assert "its certificate, until" in found.run("enroll", "init")
    key = (tmp_path / "state/ca/ca.key").read_bytes()
    assert "nothing to make" in found.run("enroll", "init")
    assert (tmp_path / "state/ca/ca.key").read_bytes() == key
    assert "change it there" in found.refused("enroll", "init", "--url", "https://other.example/e")


def test_what_cannot_be_invited_is_told(commands: Commands) -> None:
    """An unknown profile, a name that its templates can't take, another's name, no name at all."""
    assert "it has: staff, mail" in commands.refused("invite", "alice", "--profile", "none")
    said = commands.refused("invite", "Alice Smith", "--profile", "mail")
    assert "is not a mail address" in said
    commands.run("invite", "alice")
    assert "too like 'alice'" in commands.refused("invite", "ALICE")
    assert "say invite NAME" in commands.refused("invite")
    assert "say invite NAME" in commands.refused("invite", "alice", "--list")
    with pytest.raises(SystemExit):
        commands.run("invite", "alice", "--expires", "tomorrow")


def test_the_list_tells_each_invitation_s_state(commands: Commands) -> None:
    """Its id, state, end, and whom it is for; never its link."""
    found = json.loads(commands.run("invite", "alice", "--device", "phone", "--json"))
    line = commands.run("invite", "--list")
    assert line.startswith(f"{found['id']}  open")
    assert line.rstrip().endswith("alice/phone")
    assert found["url"].rpartition("/")[2] not in line
    assert "isn't waiting for approval: nobody has asked yet" in commands.refused(
        *("enroll", "approve", found["id"])
    )


def test_commands_that_need_a_key_say_so(commands: Commands, tmp_path: Path) -> None:
    """With another CA's command there is no CA to make and no CRL to sign."""
    commands.config.write_text(
        f"url: https://app.example.com/enroll\nstate_dir: {tmp_path}/state\n"
        "issuer: {command: [/bin/true]}\n"
    )
    assert "there is no CA to make" in commands.run("enroll", "init")
    assert "its CA signs the CRL" in commands.refused("enroll", "crl")


def test_without_a_database_the_way_out_is_told(commands: Commands, tmp_path: Path) -> None:
    """Not a new and empty one."""
    (tmp_path / "state/enroll.db").unlink()
    for arguments in (["clients"], ["invite", "bob"], ["enroll", "backup", str(tmp_path / "b")]):
        assert "enroll init" in commands.refused(*arguments)


def test_a_qr_code_fits_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Square, of block characters; without the package that draws it, how to get that."""
    out = io.StringIO()
    print_qr_code("https://app.example.com/enroll/" + "A" * 22, out)
    lines = out.getvalue().splitlines()
    assert 15 < len(lines) < 40
    assert len(lines[5]) < 200
    monkeypatch.setitem(sys.modules, "segno", None)
    out = io.StringIO()
    print_qr_code("x", out)
    assert "pip install nginx-mtls-sidecar[enroll]" in out.getvalue()

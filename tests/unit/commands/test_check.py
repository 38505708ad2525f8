"""Report files that the service's user can't read."""

from __future__ import annotations

import contextlib
import os
import pty
import tempfile
from pathlib import Path

import pytest

from sidecar.commands.check import User, service_user, unreadable
from sidecar.core.policy.spec import read_policy

TEXT = b"""version: 1
trust:
  staff: {ca: ca.crt, intermediates: sub.crt, crl: [a.crl, "http://ca.test/b.crl"], denylist: d.txt}
locations: []
"""


class Blind(User):
    """One who can read nothing but the policy itself."""

    def can_read(self, path: Path) -> bool:
        return path.name == "policy.yaml"


def test_each_file_is_told_where_the_policy_names_it(tmp_path: Path) -> None:
    """Existing unreadable files are reported; missing files and addresses are not."""
    for name in ("ca.crt", "a.crl", "d.txt"):
        (tmp_path / name).touch()
    policy = tmp_path / "policy.yaml"
    found = list(unreadable(read_policy(TEXT, "p"), policy, Blind("svc", 1, 1, ())))
    assert {each.message for each in found} == {
        f"the service's user svc can't read {str(tmp_path / name)!r}"
        for name in ("ca.crt", "a.crl", "d.txt")
    }
    assert {each.line for each in found} == {3}


@pytest.mark.skipif(os.geteuid() != 0, reason="asks as another user, which takes root")
def test_root_asks_as_the_service_s_user() -> None:
    """An existing user is found with its groups; root and unknown users are not used."""
    found = service_user("nobody")
    assert found is not None
    assert found.uid != 0
    assert not found.can_read(Path("/etc/shadow"))
    assert service_user("root") is None
    assert service_user("no-such-user") is None


def test_without_root_nobody_is_asked_as(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without root, no other user is tested."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert service_user("nobody") is None


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has processes of other users")
def test_the_service_s_user_gets_nothing_of_root_s(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its process, which that user may trace, can neither read nor write the terminal of root's
    `check`, and sees none of its variables and not its directory."""
    monkeypatch.setenv("SECRET", "root's")
    with tempfile.TemporaryDirectory() as place:  # one that the user can reach
        os.chmod(place, 0o755)
        monkeypatch.chdir(place)
        program = Path(place, "test")
        program.write_text(
            "#!/bin/sh\n(: </dev/tty) 2>/dev/null && exit 0\n"
            "for each in 0 1 2; do if [ -t $each ]; then exit 0; fi; done\n"
            '[ "$(pwd)$SECRET" != / ]\n'
        )
        program.chmod(0o755)
        child, terminal = pty.fork()
        if child == 0:
            code = 2
            try:
                os.close(os.open("/dev/tty", os.O_RDWR))  # this process has one
                os.environ["PATH"] = f"{place}:{os.environ['PATH']}"
                code = int(User("somebody", 64321, 64321, ()).can_read(Path("/")))
            finally:
                os._exit(code)
        with contextlib.suppress(OSError):
            while os.read(terminal, 1024):
                pass
        os.close(terminal)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0

"""Mistakes as people see them: the line, a caret under the column, colour on a terminal."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest

from sidecar.commands.mistakes import coloured, show
from sidecar.core.errors import Diagnostic


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def shown(path: Path, line: int, column: int, stream: io.StringIO | None = None) -> str:
    stream = stream or io.StringIO()
    show([Diagnostic(str(path), line, column, "it is wrong", "write it right")], stream)
    return stream.getvalue()


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    (tmp_path / "p.yaml").write_text("version: 1\nlocations:\n\t- {name: é\x1b, alow: []}\n")
    return tmp_path / "p.yaml"


def test_a_caret_stands_under_the_column(policy: Path) -> None:
    """The line is printed as it is, but for what would move the cursor."""
    first, line, caret, _ = shown(policy, 3, 15).split("\n")
    assert first == f"{policy}:3:15: it is wrong; write it right"
    assert line == "    3 |  - {name: é\\u001b, alow: []}"
    assert caret.strip() == "|                    ^"
    assert line[caret.index("^") :].startswith("alow")


def test_of_a_long_line_what_is_around_the_column_is_shown(tmp_path: Path) -> None:
    """A file of one line of a megabyte fills no terminal."""
    path = tmp_path / "long"
    path.write_text("a" * 5000 + "X" + "b" * 5000)
    _, line, caret, _ = shown(path, 1, 5001).split("\n")
    assert len(line) < 120
    assert line[caret.index("^")] == "X"


@pytest.mark.parametrize(("line", "column"), [(0, 0), (9, 1), (3, 0)])
def test_without_a_place_there_is_no_line(policy: Path, line: int, column: int) -> None:
    """A mistake of the whole file, or of a file that has changed since, is told alone."""
    assert shown(policy, line, column).count("\n") == 1
    assert shown(policy.with_name("missing"), 1, 1).count("\n") == 1


def test_a_password_is_not_shown(tmp_path: Path) -> None:
    """The line may hold the address of a CRL."""
    path = tmp_path / "p"
    path.write_text("crl: http://me:s3/c@r3t@127.0.0.1:x/\n")
    text = shown(path, 1, 6)
    assert "s3" not in text
    assert "http://***********@127.0.0.1:x/" in text


@pytest.mark.skipif(os.getuid() != 0, reason="only root reads what others may not")
def test_root_shows_no_line_of_a_secret_that_another_user_has_named(tmp_path: Path) -> None:
    """By a denylist of his policy, or by a link; his own lines, and what everybody may read, are
    shown, and so are those of a secret that a policy of root's names."""
    tmp_path.chmod(0o755)
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    policy, link, secret = theirs / "p.yaml", theirs / "link.yaml", tmp_path / "secret"
    policy.write_text("their line\n")
    secret.write_text("root:$6$hash\n")
    secret.chmod(0o600)
    link.symlink_to(secret)
    for path in (theirs, policy):
        os.chown(path, 65534, -1)
    ours = tmp_path / "p.yaml"
    ours.write_text("a line of root's\n")

    def of(file: Path, named_in: Path) -> str:
        out = io.StringIO()
        show([Diagnostic(str(file), 1, 1, "it is wrong")], out, named_in=str(named_in))
        return out.getvalue()

    assert "hash" not in of(secret, policy)
    assert "hash" not in of(link, link)
    assert of(secret, policy) == f"{secret}:1:1: it is wrong\n"
    assert "their line" in of(policy, policy)
    assert "hash" in of(secret, ours)
    assert "root:" in of(Path("/etc/passwd"), policy)


def test_colour_is_for_terminals(policy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """NO_COLOR and TERM=dumb turn it off; without it nothing but text is printed."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert "\x1b[31mit is wrong\x1b[0m" in shown(policy, 3, 15, Terminal())
    assert "\x1b" not in shown(policy, 3, 15)
    assert coloured(Terminal(), {"TERM": "xterm"})
    assert not coloured(Terminal(), {"TERM": "xterm", "NO_COLOR": "1"})
    assert not coloured(Terminal(), {"TERM": "dumb"})
    assert not coloured(Terminal(), {})

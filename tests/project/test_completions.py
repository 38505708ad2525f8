"""Completion for bash, zsh and fish, manual pages and help: made from the parser, and current."""

from __future__ import annotations

import argparse
import importlib.util
import shlex
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from tools import ROOT

from sidecar.cli import make_parser
from sidecar.commands.help_examples import EXAMPLES, subcommands

SHIPPED = ROOT / "deploy" / "completions"


def script(name: str) -> ModuleType:
    """A script of deploy/, imported."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "deploy" / f"{name}.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_completions_are_current() -> None:
    """`.venv/bin/python deploy/completions.py` writes them anew after a change of an option."""
    made = dict(script("completions").completions())
    assert {path.name for path in SHIPPED.iterdir()} == set(made)
    for name, text in made.items():
        assert (SHIPPED / name).read_text() == text, f"run deploy/completions.py: {name} is older"


COMPLETE = """
source "$1"
shift
COMP_WORDS=("$@"); COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); COMP_LINE="$*"; COMP_POINT=${#COMP_LINE}
function=$(complete -p mtls-sidecar | sed 's/.*-F \\([^ ]*\\).*/\\1/')
"$function" mtls-sidecar "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("re",), {"replay", "revoke"}),
        (("explain", "--cert"), {"--cert", "--cert-fields"}),
        (("serve", "--log-format", ""), {"text", "json"}),
        (("fleet", "st"), {"status"}),
        (("check", "pol"), {"policy.yaml"}),
    ],
)
def test_bash_completes(tmp_path: Path, words: tuple[str, ...], expected: set[str]) -> None:
    """Commands, their own commands, options, words of an option, and files."""
    (tmp_path / "policy.yaml").touch()
    done = subprocess.run(
        ["bash", "-c", COMPLETE, "bash", SHIPPED / "mtls-sidecar.bash", "mtls-sidecar", *words],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert set(done.stdout.split()) == expected, done.stderr


def test_each_command_has_an_example_that_it_takes(capsys: pytest.CaptureFixture[str]) -> None:
    """At the end of its help; the parser takes what stands there."""
    commands = dict(subcommands(make_parser()))
    assert set(commands) == set(EXAMPLES)
    for name, command in commands.items():
        told = " ".join(command.format_help().split())
        assert told.endswith(f"example: {EXAMPLES[name]}")
        words = shlex.split(EXAMPLES[name].rpartition("| ")[2].partition(" >")[0])
        assert words[0] == "mtls-sidecar"
        assert isinstance(make_parser().parse_args(words[1:]), argparse.Namespace)
    assert capsys.readouterr().err == ""


def test_each_command_has_a_manual_page(tmp_path: Path) -> None:
    """With its options and an example; mtls-sidecar(1) names all of them."""
    subprocess.run([sys.executable, ROOT / "deploy" / "man_pages.py", tmp_path], check=True)
    main = (tmp_path / "man1" / "mtls-sidecar.1").read_text()
    for name, _ in subcommands(make_parser()):
        page = f"mtls-sidecar-{name.replace(' ', '-')}"
        text = (tmp_path / "man1" / f"{page}.1").read_text()
        assert ".SH EXAMPLE" in text
        assert page.replace("-", "\\-") in main

#!/usr/bin/env python3
"""Write the shells' completions of `mtls-sidecar`, made from its options.

    .venv/bin/python deploy/completions.py [OUT]     (default: deploy/completions)

Run it after every change of a command or an option: the files are shipped as they stand there.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

import shtab

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from sidecar.cli import make_parser  # noqa: E402 - found by the line above

FILES = {"bash": "mtls-sidecar.bash", "zsh": "_mtls-sidecar", "fish": "mtls-sidecar.fish"}
"""The file of each shell."""

_PATHS = frozenset(
    ("FILE", "POLICY", "CERT", "CERT|SERIAL|FINGERPRINT|CLIENT", "LOG", "OLD", "NEW", "NGINX_CONF")
)
_NAMES = frozenset(("config", "policy", "cert"))


def main(arguments: list[str]) -> int:
    """Write them into a directory."""
    out = Path(arguments[0]) if arguments else ROOT / "deploy" / "completions"
    out.mkdir(parents=True, exist_ok=True)
    for name, text in completions():
        (out / name).write_text(text)
    return 0


def completions() -> Iterator[tuple[str, str]]:
    """Each file's name and text."""
    for shell, name in FILES.items():
        parser = make_parser()
        mark_paths(parser)
        text = shtab.complete(parser, shell=shell)
        yield name, "\n".join(line.rstrip() for line in text.splitlines()) + "\n"


def mark_paths(parser: argparse.ArgumentParser) -> None:
    """Mark the arguments that are completed as files or directories."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for inner in action.choices.values():
                mark_paths(inner)
        elif action.metavar in ("DIR", "DIR|FILE") or action.dest.endswith("_dir"):
            files = action.metavar == "DIR|FILE"
            action.complete = shtab.FILE if files else shtab.DIRECTORY  # type: ignore[attr-defined]  # shtab's own
        elif action.nargs != 0 and _is_path(action):
            action.complete = shtab.FILE  # type: ignore[attr-defined]  # shtab's own


def _is_path(action: argparse.Action) -> bool:
    return action.metavar in _PATHS or action.dest in _NAMES or action.dest.endswith("_file")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

#!/usr/bin/env python3
"""Write the manual pages: the command's from its options, the files' from their commented examples.

    python3 deploy/man_pages.py OUT      (with the project's packages importable)

OUT gets man1/mtls-sidecar.1, man1/mtls-sidecar-COMMAND.1 for each command, man5/mtls-sidecar.yaml.5
and man5/mtls-sidecar-policy.yaml.5.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from sidecar import __version__  # noqa: E402 - found by the line above
from sidecar.cli import make_parser  # noqa: E402
from sidecar.commands.help_examples import EXAMPLES, subcommands  # noqa: E402 - as above

PAGES = {
    "mtls-sidecar.yaml": ("sidecar.yaml", "how the mtls-sidecar daemon runs"),
    "mtls-sidecar-policy.yaml": ("policy.yaml", "who may go where, for mtls-sidecar"),
}
FILES = (
    ("/etc/mtls-sidecar/policy.yaml", "who may go where: mtls-sidecar-policy.yaml(5)"),
    ("/etc/mtls-sidecar/sidecar.yaml", "how the daemon runs: mtls-sidecar.yaml(5)"),
    ("/var/lib/mtls-sidecar", "fetched CRLs, and the newest CRL number seen of each issuer"),
    ("/run/mtls-sidecar/authz.sock", "the socket that nginx asks"),
)
EXIT = "0: done, or allow.  1: deny, or something to mend.  2: wrong arguments, or a broken file."


def main(arguments: list[str]) -> int:
    """Write all pages into the directory given."""
    if len(arguments) != 1:
        print(__doc__, file=sys.stderr)
        return 2
    out = Path(arguments[0])
    write(out / "man1" / "mtls-sidecar.1", "\n".join(command_page(make_parser())))
    for name, command in subcommands(make_parser()):
        page = f"mtls-sidecar-{name.replace(' ', '-')}"
        write(out / "man1" / f"{page}.1", "\n".join(subcommand_page(page, name, command)))
    for name, (file, what) in PAGES.items():
        write(out / "man5" / f"{name}.5", "\n".join(file_page(name, file, what)))
    return 0


def write(path: Path, text: str) -> None:
    """Write one page."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text + "\n")


def title(name: str, section: int, what: str) -> Iterator[str]:
    """The head of every page."""
    yield f'.TH "{name.upper()}" {section} "" "mtls-sidecar {__version__}" "mtls-sidecar"'
    yield ".SH NAME"
    yield f"{escaped(name)} \\- {escaped(what)}"


def command_page(parser: argparse.ArgumentParser) -> Iterator[str]:
    """The page of the command, its subcommands one after the other."""
    yield from title("mtls-sidecar", 1, "say who may go where, for an nginx that asks")
    yield ".SH SYNOPSIS"
    yield ".B mtls\\-sidecar\n.I COMMAND\n[options]"
    yield ".SH DESCRIPTION"
    yield "nginx asks it by auth_request about each request; it decides by a policy, by the"
    yield "client certificate that nginx passes on.  The other commands read, try and change that"
    yield "policy, and look at nginx's configuration."
    yield ".SH COMMANDS"
    for name, command in subcommands(parser):
        page = f"mtls-sidecar-{name.replace(' ', '-')}"
        yield f".TP\n.BR {escaped(page)} (1)\n{escaped(sentence(command))}"
    yield ".SH FILES"
    for path, what in FILES:
        yield f".TP\n.I {escaped(path)}\n{escaped(what)}"
    yield f'.SH "EXIT STATUS"\n{escaped(EXIT)}'
    yield '.SH "SEE ALSO"\n.BR mtls\\-sidecar\\-policy.yaml (5),\n.BR mtls\\-sidecar.yaml (5)'


def subcommand_page(page: str, name: str, command: argparse.ArgumentParser) -> Iterator[str]:
    """The page of one command: what it does, its options, and an example."""
    yield from title(page, 1, command.description or name)
    usage = command.format_usage().removeprefix("usage: ")
    yield f".SH SYNOPSIS\n{escaped(' '.join(usage.split()))}"
    yield f".SH DESCRIPTION\n{escaped(sentence(command))}"
    yield ".SH OPTIONS"
    yield from options(command)
    if name in EXAMPLES:
        yield f".SH EXAMPLE\n.nf\n{escaped(EXAMPLES[name])}\n.fi"
    yield f'.SH "EXIT STATUS"\n{escaped(EXIT)}'
    yield '.SH "SEE ALSO"\n.BR mtls\\-sidecar (1)'


def sentence(command: argparse.ArgumentParser) -> str:
    """What a command does, as a sentence."""
    text = command.description or ""
    return text[:1].upper() + text[1:] + "."


def options(command: argparse.ArgumentParser) -> Iterator[str]:
    """Arguments and options, each with its help."""
    for action in command._actions:
        if isinstance(action, (argparse._HelpAction, argparse._SubParsersAction)):
            continue
        value = "" if action.nargs == 0 else str(action.metavar or value_of(action))
        named = [" ".join(filter(None, (each, value))) for each in action.option_strings]
        helped = (action.help or "").replace("%(default)s", str(action.default))
        yield f'.TP\n.B "{escaped(", ".join(named) or value)}"\n{escaped(helped)}'


def value_of(action: argparse.Action) -> str:
    """What stands for the value where the option names nothing."""
    return "|".join(map(str, action.choices)) if action.choices else action.dest.upper()


def file_page(name: str, file: str, what: str) -> Iterator[str]:
    """The page of a file: its example as it is shipped, where every key is explained."""
    yield from title(name, 5, what)
    yield f'.SH SYNOPSIS\n.I /etc/mtls\\-sidecar/{file}\n.SH "AS SHIPPED"\n.nf'
    yield from map(escaped, (ROOT / "config" / file).read_text().splitlines())
    yield '.fi\n.SH "SEE ALSO"\n.BR mtls\\-sidecar (1)'


def escaped(text: str) -> str:
    """The text for roff: nothing in it is a request."""
    text = text.replace("\\", "\\e").replace("-", "\\-").replace('"', "\\(dq").replace("'", "\\(aq")
    return f"\\&{text}" if text.startswith(".") else text


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

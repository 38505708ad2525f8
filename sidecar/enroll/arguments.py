"""Arguments of `invite`, `clients` and `enroll …`."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from typing import Any

from sidecar.runtime.argument_types import parsed_by

from .durations import parse_duration
from .settings import CONFIG

LastSeen = Callable[[argparse.Namespace], Mapping[str, float]]
"""Reads when the authorizer saw each certificate last, by SHA-256."""


def add_commands(commands: Any, last_seen: LastSeen) -> None:
    """Add them to the parser; `clients` asks `last_seen`."""
    _add_invite(commands)
    listing = _command(commands, "clients", "list_clients", "list who has a certificate")
    listing.add_argument("name", nargs="?", metavar="NAME", help="of this person only")
    listing.add_argument(
        "--expiring",
        type=parsed_by(parse_duration),
        metavar="30d",
        help="only those that end within this time",
    )
    listing.add_argument("--json", action="store_true", help="for programs")
    listing.add_argument("--state-dir", help="the daemon's, which knows who was seen last")
    listing.set_defaults(last_seen=last_seen)

    text = "issue client certificates by invitation"
    enroll = commands.add_parser("enroll", help=text, description=text)
    parts = enroll.add_subparsers(required=True, metavar="ACTION")
    init = _command(parts, "init", "init", "make the issuing CA and the database")
    init.add_argument("--url", help="what links begin with, for a first enroll.yaml")
    init.add_argument("--name", default="Client CA", help="the CA's name (default: Client CA)")
    init.add_argument(
        "--below-root", action="store_true", help="write a CSR for an offline root to sign"
    )
    _command(parts, "serve", "serve", "run the process that nginx passes invitations to")
    crl = _command(parts, "crl", "crl", "sign a CRL of the revoked certificates")
    crl.add_argument("--out", metavar="FILE", help="instead of the configured file")
    backup = _command(parts, "backup", "backup", "copy the database while it is in use")
    backup.add_argument("file", metavar="FILE", help="where to")
    approve = _command(parts, "approve", "approve", "let a waiting request have its certificate")
    approve.add_argument("id", metavar="ID", help="the invitation's, as `invite --list` has it")


def _add_invite(commands: Any) -> None:
    invite = _command(commands, "invite", "invite", "make a link that gives one certificate")
    invite.add_argument("name", nargs="?", metavar="NAME", help="whom the certificate is for")
    invite.add_argument("--profile", default="", help="one of enroll.yaml (default: the first)")
    invite.add_argument("--device", default="", help="the device that it is for, such as phone")
    invite.add_argument(
        "--expires",
        type=parsed_by(parse_duration),
        default=86400,
        metavar="24h",
        help="how long the link is good (default: 24h)",
    )
    invite.add_argument(
        "--approve", action="store_true", help="wait for `enroll approve` before issuing"
    )
    invite.add_argument("--list", action="store_true", help="print the invitations")
    invite.add_argument("--cancel", metavar="ID", help="end an invitation")
    invite.add_argument("--json", action="store_true", help="for programs")


def _command(commands: Any, name: str, run: str, doc: str) -> argparse.ArgumentParser:
    """Add a command that runs the function of this name in `commands`, imported only then."""

    def imported(options: argparse.Namespace) -> int:
        from . import commands as found

        return found.run_guarded(getattr(found, run), options)

    parser: argparse.ArgumentParser = commands.add_parser(name, help=doc, description=doc)
    parser.set_defaults(run=imported)
    parser.add_argument("-c", "--config", help=f"enroll.yaml (default: {CONFIG})")
    return parser

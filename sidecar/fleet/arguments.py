"""Arguments of `mtls-sidecar fleet …`."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from sidecar.runtime.argument_types import percentage, seconds, sequence_number
from sidecar.runtime.target_arguments import add_target

from .hooks import Hooks

WAIT_SECONDS = 60.0

HOLD_ABOVE = 1.0
HOLD_REASONS = (
    "not_allowed",
    "denied_by_rule",
    "untrusted_issuer",
    "unknown_location",
    "host_mismatch",
    "sni_mismatch",
    "revocation_unknown",
)
"""Denials that a new policy can be the cause of."""


def add_fleet(commands: Any, config: str, hooks: Hooks) -> None:
    """Add the command `fleet` with its own commands."""
    doc = "publish policies and revocations to many hosts, and follow them on each"
    parser = commands.add_parser("fleet", help=doc, description=doc)
    of_fleet = parser.add_subparsers(required=True, metavar="FLEET_COMMAND")

    def add(name: str, doc: str) -> argparse.ArgumentParser:
        found: argparse.ArgumentParser = of_fleet.add_parser(name, help=doc, description=doc)
        found.set_defaults(run=_runner(name, hooks))
        found.add_argument("-c", "--config", help=f"sidecar.yaml (default: {config})")
        found.add_argument("--state-dir", help="where the log that was verified is kept")
        return found

    keygen = add("keygen", "make a key that signs, and print its public part")
    keygen.add_argument("file", nargs="?", metavar="FILE", help="where to (default: fleet.key)")
    keygen.add_argument("--head", action="store_true", help="a keeper's key: it signs heads only")
    _add_passphrase(keygen)

    publish = add("publish", "publish a policy with its files")
    publish.add_argument("directory", metavar="DIR", help="the directory that holds policy.yaml")
    publish.add_argument(
        "--to",
        default="",
        metavar="LABEL|PERCENT",
        help="only nodes with this label, or so many of all: 10%%",
    )
    publish.add_argument("--yes", action="store_true", help="don't ask")
    publish.add_argument(
        "--promote-after",
        type=seconds,
        metavar="SECONDS",
        help="with --to: so long after it is in force there, publish it to all, unless it is held",
    )
    publish.add_argument(
        "--hold-above",
        type=percentage,
        default=HOLD_ABOVE,
        metavar="PERCENT",
        help="hold it if more of their decisions than this are denials that a policy can cause "
        f"(default: {HOLD_ABOVE:g})",
    )
    publish.add_argument(
        "--hold-reasons",
        default=",".join(HOLD_REASONS),
        metavar="REASONS",
        help=f"the reasons that count as such (default: {','.join(HOLD_REASONS)})",
    )
    _add_publishing(publish)

    revoke = add("revoke", "deny a certificate on every host")
    add_target(revoke)
    _add_publishing(revoke)

    undo = add("undo", "take a revocation back")
    undo.add_argument(
        "sequence", type=sequence_number, metavar="SEQ", help="its number in `fleet log`"
    )
    _add_publishing(undo)

    rollback = add("rollback", "publish an earlier release again")
    rollback.add_argument(
        "sequence", type=sequence_number, metavar="SEQ", help="its number in `fleet log`"
    )
    _add_publishing(rollback)

    listing = add("log", "print what was published")
    listing.add_argument("--json", action="store_true", help="for programs")
    status = add("status", "tell what each node has in force")
    status.add_argument("--json", action="store_true", help="for programs")
    status.add_argument("--forget", metavar="NODE", help="remove a node that is gone")

    keeper = add("keeper", "say, signed, every few seconds that nothing newer exists")
    _add_key(keeper)
    keys = add("keys", "print the keys that count, or change them from now on")
    keys.add_argument("--add", action="append", default=[], metavar="KEY", help="'ed25519 BASE64'")
    keys.add_argument("--remove", action="append", default=[], metavar="ID", help="a key's id")
    _add_publishing(keys)
    add("node", "bring the fleet's log to this host, and report")
    add("restore", "write to the servers what they lost of the log")


def _runner(name: str, hooks: Hooks) -> Callable[[argparse.Namespace], int]:
    def run(options: argparse.Namespace) -> int:
        from .commands import run as run_command

        return run_command(name, options, hooks)

    return run


def _add_key(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--signing-key", metavar="FILE", help="the key that signs (default: fleet.key)"
    )
    _add_passphrase(parser)


def _add_passphrase(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--passphrase-file", metavar="FILE", help="the file of its passphrase")


def _add_publishing(parser: argparse.ArgumentParser) -> None:
    _add_key(parser)
    parser.add_argument("--reason", default="", help="why, for the log")
    parser.add_argument(
        "--wait",
        nargs="?",
        type=seconds,
        const=WAIT_SECONDS,
        metavar="SECONDS",
        help=f"until every known node has it in force (default: {WAIT_SECONDS:.0f} s)",
    )

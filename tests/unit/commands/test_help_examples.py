"""The help of each command ends with an example of its use."""

from __future__ import annotations

import argparse

from sidecar.commands.help_examples import EXAMPLES, add_examples, subcommands


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser()
    commands = parser.add_subparsers()
    commands.add_parser("check", help="check a policy")
    fleet = commands.add_parser("fleet", help="manage a fleet").add_subparsers()
    fleet.add_parser("status", help="show each node")
    commands.add_parser("unknown", help="have no example")
    return parser


def test_subcommands_are_named_with_the_command_before_them() -> None:
    """`fleet status` follows `fleet`; each parser's description is its help text."""
    found = {name: inner.description for name, inner in subcommands(_parser())}
    assert found == {
        "check": "check a policy",
        "fleet": "manage a fleet",
        "fleet status": "show each node",
        "unknown": "have no example",
    }


def test_each_help_ends_with_its_example() -> None:
    """A command with an example shows it below its help; another command shows none."""
    parser = _parser()
    add_examples(parser)
    epilogs = {name: inner.epilog for name, inner in subcommands(parser)}
    assert epilogs.pop("unknown") is None
    assert epilogs == {name: f"example: {EXAMPLES[name]}" for name in epilogs}

"""An example of each command, for the end of its `--help` and for its manual page."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

EXAMPLES = {
    "serve": "mtls-sidecar serve --listen unix:/run/mtls-sidecar/authz.sock",
    "check": "mtls-sidecar check policy.new.yaml",
    "explain": "mtls-sidecar explain --location admin --cert alice.crt --client-ip 192.0.2.7",
    "test": "mtls-sidecar test more-tests.yaml --threshold 90",
    "diff": "mtls-sidecar diff policy.yaml policy.new.yaml",
    "what": "mtls-sidecar what alice.crt --host app.example.com",
    "who": "mtls-sidecar who admin --certs /etc/mtls-sidecar/clients",
    "why": "mtls-sidecar why 4f1c6d0e8a5b4c0f9d3e2a1b7c6d5e4f",
    "replay": "mtls-sidecar replay /var/log/mtls-sidecar/decisions.log* --policy policy.new.yaml",
    "revoke": "mtls-sidecar revoke alice.crt --reason 'laptop stolen'",
    "invite": "mtls-sidecar invite alice --device phone --expires 24h",
    "clients": "mtls-sidecar clients --expiring 30d",
    "enroll": "mtls-sidecar enroll init --url https://app.example.com/enroll",
    "enroll init": "mtls-sidecar enroll init --url https://app.example.com/enroll",
    "enroll serve": "mtls-sidecar enroll serve",
    "enroll crl": "mtls-sidecar enroll crl --out crl.pem",
    "enroll backup": "mtls-sidecar enroll backup enroll-backup.tar",
    "enroll approve": "mtls-sidecar enroll approve 7d1f",
    "fetch": "mtls-sidecar fetch --once",
    "doctor": "nginx -T | mtls-sidecar doctor -",
    "fleet": "mtls-sidecar fleet status",
    "fleet keygen": "mtls-sidecar fleet keygen publisher.key",
    "fleet publish": "mtls-sidecar fleet publish /etc/mtls-sidecar --to 10% --reason 'ticket 4711'",
    "fleet revoke": "mtls-sidecar fleet revoke alice.crt --reason 'laptop stolen'",
    "fleet undo": "mtls-sidecar fleet undo 17 --reason 'laptop found'",
    "fleet rollback": "mtls-sidecar fleet rollback 16 --reason 'locked out the night shift'",
    "fleet keys": "mtls-sidecar fleet keys --remove 1f2e3d4c --reason 'laptop lost'",
    "fleet log": "mtls-sidecar fleet log --json",
    "fleet status": "mtls-sidecar fleet status --json",
    "fleet keeper": "mtls-sidecar fleet keeper --signing-key heartbeat.key",
    "fleet node": "mtls-sidecar fleet node",
    "fleet restore": "mtls-sidecar fleet restore",
    "schema": "mtls-sidecar schema > policy.schema.json",
}
"""One call of each command, as it is typed."""


def subcommands(
    parser: argparse.ArgumentParser, before: str = ""
) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """Each command's name and parser, `fleet status` behind `fleet`."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for choice in action._choices_actions:
                inner = action.choices[choice.dest]
                inner.description = inner.description or choice.help
                yield before + choice.dest, inner
                yield from subcommands(inner, f"{before}{choice.dest} ")


def add_examples(parser: argparse.ArgumentParser) -> None:
    """Put an example below the help of each command."""
    for name, command in subcommands(parser):
        if name in EXAMPLES:
            command.epilog = f"example: {EXAMPLES[name]}"

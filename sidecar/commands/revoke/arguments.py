"""Arguments of `revoke`."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from ..asking import SettingsOf
from .named_clients import Enrolled

EnrolledOf = Callable[[argparse.Namespace], Enrolled | None]
"""Returns the clients that can be named; None without enroll."""


def add_revoke(
    parser: argparse.ArgumentParser, settings_of: SettingsOf, enrolled_of: EnrolledOf
) -> None:
    """Add the arguments of the command to its parser."""
    parser.add_argument("target", nargs="?", metavar="CERT|SERIAL|FINGERPRINT|CLIENT")
    for form, meaning in (
        ("file", "the target is a certificate's file"),
        ("serial", "the target is a serial number, in hexadecimal"),
        ("fingerprint", "the target is a SHA-256 fingerprint"),
        ("name", "the target is a client of enroll: NAME, or NAME/DEVICE"),
    ):
        parser.add_argument(f"--{form}", nargs="?", const=True, metavar="TARGET", help=meaning)
    parser.add_argument("--undo", action="store_true", help="remove the line of this target")
    parser.add_argument("--list", action="store_true", help="print the lines in force")
    parser.add_argument("--json", action="store_true", help="with --list: print JSON")
    parser.add_argument("--reason", default="", help="the reason, for the comment of the line")
    parser.add_argument(
        "--until", default="", metavar="DATE", help="the day on which the denial ends"
    )
    parser.add_argument("--trust", help="use only the denylist of this trust")
    parser.add_argument(
        "--denylist", metavar="FILE", help="use this file, whatever the policy says"
    )
    parser.add_argument("--key", action="store_true", help="deny the key, not the certificate")
    parser.add_argument("--enroll", metavar="FILE", help="enroll.yaml (default: beside --config)")
    parser.add_argument("--state-dir", help="state directory of the daemon that must confirm it")
    parser.set_defaults(run=lambda options: _run(options, settings_of, enrolled_of))


def _run(options: argparse.Namespace, settings_of: SettingsOf, enrolled_of: EnrolledOf) -> int:
    from .command import Call, run
    from .target import FORMS

    forms = (*FORMS, "name")
    said = {form: value for form in forms if (value := getattr(options, form)) is not None}
    targets = [value for value in (options.target, *said.values()) if isinstance(value, str)]
    if len(said) > 1 or len(targets) != (0 if options.list else 1):
        raise ValueError(
            "say one target: revoke CERT, revoke --serial 0A1B, revoke --fingerprint SHA256, "
            "revoke --file CERT, revoke --name CLIENT; or revoke --list"
        )
    call = Call(
        target="".join(targets),
        form="".join(said),
        key=options.key,
        until=options.until,
        reason=options.reason,
        trust=options.trust,
        denylist=options.denylist,
        undo=options.undo,
        listing=options.list,
        as_json=options.json,
    )
    return run(call, settings_of(options), enrolled_of(options))

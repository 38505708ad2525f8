"""Arguments of `revoke`."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from sidecar.runtime.target_arguments import add_target, stated_target

from ..asking import SettingsOf
from .named_clients import Enrolled

EnrolledOf = Callable[[argparse.Namespace], Enrolled | None]
"""Returns the clients that can be named; None without enroll."""


def add_revoke(
    parser: argparse.ArgumentParser, settings_of: SettingsOf, enrolled_of: EnrolledOf
) -> None:
    """Add the arguments of the command to its parser."""
    add_target(parser, clients=True)
    parser.add_argument("--undo", action="store_true", help="remove the line of this target")
    parser.add_argument("--list", action="store_true", help="print the lines in force")
    parser.add_argument("--json", action="store_true", help="with --list: print JSON")
    parser.add_argument("--reason", default="", help="the reason, for the comment of the line")
    parser.add_argument("--trust", help="use only the denylist of this trust")
    parser.add_argument(
        "--denylist", metavar="FILE", help="use this file, whatever the policy says"
    )
    parser.add_argument("--enroll", metavar="FILE", help="enroll.yaml (default: beside --config)")
    parser.add_argument("--state-dir", help="state directory of the daemon that must confirm it")
    parser.set_defaults(run=lambda options: _run(options, settings_of, enrolled_of))


def _run(options: argparse.Namespace, settings_of: SettingsOf, enrolled_of: EnrolledOf) -> int:
    from .command import Call, run

    target, form = stated_target(options, "revoke", listing=options.list)
    call = Call(
        target=target,
        form=form,
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

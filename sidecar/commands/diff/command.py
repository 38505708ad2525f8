"""Arguments of `diff`."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

from sidecar.core.config.dates import parse_date

from ..asking import PolicyFile

Load = Callable[[argparse.Namespace, str], PolicyFile]
"""Reads a policy by its path."""


def add_diff(parser: argparse.ArgumentParser, load: Load) -> None:
    """Add the arguments of the command to its parser."""
    parser.add_argument("old", metavar="OLD", help="the policy as it was")
    parser.add_argument("new", metavar="NEW", help="the policy as it is to be")
    parser.add_argument(
        "--now",
        help="the moment of examples, where the moment doesn't matter, RFC 3339 (default: now)",
    )
    parser.add_argument("--json", action="store_true", help="for programs")
    parser.set_defaults(run=lambda options: _run(options, load))


def _run(options: argparse.Namespace, load: Load) -> int:
    from .changes import changes
    from .report import as_json, as_text

    now = parse_date(options.now) if options.now else float(int(time.time()))
    old, new = load(options, options.old), load(options, options.new)
    found = changes(old, new, now)
    print(as_json(found) if options.json else as_text(found, options.new))
    return 1 if found.differ else 0

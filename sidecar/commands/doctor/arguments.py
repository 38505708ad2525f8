"""Arguments of `doctor`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from sidecar.core.errors import PolicyError
from sidecar.core.policy.model import Policy

from ..asking import SettingsOf
from ..mistakes import show

Load = Callable[[argparse.Namespace], Policy]
"""Loads the policy of the command.  Raises `PolicyError`."""


def add_doctor(parser: argparse.ArgumentParser, load: Load, settings_of: SettingsOf) -> None:
    """Add the arguments of the command to its parser."""
    parser.add_argument(
        "nginx",
        nargs="?",
        default="/etc/nginx/nginx.conf",
        metavar="NGINX_CONF",
        help="nginx.conf, or - for the output of `nginx -T` (default: /etc/nginx/nginx.conf)",
    )
    parser.add_argument(
        "--nginx-version",
        metavar="X.Y.Z",
        help="the version of nginx (default: that of `nginx -v` on this machine)",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=lambda options: _run(options, load, settings_of))


def _run(options: argparse.Namespace, load: Load, settings_of: SettingsOf) -> int:
    from .checks import examine
    from .findings import Finding, as_json
    from .nginx_config import read_nginx, read_piped
    from .version import installed_nginx, nginx_version

    piped = options.nginx == "-"
    root = read_piped(sys.stdin.buffer) if piped else read_nginx(Path(options.nginx))
    given = options.nginx_version
    version = nginx_version(given) if given else installed_nginx()
    policy: Policy | None = None
    try:
        policy = load(options)
    except PolicyError as error:
        show(error.diagnostics, sys.stderr, named_in=error.file)
    findings = examine(root, policy, version)
    if policy is None:
        where = settings_of(options).policy
        what = "the policy can't be used"
        findings.append(Finding("broken-policy", where, 0, what, "what `mtls-sidecar check` says"))
    if options.json:
        print(as_json(findings))
    else:
        print("\n".join(map(str, findings)) or f"{root.file}: nothing to mend")
    return 0 if all(each.accepted for each in findings) else 1

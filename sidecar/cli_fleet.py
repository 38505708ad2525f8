"""What the commands of `fleet` need of the other commands: part of the command line's wiring."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from sidecar.commands.asking import PolicyFile, policy_file
from sidecar.core.config.settings import Settings
from sidecar.core.policy.compile import compile_policy
from sidecar.fleet.hooks import Denied
from sidecar.runtime.direct_sources import DirectSources
from sidecar.runtime.files import MAX_POLICY, read_file
from sidecar.runtime.target_arguments import stated_target


def check_release(settings: Settings, path: Path) -> None:
    """Refuse a policy that can't be used, or whose tests fail.  Raises `PolicyError`, OSError."""
    from sidecar.commands.test import refuse_failing

    compiled = _compiled(settings, path)
    refuse_failing(compiled.policy, path)
    for warning in compiled.policy.warnings_at(time.time()):
        print(f"warning: {warning}", file=sys.stderr)


def revoked_target(options: argparse.Namespace) -> Denied:
    """What `fleet revoke` is about.  Raises ValueError and OSError."""
    from sidecar.commands.revoke.target import read_target

    text, form = stated_target(options, "fleet revoke")
    target = read_target(text, form=form, key=options.key)
    return target.kind, target.value, target.who


def policy_difference(settings: Settings, old: Path, new: Path) -> str:
    """Who gains and who loses by a new policy.  Raises `PolicyError`, OSError and ValueError."""
    from sidecar.commands.diff.changes import changes
    from sidecar.commands.diff.report import as_text

    found = changes(_compiled(settings, old), _compiled(settings, new), float(int(time.time())))
    return as_text(found, str(new))


def _compiled(settings: Settings, path: Path) -> PolicyFile:
    sources = DirectSources(path.parent, Path(settings.state_dir))
    policy = compile_policy(read_file(path, MAX_POLICY), str(path), sources)
    return policy_file(policy, str(path))

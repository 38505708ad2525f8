"""What the fleet's commands need of the other commands, handed over by the command line."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sidecar.core.config.settings import Settings

Denied = tuple[str, str, str]
"""A denylist's kind and value, and whose certificate it is, if that is known."""


@dataclass(frozen=True, slots=True)
class Hooks:
    """`check` raises `PolicyError` for a policy that can't be used or fails its tests; `target`
    reads what `revoke` is about; `diff` tells what a new policy changes for whom."""

    settings: Callable[[argparse.Namespace], Settings]
    config: Callable[[argparse.Namespace], Path]
    check: Callable[[Settings, Path], None]
    target: Callable[[argparse.Namespace], Denied]
    diff: Callable[[Settings, Path, Path], str]

"""Find out which version of nginx the configuration is for."""

from __future__ import annotations

import os
import re
import shutil
import subprocess

_PLACES = "/usr/sbin:/usr/local/sbin:/usr/local/nginx/sbin"
_SECONDS = 5


def nginx_version(text: str) -> tuple[int, ...]:
    """The version in `1.29.7` or `nginx version: nginx/1.29.7`.  Raises ValueError."""
    found = re.search(r"(?<![\d.])(\d+)\.(\d+)\.(\d+)(?![\d.])", text)
    if found is None:
        raise ValueError(f"invalid nginx version {text!r}: expected three numbers, such as 1.29.7")
    return tuple(map(int, found.groups()))


def installed_nginx() -> tuple[int, ...] | None:
    """The version of this machine's nginx; None where there is none or it can't be told."""
    program = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:{_PLACES}")
    if program is None:
        return None
    try:
        done = subprocess.run(
            [program, "-v"], capture_output=True, text=True, timeout=_SECONDS, check=False
        )
        return nginx_version(done.stderr)
    except (OSError, ValueError, subprocess.SubprocessError):
        return None

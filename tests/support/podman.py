"""Debian's podman, with no trace of it: a mount and a PID namespace of its own.

There the unpacked packages are laid over the machine's /usr and /etc; images and containers are in
memory.  All of it ends with the process that holds the namespaces.
"""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tools import PODMAN, ROOT

SETTINGS = """\
[engine]
cgroup_manager = "cgroupfs"
events_logger = "none"
[containers]
cgroups = "disabled"
default_ulimits = ["nofile=1024:1024", "nproc=4096:4096"]
"""
"""What needs a systemd, a control group of its own or CAP_SYS_RESOURCE is left out."""

HOLD = """
set -eu
for each in usr etc; do
    [ ! -d {tools}/$each ] || mount -t overlay overlay -o lowerdir={tools}/$each:/$each /$each
done
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs {place}
umount -R /sys/fs/cgroup 2>/dev/null || true
mount -t cgroup2 cgroup2 /sys/fs/cgroup # crun refuses the mixture of both versions
mkdir {place}/graph {place}/run {place}/tmp
echo ready
exec cat
"""


class Podman:
    """podman within a `with` block; `place` is an empty directory for what it keeps."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.settings = place.parent / "containers.conf"
        self.storage = place.parent / "storage.conf"
        self.settings.write_text(SETTINGS)
        self.storage.write_text(
            f'[storage]\ndriver = "overlay"\nrunroot = "{place}/run"\ngraphroot = "{place}/graph"\n'
        )

    def __enter__(self) -> Self:
        script = HOLD.format(tools=shlex.quote(str(PODMAN)), place=shlex.quote(str(self.place)))
        self._holder = subprocess.Popen(
            [
                *("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"),
                *("sh", "-c", script),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._holder.stdout is not None
        assert self._holder.stdout.readline() == "ready\n"
        (self._pid,) = (
            Path(f"/proc/{self._holder.pid}/task/{self._holder.pid}/children").read_text().split()
        )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self._holder.communicate("", timeout=60)

    def try_run(self, *arguments: str | Path, data: bytes | None = None) -> tuple[int, str]:
        """One command: its status, and what it printed."""
        environ = {
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": "/root",
            "TMPDIR": str(self.place / "tmp"),
            "CONTAINERS_CONF": str(self.settings),
            "CONTAINERS_STORAGE_CONF": str(self.storage),
            "DISABLE_HC_SYSTEMD": "true",  # `healthcheck run` asks, not a timer of systemd
        }
        done = subprocess.run(
            ["nsenter", f"--target={self._pid}", "--mount", "--pid", "podman", *arguments],
            env=environ,
            cwd=ROOT,
            input=data or b"",
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=300,
        )
        return done.returncode, done.stdout.decode(errors="replace")

    def run(self, *arguments: str | Path, data: bytes | None = None) -> str:
        """One command that must succeed; what it printed."""
        status, said = self.try_run(*arguments, data=data)
        assert status == 0, f"podman {arguments[0]} ended with {status}\n{said[-6000:]}"
        return said

    def import_root(self, root: Path, name: str) -> None:
        """Make an image of a directory."""
        tar = subprocess.run(["tar", "-C", root, "-c", "."], capture_output=True, check=True)
        self.run("import", "-", name, data=tar.stdout)

    def build(self, context: Path, containerfile: Path, name: str, *options: str) -> str:
        """Build an image, in docker's format: OCI's has no HEALTHCHECK."""
        fixed = ["--format=docker", "--isolation=chroot", "--network=host", "--pull=never"]
        fixed += ["--layers=false", f"--file={containerfile}", f"--tag={name}"]
        return self.run("build", *fixed, *options, context)


KNOWN = {"image", "build", "restart", "profiles", "healthcheck", "depends_on", "environment"}
"""Keys of a composition's service that say nothing about how one container of it is run."""


def flags(service: Mapping[str, Any], place: Path) -> Sequence[str]:
    """A composition's service as options of `podman run`; its relative paths are below `place`.

    A published port needs a network, which there is none of here: the host's is taken instead.
    """
    found = []
    for key, value in service.items():
        if key == "read_only":
            found += ["--read-only"] if value else []
        elif key in ("cap_drop", "cap_add", "security_opt", "tmpfs"):
            found += [f"--{key.replace('_', '-')}={each}" for each in value]
        elif key == "volumes":
            found += [f"--volume={place / v[2:] if v[:2] == './' else v}" for v in value]
        elif key == "user":
            found += [f"--user={value}"]
        elif key not in KNOWN | {"network_mode", "ports", "command"}:
            raise ValueError(f"{key} is not known here")
    network = service.get("network_mode", "host" if "ports" in service else "none")
    return [*found, f"--network={network}"]

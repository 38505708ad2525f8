"""Several machines at a time, each a booted systemd made of this very machine's files.

They share a network of their own, which has 127.0.0.1 and nothing else; what is written goes to
overlays, thrown away at the end.  The source tree is unpacked in /srv/release of each.
"""

from __future__ import annotations

import hashlib
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from container import ROOT, hide_sidecar, one_at_a_time
from tools import Found

GROUPS = Path("/sys/fs/cgroup")
PARTS = ("config", "deploy", "nginx-example", "sidecar", "pyproject.toml")
BOOT_SECONDS = 120.0


def wheels() -> Path:
    """The wheels of the lock files, for machines without a network; kept for the next time."""
    locks = sorted((ROOT / "deploy").glob("requirements*.lock"))
    digest = hashlib.sha256(b"".join(each.read_bytes() for each in locks)).hexdigest()[:16]
    place = ROOT / ".tools/wheels" / f"{digest}-{sys.version_info.major}.{sys.version_info.minor}"
    if not place.exists():
        aside = place.with_suffix(f".{os.getpid()}")
        subprocess.run(["sh", ROOT / "deploy/wheels.sh", aside], check=True, timeout=300)
        with suppress(OSError):  # another test was first
            aside.rename(place)
        shutil.rmtree(aside, ignore_errors=True)
    return place


def _trees() -> list[Path]:
    """Where systemd has a control group for each service: one tree, or two where both kinds are."""
    found = [GROUPS / name for name in ("unified", "systemd") if (GROUPS / name).is_dir()]
    return found or [GROUPS]


@dataclass
class Machines:
    """`with` boots them, all at once; `hosts` are more names for each other."""

    nspawn: Found
    place: Path
    names: Sequence[str]
    hosts: Sequence[str] = ()
    _leaders: dict[str, int] = field(default_factory=dict)

    def __enter__(self) -> Machines:
        self._stack = ExitStack()
        self._stack.enter_context(one_at_a_time())
        self._process = subprocess.Popen(
            ["unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "sh", "-c",
             self._steps()],
            cwd=self.place, env=self.nspawn.env, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        self._stack.callback(self._end)
        try:
            for name in self.names:
                self._await(name)
                self._prepare(name)
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    def _groups(self, name: str) -> list[Path]:
        return [tree / f"mtls-sidecar-test-{os.getpid()}-{name}" for tree in _trees()]

    def _steps(self) -> str:
        """Boot each in a control group of its own: systemd takes all that it sees for its own."""
        steps = ["set -e", "mount -t proc proc /proc", "ip link set lo up", "mkdir -p layers",
                 "mount -t tmpfs tmpfs layers"]  # fmt: skip
        for name in self.names:
            groups = [shlex.quote(str(each)) for each in self._groups(name)]
            boot = [
                *(str(self.nspawn.path), "-D", f"layers/{name}/root", "--boot", "--register=no"),
                *("--keep-unit", "--console=pipe", f"--machine=mtls-sidecar-{os.getpid()}-{name}"),
                f"--bind-ro={ROOT}:/src",
                f"--bind-ro={wheels()}:/wheels",
                "systemd.unit=basic.target",
            ]
            upper = f"layers/{name}/upper"
            steps += [
                f"mkdir -p {upper}/etc layers/{name}/work layers/{name}/root {' '.join(groups)}",
                f"echo {name} >{upper}/etc/hostname",
                hide_sidecar(upper),
                f"mount -t overlay overlay -o lowerdir=/,upperdir={upper},"
                f"workdir=layers/{name}/work layers/{name}/root",
                f"(for group in {' '.join(groups)}; do echo 0 >$group/cgroup.procs; done; "
                f"exec {shlex.join(boot)}) >{name}.console 2>&1 &",
            ]
        return "\n".join([*steps, "wait"])

    def _await(self, name: str) -> None:
        end = time.monotonic() + BOOT_SECONDS
        while True:
            if name not in self._leaders and (pid := self._find(name)):
                self._leaders[name] = pid
            if name in self._leaders:
                told = self.run(name, "systemctl is-active basic.target", check=False, cwd="/")
                if told.strip() == "active":
                    return
            assert self._process.poll() is None, self.told(name)
            assert time.monotonic() < end, self.told(name)
            time.sleep(0.2)

    def _find(self, name: str) -> int:
        """The process that is number 1 in the machine; 0 where there is none yet."""
        for each in self._groups(name)[0].glob("**/cgroup.procs"):
            for pid in each.read_text().split():
                with suppress(OSError):
                    status = Path(f"/proc/{pid}/status").read_text()
                    spaces = status.partition("NSpid:")[2].splitlines()[0].split()
                    if len(spaces) == 3 and spaces[-1] == "1" and "\tsystemd\n" in status:
                        return int(pid)
        return 0

    def _prepare(self, name: str) -> None:
        """Names for all machines, and what somebody has who has unpacked a release."""
        known = " ".join(dict.fromkeys(["localhost", *self.names, *self.hosts]))
        copied = " ".join(f"/src/{each}" for each in PARTS)
        self.run(
            name,
            f"echo 127.0.0.1 {known} >/etc/hosts; mkdir -p home release; cp -r {copied} release/\n"
            "cd /usr/local/bin; printf '#!/bin/sh\\nexec \"$@\"\\n' >sudo; chmod +x sudo",
            cwd="/srv",
        )

    def run(self, name: str, script: str, *, check: bool = True, cwd: str = "/srv/release") -> str:
        """What a script prints that root types there, its errors, too."""
        environ = ["HOME=/srv/home", "PIP_NO_INDEX=1", "PIP_FIND_LINKS=/wheels",
                   "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]  # fmt: skip
        done = subprocess.run(
            ["nsenter", "-t", str(self._leaders[name]), "-a", "env", "-i", *environ,
             "sh", "-c", f"cd {cwd} && {{ {script}\n}}"],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, timeout=180, check=False,
        )  # fmt: skip
        assert not check or done.returncode == 0, f"{script}\n{done.stdout}\n{self.told(name)}"
        return done.stdout

    def copy(self, source: str, path: str, target: str, to: str) -> None:
        """Copy a directory of one machine to another one, as `scp -r` does."""
        enter = ["nsenter", "-t"]
        read = [*enter, str(self._leaders[source]), "-a", "tar", "-C", path, "-cf", "-", "."]
        write = [
            *enter,
            str(self._leaders[target]),
            "-a",
            "sh",
            "-c",
            f"mkdir {to}; tar -C {to} -xf -",
        ]
        data = subprocess.run(read, stdout=subprocess.PIPE, check=True, timeout=60).stdout
        subprocess.run(write, input=data, check=True, timeout=60)

    def told(self, name: str) -> str:
        """The console and the journal of a machine."""
        console = self.place / f"{name}.console"
        told = console.read_text(errors="replace")[-2000:] if console.exists() else ""
        if name in self._leaders:
            told += subprocess.run(
                ["nsenter", "-t", str(self._leaders[name]), "-a",
                 "journalctl", "--no-pager", "-n", "60"],
                capture_output=True, text=True, timeout=60, check=False,
            ).stdout  # fmt: skip
        return told

    def _end(self) -> None:
        self._process.kill()
        self._process.wait()
        for group in [each for name in self.names for each in self._groups(name)]:
            end = time.monotonic() + 10
            while group.exists() and time.monotonic() < end:
                for each in sorted(group.glob("**/"), reverse=True):
                    with suppress(OSError):
                        each.rmdir()
                time.sleep(0.05)

"""Boot a systemd in a container made of this very machine's files, and run a script in it.

What is written goes to an overlay, thrown away at the end, which also hides what this machine has
of the sidecar.  The source tree is /src; what the script leaves in /out comes back.
"""

from __future__ import annotations

import fcntl
import os
import shlex
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from tools import Found

ROOT = Path(__file__).resolve().parents[2]
BOOTED = ROOT / "tests" / "systemd" / "booted"

# What an installation, or a sidecar without a configuration of its own, leaves on a machine.
PLACES = tuple(
    f"{parent}/mtls-sidecar{part}"
    for parent in ("etc", "opt", "var/lib", "var/log")
    for part in ("", "-enroll", "-fetch", "-fleet", "-fleet-keeper", "-fleet-publisher")
)

UNIT = """\
[Unit]
Wants=basic.target sockets.target
After=basic.target sockets.target
[Service]
Type=oneshot
ExecStart=/bin/sh /probe.sh
ExecStopPost=/bin/systemctl poweroff --no-block
"""


def hide_sidecar(upper: str) -> str:
    """A shell's line that hides `PLACES` in the layer `upper`, before it is mounted: whiteouts, so
    that what somebody makes there meanwhile doesn't shine through either."""
    parents = shlex.join(sorted({f"{upper}/{Path(each).parent}" for each in PLACES}))
    hidden = shlex.join(f"{upper}/{each}" for each in PLACES)
    return f"mkdir -p {parents}; for place in {hidden}; do mknod $place c 0 0; done"


BOOT_LOCK = Path("/run/mtls-sidecar-boot.lock")
"""Where root alone, who alone boots containers, can make or open it: others would hold it."""


@contextmanager
def one_at_a_time() -> Iterator[None]:
    """Let no other test boot a container meanwhile.

    Two systemds that are booted here share the machine's tree of control groups, where each takes
    the services of the other for its own.
    """
    lock = os.open(BOOT_LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def boot(
    nspawn: Found,
    place: Path,
    script: str,
    *,
    times: int = 1,
    environ: Mapping[str, str] | None = None,
    binds: Sequence[str] = (),
    options: Sequence[str] = (),
    timeout: float = 600,
) -> str:
    """Boot so many times, each with what the one before wrote; what was said on the console.

    `script` is a file of tests/systemd/booted, `environ` its environment, `binds` more `FROM:TO`,
    `options` more of systemd-nspawn's.
    """
    for name in ("root", "out", "layer"):
        (place / name).mkdir(exist_ok=True)
    given = {k: v for k, v in os.environ.items() if k.startswith(("PIP_", "SSL_"))}
    given |= dict(environ or {})
    exports = "".join(f"export {k}={shlex.quote(v)}\n" for k, v in given.items())
    (place / "probe.sh").write_text(exports + (BOOTED / script).read_text())
    (place / "probe.service").write_text(UNIT)
    command = [
        *(str(nspawn.path), "-D", "root", "--boot", "--register=no", "--keep-unit"),
        *("--console=pipe", f"--machine=mtls-sidecar-{os.getpid()}"),
        f"--bind={place / 'out'}:/out",
        f"--bind-ro={place / 'probe.sh'}:/probe.sh",
        f"--bind-ro={place / 'probe.service'}:/etc/systemd/system/probe.service",
        f"--bind-ro={ROOT}:/src",
        *(f"--bind-ro={each}" for each in binds),
        *options,
        "systemd.unit=probe.service",
    ]
    # The machine's root, under a layer that keeps what is written from one boot to the next.  In a
    # mount namespace of its own, so that all of it is gone with the process.
    boots = "\n".join([shlex.join(command)] * times)
    steps = f"""
        set -e
        mount -t tmpfs tmpfs layer
        mkdir layer/upper layer/work
        {hide_sidecar("layer/upper")}
        mount -t overlay overlay -o lowerdir=/,upperdir=layer/upper,workdir=layer/work root
        {boots}
    """
    with one_at_a_time():
        done = subprocess.run(
            ["unshare", "--mount", "sh", "-c", steps],
            cwd=place,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
            env=nspawn.env,
        )
    return done.stdout + done.stderr


def read_saw(out: Path, console: str, logs: Sequence[str]) -> dict[str, str]:
    """The lines `name=value` that a script has written to `out`/saw, and the console.

    Fails where it hasn't come to its end; `logs` are more files there to show then.
    """
    lines = (out / "saw").read_text().splitlines() if (out / "saw").exists() else []
    found = dict(line.split("=", 1) for line in lines if "=" in line)
    for name in logs:
        if (out / name).exists():
            console += f"\n== {name}\n{(out / name).read_text()[-6000:]}"
    assert found.get("finished") == "yes", console
    return {**found, "console": console}


def in_container(path: Path) -> str:
    """Where a program of this machine is in the container."""
    return f"/src/{path.relative_to(ROOT)}" if path.is_relative_to(ROOT) else str(path)

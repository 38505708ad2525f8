"""The RPM, built and listed.  It is not installed: there is no machine here that takes one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tools import need, release_tool, rpm

import sidecar

ROOT = Path(__file__).resolve().parents[2]


def test_the_rpm_has_the_files_of_the_debian_package(tmp_path: Path) -> None:
    """Program, units, users and manual are there; configuration is not replaced, and the policy is
    for root and the services alone; it wants the Python that it was built for."""
    tool, nfpm = need(rpm()), need(release_tool("nfpm"))
    done = subprocess.run(
        ["sh", ROOT / "deploy/rpm/build.sh", tmp_path, nfpm.path],
        env={**os.environ, "SOURCE_DATE_EPOCH": "1700000000"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    (package,) = tmp_path.glob(f"mtls-sidecar-{sidecar.__version__}-1.*.rpm")
    form = "[%{FILENAMES} %{FILEMODES:octal} %{FILEGROUPNAME} %{FILEFLAGS:fflags}\\n]"
    ask = ("--dbpath", tmp_path / "db", "--nosignature", "-qp")
    lines = tool.run(*ask, "--qf", form, package).stdout.splitlines()
    files = {line.split()[0]: line.split()[1:] for line in lines}
    for name in (
        "/usr/bin/mtls-sidecar",
        "/usr/lib/systemd/system/mtls-sidecar@.service",
        "/usr/lib/sysusers.d/mtls-sidecar.conf",
        "/usr/share/man/man1/mtls-sidecar.1.gz",
        "/etc/nginx/snippets/identity.conf",
    ):
        assert name in files
    for name in ("policy.yaml", "sidecar.yaml"):
        assert files[f"/etc/mtls-sidecar/{name}"] == ["100640", "mtls-sidecar", "cn"]
    assert files["/etc/mtls-sidecar"][:2] == ["40750", "mtls-sidecar"]
    wanted = tool.run(*ask, "--requires", package).stdout
    assert f"python(abi) = {sys.version_info[0]}.{sys.version_info[1]}" in wanted

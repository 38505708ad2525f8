"""install.sh, into a directory of its own: what it puts where, twice, and what it leaves alone."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from daemon import ROOT
from tools import need, systemd_analyze

UNITS = [
    "mtls-sidecar.service",
    "mtls-sidecar@.service",
    "mtls-sidecar.socket",
    "mtls-sidecar-fetch.service",
]


def install(root: Path, *options: str) -> str:
    done = subprocess.run(
        ["sh", str(ROOT / "deploy" / "install.sh"), "--root", str(root), *options],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("root")
    install(found)
    return found


def test_it_puts_everything_in_place(root: Path) -> None:
    """Program, configuration and units stand where the units look for them."""
    assert os.access(root / "opt/mtls-sidecar/bin/mtls-sidecar", os.X_OK)
    for name in UNITS:
        assert (root / "etc/systemd/system" / name).exists()
    for name in ("sidecar.yaml", "policy.yaml"):
        assert (root / "etc/mtls-sidecar" / name).exists()


def test_the_installed_program_runs_by_itself(root: Path) -> None:
    """It checks the shipped policy without the source tree."""
    python = root / "opt/mtls-sidecar/bin/python"
    policy = root / "etc/mtls-sidecar/policy.yaml"
    done = subprocess.run(
        [python, "-P", "-m", "sidecar", "check", policy],
        cwd="/",
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "1 location," in done.stdout


def test_an_edited_configuration_is_kept(root: Path) -> None:
    """A second installation leaves edited files alone and puts the new ones beside them."""
    policy = root / "etc/mtls-sidecar/policy.yaml"
    settings = root / "etc/mtls-sidecar/sidecar.yaml"
    shipped = settings.read_text()
    policy.write_text("version: 1\nlocations: []\n")
    told = install(root)
    assert policy.read_text() == "version: 1\nlocations: []\n"
    assert (root / "etc/mtls-sidecar/policy.yaml.new").exists()
    assert "kept your" in told
    assert settings.read_text() == shipped
    assert not (root / "etc/mtls-sidecar/sidecar.yaml.new").exists()


def test_uninstalling_leaves_the_configuration(root: Path) -> None:
    """Program and units go; what was configured stays."""
    install(root, "--uninstall")
    assert not (root / "opt/mtls-sidecar").exists()
    assert not any((root / "etc/systemd/system" / name).exists() for name in UNITS)
    assert (root / "etc/mtls-sidecar/policy.yaml").exists()


@pytest.mark.parametrize("name", [name for name in UNITS if "@" not in name])
def test_systemd_reads_the_units(name: str, tmp_path: Path) -> None:
    """systemd-analyze verify has nothing to say about our lines."""
    analyze = need(systemd_analyze())
    for unit in UNITS:
        text = (ROOT / "deploy" / unit).read_text()
        text = text.replace("/opt/mtls-sidecar/bin/mtls-sidecar", "/bin/true")
        (tmp_path / unit).write_text(text)
    done = analyze.run("verify", tmp_path / name)
    assert str(tmp_path) not in done.stderr, done.stderr


def test_the_service_is_hardened() -> None:
    """systemd-analyze security finds the exposure low."""
    analyze = need(systemd_analyze())
    unit = ROOT / "deploy" / "mtls-sidecar.service"
    done = analyze.run("security", "--offline=yes", "--threshold=25", unit)
    assert done.returncode == 0, done.stdout[-600:]

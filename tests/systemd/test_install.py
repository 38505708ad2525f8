"""install.sh, into a directory of its own: what it puts where, twice, and what it leaves alone."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import signal
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from daemon import ROOT
from fleet_hosts import until
from tools import need, systemd_analyze

UNITS = sorted(
    path.name
    for path in (ROOT / "deploy").iterdir()
    if path.suffix in (".service", ".socket", ".timer")
)


CONFIG = ROOT / "config/policy.yaml"


def install(
    root: Path, *options: str, cwd: Path | None = None, umask: int = 0o022, **environ: str
) -> str:
    done = subprocess.run(
        ["sh", str(ROOT / "deploy" / "install.sh"), "--root", str(root), *options],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        cwd=cwd,
        umask=umask,
        env={**os.environ, **environ},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("root")
    (found / "etc/nginx").mkdir(parents=True)
    install(found, "--with", "enroll,fleet")
    return found


def brings(root: Path, *modules: str) -> bool:
    """Whether the installed program's Python has these modules."""
    python = root / "opt/mtls-sidecar/bin/python"
    names = ", ".join(modules)
    done = subprocess.run([python, "-I", "-c", f"import {names}"], capture_output=True, check=False)
    return done.returncode == 0


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
        [python, "-I", "-m", "sidecar", "check", policy],
        cwd="/",
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "1 location," in done.stdout


def test_the_caller_s_python_variables_have_no_say(root: Path, tmp_path: Path) -> None:
    """Whatever PYTHONPATH or PYTHONHOME root's shell has: nothing there is run by the command."""
    launcher = (root / "opt/mtls-sidecar/bin/mtls-sidecar").read_text()
    here = tmp_path / "launcher"
    here.write_text(launcher.replace("exec /opt", f"exec {root}/opt"))
    for name in ("sitecustomize.py", "usercustomize.py", "sidecar.py"):
        (tmp_path / name).write_text("raise SystemExit('run: ' + __file__)\n")
    for variable in ("PYTHONPATH", "PYTHONHOME", "PYTHONUSERBASE"):
        done = subprocess.run(
            ["sh", str(here), "--version"],
            cwd=tmp_path,
            env={"PATH": os.environ["PATH"], variable: str(tmp_path)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.startswith("mtls-sidecar ")


def test_the_parts_asked_for_come_with_it(root: Path) -> None:
    """`--with` brings what each part needs, and an upgrade keeps it: see the test of an edited
    configuration."""
    assert brings(root, "segno", "nats")


def test_no_installer_is_left(root: Path) -> None:
    """Neither pip nor setuptools, by which somebody could bring more into production."""
    assert not brings(root, "pip")
    assert not brings(root, "setuptools")


def test_its_lock_is_for_nobody_else_to_hold(tmp_path: Path) -> None:
    """A lock that others could read, and that one of them holds, as an earlier version left it,
    holds up no installation; the one in its place is the installing user's alone."""
    lock = tmp_path / "opt/mtls-sidecar.lock"
    lock.parent.mkdir()
    lock.touch(0o644)
    with lock.open("rb") as reader:
        fcntl.flock(reader, fcntl.LOCK_EX)
        install(tmp_path)
    assert lock.stat().st_mode & 0o777 == 0o600


def test_an_unknown_part_is_an_error(tmp_path: Path) -> None:
    """It is named, with those there are, and nothing is installed."""
    command = ["sh", f"{ROOT}/deploy/install.sh", "--root", str(tmp_path), "--with", "fleet,fleeet"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "unknown part fleeet; there are enroll fleet" in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("umask", [0o000, 0o077], ids=oct)
def test_the_callers_directory_and_umask_have_no_say(tmp_path: Path, umask: int) -> None:
    """Modules that lie where it is called are not run, and nothing is unpacked where its variables
    say; what it makes is everybody's to read and nobody else's to change, and the policy the
    services' alone."""
    hostile = tmp_path / "hostile"
    hostile.mkdir()
    for name in ("venv", "ensurepip", "pip", "sidecar", "sysconfig", "compileall", "fcntl"):
        (hostile / f"{name}.py").write_text(f"open({str(tmp_path / 'run')!r}, 'a').write({name!r})")
    root = tmp_path / "root"
    (root / "etc/nginx").mkdir(parents=True)
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    made = theirs.stat().st_mtime_ns
    install(root, cwd=hostile, umask=umask, PYTHONPATH=str(hostile), TMPDIR=str(theirs))
    assert os.getuid() != 0 or theirs.stat().st_mtime_ns == made
    assert not (tmp_path / "run").exists(), (tmp_path / "run").read_text()
    for top in ("opt/mtls-sidecar", "etc/mtls-sidecar", "etc/systemd", "etc/nginx/snippets"):
        for path in [root / top, *(root / top).rglob("*")]:
            assert path.is_symlink() or not path.stat().st_mode & 0o022, path
    assert not brings(root, "segno")
    assert not any((root / "etc/systemd/system").glob("*-enroll.*"))
    package = next((root / "opt/mtls-sidecar").rglob("sidecar/cli.py"))
    assert package.stat().st_mode & 0o044 == 0o044
    assert (root / "etc/mtls-sidecar/policy.yaml").stat().st_mode & 0o777 == 0o640
    assert (root / "etc/nginx/snippets/authz-location.conf").exists()
    assert not [p for p in (root / "opt/mtls-sidecar/bin").iterdir() if p.name.startswith("pip")]


def _waits_for(lock: Path) -> bool:
    """Whether some process waits for a lock of this file (proc(5), /proc/locks)."""
    inode = f":{lock.stat().st_ino} "
    return any(
        " -> " in line and inode in line for line in Path("/proc/locks").read_text().splitlines()
    )


def test_a_lock_that_was_replaced_meanwhile_does_not_count(tmp_path: Path) -> None:
    """Another one that started at the same moment may have removed the file that was locked."""
    lock = tmp_path / "opt/mtls-sidecar.lock"
    lock.parent.mkdir()

    def held() -> int:
        found = os.open(lock, os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(found, fcntl.LOCK_EX)
        return found

    first = held()
    script = ROOT / "deploy/install.sh"
    with subprocess.Popen(
        ["sh", str(script), "--root", str(tmp_path)], start_new_session=True
    ) as process:
        try:
            until(lambda: _waits_for(lock), "it waits for the lock")
            lock.rename(tmp_path / "removed")
            second = held()
            os.close(first)
            until(lambda: _waits_for(lock), "it waits for the lock")
            os.close(second)
        finally:
            os.killpg(process.pid, signal.SIGKILL)


def test_a_configuration_that_others_may_write_leads_nowhere(tmp_path: Path) -> None:
    """Its owner, or group, could put links there for root to follow: nothing is installed."""
    config = tmp_path / "etc/mtls-sidecar"
    config.mkdir(parents=True)
    command = ["sh", f"{ROOT}/deploy/install.sh", "--root", str(tmp_path)]
    for owner, mode in ((os.getuid(), 0o775), (65534, 0o755)):
        if owner != os.getuid() and os.getuid() != 0:
            continue  # only root gives a directory away
        os.chown(config, owner, -1)
        config.chmod(mode)
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 1
        assert f"others may write {config}, and so lead root elsewhere" in done.stderr
        assert not list(config.iterdir())
        assert not (tmp_path / "opt").exists()


def test_where_another_user_could_exchange_the_program_nothing_is_installed(
    tmp_path: Path,
) -> None:
    """Root runs what it has put into DIR: that, and what is above it, must be root's; /tmp will do
    above it."""
    if os.getuid() != 0:
        pytest.skip("only root gives a directory away")
    command = ["sh", f"{ROOT}/deploy/install.sh", "--root"]
    theirs, inner, parts = (tmp_path / name for name in ("theirs", "theirs/inner", "parts"))
    for directory in (theirs, inner, parts, parts / "opt"):
        directory.mkdir()
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o1777)
    for given in (theirs, parts / "opt"):
        os.chown(given, 65534, -1)
    for root, place in ((inner, theirs), (parts, parts / "opt"), (shared, shared)):
        for option in ([], ["--uninstall"]):
            done = subprocess.run(
                [*command, str(root), *option], capture_output=True, text=True, check=False
            )
            assert done.returncode == 1
            assert f"others may write {place}, and so change what root runs" in done.stderr
        assert not list(root.rglob("mtls-sidecar*"))
    done = subprocess.run(
        [*command, str(shared / "ours"), "--uninstall"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


FAILS_ONCE = """#!/bin/sh
# fails as on a full disk, having written a part, when it is called for the NUMBERth time
case {command}:$(readlink /proc/$$/fd/1) in *cat:*[!t]) exec {command} "$@" ;; esac
echo >>{calls}
[ "$(wc -l <{calls})" != {number} ] || {{ echo part; exit 1; }}
exec {command} "$@"
"""


def _state(root: Path) -> dict[str, tuple[int, bytes]]:
    """Which file each is, and what it says."""
    return {
        str(path.relative_to(root)): (path.stat().st_ino, path.read_bytes())
        for path in root.rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize(
    ("command", "number", "left"),
    [
        ("cat", 20, "all"),
        ("cat", -1, "all"),
        ("mv", 2, "all"),
        ("mv", 3, "files"),
    ],
)
def test_a_full_disk_leaves_what_was_installed(
    tmp_path: Path, command: str, number: int, left: str
) -> None:
    """Of an upgrade that fails nothing is in force: neither the program nor a file; of an emptied
    authz-location.conf nginx would ask the application who may come in.  All is written before the
    first of them is put in place."""
    script, root, stubs = tmp_path / "install.sh", tmp_path / "root", tmp_path / "stubs"
    text = (ROOT / "deploy/install.sh").read_text()
    program = text[text.index('    mkdir -p "$fresh"\n') : text.index("# The policy tells")]
    text = text.replace(program, '    mkdir -p "$fresh/bin"; date +%N >"$fresh/bin/python"\n}\n')
    script.write_text(re.sub(r"(?m)^here=.*", f"here={ROOT}", text))
    (root / "etc/nginx").mkdir(parents=True)
    stubs.mkdir()

    def run(number: int = 0) -> int:
        calls = stubs / "calls"
        calls.write_text("")
        stub = stubs / command
        real = shutil.which(command)
        stub.write_text(FAILS_ONCE.format(calls=calls, number=number, command=real))
        stub.chmod(0o755)
        path = f"{stubs}:{os.environ['PATH']}"
        done = subprocess.run(
            ["sh", str(script), "--root", str(root)],
            capture_output=True,
            env={**os.environ, "PATH": path},
            check=False,
        )
        assert (b"installed.  Next" in done.stdout) is (number == 0), done.stderr
        return len(calls.read_text())

    times = run()
    before = _state(root)
    run(number if number > 0 else times)
    after = _state(root)
    if left == "files":
        before.pop("opt/mtls-sidecar/bin/python")
        assert after.pop("opt/mtls-sidecar/bin/python")
    assert after == before


def test_a_link_in_place_of_a_file_is_left_alone(tmp_path: Path) -> None:
    """What it leads to may be in another user's directory, also where it is as shipped; and into a
    directory for snippets that others may write nothing is put."""
    config, snippets = tmp_path / "etc/mtls-sidecar", tmp_path / "etc/nginx/snippets"
    config.mkdir(parents=True)
    snippets.mkdir(parents=True)
    snippets.chmod(0o777)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.touch()
    (config / ".shipped").mkdir()
    (config / ".shipped/policy.yaml").write_text("4294967295 0\n")  # the sum of no octets
    (config / "policy.yaml").symlink_to(elsewhere)
    (snippets / "identity.conf").symlink_to(elsewhere)
    told = install(tmp_path)
    assert elsewhere.read_bytes() == b""
    assert f"the new one is {config}/policy.yaml.new" in told
    assert f"others may write {snippets}" in told
    assert [path.name for path in snippets.iterdir()] == ["identity.conf"]


def test_two_at_once_wait_for_each_other(tmp_path: Path) -> None:
    """Both succeed, and what they leave is whole."""
    root = tmp_path / "root"
    with ThreadPoolExecutor(2) as pool:
        told = list(pool.map(lambda _: install(root), range(2)))
    assert all(told)
    done = subprocess.run(
        [root / "opt/mtls-sidecar/bin/python", "-I", "-m", "sidecar", "--version"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in (root / "opt").iterdir()) == [
        "mtls-sidecar",
        "mtls-sidecar.lock",
    ]


def test_an_edited_configuration_is_kept(root: Path) -> None:
    """A second installation leaves edited files alone, and says nothing of what is not new; an
    edited snippet is named each time, as it may let somebody past."""
    policy = root / "etc/mtls-sidecar/policy.yaml"
    snippet = root / "etc/nginx/snippets/identity.conf"
    policy.write_text("version: 1\nlocations: []\n")
    snippet.write_text(snippet.read_text() + "# mine\n")
    told = install(root).splitlines()
    assert policy.read_text() == "version: 1\nlocations: []\n"
    assert [line for line in told if not line.startswith("upgraded to ")] == [
        f"{snippet} is not as this version ships it: "
        "nginx -T | mtls-sidecar doctor - says what that opens"
    ]
    assert not list((root / "etc").rglob("*.new"))
    assert brings(root, "segno", "nats")


def test_a_new_version_of_an_edited_file_is_put_beside_it(root: Path) -> None:
    """Once: where the file that is shipped has changed since the one before."""
    policy = root / "etc/mtls-sidecar/policy.yaml"
    policy.write_text("version: 1\nlocations: []\n")
    settings = (root / "etc/mtls-sidecar/sidecar.yaml").read_text()
    shipped = root / "etc/mtls-sidecar/.shipped/policy.yaml"
    before = shipped.read_text()
    shipped.write_text("1 2\n")  # as an older version left it
    assert f"kept your {policy}; the new one is {policy}.new" in install(root)
    assert (root / "etc/mtls-sidecar/policy.yaml.new").read_text() == CONFIG.read_text()
    assert shipped.read_text() == before
    assert policy.read_text() == "version: 1\nlocations: []\n"
    assert (root / "etc/mtls-sidecar/sidecar.yaml").read_text() == settings


def test_uninstalling_leaves_the_configuration(root: Path) -> None:
    """Program and units go; what was configured stays."""
    install(root, "--uninstall")
    assert not (root / "opt/mtls-sidecar").exists()
    assert not any((root / "etc/systemd/system" / name).exists() for name in UNITS)
    assert (root / "etc/mtls-sidecar/policy.yaml").exists()
    assert not list((root / "etc").rglob("*.new"))


@pytest.mark.parametrize("name", [name for name in UNITS if "@" not in name])
def test_systemd_reads_the_units(name: str, tmp_path: Path) -> None:
    """systemd-analyze verify has nothing to say about our lines."""
    analyze = need(systemd_analyze())
    for unit in UNITS:
        text = (ROOT / "deploy" / unit).read_text()
        text = text.replace("/opt/mtls-sidecar/bin/mtls-sidecar", "/bin/true")
        text = text.replace("SocketGroup=mtls-sidecar", "SocketGroup=www-data")  # no such user yet
        (tmp_path / unit).write_text(text)
    done = analyze.run("verify", tmp_path / name)
    assert str(tmp_path) not in done.stderr, done.stderr


@pytest.mark.parametrize(
    ("unit", "tenths"),
    [
        ("mtls-sidecar.service", 5),
        ("mtls-sidecar-fetch.service", 15),
        ("mtls-sidecar-enroll.service", 5),
        ("mtls-sidecar-enroll-crl.service", 5),
        ("mtls-sidecar-fleet.service", 15),
        ("mtls-sidecar-fleet-keeper.service", 15),
        ("fleet/nats-server.service", 15),
    ],
)
def test_the_services_are_shut(unit: str, tenths: int) -> None:
    """systemd-analyze security finds 0.5 at most, of what has the network 1.5."""
    analyze = need(systemd_analyze())
    done = analyze.run("security", "--offline=yes", f"--threshold={tenths}", ROOT / "deploy" / unit)
    assert done.returncode == 0, done.stdout[-600:]


def test_an_instance_is_the_service_but_for_its_name() -> None:
    """What is mended in one unit is mended in the other."""
    one = (ROOT / "deploy/mtls-sidecar.service").read_text()
    many = (ROOT / "deploy/mtls-sidecar@.service").read_text()
    same = many[many.index("[Unit]") :].replace("@%i", "").replace(", instance %i", "")
    assert same == one[one.index("[Unit]") :]

"""nginx-example/demo.sh, as anybody would run it."""

from __future__ import annotations

import os
import re
import shlex
import signal
import socket
import subprocess
from pathlib import Path

import pytest
from nginx import free_port
from tools import ROOT, NginxBinary

DEMO = ROOT / "nginx-example" / "demo.sh"


def directory_in(said: str) -> Path:
    """The demo's own directory, which its lines name."""
    found = re.search(r"/tmp/mtls-sidecar-demo\.\w+", said)
    assert found is not None, said
    return Path(found[0])


def processes(words: str) -> list[str]:
    """The command lines that contain these words."""
    found = []
    for each in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = each.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if words in line:
            found.append(line)
    return found


def _heed_ctrl_c() -> None:
    """A suite that was started in the background ignores SIGINT, and its children would, too."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def demo(*arguments: str, env: dict[str, str] | None = None) -> subprocess.Popen[str]:
    return subprocess.Popen(
        ["sh", str(DEMO), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=env,
        start_new_session=True,
        preexec_fn=_heed_ctrl_c,
        umask=0,
    )


def path_with(binary: NginxBinary, directory: Path) -> dict[str, str]:
    """An environment on whose PATH `nginx` is this one."""
    directory.mkdir()
    extra = " ".join(f"{name}={shlex.quote(value)}" for name, value in binary.extra_env)
    wrapper = directory / "nginx"
    wrapper.write_text(f'#!/bin/sh\nexec env {extra} {shlex.quote(str(binary.path))} "$@"\n')
    wrapper.chmod(0o755)
    return {**os.environ, "PATH": f"{directory}:{os.environ['PATH']}"}


def test_check_holds_and_leaves_nothing(nginx_binary: NginxBinary, tmp_path: Path) -> None:
    """Each line does what it says, with the nginx on PATH; then no file and no process is left."""
    port = str(free_port())
    process = demo("--check", "--port", port, env=path_with(nginx_binary, tmp_path / "bin"))
    said, errors = process.communicate(timeout=60)
    assert process.returncode == 0, said + errors
    assert f"nginx/{nginx_binary.label}" in said
    assert said.count("\nok ") == 18
    assert "WRONG" not in said
    assert errors == ""
    assert not directory_in(said).exists()
    assert not processes(str(directory_in(said)))
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", int(port)), timeout=5)


def test_ctrl_c_ends_it(tmp_path: Path) -> None:
    """In the foreground it prints lines to try and serves until SIGINT; then nothing is left.  In
    between nobody else may change a file of it, whatever the caller's umask is."""
    process = demo("--port", str(free_port()))
    assert process.stdout is not None
    said = ""
    while "Ctrl-C" not in said:
        line = process.stdout.readline()
        assert line, "it ended"
        said += line
    directory = directory_in(said)
    assert processes(str(directory))
    files = [each for each in directory.rglob("*") if each.is_file() or each.is_dir()]
    assert [each for each in files if each.stat().st_mode & 0o022] == []
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=20)
    assert process.returncode == 130
    assert not directory.exists()
    assert not processes(str(directory))


def test_its_curl_lines_are_real(tmp_path: Path) -> None:
    """What is printed can be pasted: alice gets 200 from admin, nobody gets 401."""
    process = demo("--port", str(free_port()))
    assert process.stdout is not None
    lines: list[str] = []
    while not lines or "Ctrl-C" not in lines[-1]:
        lines.append(process.stdout.readline())
        assert lines[-1], "it ended"
    try:
        curls = [each for each in lines if each.startswith("curl -K") and "/admin/" in each]
        seen = [
            subprocess.run(["sh", "-c", each], capture_output=True, text=True) for each in curls
        ]
        if any(each.returncode == 127 for each in seen):
            pytest.skip("curl is not on PATH")
        assert [each.stdout.split()[-1] for each in seen] == ["401", "200", "403"]
        assert "Hello alice" in seen[1].stdout
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=20)


def test_a_busy_port_is_said() -> None:
    """A port that is taken is named, with what to do, and nothing is started."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        process = demo("--check", "--port", port)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert port in errors
    assert "--port N" in errors


@pytest.mark.parametrize("arguments", [["--port"], ["--port", "x"], ["--prot", "1"]])
def test_wrong_arguments_are_said(arguments: list[str]) -> None:
    """A mistyped call ends at once with a message."""
    process = demo(*arguments)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "demo.sh: " in errors


def test_it_needs_no_root() -> None:
    """An ordinary user can run it.  As root, that is this user under another number."""
    plain = ["sh", str(DEMO), "--check", "--port", str(free_port())]
    if os.geteuid() == 0:
        plain = ["unshare", "--map-user=1000", "--map-group=1000", *plain]
    done = subprocess.run(plain, capture_output=True, text=True, timeout=60)
    if "unshare: " in done.stderr:
        pytest.skip(f"no user namespaces here: {done.stderr.strip()}")
    assert (done.returncode, done.stderr) == (0, ""), done.stdout

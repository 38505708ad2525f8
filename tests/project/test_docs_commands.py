"""Every command in the documents is run, beside a real nginx and a real daemon.

A `sh` block must succeed.  In a `console` block each line behind `$ ` is run, and what it prints
must be what follows (`…` stands for anything).  A block with the title policy.yaml is put into
force where it stands.  What can't be run here stands in `NOT_RUN`, with the reason.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from nginx import Nginx
from pages import ROOT, Block, blocks, pages
from pki import CA
from stack import People, Stack
from tools import Missing, NginxBinary, nginx_binaries

WHOLE_PAGES = {
    "docs/pki.md": "test_pki_page.py",
    "docs/enroll.md": "test_enroll_page.py",
    "docs/clients.md": "test_clients_page.py",
    "docs/fleet.md": "systemd/test_fleet.py; nginx-example/fleet-demo.sh: test_fleet_demo.py",
}
"""Pages whose commands are one story, which a test of its own tells."""

NEEDS_ROOT = "needs root and systemd: tests/systemd runs it"
RUNS_TESTS = "runs the tests, of which this is one"
RELEASES = "builds a release in the checkout of its tag: test_dist.py builds one elsewhere"
NOT_RUN = {
    "sh nginx-example/demo.sh": "serves until Ctrl-C: test_demo.py runs it",
    "sh nginx-example/demo.sh --check": "test_demo.py runs it",
    "sh nginx-example/fleet-demo.sh": "serves until Ctrl-C: test_fleet_demo.py runs it",
    "sh nginx-example/fleet-demo.sh --check": "test_fleet_demo.py runs it",
    "sh deploy/venv.sh": "made the environment that this runs in",
    "sh tests/run.sh": RUNS_TESTS,
    ".venv/bin/python -m pytest": RUNS_TESTS,
    "CI=true bash .ci/run": RUNS_TESTS,
    "uv pip compile": "needs a package index",
    "for part in enroll fleet; do uv pip compile": "needs a package index",
    ".venv/bin/python deploy/dist.py dist": RELEASES,
    "python3 deploy/sbom.py": RELEASES,
    "(cd dist && sha256sum": RELEASES,
    "sh deploy/deb/build.sh dist": "builds a package: test_deb.py builds one elsewhere",
    "sudo apt-get install": NEEDS_ROOT,
    "sudo rm -rf /etc/mtls-sidecar.before": NEEDS_ROOT,
    "pipx install": "needs a release: test_dist.py installs one",
    "uv tool install": "needs a release: test_dist.py installs one",
    "podman build": "needs a base image: test_container.py builds it on one",
    "sudo sh deploy/install.sh": NEEDS_ROOT,
    "sudo mtls-sidecar check": NEEDS_ROOT,
    "sudo systemctl": NEEDS_ROOT,
    "sudo sh -c 'nginx -t": NEEDS_ROOT,
    "sudo rm /var/lib/mtls-sidecar/crl-watermarks.json": "test_last_good.py resets them",
}
"""Beginnings of commands that are not run, each with the reason."""

LANGUAGES = {"sh", "python", "console", "yaml", "nginx", "text"}


def reason_not_to_run(command: str) -> str:
    """Why a command is not run; empty where it is."""
    found = [
        why for start, why in NOT_RUN.items() if re.match(re.escape(start) + r"(?!\S)", command)
    ]
    return found[0] if found else ""


def commands(block: Block) -> list[str]:
    """The commands of a block; what goes on behind a backslash is one."""
    text = re.sub(r"\\\n", " ", block.text)
    if block.language == "console":
        return [line[2:] for line in text.splitlines() if line.startswith("$ ")]
    return [line for line in text.splitlines() if line.strip() and not line.startswith("#")]


def shell_blocks(page: Path) -> list[Block]:
    return [each for each in blocks(page) if each.language in ("sh", "console")]


def told_pages() -> list[Path]:
    """The pages with a command that is run here."""
    found = []
    for page in pages():
        if str(page.relative_to(ROOT)) not in WHOLE_PAGES:
            told = [line for block in shell_blocks(page) for line in commands(block)]
            if any(not reason_not_to_run(line) for line in told):
                found.append(page)
    return found


# -- the machine on which they are run


class Machine:
    """A web server with nginx and the sidecar, on which a reader would type the commands."""

    def __init__(self, binary: NginxBinary, directory: Path, nginx: Block, policy: str) -> None:
        self.directory = directory
        self.people = People(staff=CA("Staff CA"))
        server = nginx.text.partition("server {")
        conf = f"user www-data;\nevents {{ }}\nhttp {{\n{''.join(server)}\n}}\n"
        conf = conf.replace("127.0.0.1:8000", "127.0.0.1:8080")
        self.files(directory / "sidecar" / "pki")
        (directory / "sidecar" / "denylist.txt").touch()
        self.stack = Stack(binary, directory, conf=conf, policy=later(policy), people=self.people)
        self.nginx = self.stack.nginx
        (directory / "nginx" / "pki" / "ca.crt").write_bytes(self.people.staff.pem)
        self.home = directory / "home"
        self.home.mkdir()
        self.alice(self.home)
        self.other_authorities(self.home)
        self.programs(binary, self.nginx)

    def files(self, pki: Path) -> None:
        """What the policies of the documents name."""
        pki.mkdir(parents=True)
        (pki / "ca.crt").write_bytes(self.people.staff.pem)
        (pki / "crl.pem").write_bytes(self.people.staff.crl())
        (pki / "partners.crt").write_bytes(self.people.partners.pem)

    def other_authorities(self, home: Path) -> None:
        """A new CA with a CRL and a certificate of alice, and a client below an intermediate."""
        new = CA("Staff CA 2")
        (home / "new-ca.crt").write_bytes(new.pem)
        (home / "new-crl.pem").write_bytes(new.crl())
        (home / "new-alice.crt").write_bytes(new.issue("alice").pem)
        (home / "dave.crt").write_bytes(self.people.issuing.issue("dave").pem)

    def alice(self, home: Path) -> None:
        """Alice's certificate, and a curl that finds this machine."""
        leaf = self.people.staff.issue("alice", ou="SRE", dns=["app.example.com"])
        (home / "alice.crt").write_bytes(leaf.pem)
        (home / "alice.key").write_bytes(leaf.key_pem)
        (home / "server-ca.crt").write_bytes(self.people.server.pem)
        port = self.stack.ports["nginx.conf"]
        (home / ".curlrc").write_text(
            f'cacert = "{home}/server-ca.crt"\n'
            f'connect-to = "app.example.com:443:127.0.0.1:{port}"\n'
        )

    def programs(self, binary: NginxBinary, nginx: Nginx) -> None:
        """`mtls-sidecar` and `nginx` on PATH, with the paths of this machine."""
        folder = self.directory / "bin"
        folder.mkdir()
        config = shlex.quote(str(self.stack.daemon.config))
        real = shlex.quote(str(ROOT / ".venv/bin/mtls-sidecar"))
        libraries = "".join(f"{name}={shlex.quote(value)} " for name, value in binary.extra_env)
        etc = shlex.quote(str(nginx.directory))
        for name, line in {
            "mtls-sidecar": f'command=$1; shift; exec {real} "$command" --config {config} "$@"',
            "nginx": f'{libraries}exec {binary.path} -p {etc}/ -c nginx.conf "$@"',
        }.items():
            (folder / name).write_text(f"#!/bin/sh\n{line}\n")
            (folder / name).chmod(0o755)

    def run(self, command: str) -> subprocess.CompletedProcess[str]:
        """Run a command as alice's administrator would, in a directory with her certificate."""
        etc = f"{self.nginx.directory}/"
        adapted = later(command).replace("/etc/nginx/", etc)
        adapted = adapted.replace("/etc/mtls-sidecar", str(self.stack.daemon.directory))
        adapted = adapted.replace("127.0.0.1:9641", f"127.0.0.1:{self.stack.daemon.port}")
        path = os.pathsep.join([str(self.directory / "bin"), os.environ["PATH"]])
        return subprocess.run(
            ["sh", "-c", adapted],
            cwd=self.home,
            env={**os.environ, "PATH": path, "HOME": str(self.home)},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )


def later(text: str) -> str:
    """The text with its dates in a far year: no example ends by itself."""
    return text.replace("2027-", "2097-")


def nginx_block(page: Path) -> Block:
    """The server of a page, or else of the README."""
    for each in (page, ROOT / "README.md"):
        for block in blocks(each):
            if block.language == "nginx" and "server {\n" in block.text:
                return block
    raise AssertionError("the README has no server")


def policies(page: Path) -> list[str]:
    return [
        block.text
        for block in blocks(page)
        if block.language == "yaml" and block.text.startswith("version: 1\n")
    ]


def runs() -> list[Any]:
    """Each page with an nginx: with every one, where the page configures nginx itself."""
    found = []
    for page in told_pages():
        binaries = nginx_binaries() if nginx_block(page).page == page else nginx_binaries()[:1]
        for each in binaries:
            folder = page.parent.name if page.name == "README.md" else ""
            name = f"{folder}{page.stem}-{getattr(each, 'label', each.name)}"
            found.append(pytest.param(page, each, id=name))
    return found


@pytest.mark.parametrize(("page", "binary"), runs())
def test_the_commands_of_a_page_do_what_it_says(
    page: Path, binary: NginxBinary | Missing, tmp_path: Path
) -> None:
    """Each succeeds, or prints what stands behind it."""
    if isinstance(binary, Missing):
        pytest.skip(str(binary))
    large = policies(ROOT / "README.md")[1]
    machine = Machine(binary, tmp_path, nginx_block(page), large)
    with machine.stack as stack:
        for block in blocks(page):
            if block.title == "policy.yaml":
                stack.edit_policy(later(block.text))
                (machine.home / "policy.yaml").write_text(later(block.text))
            elif block.language == "sh":
                for command in commands(block):
                    if not reason_not_to_run(command):
                        done = machine.run(command)
                        assert succeeded(command, done), f"{block}: {command}\n{done}"
            elif block.language == "console":
                for command, expected in sessions(block):
                    done = machine.run(command)
                    assert matches(expected, done.stdout), f"{block}: {command}\n{done}"


def test_the_simplest_policy_works_as_the_readme_has_it(
    nginx_binary: NginxBinary, tmp_path: Path
) -> None:
    """Its server and its four lines let in alice and nobody else, and nginx finds its snippets."""
    readme = ROOT / "README.md"
    machine = Machine(nginx_binary, tmp_path, nginx_block(readme), policies(readme)[0])
    with machine.stack as stack:
        assert stack.get("/", cert=machine.people.alice).status == 200
        assert stack.get("/", cert=machine.people.staff.issue("carol")).status == 403
        assert stack.get("/").status == 401


def succeeded(command: str, done: subprocess.CompletedProcess[str]) -> bool:
    """Whether a command did what it is for; a finding of `doctor` that only costs is no failure."""
    if "doctor" in command and done.returncode == 1:
        return set(re.findall(r"\] (\w+): ", done.stdout)) == {"cost"}
    return done.returncode == 0


def sessions(block: Block) -> Iterator[tuple[str, str]]:
    """The commands of a console block, each with what it prints."""
    for part in re.split(r"(?m)^\$ ", block.text)[1:]:
        command, _, printed = part.partition("\n")
        yield command, printed


def matches(expected: str, printed: str) -> bool:
    """Whether something was printed as expected, `…` standing for anything within a line."""
    pattern = ".*".join(map(re.escape, expected.split("…")))
    return re.fullmatch(pattern, printed) is not None


# -- what keeps the examples from being passed over


def test_every_block_says_what_it_is() -> None:
    """A command without a language would be run by nobody."""
    for page in pages():
        for block in blocks(page):
            assert block.language in LANGUAGES, f"{block}: {block.language!r}"


def test_what_is_not_run_stands_in_a_document() -> None:
    """The list of exceptions has none left over."""
    told = [line for page in pages() for block in shell_blocks(page) for line in commands(block)]
    for start in NOT_RUN:
        assert any(line.startswith(start) for line in told), start
    assert reason_not_to_run("sh tests/run.sh  # all")
    assert not reason_not_to_run("sh tests/run.shx")


def test_the_other_yaml_blocks_can_be_read() -> None:
    """Prometheus's configuration, alerts, a part of a policy: at least YAML."""
    for page in pages():
        for block in blocks(page):
            if block.language == "yaml":
                assert yaml.safe_load(block.text), block


def test_snippets_are_in_one_folder_everywhere() -> None:
    """/etc/nginx/snippets, as install.sh has it; nginx includes them as snippets/NAME."""
    names = {path.name for path in (ROOT / "nginx-example" / "snippets").glob("*.conf")}
    assert "snippets=/etc/nginx/snippets\n" in (ROOT / "deploy/install.sh").read_text()
    texts = [*pages(), *(ROOT / "nginx-example").rglob("*.conf")]
    for path in texts:
        for folder, name in re.findall(r"([\w/.-]*)snippets/([\w-]+\.conf)", path.read_text()):
            assert name in names, f"{path.name}: snippets/{name}"
            assert folder in ("", "nginx-example/", "/etc/nginx/"), f"{path.name}: {folder}"


def test_a_wrong_example_is_found() -> None:
    """What is printed must match whole, with `…` for what changes."""
    assert matches("a … c\n", "a b c\n")
    assert not matches("a … c\n", "a b d\n")
    assert not matches("", "more\n")

"""`doctor` over the configurations that people have: silent on what is right, loud on a hole."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from asking import policy
from nginx import Nginx, free_port
from stack import EXAMPLES, People, adapt
from tools import NginxBinary, nginx_binaries

from sidecar.commands.doctor.checks import examine
from sidecar.commands.doctor.findings import Finding, Severity
from sidecar.commands.doctor.nginx_config import read_nginx

KNOWN = sorted((Path(__file__).parent / "known").glob("*.conf"))
POLICY = policy(
    "version: 1\ntrust: {staff: {ca: ca.crt}}\nlocations:\n"
    "  - {name: site, allow: verified}\n  - {name: admin, allow: [{cn: alice}]}\n",
    ca_crt=People().staff.pem,
)
HOLES = yaml.safe_load((Path(__file__).parent / "known" / "holes.yaml").read_text())


def install(text: str, directory: Path, binary: NginxBinary) -> Nginx:
    """The configuration in a directory of its own, its ports and paths replaced."""
    etc = directory / "nginx"
    People().write_nginx_files(etc / "pki")
    (etc / "snippets").mkdir(exist_ok=True)
    here = {"/var/cache/nginx/": f"{directory}/cache-"}
    for port in ("443", "80"):
        here[f"listen {port}"] = f"listen 127.0.0.1:{free_port()}"
    for each in (EXAMPLES / "snippets").glob("*.conf"):
        (etc / "snippets" / each.name).write_text(adapt(each.read_text(), here))
    return Nginx(binary, adapt(text, here), etc)


def found(nginx: Nginx) -> list[Finding]:
    return examine(read_nginx(nginx.conf), POLICY)


def opens(nginx: Nginx) -> set[str]:
    return {each.id for each in found(nginx) if each.severity is Severity.OPEN}


@pytest.mark.parametrize("known", KNOWN, ids=lambda each: each.stem)
def test_nothing_is_open_that_is_not(
    known: Path, nginx_binary: NginxBinary, tmp_path: Path
) -> None:
    """nginx takes the configuration, and doctor finds neither a way in nor anybody locked out."""
    nginx = install(known.read_text(), tmp_path, nginx_binary)
    assert nginx.test().returncode == 0, nginx.test().stderr
    assert {each.id for each in found(nginx)} <= {"never-asked"}


@pytest.mark.parametrize("hole", HOLES, ids=lambda each: f"{each['in']}-{each['finding']}")
def test_a_hole_is_found(hole: dict[str, str], tmp_path: Path) -> None:
    """The same configuration with a hole: nginx takes it as well, and doctor names the hole."""
    text = next(each for each in KNOWN if each.stem == hole["in"]).read_text()
    assert hole["old"] in text
    binary = next(b for b in nginx_binaries() if isinstance(b, NginxBinary))
    nginx = install(text.replace(hole["old"], hole["new"], 1), tmp_path, binary)
    assert nginx.test().returncode == 0, nginx.test().stderr
    assert hole["finding"] in opens(nginx)

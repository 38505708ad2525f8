"""The Debian package: built twice, checked by lintian, and used under a real, booted systemd.

The container is this very machine's files under an overlay that is thrown away, without a network;
what `booted/deb.sh` saw in it comes back as lines `name=value`.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from container import BOOTED, boot, read_saw
from daemon import ROOT
from tools import dpkg_deb, lintian, need, systemd_nspawn


def build(out: Path) -> Path:
    done = subprocess.run(
        ["sh", ROOT / "deploy/deb/build.sh", out],
        env={**os.environ, "SOURCE_DATE_EPOCH": "1700000000"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    return Path(done.stdout.strip())


@pytest.fixture(scope="module")
def debs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two builds of the same source."""
    need(dpkg_deb())
    place = tmp_path_factory.mktemp("deb")
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(build, [place / "one", place / "two"]))


@pytest.fixture(scope="module")
def saw(debs: list[Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What the script in the container saw."""
    nspawn = need(systemd_nspawn())
    place = tmp_path_factory.mktemp("boot")
    (place / "debs").mkdir()
    shutil.copy(debs[0], place / "debs/old.deb")
    newer(debs[0], place / "unpacked", place / "debs/new.deb")
    binds = [f"{place / 'debs'}:/debs", f"{BOOTED / 'ask.py'}:/ask.py"]
    console = boot(nspawn, place, "deb.sh", binds=binds, options=["--private-network"])
    return read_saw(place / "out", console, ("console", "stderr"))


def newer(deb: Path, unpacked: Path, target: Path) -> None:
    """A later version of the package, which brings other configuration files."""
    subprocess.run(["dpkg-deb", "-R", deb, unpacked], check=True)
    control = unpacked / "DEBIAN/control"
    control.write_text(re.sub(r"(?m)^(Version: .*)$", r"\1+later", control.read_text()))
    for name in ("mtls-sidecar/policy.yaml", "mtls-sidecar/sidecar.yaml"):
        with (unpacked / "etc" / name).open("a") as file:
            file.write("# of the new version\n")
    with (unpacked / "etc/nginx/snippets/identity.conf").open("a") as file:
        file.write("# of the new version\n")
    subprocess.run(
        ["dpkg-deb", "--root-owner-group", "-Zgzip", "-z1", "-b", unpacked, target],
        check=True,
        stdout=subprocess.DEVNULL,
    )


def check(saw: dict[str, str], **expected: str) -> None:
    got = {name: saw.get(name) for name in expected}
    assert got == expected, saw["console"]


def test_two_builds_are_the_same_bytes(debs: list[Path]) -> None:
    """The same source and lock file give the same package."""
    assert len({hashlib.sha256(each.read_bytes()).hexdigest() for each in debs}) == 1


def test_lintian_has_nothing_to_say(debs: list[Path]) -> None:
    """Each tag that is overridden has its reason beside it, and none is left."""
    done = need(lintian()).run(
        "--allow-root", "--no-cfg", "--fail-on=warning", debs[0], timeout=300
    )
    assert (done.returncode, done.stdout) == (0, ""), done.stdout + done.stderr


def test_it_installs_without_a_network(saw: dict[str, str]) -> None:
    """Users, directories and modes are right, and nothing runs before it is configured."""
    check(saw, installed="0", not_started="inactive inactive", checked="ok", compiled="1")
    check(saw, policy="640:root:mtls-sidecar", directory="750:root:mtls-sidecar")
    check(saw, brings="750:mtls-sidecar:mtls-sidecar 750:mtls-sidecar-fetch:mtls-sidecar")
    check(saw, fetcher="mtls-sidecar")


def test_it_refuses_to_mix_with_install_sh(saw: dict[str, str]) -> None:
    """What install.sh has put into /opt is removed first."""
    check(saw, refused_beside_install_sh="yes")


def test_nginx_may_ask_and_others_may_not(saw: dict[str, str]) -> None:
    """The units run from the package's paths; the socket is nginx's group's."""
    check(saw, started="active active", nginx="204", stranger="PermissionError")


def test_an_upgrade_loses_nothing(saw: dict[str, str]) -> None:
    """Under load no question is lost, though the disk has no room for what is compiled; edited
    files are kept, the others are replaced."""
    check(saw, upgraded="0", restarted="yes", kept="1", beside="1", replaced="1")
    check(saw, not_compiled="1")
    check(saw, settings="640:root:mtls-sidecar 640:root:mtls-sidecar")
    found = re.fullmatch(r"asked=(\d+) failed=(\d+) longest=(\d+)", saw["lost_by_upgrade"])
    assert found, saw["console"]
    assert int(found[1]) > 20
    assert int(found[2]) == 0, saw["console"]


def test_a_planted_link_is_not_followed(saw: dict[str, str]) -> None:
    """The daemon's user can't make the package give away a directory, nor stop an upgrade; what a
    link in /etc/mtls-sidecar leads to keeps its group."""
    check(saw, victim="root:root", other="root:root", link_told="1", upgraded="0")


def test_removing_keeps_configuration_and_state(saw: dict[str, str]) -> None:
    """Program, units and processes go; it says what nginx does from now on."""
    check(saw, removed="0", removal_warns="1", stopped="0 inactive", removed_left="")
    check(saw, config_stays="1", state_stays="750:mtls-sidecar:mtls-sidecar")


def test_purging_leaves_nothing(saw: dict[str, str]) -> None:
    """Configuration, state and users go too."""
    check(saw, purged="0", purged_left="", users="", snippets="0")
    check(saw, left_owners="root:root root:root ")  # of what the administrator had put there

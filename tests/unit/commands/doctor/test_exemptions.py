"""`# mtls-sidecar: allow FINDING REASON` says what is meant, there alone, and is checked."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from asking import policy
from daemon import ROOT
from good_nginx import GOOD

from sidecar.commands.doctor.checks import examine
from sidecar.commands.doctor.findings import Finding
from sidecar.commands.doctor.nginx_config import read_nginx

POLICY = policy("version: 1\nlocations:\n  - {name: site, allow: verified}\n")
ALLOW = "# mtls-sidecar: allow not-asked the status page shows nothing"
OPEN = "location /status/ { root /x; }"
PLACE = "location /public/ { auth_request off; }"


def found(text: str, directory: Path) -> list[Finding]:
    path = directory / "nginx.conf"
    path.write_text(text)
    return examine(read_nginx(path), POLICY)


@pytest.mark.parametrize(
    "lines",
    [
        f"{ALLOW}\n{OPEN}",
        f"{OPEN} {ALLOW}\n",
        f"location /status/ {{ {ALLOW}\n root /x; }}",
        f"location /status/ {{\n root /x;\n\n {ALLOW}\n }}",
        f"{ALLOW}\n\n# more\nlocation /a/ {{ auth_request off; {OPEN} }}".replace(
            "auth_request off; ", ""
        ),
    ],
)
def test_an_exemption_holds_where_it_stands(lines: str, tmp_path: Path) -> None:
    """Above a directive, behind it on its line, or right within it."""
    told = found(GOOD.replace(PLACE, lines), tmp_path)
    assert {(each.id, each.accepted) for each in told} == {
        ("not-asked", "the status page shows nothing")
    }


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (f"{ALLOW}\n{PLACE}\n{OPEN}", {"exemption-unused", "not-asked"}),
        (f"{OPEN}\n{ALLOW}\n", {"exemption-unused", "not-asked"}),
        (f"{ALLOW.replace('not-asked', 'never-asks')}\n{OPEN}", {"exemption-unused", "not-asked"}),
        (f"{ALLOW[: ALLOW.index(' the')]}\n{OPEN}", {"exemption-broken", "not-asked"}),
        (f"{ALLOW[: ALLOW.index(' the')]}   \n{OPEN}", {"exemption-broken", "not-asked"}),
        (f"# mtls-sidecar: allow\n{OPEN}", {"exemption-broken", "not-asked"}),
        (f"# mtls-sidecar: allow everything here\n{OPEN}", {"exemption-broken", "not-asked"}),
        (f"# mtls-sidecar: see its documents\n{OPEN}", {"not-asked"}),
        (f"{ALLOW}\n{PLACE}", {"exemption-unused"}),
        (f'"{ALLOW}" x;\n{OPEN}', {"not-asked"}),
    ],
)
def test_an_exemption_holds_nowhere_else(lines: str, expected: set[str], tmp_path: Path) -> None:
    """Not for another directive or finding, not without a reason; what matches nothing is told."""
    told = found(GOOD.replace(PLACE, lines), tmp_path)
    assert {each.id for each in told} == expected
    assert not any(each.accepted for each in told)


def test_an_exemption_above_a_server_holds_for_its_line_alone(tmp_path: Path) -> None:
    """A comment above `server {` or `http {` hides nothing within it."""
    text = GOOD.replace(PLACE, OPEN).replace("    server {", f"{ALLOW}\n    server {{")
    told = {each.id for each in found(text, tmp_path) if not each.accepted}
    assert told == {"exemption-unused", "not-asked"}


def test_an_exemption_of_an_included_file(tmp_path: Path) -> None:
    """A file that two servers include says it once, and it is used if either needs it."""
    (tmp_path / "in.conf").write_text(f"{ALLOW}\n{OPEN}\n")
    server = GOOD[GOOD.index("    server {") : GOOD.rindex("}")]
    text = GOOD.replace(server, server.replace(PLACE, "include in.conf;") * 2)
    told = found(text, tmp_path)
    assert [(each.id, bool(each.accepted)) for each in told] == [("not-asked", True)]


@pytest.mark.parametrize(
    "lines",
    [f"{ALLOW}\ninclude in.conf;\n{OPEN}", f"include in.conf; {ALLOW}\n{OPEN}"],
)
def test_an_exemption_of_an_include(lines: str, tmp_path: Path) -> None:
    """It isn't meant for what stands behind the `include`, and is told to be of no use."""
    (tmp_path / "in.conf").write_text(f"{OPEN.replace('status', 'in')}\n")
    told = found(GOOD.replace(PLACE, lines), tmp_path)
    assert sorted(each.id for each in told) == ["exemption-unused", "not-asked", "not-asked"]
    assert not any(each.accepted for each in told)


@pytest.mark.parametrize(
    ("reason", "accepted"),
    [
        ("api-2: asked about on another host", {"api-2"}),
        ("api and api-2 are asked about on another host", {"api", "api-2"}),
        ("all of them are asked about on another host", set()),
    ],
)
def test_what_is_never_asked_is_exempted_by_name(
    reason: str, accepted: set[str], tmp_path: Path
) -> None:
    """Such a finding has no line in nginx: the reason names the locations, and no others are."""
    path = tmp_path / "nginx.conf"
    path.write_text(f"# mtls-sidecar: allow never-asked {reason}\n{GOOD}")
    names = ("site", "api", "api-2")
    rules = "".join(f"  - {{name: {each}, allow: verified}}\n" for each in names)
    told = examine(read_nginx(path), policy(f"version: 1\nlocations:\n{rules}"))
    assert {each.name for each in told if each.accepted} == accepted
    assert {each.name for each in told if not each.accepted and each.name} == (
        {"api", "api-2"} - accepted
    )


def test_the_command_counts_no_accepted_finding(tmp_path: Path) -> None:
    """Exit 0 with accepted findings alone; they are listed, also as JSON, with their reason."""
    (tmp_path / "nginx.conf").write_text(GOOD.replace(PLACE, f"{ALLOW}\n{OPEN}"))
    (tmp_path / "policy.yaml").write_text(
        "version: 1\nlocations:\n  - {name: site, allow: verified}\n"
    )
    command = [sys.executable, "-m", "sidecar", "doctor", str(tmp_path / "nginx.conf")]
    command += ["--policy", str(tmp_path / "policy.yaml")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "[not-asked] accepted:" in done.stdout
    assert "reason: the status page shows nothing" in done.stdout
    done = subprocess.run(
        [*command, "--json"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert json.loads(done.stdout)[0]["accepted"] == "the status page shows nothing"

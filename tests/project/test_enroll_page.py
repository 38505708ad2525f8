"""docs/enroll.md: its commands are run, and it and the example have every key of enroll.yaml."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest
from pages import ROOT

from sidecar.core.config.schema import keys_of
from sidecar.enroll.settings import (
    CrlSettings,
    EnrollSettings,
    IssuerSettings,
    NotifySettings,
    Profile,
    RateLimits,
    SignSettings,
    read_enroll_settings,
)

PAGE = ROOT / "docs/enroll.md"
EXAMPLE = ROOT / "config/enroll.yaml"
RECORDS = (
    EnrollSettings,
    IssuerSettings,
    Profile,
    NotifySettings,
    CrlSettings,
    SignSettings,
    RateLimits,
)


OPTIONAL = {"command", "timeout", "default_device", "uri"}
"""Keys that the example need not have."""


def test_the_page_s_commands_work(tmp_path: Path) -> None:
    """One after the other, as root on a machine with the service would type them."""
    config = tmp_path / "enroll.yaml"
    url = "https://app.example.com/enroll"
    config.write_text(f"url: {url}\nstate_dir: {tmp_path}/state\n")
    program = tmp_path / "bin/mtls-sidecar"
    program.parent.mkdir()
    real = ROOT / ".venv/bin/mtls-sidecar"
    program.write_text(f'#!/bin/sh\nexec "{real}" "$@" --config "{config}"\n')
    program.chmod(0o755)
    found = re.findall(r"```sh\n(.*?)```", PAGE.read_text(), re.DOTALL)
    done = subprocess.run(
        ["sh", "-c", "\n".join(["set -eu", *found])],
        cwd=tmp_path,
        env={**os.environ, "PATH": f"{program.parent}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count(f"{url}/") == 2
    assert (tmp_path / "enroll-backup.db").exists()


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.__name__)
def test_every_key_is_explained(record: type) -> None:
    """In the page, and in the example file with its default."""
    page, example = PAGE.read_text(), EXAMPLE.read_text()
    for name in keys_of(record):
        assert re.search(r"\W" + name + r"[`:,}]", page), name
        if record not in (CrlSettings, SignSettings, RateLimits):
            assert re.search(rf"\b{name}:", example) or name in OPTIONAL, name


def test_the_example_can_be_read_with_every_line_in_force() -> None:
    """Without the signs before its lines it is an enroll.yaml."""
    text = re.sub(r"(?m)^#(?=\S|  )", "", EXAMPLE.read_text())
    found = read_enroll_settings(text.encode(), str(EXAMPLE))
    assert found.profile("default").ou == ("staff",)
    assert found.notify is not None

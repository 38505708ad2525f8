"""Root's process becomes that of a directory's owner."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from daemon import ROOT


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives a directory away")
def test_root_becomes_the_owner_for_good(tmp_path: Path) -> None:
    """What root writes is the user's whose directory it is, or the one around it where it isn't
    there or is root's; a link is refused."""
    place = tmp_path / "crl"
    place.mkdir()
    for each in (tmp_path, *tmp_path.parents):
        if each.stat().st_mode & 0o001 == 0:
            each.chmod(each.stat().st_mode | 0o001)  # pytest's directories are its user's alone
    os.chown(place, 65534, 65533)
    code = (
        "import os, pathlib, sys; from sidecar.runtime.owner import become_owner_of\n"
        "place = pathlib.Path(sys.argv[1]); become_owner_of(place); (place / 'x').touch()\n"
        "print(*os.getresuid(), *os.getresgid(), *os.getgroups())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, place], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert done.stdout == "65534 65534 65534 65533 65533 65533 65533\n", done.stderr
    found = (place / "x").stat()
    assert (found.st_uid, found.st_gid) == (65534, 65533)
    (place / "link").symlink_to(tmp_path)
    for name, said in (("none", "65534 65534 65534"), ("link", "")):
        done = subprocess.run(
            [sys.executable, "-c", code.replace("(place / 'x').touch()", ""), place / name],
            capture_output=True,
            text=True,
            check=False,
            cwd=ROOT,
        )
        assert done.stdout.startswith(said)
        assert ("it is a link" in done.stderr) == (name == "link")

"""What a booted container is given of this very machine's files."""

from __future__ import annotations

import subprocess
from pathlib import Path

from container import PLACES, hide_sidecar
from tools import need, systemd_nspawn


def test_what_this_machine_has_of_the_sidecar_is_hidden(tmp_path: Path) -> None:
    """State that lies here before the container is booted, or comes while it runs, isn't there,
    and a directory that it makes itself is empty; all else is there."""
    need(systemd_nspawn())
    for name in (*PLACES[::2], "var/lib/other"):
        (tmp_path / "lower" / name / "old").mkdir(parents=True)
    later = [f"lower/{each}/late" for each in PLACES[1::2]]
    steps = f"""
        set -e
        mkdir layer root
        mount -t tmpfs tmpfs layer
        mkdir layer/upper layer/work
        {hide_sidecar("layer/upper")}
        mount -t overlay overlay -o lowerdir=lower,upperdir=layer/upper,workdir=layer/work root
        mkdir -p {" ".join(later)}
        find root -name '*sidecar*' -o -name other
        mkdir root/{PLACES[0]} root/{PLACES[1]}
        ls root/{PLACES[0]} root/{PLACES[1]} | grep -v : || true
    """
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", steps],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.stdout.split(), done.stderr) == (["root/var/lib/other"], "")

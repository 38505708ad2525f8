#!/usr/bin/env python3
"""Build the wheel and the sdist so that the same source gives the same bytes.

    .venv/bin/python deploy/dist.py OUT

Times in the archives are SOURCE_DATE_EPOCH, or else the last commit's.  Modes and owners are those
of a release, whatever the source tree's are.  Nothing is written into the source tree.
"""

from __future__ import annotations

import gzip
import io
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SOURCES = (
    *("LICENSE", "README.md", "CHANGELOG.md", "SECURITY.md", "CONTRIBUTING.md", "Makefile"),
    *("MANIFEST.in", "mkdocs.yml", "pyproject.toml"),
    *("sidecar", "config", "deploy", "docs", "nginx-example", "bench", "stubs", "tests"),
)
HOOK = "import sys; from setuptools import build_meta as b; print(getattr(b, sys.argv[1])('dist'))"


def main(arguments: list[str]) -> int:
    """Build both into the directory given; print their paths."""
    if len(arguments) != 1:
        print(__doc__, file=sys.stderr)
        return 2
    out = Path(arguments[0])
    out.mkdir(parents=True, exist_ok=True)
    epoch = source_date()
    for hook in ("build_wheel", "build_sdist"):
        with tempfile.TemporaryDirectory() as work:
            built = build(hook, Path(work), epoch)
            target = out / built.name
            if hook == "build_sdist":
                target.write_bytes(repacked(built.read_bytes(), epoch))
            else:
                shutil.copyfile(built, target)
            print(target)
    return 0


def source_date() -> int:
    """The one time that is in all archives, in seconds since 1970."""
    if given := os.environ.get("SOURCE_DATE_EPOCH"):
        return int(given)
    done = git("log", "-1", "--format=%ct")
    if done.returncode:
        raise SystemExit("dist.py: not a git checkout; set SOURCE_DATE_EPOCH")
    return int(done.stdout)


def build(hook: str, work: Path, epoch: int) -> Path:
    """Run one hook of the build backend on a clean copy of the source."""
    for path in sources():
        copy(path, work / path.relative_to(ROOT))
    (work / "dist").mkdir()
    done = subprocess.run(
        [sys.executable, "-I", "-c", HOOK, hook],
        cwd=work,
        env={**os.environ, "SOURCE_DATE_EPOCH": str(epoch), "PYTHONHASHSEED": "0"},
        capture_output=True,
        text=True,
        umask=0o022,
    )
    if done.returncode:
        raise SystemExit(f"dist.py: {hook} failed:\n{done.stderr}")
    return work / "dist" / done.stdout.splitlines()[-1]


def sources() -> list[Path]:
    """The files of a release: those in git, or without git all that an sdist brought."""
    done = git("ls-files", "-z")
    if done.returncode:
        found = [path for path in ROOT.rglob("*") if path.suffix != ".pyc"]
    else:
        found = [ROOT / name for name in done.stdout.split("\0") if name]
    return sorted(
        path for path in found if path.is_file() and path.relative_to(ROOT).parts[0] in SOURCES
    )


def git(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run git on this checkout, whoever owns it."""
    command = ["git", "-c", f"safe.directory={ROOT}", "-C", str(ROOT), *arguments]
    environ = {**os.environ, "GIT_CEILING_DIRECTORIES": str(ROOT.parent)}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environ)


def copy(source: Path, target: Path) -> None:
    """Copy a file with its mode in a release."""
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
    target.chmod(0o755 if source.stat().st_mode & 0o100 else 0o644)


def repacked(data: bytes, epoch: int) -> bytes:
    """The tar.gz with its members in order, nobody's, and all of one time."""
    tar = io.BytesIO()
    with (
        tarfile.open(fileobj=io.BytesIO(data)) as old,
        tarfile.open(fileobj=tar, mode="w", format=tarfile.PAX_FORMAT) as new,
    ):
        for member in sorted(old.getmembers(), key=lambda each: each.name):
            member.mtime, member.uid, member.gid = epoch, 0, 0
            member.uname = member.gname = ""
            member.mode = 0o755 if member.isdir() or member.mode & 0o100 else 0o644
            member.pax_headers = {}
            new.addfile(member, old.extractfile(member) if member.isfile() else None)
    return gzip.compress(tar.getvalue(), mtime=epoch)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

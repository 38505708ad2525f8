"""Carry out a Containerfile without a builder: each stage on this machine's root, under overlays.

What it takes is what deploy/container/Containerfile uses.  It makes no image: layers and the format
of an image are a builder's own business.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from daemon import ROOT

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""As in an image: nothing of the environment that the tests run in."""

CONTEXT = ("sidecar", "config", "deploy")
"""What .containerignore lets a builder see."""


@dataclass
class Image:
    """What the last stage says of the image."""

    user: str = "0:0"
    volumes: list[str] = field(default_factory=list)
    entrypoint: list[str] = field(default_factory=list)
    command: list[str] = field(default_factory=list)
    healthcheck: list[str] = field(default_factory=list)


def instructions(text: str) -> list[tuple[str, str]]:
    """The instructions, each with what stands behind its name."""
    text = re.sub(r"(?m)^#.*\n", "", text)
    lines = re.sub(r"\\\n", " ", text).splitlines()
    return [
        (words[0], words[1].strip()) for words in (line.split(None, 1) for line in lines if line)
    ]


def steps(text: str) -> tuple[str, Image]:
    """A shell script that builds all stages below the current directory; `final` is the last."""
    script, stages, stage, image = "", dict[str, str](), "", Image()
    for name, rest in instructions(text):
        if name == "FROM":
            stage, image = f"stage{len(stages)}", Image()
            stages[rest.partition(" AS ")[2]] = stage
            script += (
                f"mkdir -p {stage} {stage}.upper {stage}.work\n"
                f"mount -t overlay overlay -o lowerdir=/,upperdir={stage}.upper,"
                f"workdir={stage}.work {stage}\n"
                f"mount -t proc proc {stage}/proc; mount --bind /dev {stage}/dev\n"
                f"mount -t tmpfs tmpfs {stage}/tmp\n"
            )
        elif name == "COPY":
            script += _copy(rest, stage, stages)
        elif name == "RUN":
            run = json.loads(rest) if rest.startswith("[") else ["/bin/sh", "-c", rest]
            script += shlex.join(["chroot", f"--userspec={image.user}", stage, *run]) + "\n"
        elif name == "USER":
            image.user = rest
        elif name == "VOLUME":
            image.volumes = json.loads(rest)
        elif name == "ENTRYPOINT":
            image.entrypoint = json.loads(rest)
        elif name == "CMD":
            image.command = json.loads(rest)
        elif name == "HEALTHCHECK":
            image.healthcheck = json.loads(rest.partition("CMD")[2])
        elif name not in ("ARG", "EXPOSE", "STOPSIGNAL"):
            raise ValueError(f"{name} is not known here")
    return script + f"ln -s {stage} final\n", image


def _copy(rest: str, stage: str, stages: dict[str, str]) -> str:
    *sources, target = rest.split()
    top = "context"
    if sources[0].startswith("--from="):
        top = stages[sources.pop(0).removeprefix("--from=")]
    script = ""
    for source in sources:
        path = f"{top}/{source.lstrip('/')}"
        place = f"{stage}{target}"
        script += (
            f"for each in {path}; do test -e $each; mkdir -p $(dirname {place}x)\n"
            f"if [ -d $each ]; then mkdir -p {place}; cp -a $each/. {place}/; "
            f"else cp $each {place}; fi; done\n"
        )
    return script


def run(place: Path, script: str, timeout: float = 300) -> str:
    """Run a script as root in namespaces of its own; what it printed.  Nothing is left mounted."""
    head = "set -eux\nmount -t tmpfs tmpfs layer\ncd layer\nmkdir context\n"
    head += "".join(f"cp -a {shlex.quote(str(ROOT / name))} context/\n" for name in CONTEXT)
    (place / "layer").mkdir()
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", head + script],
        cwd=place,
        env={**os.environ, "PATH": PATH},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr[-6000:]
    return done.stdout

"""The files of a directory that is to be published."""

from __future__ import annotations

import os
from pathlib import Path

from sidecar.core.fleet.manifest import MAX_FILE, MAX_FILES, POLICY, check_name
from sidecar.runtime.files import held_directory, read_file


def read_directory(directory: Path) -> dict[str, bytes]:
    """Every file by its name below the directory; hidden ones are left out.

    Raises OSError, and ValueError for a link that leads out of it and for what has no place in a
    release.
    """
    if not (directory / POLICY).is_file():
        raise ValueError(f"{directory} has no {POLICY}", "name the directory that holds it")
    root = directory.resolve()
    found: dict[str, bytes] = {}
    for at, folders, files in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if name.startswith("."):
                continue
            path = Path(at) / name
            real = path.resolve()
            if not real.is_relative_to(root):
                raise ValueError(
                    f"{path} is a link out of {root}", "copy the file there, or remove the link"
                )
            short = check_name(str(path.relative_to(root)))
            # The file that was looked at: its owner may exchange it for a link meanwhile.
            with held_directory(real.parent) as place:
                found[short] = read_file(place / real.name, MAX_FILE, follow=False)
            if len(found) > MAX_FILES:
                raise ValueError(f"{root} holds more than {MAX_FILES} files")
    return found

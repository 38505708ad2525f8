"""Copy a release into the daemon's own directory: whole, as signed, or not at all."""

from __future__ import annotations

import errno
from pathlib import Path

from sidecar.core.errors import PolicyError
from sidecar.core.fleet.bodies import Release
from sidecar.core.fleet.entry import Refused
from sidecar.core.fleet.manifest import POLICY, File
from sidecar.core.policy.compile import compile_policy
from sidecar.core.policy_tests import run_cases
from sidecar.runtime.direct_sources import DirectSources
from sidecar.runtime.files import MAX_POLICY, read_file
from sidecar.runtime.release_directory import ReleaseDirectory, write_part


def import_release(source: Path, own: Path, release: Release, state_dir: Path, now: float) -> None:
    """Verify, copy, try, and put into place.

    Raises `Refused` for a file that is not as signed, `PolicyError` for a policy that can't be
    used, OSError where it can't be written.
    """
    directory = ReleaseDirectory(own)
    with directory.locked():
        if directory.current() != release.directory:  # else another daemon of this host was first
            _import(source, directory, release, state_dir, now)


def _import(
    source: Path, directory: ReleaseDirectory, release: Release, state_dir: Path, now: float
) -> None:
    with directory.writing(release.directory) as aside:
        for file in release.files:
            write_part(aside, file.name, _verified(source, file))
        _try(aside, directory.path / "current", state_dir, now)


def _verified(source: Path, file: File) -> bytes:
    try:
        data = read_file(source / file.name, file.size)
    except OSError as error:
        why = "is larger than the release says"
        if error.errno != errno.EFBIG:
            why = f"can't be read: {error.strerror or error}"
        raise Refused("file", f"{file.name} {why}") from None
    if not file.matches(data):
        raise Refused("file", f"{file.name} is not what the release says")
    return data


def _try(directory: Path, shown: Path, state_dir: Path, now: float) -> None:
    """Compile the policy and run its tests.  Raises `PolicyError`."""
    sources = DirectSources(directory, state_dir)
    data = read_file(directory / POLICY, MAX_POLICY)
    policy = compile_policy(data, str(shown / POLICY), sources)
    outcome = run_cases(
        policy,
        policy.tests,
        str(shown / POLICY),
        now,
        lambda path: read_file(directory / path, MAX_POLICY),
    )
    if outcome.failed:
        raise PolicyError([failure.diagnostic() for failure in outcome.failed])

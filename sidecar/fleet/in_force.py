"""What a new release changes against the one in force."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

from sidecar.runtime.release_directory import write_part

from .nats_client import Unreachable
from .publisher import Publisher


async def difference(
    publisher: Publisher, directory: Path, diff: Callable[[Path, Path], str]
) -> str:
    """What the policy of a directory changes for whom; nothing for a first release."""
    releases = publisher.ledger.chain.releases
    if not releases:
        return ""
    release = releases[0]
    # Not in TMPDIR, which may be another user's, who could exchange what root writes there.
    with tempfile.TemporaryDirectory(dir=publisher.ledger.directory) as aside:
        for file in release.files:
            try:
                data = await publisher.bus.blob(file.sha256, file.size)
            except Unreachable:
                data = None
            if data is None or not file.matches(data):
                return (
                    f"release {release.sequence} can't be compared with: {file.name} is not there"
                )
            write_part(Path(aside), file.name, data)
        return diff(Path(aside) / "policy.yaml", directory / "policy.yaml")

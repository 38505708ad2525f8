"""Warn about denylists that take more memory than the unit gives the daemon."""

from __future__ import annotations

from collections.abc import Mapping

from sidecar.core.config.schema import Report

from .model import Trust
from .spec import PolicySpec

MOST_ENTRIES = 1_000_000
"""Number of entries that fit into the unit's `MemoryMax=1G` with room for others."""

ENTRY_OCTETS = 900
"""Octets of memory that an entry takes at most, usually, while the list changes."""


def warn_about_long_denylists(
    spec: PolicySpec, trusts: Mapping[str, Trust], report: Report
) -> None:
    """Warn if the policy's denylists have too many entries together; each file counts once."""
    files = {each.file: each for trust in trusts.values() for each in trust.denylists}
    count = sum(len(each.entries) for each in files.values())
    if count > MOST_ENTRIES:
        longest = max(trusts, key=lambda name: sum(len(d.entries) for d in trusts[name].denylists))
        report.warn(
            spec.trust[longest].node,
            f"{count:,} entries in denylists: they take up to {count * ENTRY_OCTETS >> 20:,} MiB "
            "of memory, and the daemon is killed beyond the unit's MemoryMax=1G",
            "revoke by a CRL, which takes a twentieth of it, or raise MemoryMax",
        )

#!/usr/bin/env python3
"""Print the software bill of materials of a release, CycloneDX 1.6 in JSON, from lock files.

    python3 deploy/sbom.py [LOCK…] >mtls-sidecar.cdx.json     (default: deploy/requirements.lock)

Each package has its version, every hash that the lock takes, and what wants it.  The same lock
gives the same bytes; there is no time and no random number in it.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
NAME = "nginx-mtls-sidecar"


def main() -> int:
    """Print it."""
    version = re.search(r'__version__ = "(.+)"', (ROOT / "sidecar/__init__.py").read_text())
    assert version is not None
    paths = sys.argv[1:] or [ROOT / "deploy/requirements.lock"]
    entries = {entry[0]: entry for path in paths for entry in locked(Path(path).read_text())}
    print(json.dumps(bill(version[1], list(entries.values())), indent=2))
    return 0


def locked(text: str) -> list[tuple[str, str, str, list[str], list[str]]]:
    """Name, version, marker, hashes and wanted-by of each package."""
    found = []
    for entry in re.split(r"(?m)^(?=[a-z0-9])", text)[1:]:
        head = re.match(r"(?P<name>\S+?)==(?P<version>\S+)(?: ; (?P<marker>.+?))? \\", entry)
        if head is None:
            raise SystemExit(f"sbom.py: an entry without a version: {entry[:60]}")
        hashes = re.findall(r"--hash=sha256:([0-9a-f]{64})", entry)
        comment = entry[entry.index("# via") + len("# via") :]
        wanted_by = re.findall(r"[\w.-]+", re.sub(r"\(.*?\)", "", comment.replace("#", "")))
        found.append((head["name"], head["version"], head["marker"] or "", hashes, wanted_by))
    return found


def bill(version: str, entries: list[tuple[str, str, str, list[str], list[str]]]) -> dict[str, Any]:
    """The document."""
    refs = {NAME: purl(NAME, version), **{name: purl(name, each) for name, each, *_ in entries}}
    wants: dict[str, list[str]] = {name: [] for name in refs}
    for name, _, _, _, wanted_by in entries:
        for parent in wanted_by:
            wants[parent].append(refs[name])
    root = {
        "type": "application",
        "bom-ref": refs[NAME],
        "name": NAME,
        "version": version,
        "purl": refs[NAME],
        "licenses": [{"license": {"id": "Apache-2.0"}}],
    }
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": root},
        "components": [component(*entry[:4]) for entry in entries],
        "dependencies": [{"ref": refs[n], "dependsOn": sorted(w)} for n, w in wants.items()],
    }


def component(name: str, version: str, marker: str, hashes: list[str]) -> dict[str, Any]:
    """One package.  It has several files, one for each platform, and a hash for each of them."""
    files = {
        "type": "distribution",
        "url": purl(name, version),
        "hashes": [{"alg": "SHA-256", "content": each} for each in hashes],
    }
    found = {
        "type": "library",
        "bom-ref": purl(name, version),
        "name": name,
        "version": version,
        "purl": purl(name, version),
        "externalReferences": [files],
    }
    if marker:
        found["properties"] = [{"name": "python:marker", "value": marker}]
    return found


def purl(name: str, version: str) -> str:
    """The package URL."""
    return f"pkg:pypi/{name}@{version}"


if __name__ == "__main__":
    sys.exit(main())

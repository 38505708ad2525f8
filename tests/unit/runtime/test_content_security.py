"""Name an inline style or script in a Content-Security-Policy."""

from __future__ import annotations

from sidecar.runtime.content_security import source_hash


def test_the_hash_is_that_of_the_specification() -> None:
    """The example of CSP Level 3, 8.3 ("Usage of hashes"): `doSomething();` in a script."""
    assert source_hash("doSomething();") == "'sha256-RFWPLDbv2BY+rCkDzsE+0fr8ylGr2R2faWMhq4lfEQc='"

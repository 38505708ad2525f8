"""Normalize URIs for refusing rules."""

from __future__ import annotations

import pytest

from sidecar.core.policy.uri_spelling import normal_uri


@pytest.mark.parametrize(
    ("uri", "normal"),
    [
        ("HTTPS://EXAMPLE.org:443/a", "https://example.org/a"),
        ("https://example.org:8443/", "https://example.org:8443"),
        ("https://example.org/b/../%7Ea/./c", "https://example.org/~a/c"),
        ("https://example.org/%3a", "https://example.org/%3A"),
        ("spiffe://Example.org/NS/Prod", "spiffe://example.org/NS/Prod"),
        ("urn:Example:A", "urn:Example:A"),
    ],
)
def test_equal_uris_have_one_form(uri: str, normal: str) -> None:
    """RFC 3986, 6.2.2 and 6.2.3; the case of a path matters."""
    assert normal_uri(uri) == normal

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
        (r"https:\\example.org\a", "https://example.org/a"),
        (r"HTTPS:/example.org\b\..\a?c\d", r"https://example.org/a?c\d"),
        ("https:example.org/a", "https://example.org/a"),
        (r"urn:a\b", r"urn:a\b"),
        ("https://[2001:DB8:0::1]:0443/a", "https://[2001:db8::1]/a"),
        ("https://[v1.x]:08443/a", "https://[v1.x]:8443/a"),
        ("https://example.org:00/a", "https://example.org:0/a"),
        ("URN:UUID:F81D4FAE-7dec", "urn:uuid:f81d4fae-7dec"),
        ("URN:Example:A", "urn:example:A"),
        ("https://example.org/%3a", "https://example.org/%3A"),
        ("spiffe://Example.org/NS/Prod", "spiffe://example.org/NS/Prod"),
    ],
)
def test_equal_uris_have_one_form(uri: str, normal: str) -> None:
    """RFC 3986, 6.2.2 and 6.2.3; the case of a path matters."""
    assert normal_uri(uri) == normal

"""Follow redirects and read headers; tests/process/test_fetcher.py has whole exchanges."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

import aiohttp
import pytest
from yarl import URL

from sidecar.fetcher.http_client import (
    Failure,
    FetchError,
    _redirected,
    _retry_after,
    max_age,
)

FROM = URL("http://user:secret@ca.test/a.crl")


def redirected(location: str, url: URL = FROM) -> URL:
    response = SimpleNamespace(headers={"Location": location})
    return _redirected(url, cast(aiohttp.ClientResponse, response))


@pytest.mark.parametrize(
    "location", ["/b.crl", "b.crl", "http://ca.test/b.crl", "http://user:secret@ca.test/b.crl"]
)
def test_a_redirect_within_the_host_is_followed(location: str) -> None:
    """A redirect to another path of the same host, port and scheme is followed."""
    assert redirected(location).path == "/b.crl"


def test_http_may_become_https_but_never_the_reverse() -> None:
    """An upgrade to https is followed at the default ports only."""
    assert redirected("https://ca.test/b.crl").scheme == "https"
    for location, url in (
        ("http://ca.test/b", URL("https://ca.test/a")),
        ("https://ca.test:8443/b", FROM),
        ("https://ca.test/b", URL("http://ca.test:8080/a")),
    ):
        with pytest.raises(FetchError):
            redirected(location, url)


@pytest.mark.parametrize(
    "location",
    [
        "http://other.test/",
        "http://ca.test:8080/",
        "//127.0.0.1/",
        "http://ca.test.other.test/",
        "http://mallory@ca.test/",
        "file:///etc/passwd",
    ],
)
def test_a_redirect_elsewhere_is_refused(location: str) -> None:
    """Another host, port, user or scheme is refused, and the error shows no password."""
    with pytest.raises(FetchError) as caught:
        redirected(location)
    assert caught.value.failure is Failure.REDIRECT
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"cache-control": "no-cache"}, None),
        ({"cache-control": "max-age=600"}, 600.0),
        ({"cache-control": 'public, Max-Age = "600"'}, 600.0),
        ({"cache-control": "max-age=600", "age": "100"}, 500.0),
        ({"cache-control": "max-age=600", "age": "900"}, 0.0),
        ({"cache-control": "max-age=600", "age": "-1"}, 600.0),
        ({"cache-control": "s-max-age=600"}, None),
        ({"cache-control": "max-age=-1"}, None),
        ({"cache-control": "max-age=" + "9" * 400}, 999999999.0),
    ],
)
def test_how_long_an_answer_is_fresh(headers: dict[str, str], seconds: float | None) -> None:
    """The lifetime is max-age minus Age (RFC 9111, 4.2.1), or unknown."""
    assert max_age(headers) == seconds


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("120", 120.0),
        (" 120 ", 120.0),
        ("", None),
        ("Fri, 31 Dec 1999 23:59:59 GMT", None),
        ("-5", None),
        ("9999999", None),
    ],
)
def test_retry_after_in_seconds(text: str, seconds: float | None) -> None:
    """Only the form in seconds with at most six digits is read."""
    assert _retry_after({"retry-after": text}) == seconds

"""Detect requests that a page of another site made with its visitor's certificate."""

from __future__ import annotations

import pytest
from asking import NOW, policy
from pki import CA

from sidecar.core.decision import Reason
from sidecar.core.evaluate import evaluate
from sidecar.core.origin import other_origin
from sidecar.core.request import assemble_request

HOST = "app.example.com"
NAVIGATE = ("navigate", "document")


@pytest.mark.parametrize(
    ("method", "site", "mode", "destination", "foreign"),
    [
        ("GET", "same-origin", "cors", "empty", ""),
        ("POST", "same-origin", *NAVIGATE, ""),
        ("GET", "none", *NAVIGATE, ""),
        ("POST", "none", *NAVIGATE, ""),
        ("GET", "cross-site", *NAVIGATE, ""),
        ("HEAD", "same-site", *NAVIGATE, ""),
        ("GET", "cross-site", "navigate", "empty", ""),
        ("GET", "same-site", "navigate", "empty", ""),
        ("POST", "cross-site", "navigate", "empty", "cross-site"),
        ("POST", "cross-site", *NAVIGATE, "cross-site"),
        ("POST", "same-site", *NAVIGATE, "same-site"),
        ("", "cross-site", *NAVIGATE, "cross-site"),
        ("get", "cross-site", *NAVIGATE, "cross-site"),
        ("GET", "cross-site", "navigate", "iframe", "cross-site"),
        ("GET", "cross-site", "navigate", "object", "cross-site"),
        ("GET", "cross-site", "navigate", "", "cross-site"),
        ("GET", "cross-site", "no-cors", "image", "cross-site"),
        ("GET", "cross-site", "no-cors", "document", "cross-site"),
        ("GET", "cross-site", "cors", "empty", "cross-site"),
        ("GET", "same-site", "cors", "empty", "same-site"),
        ("GET", "cross-site", "websocket", "empty", "cross-site"),
        ("GET", "cross-site", "websocket", "websocket", "cross-site"),
        ("GET", "same-origin, cross-site", "cors", "empty", "unknown"),
        ("GET", "Same-Origin", "cors", "empty", "unknown"),
        ("GET", " ", "", "", "unknown"),
    ],
)
def test_what_a_browser_says_of_the_page(
    method: str, site: str, mode: str, destination: str, foreign: str
) -> None:
    """Own pages are unrestricted, other sites may only link; an Origin changes nothing then."""
    for origin in ("", "https://evil.example", f"https://{HOST}", "null"):
        assert other_origin(HOST, method, origin, site, mode, destination) == foreign


@pytest.mark.parametrize(
    "origin", ["", f"https://{HOST}", f"https://{HOST}:8443", "https://APP.example.com"]
)
def test_an_old_browser_on_the_own_page(origin: str) -> None:
    """Without Sec-Fetch-Site the Origin is https and this host; programs send none."""
    assert other_origin(HOST, "POST", origin, "", "", "") == ""


@pytest.mark.parametrize(
    ("origin", "port", "foreign"),
    [
        (f"https://{HOST}", "443", ""),
        (f"https://{HOST}:443", "443", ""),
        (f"https://{HOST}:", "443", ""),
        (f"https://{HOST}:8443", "8443", ""),
        (f"https://{HOST}:8443", "08443", ""),
        (f"https://{HOST}:8443", "443", "other-origin"),
        (f"https://{HOST}", "8443", "other-origin"),
        (f"https://{HOST}:8443", "843", "other-origin"),
        (f"https://{HOST}", "x", "other-origin"),
    ],
)
def test_another_port_is_another_site(origin: str, port: str, foreign: str) -> None:
    """Where nginx tells the port that the client opened, that of Origin is the same."""
    assert other_origin(HOST, "GET", origin, "", "", "", port) == foreign


def test_a_client_that_names_the_scheme_of_its_websocket() -> None:
    """No page has an origin of wss; of some programs it is this host."""
    assert other_origin(HOST, "GET", f"wss://{HOST}", "", "", "", "443") == ""
    assert other_origin(HOST, "GET", f"ws://{HOST}", "", "", "", "443") == "other-origin"
    assert other_origin(HOST, "GET", "wss://evil.example", "", "", "", "443") == "other-origin"


@pytest.mark.parametrize(
    "origin",
    [
        "null",
        "https://evil.example",
        f"http://{HOST}",
        f"https://{HOST}.evil.example",
        f"https://{HOST}@evil.example",
        f"https://evil.example@{HOST}",
        f"https://{HOST}/",
        f"https://{HOST}/path",
        f"https://{HOST} https://evil.example",
        f"https://{HOST}, https://evil.example",
        f"https://{HOST}:x",
        f"https://{HOST}#",
        f"https://{HOST}?",
        f" https://{HOST}",
        f"HTTPS://{HOST}",
        f"//{HOST}",
        HOST,
        "https://",
        "https://[::1",
        "file://",
        "chrome-extension://abcdef",
        f"https://{HOST}\xa0",
    ],
)
def test_an_old_browser_on_another_page(origin: str) -> None:
    """Any other Origin counts as another site's."""
    assert other_origin(HOST, "POST", origin, "", "", "") == "other-origin"
    assert other_origin("", "POST", origin, "", "", "") == "other-origin"


# -- in a policy


POLICY = """
version: 1
locations:
  - {name: open, allow: public}
  - {name: site, allow: verified}
  - {name: api, allow: verified, public_methods: [OPTIONS]}
  - {name: both, allow: verified, public_methods: [OPTIONS], same_origin: true}
  - {name: none, allow: verified, same_origin: false}
  - {name: admin, allow: [{cn: bob}]}
"""

alice = CA("Staff").issue("alice")
FOREIGN = {"site": b"cross-site", "mode": b"cors", "destination": b"empty"}


def decide(name: str, **headers: bytes) -> tuple[Reason, str]:
    fields = {"verify": b"SUCCESS", "cert": alice.escaped, "host": HOST.encode(), **headers}
    decision = evaluate(policy(POLICY), assemble_request(name, {"method": b"GET", **fields}), NOW)
    return decision.reason, decision.rule


@pytest.mark.parametrize(
    ("name", "reason", "rule"),
    [
        ("open", Reason.PUBLIC, "public"),
        ("site", Reason.DENIED_BY_RULE, "same_origin"),
        ("api", Reason.ALLOWED, "verified"),
        ("both", Reason.DENIED_BY_RULE, "same_origin"),
        ("none", Reason.ALLOWED, "verified"),
        ("admin", Reason.DENIED_BY_RULE, "same_origin"),
    ],
)
def test_it_is_the_default_but_for_cors(name: str, reason: Reason, rule: str) -> None:
    """By default another site's request is denied; a location for CORS preflights accepts it."""
    assert decide(name, **FOREIGN) == (reason, rule)


def test_without_the_headers_nothing_changes() -> None:
    """A request without these headers is accepted, as from programs."""
    assert decide("site") == (Reason.ALLOWED, "verified")
    assert decide("site", mode=b"cors") == (Reason.ALLOWED, "verified")


def test_the_port_is_read_from_the_request() -> None:
    """`X-Original-Port` of the question, and without it (older snippets) no port is compared."""
    other = f"https://{HOST}:8443".encode()
    assert decide("site", origin=other) == (Reason.ALLOWED, "verified")
    assert decide("site", origin=other, port=b"8443") == (Reason.ALLOWED, "verified")
    assert decide("site", origin=other, port=b"443") == (Reason.DENIED_BY_RULE, "same_origin")

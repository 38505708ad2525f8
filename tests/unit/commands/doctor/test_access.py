"""What nginx itself refuses is closed: only where every request comes to the refusal."""

from __future__ import annotations

from pathlib import Path

import pytest
from good_nginx import GOOD, found

PUBLIC = "location /public/ { auth_request off; }"
PASS = "proxy_pass http://app;"
ASK = "auth_request /authz/site;"


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (rf"location /a/ {{ rewrite ^(/a/.*)\.x$ $1 break; return 403; {PASS} }}", "not-asked"),
        (f"location /a/ {{ if ($request_method = GET) {{ break; }} return 403; {PASS} }}",
         "not-asked"),
        (f"location /a/ {{ if ($arg_a) {{ rewrite ^ /b break; }} return 403; {PASS} }}",
         "not-asked"),
        (f"location /a/ {{ allow all; deny all; {PASS} }}", "not-asked"),
        (f"location /a/ {{ satisfy any; deny all; auth_basic a; {PASS} }}", "not-asked"),
        (f"deny all; location /a/ {{ allow 10.0.0.0/8; {PASS} }}", "not-asked"),
        (f"location /a/ {{ satisfy any; deny all; {ASK} }} "
         r"location ~ \.php$ { auth_request /authz/b; }", "regex-takes"),
        (f"location /a/ {{ satisfy any; deny all; auth_basic a; {ASK} {PASS} }}", "satisfy-any"),
        (f"location /a/ {{ satisfy any; deny 10.0.0.1; allow 10.0.0.0/8; deny all; {ASK} }}",
         "satisfy-any"),
        (f"location /a/ {{ satisfy any; limit_except GET {{ allow 10.0.0.0/8; }} {ASK} {PASS} }}",
         "satisfy-any"),
        (f"location /a/ {{ {ASK} location /a/b/ {{ {ASK} {PASS} }} }} "
         rf"location ~ \.php$ {{ auth_request off; {PASS} }}", "regex-takes"),
        (f"location /a/ {{ auth_request off; location ^~ /a/b/ {{ {ASK} {PASS} }} }} "
         rf"location ~ \.php$ {{ auth_request off; {PASS} }}", "regex-takes"),
    ],
)  # fmt: skip
def test_what_is_not_closed(lines: str, expected: str, tmp_path: Path) -> None:
    """A `break` before the `return`, an `allow` before the `deny`, a password beside it: open."""
    assert (expected, 8) in found(GOOD.replace(PUBLIC, lines), tmp_path)


@pytest.mark.parametrize(
    "lines",
    [
        f"location /a/ {{ deny all; allow 127.0.0.1; {PASS} }}",
        f"location /a/ {{ deny 10.0.0.1; deny all; {PASS} }}",
        f"location /a/ {{ if ($arg_a) {{ return 404; }} return 403; {PASS} }}",
        f"location /a/ {{ rewrite ^/a/b /c permanent; return 403; {PASS} }}",
        f"location /a/ {{ satisfy any; deny all; {ASK} {PASS} }}",
        f"location /a/ {{ satisfy any; {ASK} {PASS} }}",
        f"location /a/ {{ satisfy any; deny 10.0.0.1; auth_basic off; {ASK} {PASS} }}",
        f"location /a/ {{ deny all; location /a/b/ {{ {PASS} }} }}",
        f"location /a/ {{ internal; location /a/b/ {{ {PASS} }} }}",
        "location = /nginx_status { stub_status; allow 127.0.0.1; deny all; }",
    ],
)
def test_what_is_closed(lines: str, tmp_path: Path) -> None:
    """The first rule that matches counts, rules are inherited, and a redirect shows nothing."""
    assert found(GOOD.replace(PUBLIC, lines), tmp_path) == []


@pytest.mark.parametrize(
    "lines",
    [
        rf"location ^~ /a/ {{ {ASK} location /a/b/ {{ {ASK} {PASS} }} }}",
        rf"location /a/ {{ {ASK} location ~ \.php$ {{ {ASK} }} location ^~ /a/b/ {{ {ASK} }} }}",
        rf"location /a/ {{ auth_request off; location = /a/b.php {{ {ASK} {PASS} }} }}",
    ],
)
def test_what_no_expression_of_the_server_takes(lines: str, tmp_path: Path) -> None:
    """`^~` around, the same expression within, `=`: nginx doesn't come to the server's."""
    text = GOOD.replace(
        PUBLIC, lines + r"location ~ \.php$ { auth_request off; proxy_pass http://o; }"
    )
    assert "regex-takes" not in dict(found(text, tmp_path))


def test_a_server_without_locations(tmp_path: Path) -> None:
    """`satisfy any` right in a server that serves files itself."""
    lines = f"{ASK} satisfy any; allow 10.0.0.0/8; root /srv/x;"
    text = GOOD.replace("location / { auth_request /authz/site; proxy_pass http://app; }", lines)
    assert ("satisfy-any", 3) in found(text, tmp_path)

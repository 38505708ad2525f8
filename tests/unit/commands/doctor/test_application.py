"""Who the client is comes from nginx: by whatever variable, wherever the application is reached."""

from __future__ import annotations

from pathlib import Path

import pytest
from good_nginx import GOOD, POLICY, found

from sidecar.commands.doctor.checks import examine
from sidecar.commands.doctor.nginx_config import read_nginx

PUBLIC = "location /public/ { auth_request off; }"
PASS = "proxy_pass http://app;"
OPEN = "location /a/ { auth_request off;"
USER = "proxy_set_header X-User $u;"
CN = "proxy_set_header X-Client-CN"


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (f"location = /a {{ internal; proxy_set_header A b; {PASS} }}", "identity-lost"),
        (f"{OPEN} proxy_set_header A b; proxy_pass http://b; if ($arg_a) {{ {PASS} }} }}",
         "identity-lost"),
        ("ignore_invalid_headers off;", "identity-lost"),
        (f"location ~ ^/a/(?<cn>.*) {{ auth_request off; {PASS} }}", "identity-from-client"),
        (f"{OPEN} if ($http_x ~ (?<cn>.+)) {{ set $x 1; }} {PASS} }}", "identity-from-client"),
        (f"{OPEN} rewrite ^/(?<cn>.*) /b break; {PASS} }}", "identity-from-client"),
    ],
)  # fmt: skip
def test_a_client_says_who_it_is(lines: str, expected: str, tmp_path: Path) -> None:
    """In internal locations, by a second proxy_pass, by an invalid name, by a captured text."""
    told = found(GOOD.replace(PUBLIC, lines), tmp_path)
    assert (expected, 8 if expected == "identity-lost" else 6) in told


def test_one_place_is_one_finding(tmp_path: Path) -> None:
    """Of several headers that aren't set in one location there is one line, with all of them."""
    text = GOOD.replace(f"{CN} $cn;", f"{CN} $cn; proxy_set_header X-User $cn;")
    path = tmp_path / "nginx.conf"
    path.write_text(text.replace(PUBLIC, f"{OPEN} proxy_set_header A b; {PASS} }}"))
    [told] = examine(read_nginx(path), POLICY)
    assert told.what == "not set here, as elsewhere: X-Client-CN, X-User"
    assert told.write == f"{CN} $cn; proxy_set_header X-User $cn;"


@pytest.mark.parametrize(
    ("table", "header", "here", "expected"),
    [
        ("map $cn $u { default $cn; }", USER, "proxy_set_header A b;", "identity-lost"),
        ("map $ssl_client_s_dn $u { default no; ~CN=(.*) $1; }", USER, "proxy_set_header A b;",
         "identity-lost"),
        ("", 'proxy_set_header X-User "u-${cn}";', "proxy_set_header A b;", "identity-lost"),
        ("", "proxy_set_header X-User $ssl_client_s_dn;", f"{CN} '';", "identity-lost"),
        ('map $cn $u { "" $http_x_client_cn; default $cn; }', "", f"{CN} $u;",
         "identity-from-client"),
        ("map $http_x_role $u { default a; b b; }", "", f"{CN} $u;", "identity-from-client"),
    ],
)  # fmt: skip
def test_by_a_map(table: str, header: str, here: str, expected: str, tmp_path: Path) -> None:
    """A header that rests on the answer or the certificate by a map or within a text is known as
    one that says who the client is; a map of the client's words holds the client's words."""
    text = GOOD.replace("    server {", f"    {table} server {{", 1)
    text = text.replace("location / {", f"{header} location / {{")
    text = text.replace(PUBLIC, f"{OPEN} {here} {PASS} }}")
    assert (expected, 8) in found(text, tmp_path)


@pytest.mark.parametrize(
    "lines",
    [
        f"location = /a {{ internal; {PASS} }}",
        f"location = /a {{ internal; proxy_set_header A b; {CN} $cn; {PASS} }}",
        f"{OPEN} proxy_set_header A b; proxy_pass http://b; }}",
        f"location ~ ^/a/(?<x>.*) {{ auth_request off; {PASS} }}",
        f"location ~ ^/a/(?<cn>.*) {{ auth_request /authz/site; "
        f"auth_request_set $cn $upstream_http_x_client_cn; {PASS} }}",
        "ignore_invalid_headers on;",
    ],
)
def test_nginx_says_it(lines: str, tmp_path: Path) -> None:
    """Inherited or set again, or for another application: silent."""
    assert found(GOOD.replace(PUBLIC, lines), tmp_path) == []

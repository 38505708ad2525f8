"""`line-ends`: what a client may write line ends into, in what an application is sent."""

from __future__ import annotations

from pathlib import Path

import pytest
from good_nginx import GOOD, GUARD, found

BARE = GOOD.replace(GUARD, "")
PUBLIC = "location /public/ { auth_request off; }"
PASSED = "location /public/ { auth_request off; proxy_set_header X-Client-CN $cn; proxy_pass TO; }"


def told(lines: str, directory: Path, text: str = BARE) -> bool:
    return "line-ends" in dict(found(text.replace(PUBLIC, lines), directory))


DECODED = [
    PASSED.replace("TO", "http://app$uri"),
    PASSED.replace("TO", "http://app${document_uri}$is_args$args"),
    PASSED.replace("TO;", "http://app; proxy_set_header X-Path $uri;"),
    PASSED.replace("TO", "http://app")
    .replace("proxy_pass", "set $to $uri; proxy_pass")
    .replace("$cn", "$cn; proxy_set_header X-Path $to"),
    PASSED.replace("TO", "http://app").replace("proxy_pass", "rewrite ^ /a?p=$uri; proxy_pass"),
    PASSED.replace("TO", "http://app/$1").replace("/public/", "~ ^/public/([^/]*)/"),
    PASSED.replace("TO", "http://app/$page").replace("/public/", r"~ ^/public/(?<page>\D+)$"),
    PASSED.replace("TO", "http://app/$1").replace(
        "proxy_pass", 'if ($uri ~ "/([^.]+)") { set $a 1; } proxy_pass'
    ),
    PASSED.replace("TO", "http://app$page"),
    PASSED.replace("TO", "http://app${uri}x"),
    PASSED.replace("TO", "http://app$Uri"),
    PASSED.replace("TO", "http://app/$1x").replace("/public/", "~ ^/public/([^/]*)/"),
    PASSED.replace("TO", "http://app").replace("proxy_pass", "proxy_set_header X-N $1; proxy_pass")
    + " rewrite ^/n/([^/]+)$ /public/;",
]
NAMED = [
    PASSED.replace("TO;", "http://app; proxy_set_header X-Name $ssl_server_name;"),
    PASSED.replace("TO", "http://app/$ssl_server_name/"),
]
MAP = 'http { map $uri $page { default ""; "~^/public(/[^.]+)" $1; }'


@pytest.mark.parametrize("lines", DECODED)
def test_the_decoded_path_holds_them(lines: str, tmp_path: Path) -> None:
    """`$uri`, or what is captured of it, itself or by `set` and `map`; a guard refuses them."""
    assert told(lines, tmp_path, BARE.replace("http {", MAP, 1))
    assert not told(GUARD + lines, tmp_path, BARE.replace("http {", MAP, 1))


@pytest.mark.parametrize("lines", NAMED)
def test_the_server_name_holds_them(lines: str, tmp_path: Path) -> None:
    """No guard of the path's helps, but the map of the snippets does."""
    assert told(GUARD + lines, tmp_path)
    assert not told(lines.replace("$ssl_server_name", "$mtls_sidecar_sni"), tmp_path)


def test_so_does_a_name_that_nobody_checked(tmp_path: Path) -> None:
    """`$remote_user`, unless auth_basic has checked it."""
    lines = PASSED.replace("TO;", "http://app; proxy_set_header X-User $remote_user;")
    assert told(GUARD + lines, tmp_path)
    assert not told(GUARD + lines.replace("proxy_pass", "auth_basic x; proxy_pass"), tmp_path)


def test_a_header_of_the_server_is_written_in_the_location(tmp_path: Path) -> None:
    """There auth_basic holds or doesn't, and there the expression captured."""
    lines = "location /public/ { auth_request off; auth_basic off; proxy_pass http://app; }"
    user = BARE.replace("X-Client-CN $cn;", "X-User $remote_user; auth_basic x;", 1)
    assert told(lines, tmp_path, user)
    path = BARE.replace("X-Client-CN $cn;", "X-Path $1;", 1)
    assert told(lines.replace("/public/", "~ ^/public/([^/]*)/"), tmp_path, path)


@pytest.mark.parametrize(
    "lines",
    [
        PASSED.replace("TO", "http://app"),
        PASSED.replace("TO", "http://app$request_uri"),
        PASSED.replace("TO", "http://other$uri"),
        PASSED.replace("TO", "http://app$uri").replace("auth_request off", "deny all"),
        PASSED.replace("TO", "http://app/$1").replace("/public/", "~ ^/public/(.*)$"),
        PASSED.replace("TO", "http://app/$1").replace("/public/", "~ ^/public/([a-z0-9_-]+)"),
        PASSED.replace("TO", "http://app").replace("proxy_pass", "rewrite ^ /a$uri; proxy_pass"),
        "location /p/ { auth_request off; fastcgi_param PATH $uri; fastcgi_pass app:80; }",
        "location /p/ { auth_request off; grpc_set_header X-Path $uri; grpc_pass app:80; }",
        PASSED.replace("TO", "http://app/$arg_page"),
        PASSED.replace("TO", "http://app").replace(
            "proxy_pass", "rewrite ^/public/([^.]*)$ /a?p=$1x; proxy_pass"
        ),
    ],
)
def test_nothing_else_holds_them(lines: str, tmp_path: Path) -> None:
    """What the client wrote undecoded, what nginx encodes, what is told its length, `.`."""
    assert not told(lines, tmp_path)

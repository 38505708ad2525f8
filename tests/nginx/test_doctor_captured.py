"""A location whose path the client writes, or that leads to what a location of another kind keeps:
`doctor` names it, and a stranger gets in by it."""

from __future__ import annotations

from pathlib import Path

import pytest
from examined import CONF, POLICY, found
from stack import Stack
from tools import NginxBinary

OFF = "auth_request off;"
ASKED = "location / { auth_request /authz/site; "


@pytest.mark.parametrize(
    ("line", "uri"),
    [
        (f"location ~ ^/pages/(.*)$ {{ {OFF} proxy_pass http://app/$1; }}", "/pages/in"),
        (
            f"location ~ ^/pages/(?<rest>.*) {{ {OFF} set $to http://app; proxy_pass $to/$rest; }}",
            "/pages/in",
        ),
        (
            f"location ~ ^/pages/ {{ {OFF} rewrite ^/pages/(.*)$ /$1 break; "
            "proxy_pass http://app; }",
            "/pages/in",
        ),
        (
            f"location /pages/ {{ {OFF} if ($uri ~ ^/pages(/.*)$) {{ set $r $1; }} "
            "proxy_pass http://app$r; }",
            "/pages/in",
        ),
        (f"location ~ ^/p/$|^/pages/(.*)$ {{ {OFF} proxy_pass http://app/$1; }}", "/pages/in"),
        (f"location = /page {{ {OFF} proxy_pass http://app$arg_u; }}", "/page?u=/in"),
        (
            f"location /p/ {{ {OFF} if ($args ~ p=(.*)) {{ set $y $1; }} "
            "proxy_pass http://app/$y; }",
            "/p/?p=in",
        ),
        (
            f"location /p/ {{ {OFF} if ($arg_p) {{ rewrite ^ /$arg_p? break; }} "
            "proxy_pass http://app; }",
            "/p/?p=in",
        ),
        (
            f"location /p/ {{ {OFF} if ($arg_p ~ ^(.*)$) {{ proxy_pass http://app/$1; }} }}",
            "/p/?p=in",
        ),
    ],
)
def test_a_path_that_the_client_writes(
    line: str, uri: str, nginx_binary: NginxBinary, tmp_path: Path
) -> None:
    """By what an expression captures, also of a `rewrite`, and by an argument."""
    conf = CONF.replace(ASKED, f"{line} {ASKED}")
    with Stack(nginx_binary, tmp_path, conf=conf, policy=POLICY) as stack:
        assert found(stack) - {"dots-passed-on"} == {"prefix-replaced"}
        assert stack.get("/in").status == 401
        answer = stack.get(uri).app
        assert answer is not None
        assert answer["uri"] == "/in"


KEPT = "127.0.0.1:8080"
PUBLIC = f"location /pages/ {{ {OFF} proxy_pass http://app/; }}"


@pytest.mark.parametrize(
    ("site", "public", "uri", "there"),
    [
        (f"proxy_pass http://app; location /pages/ {{ {OFF} proxy_pass http://app/; }}", "",
         "/pages/in", "/in"),
        (f"return 404; }} location = /in {{ auth_request /authz/site; proxy_pass http://{KEPT};",
         PUBLIC, "/pages/in", "/in"),
        (f"return 404; }} location ~ ^/in {{ auth_request /authz/site; proxy_pass http://{KEPT};",
         PUBLIC, "/pages/in", "/in"),
        (f"try_files /none @app; }} location @app {{ proxy_pass http://{KEPT};",
         PUBLIC, "/pages/in", "/in"),
        (f"set $to {KEPT}; proxy_pass http://$to;", PUBLIC, "/pages/in", "/in"),
        (f"return 404; }} location /in/ {{ auth_request /authz/site; rewrite ^ $request_uri; "
         f"rewrite ^(/in)?(/.*) $2 break; proxy_pass http://{KEPT}$uri;",
         PUBLIC, "/pages/x", "/x"),
    ],
)  # fmt: skip
def test_what_is_kept_in_another_way(
    site: str, public: str, uri: str, there: str, nginx_binary: NginxBinary, tmp_path: Path
) -> None:
    """A location within another, one page, an expression, files that are tried first, an address in
    a variable, and a prefix that rewrites strip as Gitea's documentation has it."""
    asks = "location / { auth_request /authz/site; proxy_pass http://app; }"
    local = "location /local/ { auth_request /authz/local; proxy_pass http://app; }"
    assert asks in CONF.replace("error_page 403 /public.html; ", "")
    conf = CONF.replace("error_page 403 /public.html; ", "").replace(local, "")
    conf = conf.replace(asks, f"location / {{ auth_request /authz/site; {site} }} {public}")
    with Stack(nginx_binary, tmp_path, conf=conf, policy=POLICY) as stack:
        assert "prefix-replaced" in found(stack)
        answer = stack.get(uri).app
        assert answer is not None
        assert answer["uri"] == there

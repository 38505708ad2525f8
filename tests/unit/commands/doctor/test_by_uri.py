"""Where the sidecar chooses by URI, nginx serves the path that was asked about."""

from __future__ import annotations

from pathlib import Path

import pytest
from asking import policy
from good_nginx import GOOD

from sidecar.commands.doctor.checks import examine
from sidecar.commands.doctor.nginx_config import read_nginx

POLICY = policy("""
version: 1
locations:
  - {name: front, location: /, allow: public}
  - {name: shop, location: /shop/, allow: verified}
  - {name: admin, location: ^~ /admin/, allow: [{cn: alice}]}
  - {name: named, allow: [{cn: alice}]}
""")
ALL = "location / { auth_request /authz/site; proxy_pass http://app; }"
BY_URI = "location / { auth_request /authz; proxy_pass http://app; }"
ASK = "auth_request /authz;"
STATIC = f"location ^~ /admin/ {{ {ASK} root /srv; }}"
ANSWERING = "location ^~ /authz/ {"


def found(lines: str, directory: Path) -> list[str]:
    table = "map $http_x $mapped { default /go/; a /admin/; }"
    text = GOOD.replace("http {", f"http {{ {table}", 1)
    text = text.replace(ALL, f"{lines} {BY_URI}").replace(ANSWERING, "location ^~ /authz {")
    path = directory / "nginx.conf"
    path.write_text(text)
    found = [each.id for each in examine(read_nginx(path), POLICY)]
    return [each for each in found if each == "uri-changed"]


@pytest.mark.parametrize(
    "lines",
    [
        f"location /go/ {{ {ASK} proxy_pass http://app/admin/; }}",
        f"location /go/ {{ {ASK} proxy_pass http://app/; }}",
        f"location /shop/ {{ {ASK} proxy_pass http://app/admin/; }}",
        f"location /go/ {{ {ASK} rewrite ^/go/(.*)$ /admin/$1 break; proxy_pass http://app; }}",
        f"location /go/ {{ {ASK} rewrite ^/go/(.*)$ /admin/$1 last; proxy_pass http://app; }}",
        "rewrite ^/go/(.*) /admin/$1;",
        "rewrite ^/go(/.*)?$ /admin$1;",
        "rewrite ^/(go|og)/(.*)$ /admin/$2;",
        "rewrite ^/go/?$ /admin/ last;",
        "rewrite ^/go/(?<page>.*)$ /admin/$page;",
        "rewrite /go/(.*) /admin/$1;",
        f"location ~ ^/go/(.*)$ {{ {ASK} proxy_pass http://app/admin/$1; }}",
        f"location = /go {{ {ASK} proxy_pass http://app/admin/x; }}",
        f"location = /go {{ {ASK} rewrite ^ /admin/x break; proxy_pass http://app; }}",
        f"location /go/ {{ {ASK} set $to http://app; proxy_pass $to/admin/x; }}",
        f"location /go/ {{ {ASK} proxy_pass http://app/$arg_page; }}",
        f"location /go/ {{ {ASK} if ($arg_a) {{ rewrite ^ /admin/ break; }} "
        "proxy_pass http://app; }",
        f"location /go/ {{ {ASK} alias /srv/admin/; }} {STATIC}",
        f"location /go/ {{ {ASK} root /srv; try_files $uri /admin/x; }}",
        f"location /go/ {{ {ASK} root /srv; try_files /admin$uri =404; }} {STATIC}",
        f"location /go/ {{ {ASK} root /srv; error_page 404 = /admin/x?a; }}",
        f"location /go/ {{ {ASK} proxy_pass http://app; error_page 413 /admin/x; }}",
        "error_page 497 = /admin/x;",
        f"location /go/ {{ {ASK} root /srv; index i.html /admin/x; }}",
        f"location /go/ {{ {ASK} root /srv; error_page 404 = @in; }} "
        f"location @in {{ {ASK} rewrite ^ /admin/x break; proxy_pass http://app; }}",
        f"location /go/ {{ {ASK} root /srv; try_files $uri @in; }} "
        f"location @in {{ rewrite ^/go/(.*) /admin/$1 last; }}",
        "rewrite ^/go/ /$arg_page;",
        "if ($http_page ~ ^(.*)$) { rewrite ^/go/ /$1; }",
        f"location /go/ {{ {ASK} if ($http_x ~ ^(.*)$) {{ set $y $1; }} "
        "proxy_pass http://app/$y; }",
        "rewrite ^/go/ $http_page last;",
        "set $to /admin/x; rewrite ^/go/ $to;",
        "set $to $arg_page; rewrite ^/go/ /$to;",
        f"location /go/ {{ {ASK} set $to /admin; rewrite ^/go/(.*)$ $to/$1; }}",
        f"location /go/ {{ {ASK} rewrite ^/go/(.*)$ $mapped$1; }}",
        f"location /go/ {{ {ASK} rewrite ^ $mapped break; proxy_pass http://app; }}",
        f"location /go/ {{ {ASK} root /srv; try_files $uri $mapped; }}",
        f"location /go/ {{ {ASK} root /srv; try_files $uri $arg_page; }}",
        f"location /go/ {{ {ASK} root /srv; error_page 404 = /$cookie_page; }}",
        f"location /go/ {{ {ASK} root /srv; index $arg_page; }}",
    ],
)
def test_another_path_is_served(lines: str, tmp_path: Path) -> None:
    """By proxy_pass with a path, or by a rewrite, in a location or in the server."""
    assert found(lines, tmp_path) == ["uri-changed"]


@pytest.mark.parametrize(
    "lines",
    [
        "",
        f"location /admin/ {{ {ASK} proxy_pass http://other/; }}",
        f"location /go/ {{ {ASK} rewrite ^/go/(.*)$ /admin/$1 break; proxy_pass http://other; }}",
        f"location /admin/ {{ {ASK} proxy_pass http://app/admin/; }}",
        f"location /go/ {{ {ASK} root /srv; try_files $uri $uri/ /index.html; }}",
        f"location /go/ {{ {ASK} root /srv; try_files $uri /go/x =404; }}",
        f"location /go/ {{ {ASK} proxy_pass http://app; error_page 404 /404.html; }}",
        f"location /go/ {{ {ASK} root /srv; try_files $uri /admin/x; }} "
        "location = /admin/x { auth_request /authz/named; proxy_pass http://app; }",
        f"location /go/ {{ {ASK} root /srv; try_files $uri @in; }} "
        "location @in { auth_request /authz/named; rewrite ^ /admin/x break; "
        "proxy_pass http://app; }",
        f"location /admin/ {{ {ASK} root /srv; try_files $uri /admin/x; index a.html /admin/y; }}",
        f"location /admin/ {{ {ASK} proxy_pass http://app/admin/x/; }}",
        "location /go/ { auth_request /authz/named; proxy_pass http://app/admin/; }",
        "location /go/ { auth_request off; proxy_pass http://other/admin/; }",
        f"location /go/ {{ {ASK} proxy_pass http://app/go/in/; }}",
        "rewrite ^/go/(.*) /static/$1;",
        "rewrite ^/go/(.*) /admin/$1 redirect;",
        "rewrite ^/go/(.*) /admin/$1; location /admin/ { auth_request /authz/named; }",
        "location / { auth_request /authz; rewrite ^/(.*)$ /index.php?q=$1 last; } #",
        f"location = /shop/ {{ {ASK} proxy_pass http://app/index.php; }}",
        f"location ~ ^/go/(.*)$ {{ {ASK} proxy_pass http://app/go/$1; }}",
        f"location ~ ^/go/([0-9]+)$ {{ {ASK} proxy_pass http://app/page/$1; }}",
        f"location = /go {{ {ASK} proxy_pass http://app/gone; }}",
        f"location /go/ {{ {ASK} alias /srv/go/in/; }} {STATIC}",
        f"location /go/ {{ {ASK} alias /var/admin/; }} {STATIC}",
        "location = /go { auth_request /authz/named; proxy_pass http://app/admin/x; }",
        "set $to /go/x; rewrite ^/go/ $to;",
        "rewrite ^/go/ /go/$arg_page;",
        'if ($arg_page !~ "^(a|b)$") { return 404; } rewrite ^/go/ /$arg_page;',
        "if ($arg_page ~ ^[a-z]$) { rewrite ^/go/ /$arg_page; }",
        f"location /shop/ {{ {ASK} rewrite ^ /shop/$arg_page; }}",
        f"location /go/ {{ {ASK} root /srv; error_page 404 = /go/$arg_page; }}",
    ],
)
def test_the_same_rules_hold(lines: str, tmp_path: Path) -> None:
    """The path is kept, leads to the same location of the policy, or is asked about by name."""
    assert found(lines, tmp_path) == []

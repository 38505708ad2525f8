"""A location whose path the client writes may show all that another location is to keep."""

from __future__ import annotations

from pathlib import Path

import pytest
from good_nginx import GOOD, found

PUBLIC = "location /public/ { auth_request off; }"
OFF = "auth_request off;"
SITE = "auth_request /authz/site;"


@pytest.mark.parametrize(
    "lines",
    [
        f"location ~ ^/a/(.*)$ {{ {OFF} proxy_pass http://app/$1; }}",
        f"location ~* ^/a(/.*)$ {{ {OFF} proxy_pass http://app$1$is_args$args; }}",
        f"location ~ ^/(a|b)(/.*)?$ {{ {OFF} proxy_pass http://app$2; }}",
        f"location ~ /a/(?<rest>.*) {{ {OFF} proxy_pass http://app/${{rest}}; }}",
        f"location ~ ^/a/(.*)$ {{ {OFF} set $to http://app; set $p $1; proxy_pass $to/$p; }}",
        f"location ~ ^/a/ {{ {OFF} rewrite ^/a/(.*)$ /$1 break; proxy_pass http://app; }}",
        f"location /a/ {{ {OFF} rewrite ^/a/(?:v1/)?(.*) /$1 break; proxy_pass http://app; }}",
        f"location = /a {{ {OFF} proxy_pass http://app$arg_u; }}",
        f"location = /a {{ {OFF} proxy_pass http://app/$arg_u; }}",
        f"location ~ ^/a/(.*)$ {{ {OFF} alias /srv/$1; }} location /b/ {{ {SITE} root /srv; }}",
        f"location ~ ^/a/ {{ {OFF} root /srv; rewrite ^/a/(.*)$ /b/$1 break; }} "
        f"location /b/ {{ {SITE} root /srv; }}",
        f"location ~ ^/a/ {{ {OFF} rewrite ^/a/(.*)$ /b/$1 break; proxy_pass http://x; }} "
        f"location /b/ {{ {SITE} proxy_pass http://x; }}",
        f"location /a/ {{ {OFF} root /srv; rewrite ^/a/(?:v1/)?(.*) /b/$1 break; }} "
        f"location /b/ {{ {SITE} root /srv; }}",
        f"location ~ ^/a/(.*)$ {{ {OFF} root /srv; try_files /b/$1 =404; }} "
        f"location /b/ {{ {SITE} root /srv; }}",
        f"location = /a {{ {OFF} root /srv; try_files $uri /b/$arg_f =404; }} "
        f"location /b/ {{ {SITE} root /srv; }}",
        f"location ~ ^/c/$|^/a/(.*)$ {{ {OFF} proxy_pass http://app/$1; }}",
        f"location /a/ {{ {OFF} rewrite ^ /$arg_page break; proxy_pass http://app; }}",
        f"location /a/ {{ {OFF} set $to $cookie_to; rewrite ^ /$to break; "
        "proxy_pass http://app; }",
        f"location /a/ {{ {OFF} if ($uri ~ ^/a(/.*)$) {{ set $r $1; }} proxy_pass http://app$r; }}",
        f"location /a/ {{ {OFF} if ($request_uri ~* ^/A(/.*)$) {{ rewrite ^ $1 break; }} "
        "proxy_pass http://app; }",
        f"location /a/ {{ {OFF} rewrite ^/a/(.*)$ /b/$1; rewrite ^/b/(.*)$ /$1 break; "
        "proxy_pass http://app; }",
        f"location /a/ {{ {OFF} if ($http_page ~ ^(.*)$) {{ set $y $1; }} "
        "proxy_pass http://app/$y; }",
        f"location ~ ^/a/(.*)$ {{ {OFF} if ($cookie_page ~ x=(.*)) {{ set $y $1; }} "
        "proxy_pass http://app/$y; }",
        f"location /a/ {{ {OFF} if ($http_page ~ ^(.*)$) {{ proxy_pass http://app/$1; }} }}",
        f"location /a/ {{ {OFF} if ($args ~ p=(?<p>.*)) {{ rewrite ^ /$p break; }} "
        "proxy_pass http://app; }",
        f"location /a/ {{ {OFF} if ($arg_p) {{ rewrite ^ /$arg_p break; }} "
        "proxy_pass http://app; }",
        f"location /a/ {{ {OFF} set $x /$arg_p; if ($arg_p !~ ^[a-z]+) {{ return 404; }} "
        "proxy_pass http://app$x; }",
        f"location ~ ^/a/[^/]+/(.*)$ {{ {OFF} proxy_pass http://app/$1; }}",
    ],
)
def test_all_of_the_application(lines: str, tmp_path: Path) -> None:
    """By what an expression captures, by a `set`, a rewrite, an argument, an alias."""
    assert ("prefix-replaced", 8) in found(GOOD.replace(PUBLIC, lines), tmp_path)


@pytest.mark.parametrize(
    "lines",
    [
        f"location ~ ^/a/(.*)$ {{ {OFF} proxy_pass http://app/a/$1; }}",
        f"location ~ ^/a/(.*)$ {{ {OFF} proxy_pass http://app/static/$1; }}",
        f"location ~ ^/a/(.*)$ {{ {SITE} proxy_pass http://app/$1; }}",
        f"location ~ ^/a/(.*)$ {{ {OFF} proxy_pass http://other/$1; }}",
        f"location ~ ^/(static|icons)/(.*)$ {{ {OFF} proxy_pass http://app/$1/$2; }}",
        rf"location ~ ^/a/(.*\.js)$ {{ {OFF} proxy_pass http://app/$1; }}",
        f"location ~ ^/a/ {{ {OFF} proxy_pass http://app$uri; }}",
        f"location ~ ^/a/ {{ {OFF} proxy_pass http://app$request_uri; }}",
        f"location ~ ^/a/ {{ {OFF} rewrite ^/a/(.*)$ /static/$1 break; proxy_pass http://app; }}",
        f"location ~ ^/a/(.*)$ {{ {OFF} proxy_pass http://app/$1; deny all; }}",
        f"location = /a {{ {OFF} proxy_pass http://app/a?$args; }}",
        f"location ~ ^/c/(.*)$|^/a/$ {{ {OFF} proxy_pass http://app/static/$1; }}",
        f"location /a/ {{ {OFF} if ($uri ~ ^/b(/.*)$) {{ rewrite ^ $1 break; }} "
        "proxy_pass http://app; }",
        f"location /a/ {{ {OFF} rewrite ^/a/(.*)$ /$1; proxy_pass http://app; }}",
        f"location ~ ^/a/ {{ {OFF} root /srv; rewrite ^/a/(.*)$ /c/$1 break; }} "
        f"location /b/ {{ {SITE} root /srv; }}",
        f"location ~ ^/a/ {{ {OFF} root /srv; rewrite ^ /b/index.html break; }} "
        f"location /b/ {{ {SITE} root /srv; }}",
        f"location ~ ^/a/(.*)$ {{ {OFF} root /srv; try_files $uri /c/$1 =404; }} "
        f"location /b/ {{ {SITE} root /srv; }}",
        f"location ~ ^/a/(.*)$ {{ {OFF} alias /srv/static/$1; }} "
        f"location /b/ {{ {SITE} root /srv; }}",
        f"location /a/ {{ {OFF} set $x /$arg_p; if ($arg_p !~ '^(a|b)$') {{ return 404; }} "
        "proxy_pass http://app/$x; }",
        f"location /a/ {{ {OFF} if ($arg_p ~ ^[a-z]+$) {{ rewrite ^ /c/$arg_p break; }} "
        "proxy_pass http://app; } location /c/d/ { auth_request /authz/site; "
        "proxy_pass http://app; }",
        f"location /a/ {{ {OFF} set $x a; if ($arg_p ~ ^(b|c)$) {{ set $x $arg_p; }} "
        "proxy_pass http://app/$x; }",
        f"location /a/ {{ {OFF} if ($http_page ~ ^([a-c])$) {{ set $y $1; }} "
        "proxy_pass http://app/$y; }",
        f"location ~ ^/a/(?<p>.*)$ {{ {OFF} if ($p !~ ^(b|c)$) {{ return 404; }} "
        "proxy_pass http://app/$p; }",
        f"location ~ ^/a/(.*)$ {{ {OFF} if ($uri !~ ^/a/(b|c)/) {{ return 404; }} "
        "proxy_pass http://app/$1; }",
    ],
)
def test_a_part_of_it(lines: str, tmp_path: Path) -> None:
    """The same path, a directory within, the same question, another application: meant."""
    assert found(GOOD.replace(PUBLIC, lines), tmp_path) == []


def test_hundreds_of_locations(tmp_path: Path) -> None:
    """Expressions beside many prefixes take no more than moments."""
    many = "".join(
        f"location /{i}/ {{ {SITE} proxy_pass http://app; }}\n"
        f"location ~ ^/p{i}/(.*)$ {{ {OFF} proxy_pass http://app/static/$1; }}\n"
        for i in range(100)
    )
    assert found(GOOD.replace(PUBLIC, many), tmp_path) == []

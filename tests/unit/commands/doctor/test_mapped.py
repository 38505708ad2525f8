"""A prefix that is replaced by another may show all that another location is to keep."""

from __future__ import annotations

from pathlib import Path

import pytest
from good_nginx import GOOD, found

PUBLIC = "location /public/ { auth_request off; }"
OFF = "auth_request off;"
SITE = "auth_request /authz/site;"
ALL = "location / { auth_request /authz/site; proxy_pass http://app; }"


@pytest.mark.parametrize(
    "lines",
    [
        f"location /a/ {{ {OFF} proxy_pass http://app/; }}",
        f"location /a {{ {OFF} proxy_pass http://app/; }}",
        f"location /a/ {{ {OFF} rewrite ^/a/(.*)$ /$1 break; proxy_pass http://app; }}",
        f"location /b/ {{ {SITE} proxy_pass http://x; }} "
        f"location /a/ {{ {OFF} proxy_pass http://x/b/; }}",
        f"location /b/ {{ {SITE} root /srv; }} location /a/ {{ {OFF} alias /srv/; }}",
        f"location /b/ {{ {SITE} root /srv; }} location /a/ {{ {OFF} alias /srv/./x/..//b/; }}",
        f"location /b/ {{ {SITE} proxy_pass http://x; }} "
        f"location /a/ {{ {OFF} proxy_pass http://x//c/../b/; }}",
        f"location /b/ {{ {SITE} proxy_pass http://x; }} "
        f"location /a/ {{ {OFF} proxy_pass http://x/%62/; }}",
        f"location /b/ {{ {SITE} proxy_pass http://x; }} "
        f"location /a/ {{ {OFF} rewrite ^/a/(.*)$ //b/$1 break; proxy_pass http://x; }}",
        f"location /b/ {{ {SITE} proxy_pass http://x; }} "
        f"location /a/ {{ {OFF} proxy_pass http://x/../b/; }}",
        f"location /b/ {{ {SITE} root /srv; }} "
        f"location /a/ {{ {OFF} root /srv; rewrite ^/a/(.*)$ /b/$1 break; }}",
        f"location /b/ {{ {SITE} proxy_pass http://x; }} "
        f"location ~ ^/a(/.*)$ {{ {OFF} proxy_pass http://x/b/$1; }}",
        f"location /b/ {{ {SITE} proxy_pass http://x; "
        f"location /b/a/ {{ {OFF} proxy_pass http://x/b/; }} }}",
        f"location /b {{ {SITE} root /srv; }} location /a/ {{ {OFF} alias /srv/b/; }}",
        f"location = /m {{ {SITE} proxy_pass http://x; }} "
        f"location /a/ {{ {OFF} proxy_pass http://x/; }}",
        f"location ~ ^/(m|n)/ {{ {SITE} proxy_pass http://x; }} "
        f"location /a/ {{ {OFF} proxy_pass http://x/; }}",
        f"location /b/ {{ {SITE} try_files $uri @x; }} location @x {{ proxy_pass http://x; }} "
        f"location /a/ {{ {OFF} proxy_pass http://x/; }}",
        f"location /b/ {{ {SITE} set $x x; proxy_pass http://$x; }} "
        f"location /a/ {{ {OFF} proxy_pass http://x/; }}",
        f"location /b/ {{ {SITE} rewrite ^ $request_uri; rewrite ^(/b)?(/.*) $2 break; "
        f"proxy_pass http://x$uri; }} location /a/ {{ {OFF} proxy_pass http://x/; }}",
        f"location /b/ {{ {SITE} proxy_pass http://x; }} location /a/ {{ {OFF} "
        "rewrite ^/a/(.*)$ /$1; rewrite ^/(.*)$ /$1 break; proxy_pass http://x; }",
    ],
)
def test_all_of_the_application(lines: str, tmp_path: Path) -> None:
    """By proxy_pass with a path, by a rewrite, by the alias of a directory."""
    assert ("prefix-replaced", 8) in found(GOOD.replace(PUBLIC, lines), tmp_path)


@pytest.mark.parametrize(
    "lines",
    [
        f"location /a/ {{ {OFF} proxy_pass http://app/a/; }}",
        f"location /a/ {{ {OFF} proxy_pass http://app/static/; }}",
        f"location /a/ {{ {SITE} proxy_pass http://app/; }}",
        f"location /a/ {{ {OFF} proxy_pass http://other/; }}",
        f"location /a/ {{ {OFF} rewrite ^/a/(.*)$ /static/$1 break; proxy_pass http://app; }}",
        f"location /a/ {{ {OFF} alias /srv/static/; }} location /b/ {{ {SITE} root /srv; }}",
        f"location /b/ {{ {SITE} root /srv; }} "
        f"location /a/ {{ {OFF} root /srv; rewrite ^/a/(.*)$ /c/$1 break; }}",
        f"location = /m {{ {SITE} proxy_pass http://x; }} "
        f"location /a/ {{ {OFF} proxy_pass http://x/a/; }}",
        f"location = /m {{ {SITE} proxy_pass http://x; }} "
        f"location = /a {{ {OFF} proxy_pass http://x/; }}",
        f"location ~ ^/(m|n)/ {{ {SITE} proxy_pass http://x; }} "
        f"location /a/ {{ {OFF} proxy_pass http://x/mm/; }}",
        f"location ~ ^/m/ {{ {SITE} proxy_pass http://x; }} "
        f"location /a/ {{ {OFF} set $x http://x/; proxy_pass $x; }}",
        f"location /b/ {{ {SITE} try_files $uri @x; }} location @x {{ proxy_pass http://x; }} "
        f"location /c/ {{ {OFF} try_files $uri @x; }}",
        f"location /b/ {{ {SITE} rewrite ^ $request_uri; rewrite ^(/b)?(/.*) $2 break; "
        f"proxy_pass http://x$uri; }} location /a/ {{ {OFF} proxy_pass http://other/; }}",
        f"location /g/ {{ {SITE} proxy_pass http://g/; }} "
        f"location /g/public/ {{ {OFF} proxy_pass http://g/public/; }}",
    ],
)
def test_a_part_of_it(lines: str, tmp_path: Path) -> None:
    """The same path, a directory within, the same question, another application: meant."""
    assert found(GOOD.replace(PUBLIC, lines), tmp_path) == []


def test_thousands_of_locations(tmp_path: Path) -> None:
    """Locations that keep their prefix aren't compared with each other."""
    many = "".join(
        f"location /{i}/ {{ auth_request /authz/site; proxy_pass http://app; }}\n"
        for i in range(1000)
    )
    assert found(GOOD.replace(PUBLIC, many), tmp_path) == []

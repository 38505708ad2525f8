"""What the client may choose of an address, a file or a location, and what it may not."""

from __future__ import annotations

from pathlib import Path

import pytest
from good_nginx import GOOD, found

PUBLIC = "location /public/ { auth_request off; }"
OFF = "auth_request off;"
SITE = "auth_request /authz/site;"
KEPT = f"location /kept/ {{ {SITE} root /srv; }}"
INNER = f"location /inner/ {{ internal; {OFF} root /srv/inner; }}"
TABLES = r"""http { map $arg_a $listed { default x:1; app app; } map $arg_a $limited { default x:1;
"~^[a-z]+$" $arg_a; } map $arg_a $open { default $arg_a; } map $arg_a $other { default x:1;
"~^(?<other_name>x[a-z]*)$" $other_name; } map $arg_a $bad { default 1; x ""; }
map $arg_a $odd { default ""; "~[^a-z]" 1; app 1; }"""


def told(lines: str, directory: Path) -> bool:
    """Whether a client is said to choose there; nothing else is to be said."""
    text = GOOD.replace(PUBLIC, lines).replace("http {", TABLES, 1)
    kinds = {each for each, _ in found(text, directory)}
    also = {"prefix-replaced", "dots-passed-on", "auth-location-returns"}
    assert kinds <= {"target-from-client", *also}
    return "target-from-client" in kinds


@pytest.mark.parametrize(
    "lines",
    [
        f"location /a/ {{ {OFF} proxy_pass http://$arg_a; }}",
        f"location /a/ {{ {OFF} proxy_pass http://$limited; }}",
        f"location /a/ {{ {OFF} proxy_pass $scheme://$open/x; }}",
        f"location /a/ {{ {OFF} set $to $cookie_to; proxy_pass http://$to:8080; }}",
        f"location /a/ {{ {OFF} if ($arg_a) {{ proxy_pass http://$arg_a; }} }}",
        f"location /a/ {{ {OFF} if ($arg_a ~ ^(.*)$) {{ set $to $1; }} proxy_pass http://$to; }}",
        f"location /a/ {{ {OFF} if ($arg_a = '') {{ return 404; }} proxy_pass http://$arg_a; }}",
        f"location /a/ {{ {OFF} if ($arg_a !~ ^app$) {{ set $x 1; }} proxy_pass http://$arg_a; }}",
        f"location /a/ {{ {OFF} if ($arg_a !~ ^(app|x)$) {{ return 404; }} "
        "proxy_pass http://$arg_a; }",
        f"location /a/ {{ {SITE} proxy_pass http://$host:8080; }}",
        f"location /a/ {{ {OFF} proxy_pass http://a$arg_a; }}",
        f"location /k/ {{ {SITE} proxy_pass http://10.0.0.5; }} "
        f"location /a/ {{ {OFF} proxy_pass http://10.0.0.$arg_a; }}",
        f"location /a/ {{ {SITE} proxy_pass http://$http_host; }}",
        f"location ~ ^/a/([^/]+)/ {{ {OFF} proxy_pass http://$1; }}",
        f"server_name ~^(?<name>.+)\\.a\\.b$; location /a/ {{ {OFF} proxy_pass http://$name; }}",
        f"location /a/ {{ {OFF} fastcgi_pass $arg_a; }}",
        f"location /a/ {{ {OFF} grpc_pass grpc://$http_to; }}",
        f"location /a/ {{ {SITE} try_files /none @to; }} location @to {{ proxy_pass $arg_to; }}",
        f"location /a/ {{ {SITE} root /srv/$arg_a; }}",
        f"location /a/ {{ {OFF} root /srv/$arg_a; }}",
        f"location /a/ {{ {OFF} alias /srv/x-/$http_a/; }}",
        f"location /a/ {{ {OFF} root /srv; try_files /$arg_a =404; }}",
        f"location /a/ {{ {OFF} root /srv; rewrite ^ /$arg_a break; }}",
        f"{KEPT} location /a/ {{ {OFF} root /srv/$host; }}",
        f"{KEPT} location ~ ^/a/([a-z]+)/ {{ {OFF} root /srv/$1; }}",
        f"location /a/ {{ {OFF} fastcgi_pass x:9; "
        "fastcgi_param SCRIPT_FILENAME /srv/$arg_a.php; }",
        f"location /a/ {{ {OFF} root /srv/$arg_a; fastcgi_pass x:9; "
        "fastcgi_param SCRIPT_FILENAME $document_root$fastcgi_script_name; }",
        f"location /a/ {{ {OFF} root /srv; rewrite ^ /$arg_a break; fastcgi_pass x:9; "
        "fastcgi_param SCRIPT_FILENAME $document_root$fastcgi_script_name; }",
        f"{INNER} location /a/ {{ {OFF} root /x; error_page 404 $arg_a; }}",
        f"{INNER} location /a/ {{ {OFF} root /x; error_page 404 /$arg_a; }}",
        f"{INNER} location /a/ {{ {OFF} root /x; try_files $uri $arg_a; }}",
        f"{INNER} location /a/ {{ {OFF} root /x; index $arg_a; }}",
        f"{INNER} location /a/ {{ {OFF} rewrite ^ /$arg_a last; }}",
        f"{INNER} location /a/ {{ {OFF} internal_redirect $arg_a; }}",
        f"{INNER} if ($arg_a) {{ rewrite ^/b/ /$arg_a; }}",
        f"location ~ ^/inner/ {{ internal; {OFF} root /y; }} "
        f"location /a/ {{ {OFF} rewrite ^ /$arg_a last; }}",
        f"location @inner {{ {OFF} root /y; }} "
        f"location /a/ {{ {OFF} root /x; error_page 404 $arg_a; }}",
        f"{INNER} location /a/ {{ {OFF} root /x; error_page 404 /inner/$arg_a; }}",
        f"location /a/ {{ {OFF} rewrite ^ /$arg_a last; }} location /b/ {{ {OFF} root /x; }}",
        f"{INNER} location /a/ {{ {OFF} root /x; if ($arg_a !~ ^[a-z]+$) {{ return 404; }} "
        "error_page 404 =200 /inner/$arg_a; }",
        "if ($arg_a !~ ^(b|x)$) { return 418; } error_page 418 = @to; "
        f"location @to {{ {OFF} proxy_pass http://$arg_a; }}",
    ],
)
def test_what_the_client_chooses(lines: str, tmp_path: Path) -> None:
    """Addresses, files and locations by a variable, through `set`, `map` and expressions."""
    assert told(lines, tmp_path)


@pytest.mark.parametrize(
    "lines",
    [
        f"location /a/ {{ {OFF} proxy_pass http://x:1/$arg_a; }}",
        f"location /a/ {{ {OFF} proxy_pass http://x:1$request_uri; }}",
        f"location /a/ {{ {SITE} proxy_pass http://$listed; }}",
        f"location /a/ {{ {SITE} proxy_pass http://a$arg_a; }}",
        f"location /a/ {{ {OFF} proxy_pass http://b_$arg_a; }}",
        f"location /a/ {{ {OFF} proxy_pass http://$other; }}",
        f"location /a/ {{ {OFF} set $to x:1; proxy_pass http://$to; }}",
        f"location /a/ {{ {OFF} if ($arg_a !~ ^(b|x)$) {{ return 404; }} "
        "proxy_pass http://$arg_a; }",
        "if ($arg_a !~ ^(b|x)$) { return 418; } error_page 404 = @to; "
        f"location @to {{ {OFF} proxy_pass http://$arg_a; }}",
        f"{INNER} location /a/ {{ {OFF} root /x; if ($arg_a !~ ^[a-z]+$) {{ return 400; }} "
        "error_page 404 =200 /inner/$arg_a; }",
        f"location /a/ {{ {OFF} if ($arg_a ~ ^(b|c)$) {{ set $to $arg_a; }} "
        "proxy_pass http://$to; }",
        f"location /a/ {{ {OFF} if ($bad) {{ return 404; }} proxy_pass http://$arg_a; }}",
        f"location /a/ {{ {OFF} if ($odd) {{ return 404; }} proxy_pass http://$arg_a; }}",
        f"location /a/ {{ {OFF} if ($arg_a ~ ^b$) {{ proxy_pass http://$arg_a; }} }}",
        "if ($host !~ ^a[.]b$) { return 421; } "
        f"location /a/ {{ {SITE} proxy_pass http://$host:8080; }}",
        f"location /a/ {{ {SITE} proxy_pass http://$server_name:8080; }}",
        f"location /a/ {{ {SITE} proxy_pass http://$upstream_http_x; }}",
        f"server_name ~^(?<name>x.)\\.a\\.b$; location /a/ {{ {OFF} proxy_pass http://$name; }}",
        f"location ~ ^/a/(x|y)/ {{ {OFF} proxy_pass http://$1; }}",
        f"{KEPT} location ~ ^/a/([^/]+)/ {{ {OFF} root /var/u/$1; }}",
        f"{KEPT} location ~ ^/a/(.*)$ {{ {OFF} alias /var/u/$1; }}",
        f"location /a/ {{ {OFF} root /var/u/$host; }}",
        f"location /a/ {{ {OFF} root /srv; try_files $uri $uri/ /index.php?$args; }}",
        f"location /a/ {{ {OFF} root /srv; try_files /cache/$http_host$uri.html =404; }}",
        f"{INNER} location /a/ {{ {OFF} root /x; error_page 404 /inner/404.html; }}",
        f"{INNER} location /a/ {{ {OFF} root /x; error_page 404 /b/$arg_a; }}",
        f"{INNER} location /a/ {{ {OFF} rewrite ^ /b/$arg_a last; }}",
        f"{INNER} location /a/ {{ {OFF} rewrite ^ https://a.b/$arg_a last; }}",
        f"{INNER} location /a/ {{ {OFF} rewrite ^ /b?page=$arg_a last; }}",
        f"{INNER} location /a/ {{ {OFF} return 302 $arg_a; }}",
        f"{INNER} location ~ ^/a/(.+) {{ {OFF} rewrite ^ /$1 last; }}",
        f"{KEPT} location /a/ {{ {OFF} root /srv; index $other; }}",
        f"location /a/ {{ {OFF} fastcgi_pass x:9; fastcgi_param QUERY_STRING $query_string; }}",
    ],
)
def test_what_it_does_not(lines: str, tmp_path: Path) -> None:
    """A query, a path behind an address, a list, a guard, what expressions let through."""
    assert not told(lines, tmp_path)


def test_a_host_that_another_server_has(tmp_path: Path) -> None:
    """$host is one of the server's names, unless it serves the hosts that nobody else has."""
    line = f"location /a/ {{ {SITE} proxy_pass http://$host:8080; }}"
    other = "server { listen 443 ssl; server_name other; return 444; }"
    named = f"server_name a.b *.c; {line}"
    assert told(named, tmp_path)
    text = GOOD.replace(PUBLIC, named).replace("server {\n", f"{other} server {{\n", 1)
    assert found(text, tmp_path) == []
    assert told(f"server_name ~^(?<n>[a-z]+)$; {line}", tmp_path)


def test_another_server(tmp_path: Path) -> None:
    """One that asks nobody, also of `stream { }`, reaches what this one keeps."""
    other = "server { listen 80; location / { proxy_pass http://$arg_a; } }"
    text = GOOD.replace("http {", f"http {{ {other}", 1)
    assert [each for each, _ in found(text, tmp_path)] == ["target-from-client"]
    stream = "stream { server { listen 9; proxy_pass $ssl_preread_server_name:1; } }"
    assert found(f"{stream}\n{GOOD}", tmp_path) == []
    text = GOOD.replace("http://app", "http://127.0.0.1:1")
    assert [each for each, _ in found(f"{stream}\n{text}", tmp_path)] == ["target-from-client"]

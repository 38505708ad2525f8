"""`script-path`: a script that runs for other URIs than the one that is asked about."""

from __future__ import annotations

from pathlib import Path

import pytest
from good_nginx import GOOD, found

ASK = "auth_request /authz/site;"
OFF = "auth_request off;"
FPM = "fastcgi_param SCRIPT_FILENAME $document_root$fastcgi_script_name; fastcgi_pass fpm:9000;"
SPLIT = r"fastcgi_split_path_info ^(.+?\.php)(/.*)$;"
LOGIN = f"location = /wp-login.php {{ {ASK} {FPM} }}"
ANY = rf"location ~ [^/]\.php(/|$) {{ {OFF} {SPLIT} {FPM} }}"
END = rf"location ~ \.php$ {{ {OFF} {FPM} }}"
FRONT = f"location / {{ {OFF} try_files $uri /index.php?$args; }}"
ADMIN = f"location ^~ /admin/ {{ {ASK} try_files $uri /index.php; }}"
ALL = "location / { auth_request /authz/site; proxy_pass http://app; }"


def told(lines: str, directory: Path) -> bool:
    return "script-path" in dict(found(GOOD.replace(ALL, lines), directory))


@pytest.mark.parametrize(
    "lines",
    [
        LOGIN + ANY,
        LOGIN + END,
        LOGIN + ANY.replace(OFF, "auth_request /authz/other;"),
        LOGIN + ANY.replace("fastcgi_pass", "try_files $fastcgi_script_name =404; fastcgi_pass"),
        LOGIN.replace("= /wp-login.php", r"~ ^/(wp-login|xmlrpc)\.php$") + ANY,
        f"location = /a.php {{ {ASK} proxy_pass http://app; }} "
        f"location / {{ {OFF} proxy_pass http://app; }}",
        ADMIN + FRONT + f"location = /index.php {{ {OFF} {FPM} }}",
        ADMIN.replace("^~", "") + FRONT + f"location ~ ^/index.php(/|$) {{ {OFF} {SPLIT} {FPM} }}",
        ADMIN.replace("/index.php", "/index.php$request_uri") + ANY,
    ],
)
def test_it_runs_elsewhere(lines: str, tmp_path: Path) -> None:
    """Behind its name, by PATH_INFO, and by a script that serves every path."""
    assert told(lines, tmp_path)


@pytest.mark.parametrize(
    "lines",
    [
        LOGIN + ANY.replace(OFF, ASK),
        LOGIN + ANY.replace("fpm:9000", "other:9000"),
        LOGIN + ANY.replace(OFF, f"{OFF} deny all;"),
        LOGIN + END.replace("fastcgi_pass", "try_files $uri =404; fastcgi_pass"),
        LOGIN + ANY.replace("$document_root$fastcgi_script_name", "/srv/index.php"),
        LOGIN + FRONT + f"location = /index.php {{ {OFF} {FPM} }}",
        LOGIN.replace("=", "^~") + ANY,
        LOGIN.replace("= /wp-login.php", r"~ ^/wp-login\.php(/|$)") + ANY,
        f"location = /a {{ {ASK} proxy_pass http://app; }} "
        f"location / {{ {OFF} proxy_pass http://other; }}",
        ADMIN + FRONT.replace(OFF, ASK) + f"location = /index.php {{ {OFF} {FPM} }}",
        ADMIN + FRONT + "location ^~ /index.php/ { return 404; }",
        ADMIN.replace("/index.php", "@app") + FRONT,
        f"location / {{ {ASK} try_files $uri /index.php; }}" + ANY,
    ],
)
def test_it_does_not(lines: str, tmp_path: Path) -> None:
    """Asked about there, another application, refused, a file, another script, a prefix."""
    assert not told(lines, tmp_path)

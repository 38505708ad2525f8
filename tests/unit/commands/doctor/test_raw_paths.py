"""`dots-passed-on`: paths that nginx resolves to decide, and passes on as they are written."""

from __future__ import annotations

from pathlib import Path

import pytest
from asking import policy
from good_nginx import GOOD, GUARD, found

from sidecar.commands.doctor.checks import examine
from sidecar.commands.doctor.guards import WRITE
from sidecar.commands.doctor.nginx_config import read_nginx

BARE = GOOD.replace(GUARD, "")
PUBLIC = "location /public/ { auth_request off; }"
PASSED = "location /public/ { auth_request off; proxy_pass http://app; }"
TOLD = [("dots-passed-on", 3)]
QUERY = r'if ($request_uri ~* "(\.|%2e)(\.|%2e)") { return 400; }'
TWICE = "if ($request_uri ~* %25) { return 400; }"
MAPPED = (
    'http { map "$host $request_uri" $odd { default 0; "~*[^?]*(%2e|\\.\\.|%2f)" 1; } ',
    "if ($odd) { return 404; }",
)


def told(text: str, directory: Path) -> list[tuple[str, int]]:
    return [each for each in found(text, directory) if each[0] == "dots-passed-on"]


@pytest.mark.parametrize(
    "lines",
    [
        PASSED,
        PASSED.replace("/public/", "= /favicon.ico"),
        PASSED.replace("/public/", r"~ \.css$"),
        PASSED.replace("http://app;", "http://app$request_uri;"),
        "set $to http://app; " + PASSED.replace("http://app;", "$to;"),
        "location /p/ { auth_request off; try_files $uri @app; } "
        "location @app { proxy_pass http://app; }",
        "location /p/ { auth_request off; grpc_pass grpc://app; }",
        "location /p/ { auth_request off; fastcgi_pass app:80; "
        "fastcgi_param REQUEST_URI $request_uri; }",
        "location /p/ { auth_request /authz/site2; proxy_pass http://app; }",
        "location /p/ { auth_request off; if ($request_uri ~ /%2e%2e/) { return 400; } "
        "proxy_pass http://app; }",
        PASSED + " if ($request_uri ~ //) { return 400; }",
        PASSED.replace("http://app;", "http://app$uri;"),
        r"location ~ ^/public/(.*)$ { auth_request off; proxy_pass http://app/public/$1; }",
        PASSED.replace("proxy_pass", "rewrite ^/old/(.*)$ /new/$1 break; proxy_pass"),
        PASSED.replace("proxy_pass", "rewrite ^/public/(.+)$ /$1 break; proxy_pass"),
        PASSED.replace("proxy_pass", "rewrite ^/public/$ /x break; proxy_pass"),
        PASSED.replace("proxy_pass", "if ($arg_a) { rewrite ^ /x break; } proxy_pass"),
        f"if ($uri ~ ^/public/) {{ break; }} {GUARD} {PASSED}",
        f"break; {GUARD} {PASSED}",
    ],
)
def test_it_is_told_where_another_is_asked(lines: str, tmp_path: Path) -> None:
    """An asked and another location lead to one application, which gets the client's spelling."""
    assert told(BARE.replace(PUBLIC, lines), tmp_path) == TOLD


@pytest.mark.parametrize(
    "lines",
    [
        PUBLIC,
        PASSED.replace("http://app;", "http://other;"),
        PASSED.replace("http://app;", "http://app/public/;"),
        PASSED.replace("http://app;", "http://app$uri;") + TWICE,
        r"location ~ ^/public/(\w+)$ { auth_request off; proxy_pass http://app/$1; }",
        PASSED.replace("proxy_pass", "rewrite ^/public/(.*)$ /public/x/$1 break; proxy_pass"),
        PASSED.replace("auth_request off", "auth_request /authz/site"),
        PASSED.replace("auth_request off", "deny all"),
        PASSED.replace("auth_request off", "internal"),
        "location /p/ { auth_request off; fastcgi_param SCRIPT_NAME $uri; fastcgi_pass app:80; }",
        PASSED.replace("proxy_pass", f"{GUARD} proxy_pass"),
        PASSED + GUARD,
        PASSED
        + GUARD.replace("~*", "!~*").replace("{ return", "{ set $a 1; } if ($uri = /) { return")
        + GUARD,
        PASSED + 'if ($request_uri ~ "[^?]*(%|\\.\\.)") { return 301 https://$host/; }',
        "set $no 0; "
        + GUARD.replace("return 400;", "set $no 1;")
        + f" if ($no) {{ return 400; }} {PASSED}",
        f"if ($uri ~ ^/authz) {{ break; }} {GUARD} {PASSED}",
    ],
)
def test_it_is_not_told_where_nothing_is_shown(lines: str, tmp_path: Path) -> None:
    """A guard, the path that nginx resolved, another application, the same question."""
    assert told(BARE.replace(PUBLIC, lines), tmp_path) == []


@pytest.mark.parametrize("word", ["$arg_page", "${http_x_page}", "a/$cookie_page"])
def test_dots_of_the_query(word: str, tmp_path: Path) -> None:
    """`/public/?page=../admin/`: the guard looks at the path alone."""
    lines = PASSED.replace("http://app;", f"http://app/public/{word};")
    text = GOOD.replace(PUBLIC, lines)
    assert told(text, tmp_path) == TOLD
    assert told(text.replace("app/", "other/"), tmp_path) == []
    assert told(text.replace("auth_request off", "auth_request /authz/site"), tmp_path) == []
    assert told(text.replace("server {", "server { " + QUERY, 1), tmp_path) == []
    assert told(text.replace("/public/" + word, f"?page={word}"), tmp_path) == []


def test_a_guard_by_a_map(tmp_path: Path) -> None:
    """A variable that a `map` makes of `$request_uri` is looked up."""
    text = BARE.replace(PUBLIC, PASSED + MAPPED[1]).replace("http {", MAPPED[0], 1)
    assert found(text, tmp_path) == []
    assert found(text.replace("|%2f)", ")").replace("%2e|", ""), tmp_path) == TOLD


def test_a_guard_that_gives_up_is_named(tmp_path: Path) -> None:
    """A `map` whose expression repeats a group without end is told of, by its line."""
    path = tmp_path / "nginx.conf"
    table = MAPPED[0].replace("|%2f)", "|%2f)(?:ab)*")
    path.write_text(BARE.replace(PUBLIC, PASSED + MAPPED[1]).replace("http {", table, 1))
    rules = policy("version: 1\nlocations: [{name: site, allow: verified}]")
    messages = [each.what for each in examine(read_nginx(path), rules)]
    messages = [each for each in messages if "PCRE" in each]
    assert len(messages) == 1
    assert "PCRE gives up on a long path (line 1)" in messages[0]


@pytest.mark.parametrize(("name", "expected"), [("site", []), ("", TOLD)])
def test_where_the_sidecar_chooses(name: str, expected: object, tmp_path: Path) -> None:
    """One location of nginx is enough if the policy has several by URI."""
    rules = policy(
        "version: 1\nlocations:\n  - {name: site, location: /, allow: verified}\n"
        "  - {name: admin, location: /admin/, allow: [{cn: alice}]}\n"
    )
    path = tmp_path / "nginx.conf"
    text = BARE.replace("/authz/site", f"/authz/{name}".rstrip("/"))
    path.write_text(text.replace("location ^~ /authz/", "location ^~ /authz"))
    found = [(e.id, e.line) for e in examine(read_nginx(path), rules) if e.id != "never-asked"]
    assert found == expected


def test_the_line_to_write_is_a_guard() -> None:
    """The one that the unit tests' configuration has, and test_doctor_findings.py's is like."""
    assert GUARD in WRITE

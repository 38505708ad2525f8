"""Where nginx leads on by itself, nobody is asked unless `auth_request` holds there, too."""

from __future__ import annotations

from pathlib import Path

import pytest
from good_nginx import GOOD, found

PUBLIC = "location /public/ { auth_request off; }"
PASS = "proxy_pass http://app;"
ASK = "auth_request /authz/site;"
APP = f"location @app {{ {PASS} }}"
INNER = f"location /i/ {{ internal; {PASS} }}"
ACME = "location ^~ /.well-known/acme-challenge/ { root /x;"
FILES = f"root /srv/x; location /a/ {{ {ASK}"


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (f"{APP} location /a/ {{ deny all; error_page 403 = @app; }}", "denial-passed-on"),
        (f"{APP} location /a/ {{ error_page 418 = @app; return 418; }}", "return-first"),
        (f"{INNER} location /a/ {{ rewrite ^/a/(.*) /i/$1 last; return 403; }}", "rewrite-first"),
        (f"{INNER} location = /a {{ rewrite ^ /i/a last; }}", "rewrite-first"),
        (f"{APP} {ACME} try_files $uri @app; }}", "not-asked"),
        (f"{APP} {ACME} error_page 404 = @app; }}", "not-asked"),
        (f"{APP} location = /favicon.ico {{ try_files /f.ico @app; }}", "not-asked"),
        (f"{APP} error_page 405 = @app;", "denial-passed-on"),
        (f"{APP} error_page 501 = @app;", "denial-passed-on"),
        (f"{FILES} error_page 401 = @f; }} location @f {{ root /srv/x; }}", "denial-passed-on"),
        (f"{FILES} error_page 403 = @f; }} location @f {{ try_files $uri =404; }}",
         "denial-passed-on"),
        (f"{APP} location @d {{ try_files /none @app; }} "
         f"location /a/ {{ {ASK} error_page 401 = @d; {PASS} }}", "denial-passed-on"),
        (f"{INNER} location @d {{ rewrite ^(.*)$ /i$1 last; }} "
         f"location /a/ {{ {ASK} error_page 401 = @d; {PASS} }}", "denial-passed-on"),
        (f"{APP} location @d {{ return 404; error_page 404 = @app; }} "
         f"location /a/ {{ {ASK} recursive_error_pages on; error_page 401 = @d; {PASS} }}",
         "denial-passed-on"),
    ],
)  # fmt: skip
def test_a_way_in_by_several_steps(lines: str, expected: str, tmp_path: Path) -> None:
    """Guards, public files and denials that lead to the application in the end, or to its files."""
    assert (expected, 8) in found(GOOD.replace(PUBLIC, lines), tmp_path)


@pytest.mark.parametrize(
    "lines",
    [
        f"location @d {{ return 404; error_page 404 = @app; }} {APP} "
        f"location /a/ {{ {ASK} error_page 401 = @d; {PASS} }}",
        f"{ASK} error_page 401 /i/x; {INNER}",
        f"{ASK} error_page 401 = @app; {APP}",
        "location = /old { rewrite ^ /new last; }",
        "location /old/ { rewrite ^/old/(.*)$ /new/$1 last; return 404; }",
        f"{FILES} error_page 401 = @f; }} location @f {{ try_files /denied.html =403; }}",
        f"{FILES} error_page 401 = @f; }} location @f {{ rewrite ^ /denied.html break; }}",
        f"{FILES} error_page 401 = @f; }} location @f {{ root /srv/denied; }}",
        f"{FILES} error_page 401 = @f; }} location @f {{ return 200 no; }}",
        f"{FILES} error_page 401 /d.html; }} location = /d.html {{ internal; }}",
        "location ^~ /.well-known/acme-challenge/ { root /x; try_files $uri =404; }",
        "error_page 404 405 500 501 /50x.html; location = /50x.html { root /x; }",
        f"location @loop {{ try_files /none @loop; }} location /a/ {{ {ASK} "
        f"error_page 401 = @loop; {PASS} }}",
    ],
)
def test_where_it_ends_well(lines: str, tmp_path: Path) -> None:
    """Asked again where it leads, one page of words, a circle, error pages that don't count."""
    told = {each for each, _ in found(GOOD.replace(PUBLIC, lines), tmp_path)}
    assert told <= {"error-page-asks"}


def test_what_no_location_covers(tmp_path: Path) -> None:
    """A server's `error_page 404 = @app` shows the application to whom no location asks."""
    good = GOOD.replace("internal;", "internal; error_page 599 /;")  # as in the snippet
    text = good.replace("location / {", "location /in/ {")
    page = f"error_page 404 = @app; {APP}"
    assert ("denial-passed-on", 8) in found(text.replace(PUBLIC, page), tmp_path)
    assert found(good.replace(PUBLIC, page), tmp_path) == []
    rest = f"{page} location / {{ auth_request off; root /x; error_page 404 /404.html; }}"
    assert found(text.replace(PUBLIC, rest), tmp_path) == []


def test_a_second_location_of_the_sidecar_shows_nothing(tmp_path: Path) -> None:
    """The snippet has `= /authz` beside `/authz/`: a rewrite to anything isn't one to there."""
    start = GOOD.index("        location ^~ /authz/")
    second = GOOD[start : GOOD.rindex("    }\n}")].replace("^~ /authz/", "= /authz")
    lines = f"location /a/ {{ {ASK} rewrite ^/a/(.*)$ /$1 last; }}"
    text = GOOD.replace(PUBLIC, lines)
    assert found(text[:-8] + second + text[-8:], tmp_path) == []


SITE = "location / { auth_request /authz/site; proxy_pass http://app; }"
SERVED = f"location @app {{ {PASS} }}"


@pytest.mark.parametrize(
    ("site", "expected"),
    [
        ("try_files $uri @app; error_page 401 = @app;", "denial-passed-on"),
        ("try_files $uri @app; error_page 413 = @app;", "denial-passed-on"),
        ("try_files $uri /i$uri; error_page 401 = @app;", "denial-passed-on"),
        ("root /x; error_page 404 = @app; error_page 403 = @app;", "denial-passed-on"),
        ("memcached_pass 127.0.0.1:9; error_page 401 404 502 = @app;", "denial-passed-on"),
        ("error_page 418 = @app; return 418;", "return-first"),
        ("error_page 404 = @app; return 404;", "return-first"),
        ("error_page 418 = @app; if ($arg_x) { return 418; } root /x;", "return-first"),
    ],
)
def test_what_a_location_is_served_by(site: str, expected: str, tmp_path: Path) -> None:
    """Files are tried, or the rest is led on: the application behind is what asking is to keep."""
    asking = f"location / {{ {ASK} {site} }} {SERVED} location /i/ {{ internal; {PASS} }}"
    assert (expected, 7) in found(GOOD.replace(SITE, asking), tmp_path)
    other = "server { listen 80; location / { proxy_pass http://app; } }"
    beside = GOOD.replace(SITE, asking).replace("http {", f"http {{ {other}")
    assert ("never-asks", 1) in found(beside, tmp_path)


@pytest.mark.parametrize(
    "site",
    [
        "try_files $uri @app;",
        "root /x; error_page 404 = @app;",
        "root /x; error_page 404 @page; error_page 401 403 @page;",
        "root /x; error_page 404 /page/404; error_page 401 403 /page/403;",
        "error_page 503 @page; if (-f /x) { return 503; } proxy_pass http://127.0.0.1:7;",
        "error_page 403 @page; if ($arg_x) { return 403; } proxy_pass http://127.0.0.1:7;",
        "error_page 502 504 = @page; error_page 500 = @page; proxy_pass http://127.0.0.1:7;",
    ],
)
def test_a_page_about_an_error_is_not_kept(site: str, tmp_path: Path) -> None:
    """What shows denials and errors from another address is no application."""
    pages = "http://127.0.0.1:8"
    asking = f"location / {{ {ASK} {site} }} {SERVED} location @page {{ proxy_pass {pages}; }} "
    asking += f"location /page/ {{ internal; proxy_pass {pages}; }}"
    told = {each for each, _ in found(GOOD.replace(SITE, asking), tmp_path)}
    assert told == set()


WEAK = "location @weak { auth_request /authz/site; proxy_pass http://app; }"


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ("error_page 403 = @weak;", "denial-passed-on"),
        ("error_page 401 /i$uri;", "denial-passed-on"),
        ("error_page 500 = @weak;", "denial-passed-on"),
        ("error_page 418 = @weak; if ($arg_x) { return 418; }", "return-first"),
        ("post_action @weak;", "denial-passed-on"),
    ],
)
def test_another_question_where_it_leads(lines: str, expected: str, tmp_path: Path) -> None:
    """Whom one question denies is let in by another one, to the same application."""
    more = f"{WEAK} location /i/ {{ internal; {ASK} proxy_pass http://app/; }} "
    more += f"location /a/ {{ auth_request /authz/admin; {PASS} {lines} }}"
    assert (expected, 8) in found(GOOD.replace(PUBLIC, more), tmp_path)
    same = more.replace("/authz/admin", "/authz/site")
    told = {each for each, _ in found(GOOD.replace(PUBLIC, same), tmp_path)}
    assert told <= {"error-page-asks"}


def test_files_that_a_named_location_shows(tmp_path: Path) -> None:
    """They are what is asked about where `try_files` leads to them: no denial may lead there."""
    lines = (
        "location /a { auth_request /authz/site; error_page 401 = @files; try_files /none @files; }"
        " location @files { root /srv; }"
    )
    text = GOOD.replace("location /public/ {", f"{lines} location /public/ {{", 1)
    assert "denial-passed-on" in dict(found(text, tmp_path))
    assert found(text.replace("error_page 401 = @files;", ""), tmp_path) == []


def test_a_page_that_the_query_names(tmp_path: Path) -> None:
    """nginx puts the client's own query behind a `rewrite`'s: `?page=login&page=admin`."""
    asking = f"location /a {{ {ASK} error_page 401 = @in; {PASS} }}"
    page = f"{asking} location @in {{ rewrite ^ /index.php?page=login break; {PASS} }}"
    text = GOOD.replace(PUBLIC, page)
    assert "denial-passed-on" in dict(found(text, tmp_path))
    assert found(text.replace("=login ", "=login? "), tmp_path) == []


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        ('default ""; a.b/public/ 1; "~\\Aa\\.b/(?:icons|public)/" 1;', False),
        ('default "";', False),
        ('default ""; c.d/i/x 1;', False),
        ("default 1;", True),
        ('default ""; a.b/i/x 1;', True),
        ('default ""; "~\\.png$" 1;', True),
        ('default ""; "~*\\AA\\.B/I/" 1;', True),
    ],
)
def test_a_map_that_names_what_is_public(lines: str, told: bool, tmp_path: Path) -> None:
    """What it has nothing for isn't led on to by `rewrite ^ $uri last`, nor what is internal."""
    given = GOOD.replace(
        PUBLIC,
        "error_page 495 = @bad; server_name a.b; location @bad { auth_request off; "
        f"if ($shown) {{ rewrite ^ $uri last; }} return 403; }} {INNER} {FILES} }}",
    ).replace("http {", f"http {{ map $server_name$uri $shown {{ {lines} }} ", 1)
    assert bool(found(given, tmp_path)) == told

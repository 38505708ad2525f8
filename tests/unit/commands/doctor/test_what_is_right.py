"""`doctor` isn't loud on what is right: guards, other authorizers, newer nginx; one cause, once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from asking import policy
from daemon import ROOT
from good_nginx import GOOD, POLICY, found

from sidecar.commands.doctor.checks import examine
from sidecar.commands.doctor.nginx_config import read_nginx
from sidecar.commands.doctor.routing import literal_prefixes, matches
from sidecar.commands.doctor.version import nginx_version

PUBLIC = "location /public/ { auth_request off; }"
ASKING = "auth_request /authz/site;"
AUTH = GOOD[GOOD.index("        location ^~ /authz/") : GOOD.rindex("    }")]
OAUTH = """location = /oauth2/auth { internal; proxy_pass http://127.0.0.1:4180;
    proxy_pass_request_body off; proxy_set_header Content-Length ""; }
location /oauth2/ { auth_request off; proxy_pass http://127.0.0.1:4180; }
location @guarded { auth_request /oauth2/auth; error_page 401 = @in; proxy_pass http://other; }
location @in { return 302 /oauth2/start; }
location /other/ { auth_request /oauth2/auth; proxy_pass http://other; }"""


@pytest.mark.parametrize(
    "lines",
    [
        r"location ~ /\.ht { return 404; }",
        rf"location ~ /\.ht {{ {ASKING} return 404; }}",
        f"location /a/ {{ {ASKING} return 301 /b/; }}",
        f"location /a/ {{ {ASKING} if ($arg_a) {{ return 403; }} proxy_pass http://app; }}",
        f"location /a/ {{ {ASKING} if ($request_method = OPTIONS) {{ return 204; }} "
        "proxy_pass http://app; }",
        f"location /a/ {{ {ASKING} if ($request_method ~ ^(OPTIONS)$) {{ return 200; }} "
        "proxy_pass http://app; }",
        "location = /robots.txt { root /x; }",
        "location ^~ /.well-known/acme-challenge/ { root /x; }",
        "error_page 404 /404.html; location = /404.html { root /x; }",
        "error_page 404 =200 /index.html;",
        "if ($host = a.b) { return 301 https://b.c$request_uri; }",
        'if ($request_uri = "/healthz") { return 200 ok; }',
        "rewrite ^/old/(.*)$ /new/$1 last;",
        "if ($scheme = http) { rewrite ^ https://$host$request_uri? permanent; }",
        "rewrite ^/(?!authz)(.*)$ /new/$1 last;",
        "if ($uri !~ ^/authz) { rewrite ^ /index.php last; }",
        "if ($uri !~ ^/(app|authz)/) { return 404; }",
        "if ($uri ~ ^/authz) { break; } if ($uri !~ ^/app/) { return 404; }",
        "if ($uri = /old) { return 301 /new; }",
        "if ($args ~ x) { return 403; } if ($uri ~ $x) { return 403; }",
        "if ($uri ~* ^/blog) { rewrite ^ /index.php last; }",
        "if ($uri ~ ^/authz/) { break; } set $a 1; "
        f"location /a/ {{ {ASKING} set $a 2; proxy_pass http://app; }}",
        f"set $a 1; location /a/ {{ {ASKING} set $b 2; proxy_pass http://app; }}",
        f"set $a 1; location /a/ {{ {ASKING} set $a 1; proxy_pass http://app; }}",
        rf"location ~ \.php$ {{ {ASKING} proxy_pass http://app; }}",
        f"location ^~ /img {{ {ASKING} alias /data/img/; }}",
        "location /img/ { auth_request off; alias /data/img/; }",
        f"location /a/ {{ {ASKING} error_page 502 504 = @b; proxy_pass http://app; }} "
        "location @b { auth_request off; proxy_pass http://app; }",
        "ssl_early_data on; if ($ssl_early_data) { return 425; }",
        f"location /a/ {{ limit_except GET {{ deny all; }} {ASKING} proxy_pass http://app; }}",
        "error_page 404 =200 '';",
        OAUTH,
        "error_page 401 403 /login; location = /login { auth_request off; proxy_pass http://app; }",
        "error_page 401 403 /public/denied; "
        "location /public/ { auth_request off; proxy_pass http://app; }",
        f"location /a/ {{ {ASKING} error_page 401 = @login; proxy_pass http://app; }} "
        "location @login { rewrite ^ /login break; proxy_pass http://app; }",
        f"location /a/ {{ {ASKING} error_page 401 = @login; proxy_pass http://app; }} "
        "location @login { rewrite ^ /index.php?page=login? break; proxy_pass http://app; }",
        f"location /a/ {{ {ASKING} mirror /m; proxy_pass http://app; }} "
        "location = /m { internal; proxy_pass http://other$request_uri; }",
        f"location /a/ {{ {ASKING} add_after_body /b/; proxy_pass http://app; }} "
        "location /b/ { auth_request off; root /x; }",
        "location /api/ { auth_request off; proxy_pass http://app/api/; }",
        "location /api { auth_request off; proxy_pass http://app/api; }",
        "error_page 418 = @m; if ($http_a) { return 418; } location @m { root /x; }",
        f"error_page 418 @m; if ($http_a) {{ return 418; }} location @m {{ {ASKING} root /x; }}",
        "error_page 503 @m; if (-f /x/m) { return 503; } location @m { root /x; }",
        "if ($uri ~ ^/authz/) { break; } error_page 418 = @m; if ($http_a) { return 418; } "
        f"rewrite ^/a(.*)/ /b/$1; location @m {{ {ASKING} proxy_pass http://app; }}",
        "set_real_ip_from 10.0.0.0/8; real_ip_header X-Forwarded-For;",
        "ssi off; location /b/ { auth_request off; root /x; }",
        f"location /b/ {{ {ASKING} ssi on; proxy_pass http://app; }}",
        "location /d/ { internal; ssi on; root /x; }",
        "location /b/ { auth_request off; mirror /m; proxy_pass http://app; } "
        "location = /m { internal; proxy_pass http://app$request_uri; }",
        "location /old/ { rewrite ^/old/(.*)$ /new/$1 permanent; }",
        "location /old/ { rewrite ^/old/(.*) /new/$1 last; }",
        "location /old/ { rewrite ^/old(.+)$ /new$1 redirect; }",
        f"{ASKING} location = /favicon.ico {{ access_log off; return 204; }}",
        f"{ASKING} location = /robots.txt {{ return 200 'User-agent: *'; }}",
    ],
)
def test_what_people_write_rightly(lines: str, tmp_path: Path) -> None:
    """Guards, redirects, public files, other authorizers and harmless rewrites are silent."""
    assert found(GOOD.replace(PUBLIC, lines), tmp_path) == []


NAMED = policy(
    "version: 1\nlocations:\n  - {name: site, allow: verified}\n  - {name: free, allow: public}\n"
)


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ("location /app/ { ASK rewrite ^/app/(.*)$ /$1 break; proxy_pass http://app; } "
         "location /status { auth_request /authz/free; proxy_pass http://app; }", []),
        (r"location ~ \.css$ { ASK proxy_pass http://app; } "
         "location /free/ { auth_request /authz/free; proxy_pass http://app; }", []),
        ("location /b/ { ASK ssi on; proxy_pass http://app; } "
         "location /free/ { auth_request /authz/free; root /x; }", []),
        (r"location ~ \.css$ { auth_request /authz/free; proxy_pass http://other; } "
         "location /m/ { ASK proxy_pass http://m; }", []),
        (r"location ~ \.css$ { auth_request /authz/free; proxy_pass http://other; } "
         "location /m/ { ASK proxy_pass http://other; }", ["regex-takes"]),
        (r"location ~ \.css$ { auth_request /authz/free; proxy_pass http://$host; } "
         "location /m/ { ASK proxy_pass http://m; }", ["regex-takes", "target-from-client"]),
        (r"location ~ /\.well-known { auth_request off; allow all; } "
         "location /m/ { ASK proxy_pass http://m; }", []),
        (r"location ~ /\.well-known { auth_request off; error_page 404 @m; } "
         "location @m { proxy_pass http://m; } "
         "location /m/ { ASK proxy_pass http://m; }", ["regex-takes"]),
        (r"location ~ /\.well-known { auth_request off; js_content a; } "
         "location /m/ { ASK proxy_pass http://m; }", ["regex-takes"]),
        (r"location ~ /\.well-known { auth_request off; try_files $uri @m; } "
         "location @m { proxy_pass http://m; } "
         "location /m/ { ASK proxy_pass http://m; }", ["regex-takes"]),
        (r"location ~ \.css$ { auth_request /authz/free; root /x; } "
         "location /m/ { ASK proxy_pass http://m; }", ["regex-takes"]),
        ("location /free/ { auth_request /authz/free; proxy_pass http://app; } "
         "location /m/ { ASK proxy_pass http://m; } location /n/ { auth_request /authz/free; "
         "proxy_pass http://m/; }", ["prefix-replaced"]),
    ],
)  # fmt: skip
def test_what_is_kept(lines: str, expected: list[str], tmp_path: Path) -> None:
    """What the policy says is public is kept from nobody, and another application's pages aren't
    this one's."""
    path = tmp_path / "nginx.conf"
    path.write_text(GOOD.replace(PUBLIC, lines.replace("ASK", ASKING)))
    assert [each.id for each in examine(read_nginx(path), NAMED) if each.id != "never-asked"] == (
        expected
    )


@pytest.mark.parametrize(
    "lines",
    [
        "location /old/ { rewrite ^/old/(.+)$ /new/$1 permanent; }",
        "location /old/ { rewrite ^/old/$ /new/ permanent; }",
        "location /old/ { rewrite ^/old/a(.*)$ /new/$1 permanent; }",
        r"location ~ ^/old/ { rewrite ^/old/(.*)$ /new/$1 permanent; }",
        "location /old/ { if ($arg_a) { rewrite ^/old/(.*)$ /new/$1 permanent; } }",
    ],
)
def test_a_rewrite_that_leaves_something(lines: str, tmp_path: Path) -> None:
    """What it doesn't match is served here, to anybody."""
    assert ("not-asked", 8) in found(GOOD.replace(PUBLIC, lines), tmp_path)


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ("rewrite ^ /index.php last;", "question-rewritten"),
        ("rewrite ^/([a-z]+)/(.*)$ /$2?a=$1;", "question-rewritten"),
        ("if (!-e $request_filename) { rewrite ^ /index.php; }", "question-rewritten"),
        ("if ($http_x) { rewrite (.*) /x$1 break; }", "question-rewritten"),
        (r"rewrite ^/(?>a|b)uthz.*+$ /x;", "question-rewritten"),
        ("rewrite ^([^.]*[^/])$ $1/ permanent;", "question-redirected"),
        ("if ($arg_a = '') { return 200; }", "auth-location-returns"),
        ("error_page 418 = @in; if ($http_a) { return 418; } "
         f"location @in {{ {ASKING} proxy_pass http://app; }}", "auth-location-returns"),
        ("error_page 418 = @in; if ($uri ~ ^/authz/x) { break; } if ($http_a) { return 418; } "
         f"location @in {{ {ASKING} proxy_pass http://app; }}", "auth-location-returns"),
        ("error_page 418 =200 @in; if ($http_a) { return 418; } "
         "location @in { rewrite ^ /x last; }", "auth-location-returns"),
        (f"set $a 1; location /a/ {{ {ASKING} set $a 2; proxy_pass http://app; }}", "set-undone"),
        (
            f"if ($host ~ (?<a>.+)) {{ set $b 1; }} location /a/ {{ {ASKING} set $a 2; }}",
            "set-undone",
        ),
        ("location /img { auth_request off; alias /data/img/; }", "alias-traversal"),
        ("ssl_early_data on;", "early-data"),
        ("error_page 418 = @in; if ($arg_a) { return 418; } "
         "location @in { proxy_pass http://app; }", "return-first"),
        ("location /b/ { auth_request off; add_after_body /in; }", "subrequest"),
        ("location /b/ { auth_request off; echo_subrequest GET /in; }", "subrequest"),
        ("location /b/ { auth_request off; ssi on; root /x; }", "subrequest"),
        ("ssi on; location /b/ { auth_request off; root /x; }", "subrequest"),
        ("location /b/ { auth_request off; if ($arg_a) { ssi on; } root /x; }", "subrequest"),
        ("location /b/ { auth_request off; mirror /m; proxy_pass http://other; } "
         "location = /m { internal; proxy_pass http://app$request_uri; }", "subrequest"),
        (f"location /b/ {{ {ASKING} add_before_body /c/; }} "
         "location /c/ { auth_request /authz/c; proxy_pass http://app; }", "subrequest"),
        ("location /api { auth_request off; proxy_pass http://app/api/; }", "alias-traversal"),
        ("location = /in { internal; proxy_pass http://app$request_uri; } "
         f"location /a/ {{ {ASKING} error_page 401 /in; }}", "denial-passed-on"),
        (
            rf"location /a/ {{ {ASKING} }} location ~ \.php$ {{ auth_request /authz; }}",
            "regex-takes",
        ),
        ("location /in/ { internal; proxy_pass http://app; } "
         f"location /a/ {{ {ASKING} rewrite ^/a/(.*) /in/$1; }}", "rewrite-first"),
    ],
)  # fmt: skip
def test_what_goes_round_the_question(lines: str, expected: str, tmp_path: Path) -> None:
    """Each way is told at its own line."""
    assert (expected, 8) in found(GOOD.replace(PUBLIC, lines), tmp_path)


def test_a_regex_that_names_the_prefix_is_meant(tmp_path: Path) -> None:
    """Who writes `~ ^/admin/.*[.]php$` beside `location /admin/` knows which goes first."""
    for regex in (r"^/a/.*\.php$", r"^/(?:a|b)/x", r"^/b/"):
        lines = f"location /a/ {{ {ASKING} }} location ~ {regex} {{ auth_request /authz/b; }}"
        told = found(GOOD.replace(PUBLIC, lines), tmp_path)
        assert "regex-takes" not in {each for each, _ in told}


def test_a_forgotten_include_is_one_finding(tmp_path: Path) -> None:
    """Many locations ask, and nothing serves the question: the one line that helps, once."""
    more = "".join(
        f"location /{i}/ {{ auth_request /authz/site; proxy_pass http://app; }}\n"
        for i in range(10)
    )
    text = GOOD.replace(AUTH, "").replace(PUBLIC, more)
    path = tmp_path / "nginx.conf"
    path.write_text(text)
    (only,) = examine(read_nginx(path), POLICY)
    assert (only.id, only.write) == (
        "no-auth-location",
        "include snippets/authz-location.conf;",
    )
    # The same where a location that asks nobody would serve it.
    text = text.replace("location / {", "location = /x {").replace(
        more, more + "location / { auth_request off; proxy_pass http://front; }"
    )
    assert [each for each, _ in found(text, tmp_path)] == ["no-auth-location"]


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        (None, {"no-keepalive", "no-http11", "connection-close"}),
        ((1, 29, 6), {"no-keepalive", "no-http11", "connection-close"}),
        ((1, 29, 7), set()),
        ((1, 31, 0), set()),
    ],
)
def test_newer_nginx_keeps_connections_by_default(
    version: tuple[int, ...] | None, expected: set[str], tmp_path: Path
) -> None:
    """From 1.29.7 on, HTTP/1.1 and keep-alive are the default; what says otherwise is told."""
    text = GOOD.replace("keepalive 16;", "").replace("proxy_http_version 1.1;", "")
    text = text.replace('proxy_set_header Connection "";', "")
    path = tmp_path / "nginx.conf"
    path.write_text(text)
    assert {each.id for each in examine(read_nginx(path), POLICY, version)} == expected
    text = GOOD.replace("keepalive 16", "keepalive 0").replace("version 1.1", "version 1.0")
    path.write_text(text.replace('Connection ""', "Connection close"))
    told = {each.id for each in examine(read_nginx(path), POLICY, version)}
    assert told == {"no-keepalive", "no-http11", "connection-close"}


def test_the_version_is_asked_of_nginx(tmp_path: Path) -> None:
    """`nginx -v` of the PATH, or what --nginx-version says; nonsense is exit 2."""
    program = tmp_path / "nginx"
    program.write_text("#!/bin/sh\necho 'nginx version: nginx/1.29.7' >&2\n")
    program.chmod(0o755)
    conf, rules = tmp_path / "nginx.conf", tmp_path / "policy.yaml"
    conf.write_text(GOOD.replace("proxy_http_version 1.1;", ""))
    rules.write_text("version: 1\nlocations:\n  - {name: site, allow: verified}\n")

    def doctor(*more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "sidecar", "doctor", str(conf), "--policy", str(rules), *more],
            cwd=ROOT, env={"PATH": str(tmp_path)}, capture_output=True, text=True, check=False,
        )  # fmt: skip

    assert doctor().returncode == 0
    assert "[no-http11]" in doctor("--nginx-version", "1.22.1").stdout
    done = doctor("--nginx-version", "new")
    assert (done.returncode, "expected three numbers" in done.stderr) == (2, True)
    assert nginx_version("nginx version: nginx/1.22.1 (Ubuntu)") == (1, 22, 1)


def test_a_stream_leads_round_as_well(tmp_path: Path) -> None:
    """A server of stream { } before the application's own address."""
    text = GOOD.replace(
        "http {", "stream { server { listen 1; proxy_pass 127.0.0.1:9; } } http {", 1
    )
    text = text.replace("http://app", "http://localhost:9")
    assert found(text, tmp_path) == [("never-asks", 1)]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        (r"\.php$", None),
        ("^/a|b", None),
        ("^/(?:a|b)/c?", ["/a/", "/b/"]),
        (r"^/a\.b/[x]", ["/a.b/"]),
        (r"\A/ab*", ["/a"]),
        ("^/(a|b)?/", ["/"]),
        ("^(?!x)/a", [""]),
    ],
)
def test_what_a_regex_begins_with(pattern: str, expected: list[str] | None) -> None:
    """The literal beginnings of an anchored expression, alternative by alternative."""
    assert literal_prefixes(pattern) == expected


def test_expressions_are_asked_of_re2_or_python() -> None:
    """Lookarounds and possessive quantifiers too; what neither can read is unknown."""
    assert matches(r"^/(?!authz)", "/authz") is False
    assert matches(r"(?<name>a)\z", "ba") is True
    assert matches("[[:alpha:]]+", "1") is False
    assert matches(r"(*VERB)\K(", "a") is None


def test_thousands_of_servers_are_examined(tmp_path: Path) -> None:
    """What is examined grows with the configuration, not its square, counted in calls."""
    server = (
        "server { listen 443 ssl; location / { auth_request /authz; proxy_pass http://a%d; } }\n"
    )

    def calls(count: int) -> int:
        servers = "".join(server % i for i in range(count))
        text = GOOD.replace("    server {", f"{servers}    server {{", 1)
        made = 0

        def counted(*_: object) -> None:
            nonlocal made
            made += 1

        sys.setprofile(counted)
        try:
            told = found(text.replace(ASKING, "auth_request /authz/site;"), tmp_path)
        finally:
            sys.setprofile(None)
        assert [each for each, _ in told].count("no-auth-location") == count
        return made

    assert calls(800) < 2.2 * calls(400)


@pytest.mark.parametrize(
    "lines",
    [
        "error_page 401 /t; location /t { auth_request off; tunnel_pass; }",
        "location /q { auth_request /ask; root /x; } location = /ask { tunnel_pass; }",
    ],
)
def test_a_directive_needs_no_argument(lines: str, tmp_path: Path) -> None:
    """nginx 1.31 takes `tunnel_pass;` for the address that the client names."""
    assert [each[0] for each in found(GOOD.replace(PUBLIC, lines), tmp_path)] == ["tunnel"]

"""The application gets the method that the sidecar decides about, where rules ask for it."""

from __future__ import annotations

from pathlib import Path

import pytest
from asking import policy
from good_nginx import GOOD

from sidecar.commands.doctor.checks import examine
from sidecar.commands.doctor.nginx_config import read_nginx

HEAD = "version: 1\nlocations:\n  - {name: site, "
READERS = policy(HEAD + "allow: [{cn: alice}, {cn: bob, method: [GET, HEAD]}]}\n")
PREFLIGHT = policy(HEAD + "allow: verified, public_methods: [OPTIONS]}\n")
INBOX = policy(HEAD + "allow: verified, without_certificate: [{method: POST}]}\n")
ANY = policy(HEAD + "allow: verified}\n")
PASS = "location / { auth_request /authz/site; proxy_pass http://app; }"
FPM = "location / { auth_request /authz/site; fastcgi_pass x:9; fastcgi_param "
GUARD = "if ($request_method != OPTIONS) { return 405; }"
TABLES = """http { map $request_method $read { default $request_method; HEAD GET; }
map $request_method $write { default $request_method; PURGE DELETE; OPTIONS DELETE; }
map $http_x_method $told { default $request_method; ~. $http_x_method; }
map $arg_m $listed { default $request_method; head HEAD; }"""


def told(lines: str, rules: object, directory: Path, before: str = "") -> bool:
    conf = directory / "nginx.conf"
    where = PASS.replace("proxy_pass", f"{lines} proxy_pass")
    text = GOOD.replace(PASS, before + (lines if "{" in lines[:12] else where))
    assert text != GOOD
    conf.write_text(text.replace("http {", TABLES, 1))
    return "method-changed" in {each.id for each in examine(read_nginx(conf), rules)}  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("lines", "rules"),
    [
        ("proxy_method $arg_m;", READERS),
        ("proxy_method DELETE;", READERS),
        ("proxy_method GET;", PREFLIGHT),
        ("proxy_method POST;", PREFLIGHT),
        ("proxy_method GET;", INBOX),
        ("proxy_method $told;", READERS),
        ("proxy_method $write;", PREFLIGHT),
        ("set $m $cookie_m; proxy_method $m;", READERS),
        ("set $m PUT; proxy_method $m;", READERS),
        ("if ($args ~ m=(.*)) { set $m $1; } proxy_method $m;", READERS),
        ("proxy_set_header X-HTTP-Method-Override $arg_m;", READERS),
        ("proxy_method $arg_m;", None),
        (FPM + "REQUEST_METHOD $arg_m; }", READERS),
        (FPM + "HTTP_X_HTTP_METHOD_OVERRIDE $http_x_http_method_override; }", READERS),
        ("location / { auth_request /authz/site; try_files /none @app; } location @app { "
         "proxy_method $arg_m; proxy_pass http://app; }", READERS),
    ],
)  # fmt: skip
def test_another_method_is_sent(lines: str, rules: object, tmp_path: Path) -> None:
    """A constant, the client's word, what a `map` makes of either; a preflight made a request."""
    assert told(lines, rules, tmp_path)


@pytest.mark.parametrize(
    ("lines", "rules"),
    [
        ("proxy_method $request_method;", READERS),
        ("proxy_method $arg_m;", ANY),
        ("proxy_method DELETE;", ANY),
        ("proxy_method GET;", READERS),
        ("proxy_method GET;", None),
        ("proxy_method $read;", INBOX),
        ("proxy_method $listed;", READERS),
        ("if ($request_method !~ ^(GET|HEAD)$) { return 405; } proxy_method GET;", PREFLIGHT),
        ("limit_except GET { deny all; } proxy_method GET;", PREFLIGHT),
        ('if ($arg_m !~ "^(HEAD)$") { return 404; } proxy_method $arg_m;', READERS),
        ('proxy_set_header X-HTTP-Method-Override "";', READERS),
        (FPM + "REQUEST_METHOD $request_method; }", READERS),
        ("location / { auth_request /authz/site; proxy_pass http://app; } location /x/ { "
         "auth_request off; proxy_method $arg_m; proxy_pass http://other; }", READERS),
    ],
)  # fmt: skip
def test_it_is_the_same_or_nobody_asks(lines: str, rules: object, tmp_path: Path) -> None:
    """The request's own, GET for HEAD, a list; rules that don't ask; methods that nginx refuses."""
    assert not told(lines, rules, tmp_path)


def test_a_value_of_the_whole_server(tmp_path: Path) -> None:
    """It is told where it stands, once."""
    text = GOOD.replace("listen 443 ssl;", "listen 443 ssl; proxy_method $arg_m;")
    conf = tmp_path / "nginx.conf"
    conf.write_text(text)
    found = [each for each in examine(read_nginx(conf), READERS) if each.id == "method-changed"]
    assert [each.line for each in found] == [4]

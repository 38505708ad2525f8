"""`question-broken`: what a hand-written auth location inherits, or lacks, so that it can't ask."""

from __future__ import annotations

from pathlib import Path

import pytest
from good_nginx import GOOD, found

OWN = "            internal;\n"
TCP = ("server unix:/run/mtls-sidecar/authz.sock;", "server 127.0.0.1:9640;")
ASKING = "location / { auth_request"


def handed(lines: str, *, at: str = "listen 443 ssl;", text: str = GOOD) -> str:
    return text.replace(at, f"{at} {lines}", 1)


@pytest.mark.parametrize("at", ["http {", "listen 443 ssl;", "internal;"])
@pytest.mark.parametrize(
    "line",
    [
        "proxy_method POST;",
        "proxy_method $request_method;",
        "proxy_set_body $request_body;",
        "proxy_bind $remote_addr;",
        "proxy_bind 127.0.0.1;",
    ],
)
def test_what_is_handed_down_is_found(line: str, at: str, tmp_path: Path) -> None:
    """Whatever level it comes from, it is told there, with the snippet that sets it right."""
    told = found(handed(line, at=at), tmp_path)
    assert [each for each, _ in told] == ["question-broken"]


@pytest.mark.parametrize(
    "text",
    [
        GOOD.replace("version 1.1;", "version 2;"),
        GOOD.replace("http://mtls_sidecar;", "https://mtls_sidecar;"),
        GOOD.replace("http://mtls_sidecar;", "https://mtls_sidecar;").replace(*TCP),
        GOOD.replace('proxy_set_header Content-Length "";', ""),
        GOOD.replace('Content-Length ""', "Content-Length 5"),
        handed("proxy_set_header Transfer-Encoding chunked;", at="internal;"),
        handed("client_max_body_size 100m;", at="auth_request /authz/site;"),
        handed("client_max_body_size 0;", at="auth_request /authz/site;"),
        handed("client_max_body_size 1k;", at="internal;"),
        handed("proxy_bind 192.0.2.1;", text=GOOD.replace(*TCP)),
    ],
)
def test_what_can_t_be_asked_is_found(text: str, tmp_path: Path) -> None:
    """A protocol the sidecar doesn't speak, a body that isn't sent, a limit below the uploads'."""
    assert "question-broken" in {each for each, _ in found(text, tmp_path)}


@pytest.mark.parametrize(
    "text",
    [
        handed("proxy_method POST;", text=handed("proxy_method GET;", at="internal;")),
        handed("proxy_set_body x;", text=handed('proxy_set_body "";', at="internal;")),
        handed("proxy_bind $remote_addr;", text=handed("proxy_bind off;", at="internal;")),
        handed("proxy_bind 127.0.0.1;", text=GOOD.replace(*TCP)),
        handed("proxy_bind 192.0.2.1;", text=GOOD.replace(TCP[0], "server 192.0.2.9:9640;")),
        handed("client_max_body_size 100m;"),
        handed("client_max_body_size 1k;", text=handed("client_max_body_size 0;", at="internal;")),
        handed("proxy_next_upstream http_403;"),
        GOOD.replace('proxy_set_header Content-Length "";', 'proxy_set_body "";'),
    ],
)
def test_what_can_be_asked_is_silent(text: str, tmp_path: Path) -> None:
    """The location's own line goes before, and what both have is the same."""
    assert found(text, tmp_path) == []


def test_a_denial_that_another_instance_is_asked_about(tmp_path: Path) -> None:
    """With more than one sidecar in the upstream, `http_403` asks the next one."""
    several = GOOD.replace("authz.sock;", "authz.sock; server unix:/run/mtls-sidecar/b.sock;")
    told = found(handed("proxy_next_upstream error http_403;", text=several), tmp_path)
    assert told == [("denial-retried", 4)]
    assert found(handed("proxy_next_upstream error;", text=several), tmp_path) == []


@pytest.mark.parametrize(
    ("location", "target", "expected"),
    [
        ("~ ^/authz/(.*)$", "http://mtls_sidecar/authz/$1", []),
        ("~ ^/authz/(?<name>.*)$", "http://mtls_sidecar/authz/${name}", []),
        ("^~ /authz/", "http://mtls_sidecar$uri", []),
        ("^~ /authz/", "http://mtls_sidecar/authz/$asked", []),
        ("^~ /authz/", "$sidecar", []),
        ("^~ /authz/", "$sidecar/authz/site", []),
        ("^~ /authz/", "http://mtls_sidecar/authz/$unknown", []),
        ("^~ /authz/", "http://mtls_sidecar/authz/$wrong", ["never-asked", "unknown-name"]),
        ("~ ^/authz/(.*)$", "http://mtls_sidecar/$1", ["never-asked", "wrong-uri"]),
    ],
)
def test_a_name_by_variables(
    location: str, target: str, expected: list[str], tmp_path: Path
) -> None:
    """What a `set`, a capture or the URI gives is followed; where it can't be told, none is
    called never asked about."""
    text = GOOD.replace("^~ /authz/", location).replace("http://mtls_sidecar;", f"{target};")
    text = text.replace("listen 443", "set $sidecar http://mtls_sidecar; listen 443")
    text = text.replace(
        ASKING, f"{ASKING.removesuffix('auth_request')} set $asked site; auth_request"
    )
    text = text.replace("set $asked", "set $wrong x; set $asked")
    ids = {each for each, _ in found(text, tmp_path)} - {"no-keepalive", "set-undone"}
    assert sorted(ids) == expected

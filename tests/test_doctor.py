"""`doctor`: silent on every example, and each hole found with its line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from asking import policy
from daemon import ROOT
from stack import EXAMPLES, Stack
from tools import Missing, NginxBinary, nginx_binaries

from sidecar.core.policy import compile_policy
from sidecar.files import DirectSources
from sidecar.tools.doctor import Doctor, read_nginx

VARIANTS = sorted(EXAMPLES.glob("variants/*.conf"))
# The DMZ's edge is stream { }: nobody is asked there, and doctor has nothing to look at.
SITES = {
    "nginx.conf": ["nginx.conf"],
    "variants": [f"variants/{p.name}" for p in VARIANTS if not p.name.startswith("dmz-edge")],
}

GOOD = """\
http {
    upstream mtls_sidecar { server unix:/run/mtls-sidecar/authz.sock; keepalive 16; }
    server {
        listen 443 ssl;
        ssl_client_certificate ca.crt;
        ssl_verify_client optional;
        location / { auth_request /authz/site; proxy_pass http://app; }
        location /public/ { auth_request off; }
        location /static/ { deny all; }
        location ^~ /authz/ {
            internal;
            proxy_pass http://mtls_sidecar;
            proxy_http_version 1.1;
            proxy_pass_request_headers off;
            proxy_pass_request_body off;
            proxy_set_header Host $host;
            proxy_set_header SSL-Client-Verify $ssl_client_verify;
            proxy_set_header SSL-Client-Cert $ssl_client_escaped_cert;
            proxy_set_header SSL-Server-Name $ssl_server_name;
            proxy_set_header X-Original-URI $request_uri;
            proxy_set_header X-Original-Method $request_method;
            proxy_set_header X-Real-IP $remote_addr;
            proxy_set_header X-Request-ID $request_id;
        }
    }
}
"""
POLICY = policy("version: 1\nlocations:\n  - {name: site, allow: verified}\n")


def found(text: str, directory: Path) -> list[tuple[str, int]]:
    path = directory / "nginx.conf"
    path.write_text(text)
    return [(each.id, each.line) for each in Doctor(read_nginx(path), POLICY).examine()]


@pytest.mark.parametrize("site", sorted(SITES))
def test_silent_on_the_examples(site: str, tmp_path: Path) -> None:
    """The examples, with the very policy they are tested with, have nothing to mend."""
    binary = next(b for b in nginx_binaries() if not isinstance(b, Missing))
    assert isinstance(binary, NginxBinary)
    with Stack(binary, tmp_path, sites=SITES[site]) as stack:
        place = stack.daemon.policy
        sources = DirectSources(place.parent, tmp_path)
        rules = compile_policy(place.read_bytes(), str(place), sources)
        findings = Doctor(read_nginx(stack.nginx.conf), rules).examine()
    # The variants extend nginx.conf's policy, some of whose locations only nginx.conf asks about.
    more = "never-asked" if site == "variants" else ""
    assert [each for each in findings if each.id != more] == []


def test_silent_on_a_good_configuration(tmp_path: Path) -> None:
    """The least that is right is silent."""
    assert found(GOOD, tmp_path) == []


@pytest.mark.parametrize(
    ("old", "new", "expected", "line"),
    [
        ("auth_request off;", "", "not-asked", 8),
        ("auth_request /authz/site;", "auth_request /authz/site; return 200;", "return-first", 7),
        ("auth_request /authz/site;", "auth_request /authz/site; satisfy any;", "satisfy-any", 7),
        ("proxy_pass http://app;", "if ($args) { return 200; }", "return-first", 7),
        ("            internal;\n", "internal; return 204;\n", "auth-location-returns", 11),
        ("deny all;", "allow 10.0.0.0/8; deny all;", "not-asked", 9),
        ("/static/ { deny all; }", "/authz-admin/ { root /x; }", "not-asked", 9),
        ("auth_request /authz/site;", "auth_request /authz/other;", "unknown-name", 7),
        ("auth_request /authz/site;", "auth_request /elsewhere;", "no-auth-location", 7),
        ("            internal;\n", "\n", "not-internal", 10),
        ("ssl_verify_client optional;", "", "no-verify", 3),
        ("ssl_client_certificate ca.crt;", "", "no-ca", 3),
        ("optional;", "optional_no_ca;", "no-ca-no-trust", 3),
        ("proxy_pass_request_headers off;", "", "proxy-pass-request-headers", 10),
        ("proxy_pass_request_body off;", "", "proxy-pass-request-body", 10),
        ("proxy_http_version 1.1;", "", "no-http11", 10),
        ("keepalive 16;", "", "no-keepalive", 2),
        ("$ssl_client_escaped_cert", "$ssl_client_cert", "header-wrong", 18),
        ("Host $host;", "Host $http_host;", "header-wrong", 16),
        ("proxy_set_header X-Real-IP $remote_addr;", "", "header-missing", 10),
        ("internal;", "internal; proxy_cache c; proxy_cache_key $uri$host;", "cache-key", 11),
        ("listen 443 ssl;", "listen 443 ssl; error_page 502 =200 /x;", "error-page-open", 4),
    ],
)
def test_each_hole_is_found(old: str, new: str, expected: str, line: int, tmp_path: Path) -> None:
    """One thing wrong is one finding, at its line."""
    assert old in GOOD
    assert (expected, line) in found(GOOD.replace(old, new), tmp_path)


def test_a_name_that_nginx_never_asks_for(tmp_path: Path) -> None:
    """The policy's location that no auth_request names is told, but not one chosen by URI."""
    rules = policy(
        "version: 1\nlocations:\n  - {name: left, allow: []}\n"
        "  - {name: site, location: /, allow: verified}\n"
    )
    text = GOOD.replace("/authz/site;", "/authz;").replace("location ^~ /authz/", "location /authz")
    (tmp_path / "nginx.conf").write_text(text)
    told = Doctor(read_nginx(tmp_path / "nginx.conf"), rules).examine()
    assert [(each.id, "'left'" in each.what) for each in told] == [("never-asked", True)]


def test_a_socket_that_nginx_may_not_open(tmp_path: Path) -> None:
    """The socket's mode and group are held against nginx's `user`."""
    path = tmp_path / "authz.sock"
    path.touch()
    text = "user daemon;\n" + GOOD.replace("/run/mtls-sidecar/authz.sock", str(path))
    path.chmod(0o600)
    assert found(text, tmp_path) == [("socket-closed", 3)]
    path.chmod(0o666)
    assert found(text, tmp_path) == []


def test_a_location_with_a_header_of_its_own_inherits_none(tmp_path: Path) -> None:
    """Control headers set in the server are lost where the auth location sets one itself."""
    headers = [line for line in GOOD.splitlines() if "proxy_set_header" in line]
    text = GOOD
    for each in headers:
        text = text.replace(each + "\n", "")
    text = text.replace("        listen 443", "\n".join(headers) + "\n        listen 443")
    assert found(text, tmp_path) == []
    text = text.replace("internal;", 'internal; proxy_set_header Connection "";')
    assert {each for each, _ in found(text, tmp_path)} == {"header-missing"}


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "sidecar", "doctor", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_command(tmp_path: Path) -> None:
    """Exit 0 and a word, 1 with findings (also as JSON), 2 where it can't be read."""
    rules = tmp_path / "policy.yaml"
    rules.write_text("version: 1\nlocations:\n  - {name: site, allow: verified}\n")
    conf = tmp_path / "nginx.conf"
    conf.write_text(GOOD)
    done = run(str(conf), "--policy", str(rules))
    assert (done.returncode, "nothing to mend" in done.stdout) == (0, True), done.stderr
    conf.write_text(GOOD.replace("            internal;\n", ""))
    done = run(str(conf), "--policy", str(rules))
    assert done.returncode == 1
    assert f"{conf}:10: [not-internal]" in done.stdout
    told = json.loads(run(str(conf), "--policy", str(rules), "--json").stdout)
    assert told[0]["id"] == "not-internal"
    assert {"file", "line", "what", "write"} <= told[0].keys()
    conf.write_text(GOOD)
    rules.write_text("version: 1\n")
    done = run(str(conf), "--policy", str(rules))
    assert (done.returncode, "broken-policy" in done.stdout) == (1, True)
    conf.write_text("http {")
    assert run(str(conf), "--policy", str(rules)).returncode == 2
    assert run(str(tmp_path / "none.conf")).returncode == 2

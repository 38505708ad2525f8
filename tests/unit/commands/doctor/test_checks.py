"""`doctor`: silent on every example, and each hole found with its line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from asking import policy
from daemon import ROOT
from good_nginx import GOOD, GUARD, ORIGIN, POLICY, found
from nginx import Nginx, free_port
from pki import CA
from stack import EXAMPLES, Stack
from tools import Missing, NginxBinary, nginx_binaries

from sidecar.commands.doctor.checks import examine
from sidecar.commands.doctor.nginx_config import read_dump, read_nginx
from sidecar.core.policy.compile import compile_policy
from sidecar.runtime.direct_sources import DirectSources

VARIANTS = sorted(EXAMPLES.glob("variants/*.conf"))
# The DMZ's edge is stream { }: nobody is asked there, and doctor has nothing to look at.
SITES = {
    "nginx.conf": ["nginx.conf"],
    "variants": [f"variants/{p.name}" for p in VARIANTS if not p.name.startswith("dmz-edge")],
}

CACHE = (
    "proxy_cache c; proxy_cache_key $ssl_client_verify$ssl_client_escaped_cert$host"
    "$mtls_sidecar_sni$http_origin$http_sec_fetch_site$http_sec_fetch_mode$http_sec_fetch_dest"
    "$mtls_sidecar_origin_port$uri;"
)
PASS = "proxy_pass http://app;"
HOST = "proxy_set_header Host $host;"
REFUSED = "auth_request /authz/site; error_page 403 = @in;"
IN = "location @in { auth_request off; proxy_pass http://app; }"
UWSGI = "auth_request /authz/site; uwsgi_pass 127.0.0.1:9000; }"
CLAIMED = "proxy_set_header X-Client-CN $http_x_client_cn;"


@pytest.mark.parametrize("site", sorted(SITES))
def test_silent_on_the_examples(site: str, tmp_path: Path) -> None:
    """The examples, with the very policy they are tested with, have nothing to mend."""
    binary = next(b for b in nginx_binaries() if not isinstance(b, Missing))
    assert isinstance(binary, NginxBinary)
    with Stack(binary, tmp_path, sites=SITES[site]) as stack:
        place = stack.daemon.policy
        sources = DirectSources(place.parent, tmp_path)
        rules = compile_policy(place.read_bytes(), str(place), sources)
        findings = examine(read_nginx(stack.nginx.conf), rules)
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
        ("/authz/site;", "/authz/site; satisfy any; allow all;", "satisfy-any", 7),
        ("/authz/site;", "/authz/site; satisfy ANY; allow all;", "satisfy-any", 7),
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
        ("$ssl_client_escaped_cert", "$ssl_client_cert", "header-wrong", 19),
        ("Host $host;", "Host $http_host;", "header-wrong", 17),
        ("proxy_set_header X-Real-IP $remote_addr;", "", "header-missing", 10),
        ("internal;", "internal; proxy_cache c; proxy_cache_key $uri$host;", "cache-key", 11),
        ("listen 443 ssl;", "listen 443 ssl; error_page 502 =200 /x;", "error-page-open", 4),
        ("http://mtls_sidecar;", "http://mtls_sidecar/;", "wrong-uri", 12),
        ("http://mtls_sidecar;", "http://mtls_sidecar/authz/x-;", "unknown-name", 7),
        ("Host $host;", "Host $host; proxy_set_header HOST $host;", "header-twice", 17),
        ('proxy_set_header Connection "";', "", "connection-close", 10),
        ("internal;", f"internal; {CACHE} proxy_cache_use_stale error;", "cache-stale", 11),
        ("internal;", f"internal; {CACHE} proxy_ignore_headers Expires;", "cache-longer", 11),
        ("/authz/site;", "/authz/site; error_page 403 /no.html;", "error-page-asks", 7),
        ("auth_request off; }", f"{REFUSED} }} {IN}", "denial-passed-on", 8),
        ("auth_request off;", f"auth_request off; {HOST} {PASS}", "identity-lost", 8),
        ("listen 443", "underscores_in_headers on; listen 443", "identity-lost", 7),
        ("listen 443", "underscores_in_headers On; listen 443", "identity-lost", 7),
        ("listen 443", "ssl_early_data ON; listen 443", "early-data", 4),
        ("auth_request off;", f"{UWSGI} location /w/ {{ auth_request off;", "identity-lost", 8),
        ("auth_request off;", f"auth_request off; {CLAIMED} {PASS}", "identity-from-client", 8),
        ("    server {", f"server {{ location / {{ {PASS} }} }} server {{", "never-asks", 3),
    ],
)
def test_each_hole_is_found(old: str, new: str, expected: str, line: int, tmp_path: Path) -> None:
    """One thing wrong is one finding, at its line."""
    assert old in GOOD
    assert (expected, line) in found(GOOD.replace(old, new), tmp_path)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("ssl_client_certificate ca.crt;", "ssl_trusted_certificate ca.crt;"),
        ("^~ /authz/", "~ ^/authz/"),
        ("deny all;", "internal; root /x;"),
        ("deny all;", "return 301 https://example.com/;"),
        ("/authz/site;", "/authz/site; error_page 403 @no; "),
        ("/authz/site;", "/authz/site; satisfy all;"),
        ("Host $host;", "Host ${host};"),
        ("internal;", f"internal; {CACHE}"),
        ("    server {", "server { listen 80; return 301 https://$host$request_uri; } server {"),
        ("    server {", f"server {{ auth_request off; location / {{ {PASS} }} }} server {{"),
    ],
)
def test_what_is_right_is_silent(old: str, new: str, tmp_path: Path) -> None:
    """Other ways to write it that are as good are not found fault with."""
    assert old in GOOD
    assert found(GOOD.replace(old, new, 1), tmp_path) == []


def test_the_question_s_uri_may_be_rewritten(tmp_path: Path) -> None:
    """A `proxy_pass` with a URI that ends at a name of the policy is as good as the plain one."""
    text = GOOD.replace("auth_request /authz/site;", "auth_request /ask;")
    text = text.replace("location ^~ /authz/", "location = /ask")
    assert found(text, tmp_path) == [("never-asked", 0), ("wrong-uri", 12)]
    text = text.replace("http://mtls_sidecar;", "http://mtls_sidecar/authz/site;")
    assert found(text, tmp_path) == []


def test_http3_asks_for_a_certificate_too(tmp_path: Path) -> None:
    """A server of HTTP/3 without ssl_verify_client is found like one of TLS."""
    text = GOOD.replace("listen 443 ssl;", "listen 443 quic;").replace("ssl_verify_client", "#")
    assert ("no-verify", 3) in found(text, tmp_path)


def test_servers_that_share_sessions_and_not_their_cas(tmp_path: Path) -> None:
    """Two CAs on one port, and a policy that names no trust: the issuer is asked by nobody."""
    server = GOOD[GOOD.index("    server {") : GOOD.rindex("}")]
    text = GOOD.replace(server, server + server.replace("ca.crt", "other.crt"))
    assert [each for each, _ in found(text, tmp_path)] == ["session-shared"]
    same = GOOD.replace(server, server + server)
    assert found(same, tmp_path) == []


@pytest.mark.parametrize("binary", [b for b in nginx_binaries() if isinstance(b, NginxBinary)])
def test_what_nginx_prints_of_itself(binary: NginxBinary, tmp_path: Path) -> None:
    """`nginx -T | mtls-sidecar doctor -` finds the same, under the names and lines of the files."""
    parts = tmp_path / "parts"
    parts.mkdir()
    start, end = GOOD.index("        location ^~"), GOOD.rindex("    }")
    (parts / "authz.conf").write_text("# how\n" + GOOD[start:end].replace("internal;", ""))
    text = GOOD[:start] + f"include {parts}/*.conf;\n" + GOOD[end:]
    text = text.replace("server unix:/run/mtls-sidecar/authz.sock", "server 127.0.0.1:1")
    text = text.replace("http://app", "http://127.0.0.1:2")
    text = text.replace("listen 443 ssl", f"listen 127.0.0.1:{free_port()}")
    (tmp_path / "ca.crt").write_bytes(CA().pem)
    text = text.replace("ca.crt;", f"{tmp_path}/ca.crt;")
    nginx = Nginx(binary, text, tmp_path / "nginx")
    assert nginx.test().returncode == 0, nginx.test().stderr
    printed = binary.run("-T", "-p", str(nginx.directory), "-c", str(nginx.conf)).stdout
    told = [(each.id, each.file, each.line) for each in examine(read_dump(printed), POLICY)]
    assert told == [("not-internal", str(parts / "authz.conf"), 2)]
    assert told == [
        (each.id, each.file, each.line) for each in examine(read_nginx(nginx.conf), POLICY)
    ]


def test_a_name_that_nginx_never_asks_for(tmp_path: Path) -> None:
    """The policy's location that no auth_request names is told, but not one chosen by URI."""
    rules = policy(
        "version: 1\nlocations:\n  - {name: left, allow: []}\n"
        "  - {name: site, location: /, allow: verified}\n"
    )
    text = GOOD.replace("/authz/site;", "/authz;").replace("location ^~ /authz/", "location /authz")
    (tmp_path / "nginx.conf").write_text(text)
    told = examine(read_nginx(tmp_path / "nginx.conf"), rules)
    assert [(each.id, "'left'" in each.what) for each in told] == [("never-asked", True)]


def test_a_socket_that_nginx_may_not_open(tmp_path: Path) -> None:
    """The socket's mode and group are held against nginx's `user`."""
    path = tmp_path / "authz.sock"
    path.touch()
    text = "user daemon;\n" + GOOD.replace("/run/mtls-sidecar/authz.sock", str(path))
    path.chmod(0o600)
    assert found(text, tmp_path) == [("socket-closed", 3)]
    (told,) = examine(read_nginx(tmp_path / "nginx.conf"), None)
    assert "nginx's user daemon may not open" in told.what
    assert told.write.startswith("SocketGroup=daemon ")
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
    assert {each for each, _ in found(text, tmp_path)} == {
        "header-missing",
        "origin-missing",
        "question-broken",
    }


def test_what_same_origin_asks_about(tmp_path: Path) -> None:
    """A header of it that isn't sent, or is nginx's own word, is found where a location asks."""
    for each in ORIGIN.split("; "):
        line = each.removesuffix(";") + ";"
        assert found(GOOD.replace(line, ""), tmp_path) == [("origin-missing", 10)]
        assert found(GOOD.replace(line, line * 2), tmp_path) == [("header-twice", 23)]
    site, origin = "Sec-Fetch-Site $http_sec_fetch_site", "Origin $http_origin"
    port = "$mtls_sidecar_origin_port;"
    for old, new in (
        (site, "Sec-Fetch-Site same-origin"),
        (site, site + "s"),
        (origin, "Origin https://$host"),
        (origin, "Origin $scheme://$http_host"),
        (port, "$remote_port;"),
        (port, "$server_port;"),
    ):
        assert found(GOOD.replace(old, new), tmp_path) == [("origin-missing", 23)]
    mapped = GOOD.replace("http {", "http { map $http_origin $asked { default $http_origin; }")
    assert found(mapped.replace(origin, "Origin ${asked}"), tmp_path) == []
    (tmp_path / "nginx.conf").write_text(GOOD.replace(ORIGIN, ""))
    for location in ("allow: verified, same_origin: false", "allow: public"):
        rules = policy(f"version: 1\nlocations:\n  - {{name: site, {location}}}\n")
        assert examine(read_nginx(tmp_path / "nginx.conf"), rules) == []
    (told,) = examine(read_nginx(tmp_path / "nginx.conf"), None)
    assert told.what.startswith("Origin, Sec-Fetch-Site, Sec-Fetch-Mode, Sec-Fetch-Dest, X-")


LEADS_IN = "location /in/ { auth_request /authz/site; proxy_pass http://app; }"


@pytest.mark.parametrize(
    ("expected", "here", "there"),
    [
        (
            "slashes-kept",
            "merge_slashes off; location / { auth_request off; proxy_pass http://app; }",
            LEADS_IN,
        ),
        ("regex-takes", LEADS_IN.replace("/in/", r"~ \.a$"), LEADS_IN.replace("site", "other")),
        (
            "set-undone",
            "location /in/ { auth_request /question; set $a 1; proxy_pass http://app$a; }",
            "location = /question { internal; set $a 2; proxy_pass http://mtls_sidecar/authz/x; }",
        ),
        (
            "dots-passed-on",
            "location /p/ { auth_request off; proxy_pass http://app; }",
            LEADS_IN,
        ),
        (
            "prefix-replaced",
            "location /p/ { auth_request off; proxy_pass http://app/; }",
            LEADS_IN,
        ),
        (
            "identity-from-client",
            CLAIMED,
            f"{LEADS_IN} location /ok/ {{ proxy_set_header X-Client-CN $cn; {PASS} }}",
        ),
    ],
)
def test_another_line_is_named_with_its_file(
    expected: str, here: str, there: str, tmp_path: Path
) -> None:
    """What a finding tells of another directive is where that stands, behind an include, too."""
    (tmp_path / "there.conf").write_text("\n" * 70 + there)
    text = GOOD.replace("location / { auth_request /authz/site;", "location /no/ { deny all;")
    text = text.replace(GUARD, "").replace("proxy_set_header X-Client-CN $cn;", "")
    path = tmp_path / "nginx.conf"
    path.write_text(text.replace("location /public/", f"{here} include there.conf; location /q/"))
    told = [each.what for each in examine(read_nginx(path), POLICY) if each.id == expected]
    assert told
    assert all(f"line 71 of {tmp_path / 'there.conf'}" in what for what in told)


def run(*arguments: str, given: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "sidecar", "doctor", *arguments],
        cwd=ROOT,
        input=given,
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
    assert {"file", "line", "what", "why", "write"} <= told[0].keys()
    assert told[0]["severity"] == "open"
    conf.write_text(GOOD)
    rules.write_text("version: 1\n")
    done = run(str(conf), "--policy", str(rules))
    assert (done.returncode, "broken-policy" in done.stdout) == (1, True)
    conf.write_text("http {")
    assert run(str(conf), "--policy", str(rules)).returncode == 2
    assert run(str(tmp_path / "none.conf")).returncode == 2
    done = run("-", given="http {}\n")
    assert (done.returncode, "nginx -T" in done.stderr) == (2, True)
    dump = f"# configuration file {conf}:\n{GOOD}\n"
    rules.write_text("version: 1\nlocations:\n  - {name: site, allow: verified}\n")
    assert run("-", "--policy", str(rules), given=dump).returncode == 0


def test_a_configuration_in_which_nobody_asks(tmp_path: Path) -> None:
    """A forgotten `auth_request` everywhere is no configuration without mistakes."""
    place = tmp_path / "nginx.conf"
    place.write_text("events {} http { server { listen 443 ssl; location / { root /srv; } } }")
    (told,) = examine(read_nginx(place), POLICY)
    assert (told.id, told.file) == ("never-asked", str(place))

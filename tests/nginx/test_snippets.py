"""snippets/authz-location.conf holds in a server that has everything set against it."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from https import Connection
from stack import EXAMPLES, Stack, example
from tools import NginxBinary

from sidecar.commands.doctor.checks import examine
from sidecar.commands.doctor.nginx_config import read_nginx

HOSTILE = """
http {
    proxy_cache_path /var/cache/nginx/site keys_zone=site:1m;
    proxy_cache site;
    proxy_cache_valid any 10m;
    proxy_ignore_headers Cache-Control Expires X-Accel-Expires;
    proxy_intercept_errors on;
    proxy_method POST;
    proxy_set_body $http_x_body;
    underscores_in_headers on;
    log_format why "$request_uri $auth_reason"; access_log why.log why;
    include snippets/mtls-sidecar.conf;
    upstream app { server 127.0.0.1:8080; }
    server {
        listen 443 ssl;
        ssl_certificate pki/server.crt;
        ssl_certificate_key pki/server.key;
        ssl_client_certificate pki/client-cas.crt;
        ssl_verify_client optional;
        error_page 401 403 404 500 502 503 504 =200 /sorry;
        location = /sorry { return 200 "sorry"; }
        location ~ ^/authz { return 200 "wrong"; }
        include snippets/authz-location.conf;
        include snippets/identity.conf;
        location / { auth_request /authz/site; proxy_pass http://app; }
    }
}
"""


REFUSED = """
http {
    include snippets/mtls-sidecar.conf;
    include snippets/mtls-sidecar-cache.conf;
    upstream app { server 127.0.0.1:8080; }
    ssl_certificate pki/server.crt;
    ssl_certificate_key pki/server.key;
    ssl_client_certificate pki/client-cas.crt;
    ssl_verify_client optional;
    auth_request /authz/site;
    server {
        listen 443 ssl;
        include snippets/FIRST;
        include snippets/SECOND;
        error_page 400 = @app;
        location / { proxy_pass http://app; }
        location @app { proxy_pass http://app; }
    }
}
"""


@pytest.fixture(scope="module")
def hostile(nginx_binary: NginxBinary, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with Stack(nginx_binary, tmp_path_factory.mktemp("hostile"), conf=HOSTILE) as found:
        yield found


def test_an_error_page_of_the_server_lets_nobody_in(hostile: Stack) -> None:
    """`error_page … =200` and `proxy_intercept_errors on` stay outside of the auth location."""
    answer = hostile.get("/a")
    assert (answer.status, answer.body) == (200, "sorry")
    assert hostile.get("/a", cert=hostile.people.partner).body == "sorry"


@pytest.mark.parametrize(
    ("first", "second"), [("authz-location", "identity"), ("identity", "authz-location-cached")]
)
def test_a_page_for_what_is_refused_lets_nobody_in(
    nginx_binary: NginxBinary, tmp_path: Path, first: str, second: str
) -> None:
    """`error_page 400 = @app`: what the server refuses leads there, and the question about it
    goes to the sidecar nevertheless, and not to the application."""
    conf = REFUSED.replace("FIRST", f"{first}.conf").replace("SECOND", f"{second}.conf")
    with Stack(nginx_binary, tmp_path, conf=conf) as stack:
        for path, host in (("/a/../b", "app.example.com"), ("/c", "x@app.example.com")):
            assert stack.get(path, host=host, sni="app.example.com").status == 401
            assert stack.app.seen == []
        assert stack.get("/a/../b", cert=stack.people.alice).app
        assert stack.app.seen == ["GET /a/../b"]
        ids = {each.id for each in examine(read_nginx(stack.nginx.conf), None)}
    assert ids.isdisjoint({"auth-location-returns", "dots-passed-on", "question-redirected"})


def test_the_log_may_name_the_reason(hostile: Stack) -> None:
    """A log_format with $auth_reason has the reason where identity.conf is included, and is no
    mistake where it isn't."""
    hostile.get("/why", cert=hostile.people.partner)
    log = hostile.nginx.directory / "why.log"
    hostile.daemon.until(lambda: "/why untrusted_issuer\n" in log.read_text())
    without = hostile.nginx.conf.read_text().replace("include snippets/identity.conf;", "")
    assert without != hostile.nginx.conf.read_text()
    other = hostile.nginx.directory / "without.conf"
    other.write_text(without)
    arguments = ["-t", "-p", f"{hostile.nginx.directory}/", "-c", str(other)]
    done = hostile.nginx.binary.run(*arguments)
    assert done.returncode == 0, done.stderr


def test_a_cache_of_the_server_remembers_no_decision(hostile: Stack) -> None:
    """Alice's answer is not the next one's, though the server caches everything it proxies."""
    assert hostile.get("/b", cert=hostile.people.alice).app
    assert hostile.get("/b").body == "sorry"
    assert hostile.get("/b", cert=hostile.people.alice).app


def test_headers_with_underscores_do_not_reach_the_sidecar(hostile: Stack) -> None:
    """SSL_Client_Verify of the client, which nginx passes on here, is not nginx's."""
    forged = {
        "SSL_Client_Verify": "SUCCESS",
        "SSL_Client_Cert": hostile.people.alice.escaped.decode(),
    }
    assert hostile.get("/c", headers=forged).body == "sorry"
    both = hostile.get("/c", cert=hostile.people.alice, headers=forged)
    assert both.app


def test_a_body_of_the_server_does_not_reach_the_sidecar(hostile: Stack) -> None:
    """`proxy_set_body` in http { }: what the client puts there is no second question."""
    with hostile.connect(cert=hostile.people.alice) as connection:
        for _ in range(4):
            assert connection.get("/d", headers={"X-Body": "GET /authz/none HTTP/1.1"}).app


def test_without_a_sidecar_nobody_gets_in(nginx_binary: NginxBinary, tmp_path: Path) -> None:
    """The sidecar is down: 500, and never the application, whatever error pages there are."""
    with Stack(nginx_binary, tmp_path / "plain") as stack:
        stack.daemon.stop()
        assert stack.get("/admin/", cert=stack.people.alice).status == 500
        assert stack.get("/public/").status == 200
        stack.daemon.start()
        assert stack.get("/admin/", cert=stack.people.alice).status == 200
    with Stack(nginx_binary, tmp_path / "hostile", conf=HOSTILE) as stack:
        stack.daemon.stop()
        assert stack.get("/", cert=stack.people.alice).body == "sorry"


@pytest.mark.parametrize("line", ["error_page 599 /authz/;", "proxy_cache off;"])
def test_the_lines_against_inheritance_are_needed(
    nginx_binary: NginxBinary, tmp_path: Path, line: str
) -> None:
    """Without that line of the snippet, nginx lets a client in whom nobody allowed."""
    with Stack(nginx_binary, tmp_path, conf=HOSTILE) as stack:
        snippets = stack.directory / "nginx/snippets"
        for name in ("authz-location.conf", "authz-request.conf"):
            text = (snippets / name).read_text()
            (snippets / name).write_text(text.replace(line, ""))
        stack.nginx.reload()
        stack.get("/", cert=stack.people.alice)
        if "error_page" in line:
            stack.daemon.stop()
        assert stack.get("/").app


REDIRECTS = """
        set $client_cn alice;
        set $client_role admin;
        location /rewrite/ { auth_request off; set $client_cn alice; rewrite ^ /in last; }
        location /try/ { auth_request off; set $client_cn alice; try_files /none /in; }
        location /page/ { auth_request off; set $client_cn alice;
                          error_page 404 = /in; return 404; }
        location /named/ { auth_request off; set $client_cn alice;
                           error_page 404 = @in; return 404; }
        location @in { auth_request /authz/site; proxy_pass http://app; }
        location /moved/ { auth_request /authz/site; proxy_pass http://app/status/404;
                           proxy_intercept_errors on; error_page 404 = /admin/; }
        location /admin/ { auth_request /authz/admin; proxy_pass http://app; }
"""


def test_no_internal_redirect_goes_round_the_question(
    nginx_binary: NginxBinary, tmp_path: Path
) -> None:
    """Wherever nginx sends a request on to, it asks there, and what was `set` before is forgotten.

    So nobody brings along a name that another location gave him, nor another location's answer.
    """
    conf = HOSTILE.replace("        location / {", REDIRECTS + "        location / {")
    conf = conf.replace("proxy_intercept_errors on;\n    proxy_method", "proxy_method")
    conf = re.sub("        error_page 401 .*\n", "", conf)
    with Stack(nginx_binary, tmp_path, conf=conf) as stack:
        for place in ("/rewrite/", "/try/", "/page/", "/named/"):
            assert stack.get(place).status in (401, 404), place
            bob = stack.get(place, cert=stack.people.bob)
            assert (bob.status, bob.saw("X-Client-CN")) == (200, ["bob"]), place
            assert bob.saw("X-Client-Role") == [], place
        assert stack.get("/moved/", cert=stack.people.bob).app is None
        assert stack.get("/moved/", cert=stack.people.alice).saw("X-Client-CN") == ["alice"]


def test_the_snippets_send_what_the_contract_says() -> None:
    """Every header that the sidecar reads is set from a variable that carries no line end.

    The one that comes from the ClientHello is the last, so that it could only end the question."""
    text = example("snippets/authz-request.conf")
    sent = re.findall(r"proxy_set_header (\S+) (\S*\$\S+);", text)
    assert sent[-1][0] == "SSL-Server-Name"
    assert dict(sent) == {
        "Host": "$host",
        "SSL-Client-Verify": "$ssl_client_verify",
        "SSL-Client-Cert": "$ssl_client_escaped_cert",
        "SSL-Server-Name": "$mtls_sidecar_sni",
        "X-Original-URI": "$request_uri",
        "X-Original-Method": "$request_method",
        "X-Real-IP": "$remote_addr",
        "X-Request-ID": "$request_id",
        "Origin": "$http_origin",
        "Sec-Fetch-Site": "$http_sec_fetch_site",
        "Sec-Fetch-Mode": "$http_sec_fetch_mode",
        "Sec-Fetch-Dest": "$http_sec_fetch_dest",
        "X-Original-Port": "$mtls_sidecar_origin_port",
    }


NAMELESS = """
http {
    include snippets/mtls-sidecar.conf;
    upstream app { server 127.0.0.1:8080; }
    server {
        listen 80;
        include snippets/authz-location.conf;
        include snippets/identity.conf;
        location / { auth_request /authz/health; proxy_pass http://app; }
        location /closed/ { auth_request /authz/closed; proxy_pass http://app; }
    }
}
"""
OPEN_AND_CLOSED = """
version: 1
locations:
  - {name: health, allow: public}
  - {name: closed, allow: verified}
"""


def test_a_request_without_host_is_decided(nginx_binary: NginxBinary, tmp_path: Path) -> None:
    """HTTP/1.0 without Host to a server without a name: public is public, closed is closed."""
    with Stack(nginx_binary, tmp_path, conf=NAMELESS, policy=OPEN_AND_CLOSED) as stack:
        port = next(iter(stack.plain_ports.values()))
        for path, status in ((b"/healthz", 200), (b"/closed/", 401)):
            with socket.create_connection(("127.0.0.1", port), timeout=10) as plain:
                request = b"GET %b HTTP/1.0\r\n\r\n" % path
                assert Connection(plain, "").raw(request).status == status


def test_the_readmes_example_works_as_written(nginx_binary: NginxBinary, tmp_path: Path) -> None:
    """README.md's four lines of policy with its lines for nginx: alice in, carol and nobody out."""
    readme = (EXAMPLES.parent / "README.md").read_text()
    simplest = readme.partition("A larger policy")[0]
    found = dict(re.findall(r"```(yaml|nginx)\n(.*?)```", simplest, re.DOTALL))
    conf = f"http {{\n{found['nginx']}}}\n".replace("127.0.0.1:8000", "127.0.0.1:8080")
    with ExitStack() as open_:
        stack = Stack(nginx_binary, tmp_path, conf=conf, policy=found["yaml"])
        (tmp_path / "nginx/pki/ca.crt").write_bytes(stack.people.staff.pem)
        open_.enter_context(stack)
        carol = stack.people.staff.issue("carol")
        forged = {"X-Client-CN": "root"}
        alice = stack.get("/", cert=stack.people.alice, headers=forged)
        assert (alice.status, alice.saw("x-client-cn")) == (200, ["alice"])
        assert stack.get("/", cert=carol).status == 403
        assert stack.get("/").status == 401

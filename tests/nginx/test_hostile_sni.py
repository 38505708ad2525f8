"""A TLS server name that carries line ends: it rewrites no question, on each nginx.

`$ssl_server_name` is what the client wrote into its ClientHello, any byte but NUL.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from stack import Stack
from tools import NginxBinary

POLICY = """
version: 1
trust: {staff: {ca: pki/staff-ca.crt}}
locations:
  - {name: front, location: /, allow: public}
  - {name: back, location: /admin/, allow: [{cn: nobody}]}
  - {name: api, allow: [{cn: nobody}], public_methods: [OPTIONS]}
  - {name: office, allow: [{client_ip: 192.0.2.0/24}]}
  - {name: bound, allow: verified, sni_matches_host: true}
"""
CONF = """
http {
    include snippets/mtls-sidecar.conf;
    upstream app { server 127.0.0.1:8080; }
    server {
        listen 443 ssl;
        server_name app.example.com;
        ssl_certificate pki/server.crt;
        ssl_certificate_key pki/server.key;
        ssl_client_certificate pki/client-cas.crt;
        ssl_verify_client optional;
        include snippets/authz-location.conf;
        include snippets/identity.conf;
        location / { auth_request /authz; proxy_pass http://app; }
        location /api/ { auth_request /authz/api; proxy_pass http://app; }
        location /office/ { auth_request /authz/office; proxy_pass http://app; }
        location /bound/ { auth_request /authz/bound; proxy_pass http://app; }
    }
}
"""
HOST = b"app.example.com"


@pytest.fixture(scope="module")
def stack(nginx_binary: NginxBinary, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    directory = tmp_path_factory.mktemp("sni")
    with Stack(nginx_binary, directory, conf=CONF, policy=POLICY) as found:
        yield found


def status(stack: Stack, path: str, sni: bytes, *, alice: bool = False) -> int:
    """One GET over a connection that was opened for these bytes."""
    cert = stack.people.alice if alice else None
    with stack.connect(cert=cert, sni=sni) as connection:
        return connection.get(path, host=HOST.decode()).status


@pytest.mark.parametrize("end", [b"\r\n", b"\n"], ids=["CRLF", "LF"])
@pytest.mark.parametrize("name", [b"x", HOST, b"x, y"], ids=["other", "served", "list"])
def test_the_uri_that_is_decided_is_the_requests(stack: Stack, name: bytes, end: bytes) -> None:
    """An X-Original-URI in the server name opens no other location of the policy."""
    sni = name + end + b"X-Original-URI: /" + end + end
    assert status(stack, "/admin/secret", HOST) == 401
    assert status(stack, "/admin/secret", sni) in (401, 500)
    assert status(stack, "/admin/secret", sni, alice=True) in (403, 500)


@pytest.mark.parametrize(
    ("path", "forged"),
    [
        ("/api/", b"X-Original-Method: OPTIONS"),
        ("/office/", b"X-Real-IP: 192.0.2.1"),
        ("/bound/", b"SSL-Client-Verify: SUCCESS"),
        ("/bound/", b"Host: x"),
    ],
)
def test_method_and_address_are_the_requests(stack: Stack, path: str, forged: bytes) -> None:
    """No header in the server name takes the place of nginx's own, with or without a blank line."""
    for ending in (b"", b"\r\n", b"\r\n\r\n", b"\r\n\r\nGET /authz/front HTTP/1.1\r\n\r\n"):
        for alice in (False, True):
            sni = b"x\r\n" + forged + ending
            assert status(stack, path, sni, alice=alice) in (401, 403, 500)


@pytest.mark.parametrize("more", [b"\r\nA: b", b"\nA: b", b"\r\n", b"\n", b"\r\n\r\n", b" ", b"\t"])
def test_the_sni_matches_the_host_as_a_whole(stack: Stack, more: bytes) -> None:
    """A server name with more behind the host is not the host."""
    assert status(stack, "/bound/", HOST, alice=True) == 200
    assert status(stack, "/bound/", HOST + more, alice=True) in (403, 500)


def test_the_decision_log_has_the_requests_own_id_and_address(stack: Stack) -> None:
    """What the server name says of both stands nowhere in the log."""
    said = b"x\r\nX-Real-IP: 198.51.100.7\r\nX-Request-ID: forged-id\r\n\r\n"
    before = len(stack.decision_log)
    status(stack, "/admin/secret", said)
    stack.daemon.until(lambda: len(stack.decision_log) > before)
    line = stack.decision_log[before:]
    assert "127.0.0.1" in line
    assert "198.51.100.7" not in line
    assert "forged-id" not in line


@pytest.mark.parametrize("name", ["APP.example.com", "a_b.example.com", "xn--bcher-kva.example"])
def test_a_plain_server_name_arrives(stack: Stack, name: str) -> None:
    """Each name that a server can have passes through the map, so the host matches it."""
    with stack.connect(cert=stack.people.alice, sni=name) as connection:
        assert connection.get("/bound/", host=name).status == 200

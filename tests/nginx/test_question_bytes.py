"""No byte that a client writes anywhere ends or adds a line of what nginx sends, on each nginx.

Every byte at each place of HTTP/0.9, 1.0, 1.1 and 2, of X-Forwarded-For, of the PROXY protocol
and of the server name (SNI).  Two recorders stand where the sidecar and the application would be.
"""

from __future__ import annotations

import ipaddress
import re
import socket
import ssl
import struct
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import http2
import pytest
from nginx import Nginx, free_port
from pki import CA
from recorder import Recorder
from stack import EXAMPLES, adapt, example
from tools import NginxBinary, need, openssl

ASKED = ["Host", "SSL-Client-Verify", "SSL-Client-Cert", "X-Original-Port", "X-Original-URI"]
ASKED += ["X-Original-Method", "X-Real-IP", "X-Request-ID", "SSL-Server-Name"]
TOLD = re.findall(r"(?m)^proxy_set_header (\S+) \$", example("snippets/identity.conf"))
ALLOWED = {
    "X-Real-IP": rb"[0-9a-f.:]+",
    "X-Forwarded-For": rb"[0-9a-f.:]+",
    "X-Original-Method": rb"[A-Z_-]+",
    "X-Request-ID": rb"[0-9a-f]{32}",
    "SSL-Client-Verify": rb"NONE",
    "SSL-Server-Name": rb"[A-Za-z0-9._-]+",
    "X-Forwarded-Proto": rb"https?",
    "X-Client-CN": rb"alice",
}
"""What a value can be at most; no other holds a control, or a blank at an end."""

CONF = """
http {{
    include snippets/mtls-sidecar.conf;
    upstream app {{ server unix:{app}; }}
    client_header_timeout 1s;
    ssl_certificate server.crt;
    ssl_certificate_key server.key;
    server {{ listen 127.0.0.1:{plain}; real_ip_header X-Forwarded-For; {rest} }}
    server {{ listen 127.0.0.1:{bare}; {bare_rest} }}
    server {{ listen 127.0.0.1:{recursive}; real_ip_header X-Forwarded-For;
              real_ip_recursive on; {rest} }}
    server {{ listen 127.0.0.1:{proxied} proxy_protocol; real_ip_header proxy_protocol; {rest} }}
    server {{ listen 127.0.0.1:{h2} http2; real_ip_header X-Forwarded-For; {rest} }}
    server {{ listen 127.0.0.1:{tls} ssl; ssl_verify_client optional;
              ssl_client_certificate server.crt; {rest} }}
}}
"""
REST = """
    set_real_ip_from 127.0.0.1; set_real_ip_from 10.0.0.0/8;
    underscores_in_headers on; ignore_invalid_headers off;
    include snippets/authz-location.conf;
    location / {
        auth_request /authz/site;
        include snippets/identity.conf;
        proxy_pass_request_headers off; proxy_pass_request_body off;
        proxy_set_header Content-Length ""; proxy_set_body ""; proxy_method GET;
        proxy_pass http://app/fixed;
    }
"""
BARE = REST.replace("include snippets/identity.conf;", "")
"""Without it, as it refuses odd hosts before anybody is asked."""

PORTS = ("plain", "bare", "recursive", "proxied", "h2", "tls")


class Ground:
    """nginx between the clients and two recorders."""

    def __init__(self, ports: dict[str, int], sidecar: Recorder, app: Recorder) -> None:
        self.ports, self.sidecar, self.app = ports, sidecar, app
        self.seen = 0

    def send(self, port: str, data: bytes) -> None:
        """These bytes on a connection of their own; the answer is read to its end."""
        with socket.create_connection(("127.0.0.1", self.ports[port]), timeout=5) as client:
            self.exchange(client, data)
        self.check(data)

    def exchange(self, client: socket.socket, data: bytes) -> None:
        with suppress(OSError):
            client.sendall(data)
            while client.recv(65536):
                pass

    def check(self, sent: object) -> None:
        """Each request that arrived is one, of the lines that the snippets write."""
        for request in self.sidecar.taken():
            self.seen += 1
            check(request, b"GET /authz/site HTTP/1.1", ASKED, sent)
        for request in self.app.taken():
            check(request, None, [*TOLD, "Connection"], sent)


def check(request: bytes, first: bytes | None, names: list[str], sent: object) -> None:
    head, end, behind = request.partition(b"\r\n\r\n")
    assert (end, behind) == (b"\r\n\r\n", b""), (sent, request)
    lines = head.split(b"\r\n")
    assert not re.search(rb"[\x00-\x08\x0a-\x1f\x7f]", b"".join(lines)), (sent, request)
    assert first is None or lines[0] == first, (sent, request)
    got = dict(line.split(b": ", 1) for line in lines[1:])
    assert len(got) == len(lines) - 1, (sent, request)
    order = [name for name in names if name.encode() in got]
    assert [name.encode() for name in order] == list(got), (sent, request)
    for name in order:
        value, allowed = got[name.encode()], ALLOWED.get(name, rb"[^ \t](.*[^ \t])?")
        assert re.fullmatch(allowed, value, re.DOTALL), (sent, request)
        assert name != "Host" or b" " not in value, (sent, request)
        if name == "X-Real-IP":
            ipaddress.ip_address(value.decode())


@pytest.fixture(scope="module")
def ground(nginx_binary: NginxBinary, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    directory = tmp_path_factory.mktemp("bytes")
    etc = directory / "nginx"
    (etc / "snippets").mkdir(parents=True)
    socket_path = {"/run/mtls-sidecar/authz.sock": str(directory / "authz.sock")}
    for each in (EXAMPLES / "snippets").glob("*.conf"):
        (etc / "snippets" / each.name).write_text(adapt(each.read_text(), socket_path))
    server = CA("Server").server("app.example.com")
    (etc / "server.crt").write_bytes(server.chain_pem)
    (etc / "server.key").write_bytes(server.key_pem)
    ports = {name: free_port() for name in PORTS}
    conf = CONF.format(app=directory / "app.sock", rest=REST, bare_rest=BARE, **ports)
    with ExitStack() as open_:
        sidecar = open_.enter_context(Recorder(directory / "authz.sock"))
        app = open_.enter_context(Recorder(directory / "app.sock"))
        open_.enter_context(Nginx(nginx_binary, conf, etc))
        yield Ground(ports, sidecar, app)


BYTES = [bytes([number]) for number in range(256)]
HEAD = b"\r\nHost: h.example\r\nConnection: close"
REQUESTS = {
    "0.9": [b"GET /a@b", b"GET /a?b=@", b"GET @"],
    "method": [b"G@T /a HTTP/1.1" + HEAD, b"@GET /a HTTP/1.1" + HEAD, b"GET@/a HTTP/1.1" + HEAD],
    "path": [b"GET /a@b HTTP/1.%d" % v + HEAD for v in (0, 1)] + [b"GET @/a HTTP/1.1" + HEAD],
    "query": [b"GET /a?b=@ HTTP/1.1" + HEAD, b"GET /a?@c HTTP/1.0" + HEAD],
    "version": [b"GET /a HTTP/1.1@" + HEAD, b"GET /a HTTP@/1.1" + HEAD],
    "absolute": [
        b"GET http://h@st/a HTTP/1.1" + HEAD,
        b"GET http://h:8@/a HTTP/1.1" + HEAD,
        b"GET ht@p://h/a HTTP/1.0" + HEAD,
    ],
    "host": [
        b"GET /a HTTP/1.1\r\nConnection: close\r\nHost: h@st",
        b"GET /a HTTP/1.0\r\nHost: @host",
        b"GET /a HTTP/1.0\r\nHost: host@",
        b"GET /a HTTP/1.0\r\nHost: host:8@0",
        b"GET /a HTTP/1.0\r\nHost: [::@1]:80",
    ],
    "header": [
        b"GET /a HTTP/1.1" + HEAD + b"\r\nX-@: y",
        b"GET /a HTTP/1.1" + HEAD + b"\r\nX-Y: @",
    ],
    "address": [
        b"GET /a HTTP/1.1" + HEAD + b"\r\nX-Forwarded-For: 192.0.2.@1",
        b"GET /a HTTP/1.1" + HEAD + b"\r\nX-Forwarded-For: @192.0.2.1",
        b"GET /a HTTP/1.1" + HEAD + b"\r\nX-Forwarded-For: 2001:db8::@, 10.0.0.1",
    ],
}


@pytest.mark.parametrize("place", REQUESTS)
def test_no_byte_of_a_request_adds_a_line(ground: Ground, place: str) -> None:
    """All 256 at each place of a request by HTTP/0.9, 1.0 and 1.1."""
    before = ground.seen
    for template in REQUESTS[place]:
        for byte in BYTES:
            for port in ("plain", "recursive") if place == "address" else ("plain", "bare"):
                ground.send(port, template.replace(b"@", byte) + b"\r\n\r\n")
    assert ground.seen > before


def test_no_byte_of_an_http2_field_adds_a_line(ground: Ground) -> None:
    """All 256 in :method, :path, :authority, :scheme, host and x-forwarded-for."""
    base = {b":method": b"GET", b":scheme": b"http", b":path": b"/a", b":authority": b"h.example"}
    places = [*base, b"host", b"x-forwarded-for", b"x-y"]
    before = ground.seen
    for name in places:
        for byte in BYTES:
            value = base.get(name, b"192.0.2.1")
            fields = {**base, name: value[:1] + byte + value[1:]}
            with socket.create_connection(("127.0.0.1", ground.ports["h2"]), timeout=5) as client:
                http2.ask(client, [(fields.items(), None)])
            ground.check(fields)
    assert ground.seen > before + 256


def test_no_byte_of_the_proxy_protocol_adds_a_line(ground: Ground) -> None:
    """All 256 in each part of a PROXY line, and in the addresses of its binary form."""
    request = b"GET /a HTTP/1.0\r\nHost: h\r\n\r\n"
    lines = [b"PROXY TCP4 192.0.2.@1 192.0.2.2 1 2\r\n", b"PROXY TCP6 ::@1 ::1 1 2\r\n"]
    lines += [
        b"PROXY TCP4 192.0.2.1@ 192.0.2.2 1 2\r\n",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2@\r\n",
    ]
    lines += [b"PROXY TCP@ 192.0.2.1 192.0.2.2 1 2\r\n", b"PROXY UNKNOWN @\r\n"]
    before = ground.seen
    for byte in BYTES:
        for line in lines:
            ground.send("proxied", line.replace(b"@", byte) + request)
        for family, size in ((0x11, 12), (0x21, 36), (0x31, 216)):
            addresses = byte * (size - 4) + b"\0\1\0\2"
            head = b"\r\n\r\n\0\r\nQUIT\n" + struct.pack("!BBH", 0x21, family, size)
            ground.send("proxied", head + addresses + request)
    assert ground.seen > before


def test_no_byte_of_the_server_name_adds_a_line(ground: Ground) -> None:
    """All but NUL, which TLS refuses, first, amid and last in the SNI."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    before = ground.seen
    for byte in BYTES[1:128]:
        for name in (byte + b"a.example", b"a" + byte + b"b.example", b"a.example" + byte):
            if name.startswith(b"."):
                continue  # Python's ssl refuses it
            plain = socket.create_connection(("127.0.0.1", ground.ports["tls"]), timeout=5)
            with plain, suppress(ssl.SSLError):
                client = context.wrap_socket(plain, server_hostname=name)
                with client:
                    ground.exchange(client, b"GET /a HTTP/1.0\r\nHost: h\r\n\r\n")
            ground.check(name)
    assert ground.seen > before


def test_no_byte_beyond_ascii_of_the_server_name_arrives(ground: Ground, tmp_path: Path) -> None:
    """Sent by OpenSSL, as Python's ssl sends ASCII alone."""
    tool = need(openssl())
    before = ground.seen
    for name in (bytes(range(128, 256)), b"a\xc3\xa9.example", b"\xff"):
        connect = f"127.0.0.1:{ground.ports['tls']}"
        command: list[str | bytes] = [str(tool.path), "s_client", "-quiet", "-connect", connect]
        command += ["-servername", name]
        subprocess.run(
            command,
            input=b"GET /a HTTP/1.0\r\nHost: h\r\n\r\n",
            env=tool.env,
            capture_output=True,
            timeout=20,
            cwd=tmp_path,
        )
        ground.check(name)
    assert ground.seen > before


def test_a_quotation_mark_comes_through(ground: Ground, nginx_binary: NginxBinary) -> None:
    """In $request_uri, and in $host before 1.31 where identity.conf doesn't refuse it: whoever logs
    them must escape it."""
    ground.sidecar.taken()
    with socket.create_connection(("127.0.0.1", ground.ports["bare"]), timeout=5) as client:
        ground.exchange(client, b'GET /"a" HTTP/1.0\r\nHost: h\r\n\r\n')
    assert b'X-Original-URI: /"a"\r\n' in ground.sidecar.taken()[0]
    with socket.create_connection(("127.0.0.1", ground.ports["bare"]), timeout=5) as client:
        ground.exchange(client, b'GET /a HTTP/1.0\r\nHost: h"h\r\n\r\n')
    through = any(b'Host: h"h\r\n' in each for each in ground.sidecar.taken())
    assert through == (nginx_binary.version < (1, 31))

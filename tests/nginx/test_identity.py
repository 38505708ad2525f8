"""What an application is told of the client comes from the sidecar, whichever way it is reached.

snippets/identity.conf with proxy_pass, grpc_pass, fastcgi_pass, uwsgi_pass and scgi_pass, on each
nginx, while `underscores_in_headers on` lets clients write any spelling.
"""

from __future__ import annotations

import itertools
import re
import socket
from collections.abc import Iterator
from contextlib import ExitStack

import http2
import pytest
from gateways import Gateway
from https import Answer, Connection
from nginx import free_port
from stack import Stack, example
from tools import NginxBinary

WAYS = ("proxy", "grpc", "fastcgi", "uwsgi", "scgi")
IDENTITY = ("CN", "DN", "SAN", "Serial", "Fingerprint", "Role")
NAMES = [f"X-Client-{name}" for name in IDENTITY]
EMPTY = ["Client-Cert", "Client-Cert-Chain", "Forwarded"]
EMPTY += ["X-Forwarded-Host", "X-Original-URL", "X-Rewrite-URL"]
OTHERS = re.findall(r'(?m)^proxy_set_header (\S+) "";', example("snippets/identity-others.conf"))
ADDRESS = ["X-Real-IP", "X-Forwarded-For", "X-Forwarded-Proto", "X-Request-ID"]

CONF = """
http {{
    include snippets/mtls-sidecar.conf;
    underscores_in_headers on;
    large_client_header_buffers 8 32k;
    ssl_certificate pki/server.crt;
    ssl_certificate_key pki/server.key;
    ssl_client_certificate pki/client-cas.crt;
    ssl_verify_client optional;
    server {{
        listen 443 ssl http2;
        server_name app.example.com;
        include snippets/authz-location.conf;
        include snippets/identity.conf;
        location /proxy/ {{ auth_request /authz/admin; proxy_pass http://127.0.0.1:8080; }}
        location /grpc/ {{ auth_request /authz/admin; grpc_pass grpc://127.0.0.1:{h2c}; }}
        location /fastcgi/ {{ auth_request /authz/admin; fastcgi_pass 127.0.0.1:{fastcgi}; }}
        location /uwsgi/ {{ auth_request /authz/admin; uwsgi_pass 127.0.0.1:{uwsgi}; }}
        location /scgi/ {{ auth_request /authz/admin; scgi_pass 127.0.0.1:{scgi}; }}
        location /public/proxy/ {{ proxy_pass http://127.0.0.1:8080; }}
        location /public/grpc/ {{ grpc_pass grpc://127.0.0.1:{h2c}; }}
        location /public/fastcgi/ {{ fastcgi_pass 127.0.0.1:{fastcgi}; }}
        location /public/uwsgi/ {{ uwsgi_pass 127.0.0.1:{uwsgi}; }}
        location /public/scgi/ {{ scgi_pass 127.0.0.1:{scgi}; }}
        location /named/ {{
            auth_request /authz/admin;
            proxy_set_header Remote-User $client_cn;
            fastcgi_param HTTP_REMOTE_USER $client_cn;
            include snippets/identity.conf;
            grpc_set_header Remote-User $client_cn;
            uwsgi_param HTTP_REMOTE_USER $client_cn;
            scgi_param HTTP_REMOTE_USER $client_cn;
            location /named/proxy/ {{ proxy_pass http://127.0.0.1:8080; }}
            location /named/grpc/ {{ grpc_pass grpc://127.0.0.1:{h2c}; }}
            location /named/fastcgi/ {{ fastcgi_pass 127.0.0.1:{fastcgi}; }}
            location /named/uwsgi/ {{ uwsgi_pass 127.0.0.1:{uwsgi}; }}
            location /named/scgi/ {{ scgi_pass 127.0.0.1:{scgi}; }}
        }}
        location /own/proxy/ {{
            auth_request /authz/admin;
            proxy_set_header X-Own 1;
            include snippets/identity.conf;
            proxy_pass http://127.0.0.1:8080;
        }}
        location /own/grpc/ {{
            auth_request /authz/admin;
            grpc_set_header X-Own 1;
            include snippets/identity.conf;
            grpc_pass grpc://127.0.0.1:{h2c};
        }}
        location /own/fastcgi/ {{
            auth_request /authz/admin;
            fastcgi_param REQUEST_METHOD $request_method;
            include snippets/identity.conf;
            fastcgi_pass 127.0.0.1:{fastcgi};
        }}
        location /own/uwsgi/ {{
            auth_request /authz/admin;
            include snippets/identity.conf;
            uwsgi_param REQUEST_METHOD $request_method;
            uwsgi_pass 127.0.0.1:{uwsgi};
        }}
        location /own/scgi/ {{
            auth_request /authz/admin;
            include snippets/identity.conf;
            scgi_param REQUEST_METHOD $request_method;
            scgi_pass 127.0.0.1:{scgi};
        }}
    }}
    server {{
        listen 127.0.0.1:{h2c} http2;
        location / {{ proxy_pass http://127.0.0.1:8080; proxy_set_header X-Host $http_host; }}
    }}
    server {{
        listen 80;
        server_name "";
        include snippets/identity.conf;
        location / {{ proxy_pass http://127.0.0.1:8080; }}
    }}
}}
"""


@pytest.fixture(scope="module")
def stack(nginx_binary: NginxBinary, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with ExitStack() as open_:
        gates = {name: open_.enter_context(Gateway(name)) for name in ("fastcgi", "uwsgi", "scgi")}
        ports = {name: gate.port for name, gate in gates.items()}
        conf = CONF.format(h2c=free_port(), **ports)
        directory = tmp_path_factory.mktemp("identity")
        yield open_.enter_context(Stack(nginx_binary, directory, conf=conf))


def joined(name: str) -> list[str]:
    """With `_` for `-`, anywhere."""
    parts = name.split("-")
    return [
        "".join(a + b for a, b in zip(parts, (*joints, ""), strict=True))
        for joints in itertools.product("-_", repeat=len(parts) - 1)
    ]


def spellings(name: str) -> list[str]:
    """Every way to write it that applications may take for it."""
    return [case(each) for each in joined(name) for case in (str, str.lower, str.upper)]


FORGED = [(each, "forged") for name in (*NAMES, *EMPTY, *ADDRESS) for each in spellings(name)]


def folded(answer: Answer) -> dict[str, list[str]]:
    """The headers that the application has, by the name that CGI would give them."""
    found: dict[str, list[str]] = {}
    for name, value in (answer.app or {})["headers"]:
        found.setdefault(name.replace("_", "-"), []).append(value)
    return found


@pytest.mark.parametrize("place", ["", "/own"])
@pytest.mark.parametrize("way", WAYS)
def test_a_clients_own_identity_headers_never_arrive(stack: Stack, way: str, place: str) -> None:
    """Whatever it sends under these names, in any spelling: the application has the sidecar's."""
    alice = stack.people.alice
    answer = stack.get(f"{place}/{way}/", cert=alice, headers=FORGED)
    seen = folded(answer)
    assert not [name for name, values in seen.items() if "forged" in str(values)]
    assert seen["x-client-cn"] == ["alice"]
    assert seen["x-client-role"] == ["admin"]
    assert seen["x-client-fingerprint"] == [alice.sha256]
    assert seen["x-real-ip"] == seen["x-forwarded-for"] == ["127.0.0.1"]
    assert not seen.keys() & {name.lower() for name in EMPTY}


@pytest.mark.parametrize("place", ["", "/own", "/public"])
@pytest.mark.parametrize("way", WAYS)
def test_nor_do_the_headers_of_other_proxies(stack: Stack, way: str, place: str) -> None:
    """Remote-User, X-SSL-Client-Cert, X-Forwarded-Prefix and so on; for gRPC with `-` alone."""
    assert {"X-Forwarded-User", "X-ARR-ClientCert", "X-Original-URI"} < set(OTHERS)
    forged = [(each, "forged") for name in OTHERS for each in joined(name)]
    if way == "grpc":
        forged = [(name, "forged") for name in OTHERS]
    for start in range(0, len(forged), 200):
        headers = [*forged[start : start + 200], ("X-Mine", "mine")]
        answer = stack.get(f"{place}/{way}/", cert=stack.people.alice, headers=headers)
        assert "mine" in str(answer.app)
        assert "forged" not in str(answer.app)


def test_what_the_operator_says_of_them_arrives(stack: Stack) -> None:
    """A line of the operator's beside the include is sent, before it or behind."""
    for way in WAYS:
        answer = stack.get(f"/named/{way}/", cert=stack.people.alice, headers={"Remote-User": "x"})
        assert answer.saw("remote-user") == ["alice"], way


@pytest.mark.parametrize("way", WAYS)
def test_nor_by_trailers_or_hop_by_hop_headers(stack: Stack, way: str) -> None:
    """Behind a chunked body, or named in Connection: neither sets nor removes one."""
    request = (
        f"POST /{way}/ HTTP/1.1\r\nHost: app.example.com\r\nTransfer-Encoding: chunked\r\n"
        "Connection: keep-alive, X-Client-CN\r\nTrailer: X-Client-CN\r\n\r\n"
        "1\r\nx\r\n0\r\nX-Client-CN: forged\r\nX-Client-Role: forged\r\n\r\n"
    ).encode()
    with stack.connect(cert=stack.people.alice) as connection:
        seen = folded(connection.raw(request))
    assert seen["x-client-cn"] == ["alice"]
    assert "forged" not in str(seen)


@pytest.mark.parametrize("way", WAYS)
def test_where_nobody_is_asked_nobody_has_a_name(stack: Stack, way: str) -> None:
    """On a public page, with a certificate or without, the application has no identity at all."""
    for cert in (None, stack.people.alice):
        seen = folded(stack.get(f"/public/{way}/", cert=cert, headers=FORGED))
        assert not [name for name in seen if name.startswith("x-client-")]
        assert "forged" not in str(seen)


@pytest.mark.parametrize("way", WAYS)
def test_nor_over_http2(stack: Stack, way: str) -> None:
    """The same headers in HTTP/2 fields."""
    fields = [(name.encode(), b"forged") for name in {name.lower() for name, _ in FORGED}]
    with stack.connect(cert=stack.people.alice, alpn=["h2"]) as connection:
        path = f"/{way}/".encode()
        asked = [(http2.get(path, b"app.example.com", *fields), None)]
        (reply,) = http2.ask(connection.socket, asked)
    assert reply.status == 200
    assert b"forged" not in reply.body
    assert b"alice" in reply.body


@pytest.mark.parametrize("way", [way for way in WAYS if way != "grpc"])
def test_the_application_has_the_host_with_its_port(stack: Stack, way: str) -> None:
    """Host is as the client wrote it, port included, where it is the one that was decided about."""
    alice = stack.people.alice
    for host in ("app.example.com:8443", "APP.example.com:8443", "app.example.com"):
        assert stack.get(f"/{way}/", cert=alice, host=host).saw("host") == [host]
    for port in ("0", "070000", "123456", "x", "80:80", ""):
        assert stack.get(f"/{way}/", cert=alice, host=f"app.example.com:{port}").status == 400, port


@pytest.mark.parametrize("way", [way for way in WAYS if way != "grpc"])
def test_the_application_has_no_other_host_than_was_decided_about(stack: Stack, way: str) -> None:
    """`GET https://app.example.com/` with another Host: nobody is asked to choose."""
    for host, status in (("app.example.com:99", 200), ("other.example.com:99", 400)):
        request = f"GET https://app.example.com/{way}/ HTTP/1.1\r\nHost: {host}\r\n\r\n"
        with stack.connect(cert=stack.people.alice) as connection:
            answer = connection.raw(request.encode())
        assert answer.status == status
        assert answer.saw("host") in ([], ["app.example.com:99"])


def test_a_client_without_host_is_served(stack: Stack) -> None:
    """HTTP/1.0 to a server without a name: the application has the Host that nginx would send."""
    with socket.create_connection(
        ("127.0.0.1", next(iter(stack.plain_ports.values()))), timeout=10
    ) as plain:
        plain.sendall(b"GET /healthz HTTP/1.0\r\n\r\n")
        answer = Connection(plain, "").raw(b"")
    assert answer.saw("host") == [f"127.0.0.1:{stack.app.server_port}"]

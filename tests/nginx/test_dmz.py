"""TLS passed through a machine in the DMZ: nginx-example/variants/dmz-*.conf, on each nginx."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from nginx import Nginx, free_port
from stack import Stack, adapt, example
from tools import NginxBinary

BACKEND = "variants/dmz-backend-proxy-protocol.conf"


@dataclass
class Dmz:
    """The nginx inside, and the port of the one before it."""

    inside: Stack
    port: int


def behind(binary: NginxBinary, directory: Path, edge: str, inside: str) -> Iterator[Dmz]:
    """`inside` with `edge` before it."""
    with Stack(binary, directory / "inside", sites=[inside]) as stack:
        port = free_port()
        conf = adapt(
            example(edge),
            {
                "listen 443": f"listen 127.0.0.1:{port}",
                "192.0.2.10:443": f"127.0.0.1:{stack.ports[inside]}",
            },
        )
        with Nginx(binary, conf, directory / "edge"):
            yield Dmz(stack, port)


@pytest.fixture(scope="module")
def plain(nginx_binary: NginxBinary, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dmz]:
    yield from behind(
        nginx_binary, tmp_path_factory.mktemp("dmz"), "variants/dmz-edge.conf", "nginx.conf"
    )


@pytest.fixture(scope="module")
def proxied(nginx_binary: NginxBinary, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dmz]:
    edge = "variants/dmz-edge-proxy-protocol.conf"
    yield from behind(nginx_binary, tmp_path_factory.mktemp("dmz-pp"), edge, BACKEND)


def test_certificates_and_names_arrive_inside(plain: Dmz) -> None:
    """The TLS connection ends inside: allow, deny and SAN-to-domain are as without a DMZ."""
    stack, port = plain.inside, plain.port
    people, acme = stack.people, "acme.customers.example.com"
    assert stack.get("/admin/", cert=people.alice, port=port).status == 200
    assert stack.get("/admin/", cert=people.bob, port=port).status == 403
    assert stack.get("/admin/", port=port).status == 401
    assert stack.get("/", cert=people.acme, host=acme, port=port).status == 200
    assert stack.get("/", cert=people.alice, host=acme, port=port).status == 403


def test_a_name_that_is_not_passed_on_is_closed(plain: Dmz) -> None:
    """An unknown SNI, and none, get no further than the DMZ."""
    for sni in ("else.example.com", None):
        with pytest.raises((ssl.SSLError, ConnectionError)):
            plain.inside.connect(sni=sni, port=plain.port)


def test_without_proxy_protocol_everybody_is_the_dmz(plain: Dmz) -> None:
    """Inside, the client's address is that of the machine in the DMZ."""
    alice = plain.inside.people.alice
    with plain.inside.connect(cert=alice, port=plain.port, source="127.0.0.2") as connection:
        assert connection.get("/admin/").saw("x-real-ip") == ["127.0.0.1"]


def test_with_proxy_protocol_the_address_arrives(proxied: Dmz) -> None:
    """`client_ip` rules see the client: alice is let in from the office, not from elsewhere."""
    stack = proxied.inside
    for source, status in (("127.0.0.2", 200), ("127.0.0.3", 403)):
        with stack.connect(cert=stack.people.alice, port=proxied.port, source=source) as there:
            answer = there.get("/", headers={"X-Real-IP": "127.0.0.2"})
            assert answer.status == status
            assert answer.saw("x-real-ip") == ([source] if status == 200 else [])


def test_inside_speaks_proxy_protocol_only(proxied: Dmz) -> None:
    """A connection that doesn't begin with it is closed."""
    with pytest.raises((ssl.SSLError, ConnectionError)):
        proxied.inside.connect(port=proxied.inside.ports[BACKEND])

"""Where servers listen, in one spelling."""

from __future__ import annotations

from pathlib import Path

import pytest

from sidecar.commands.doctor.listeners import chosen, listeners
from sidecar.commands.doctor.nginx_config import read_nginx


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ("", [("*", "80")]),
        ("listen 443;", [("*", "443")]),
        ("listen *:443; listen 0.0.0.0:0443;", [("*", "443")] * 2),
        ("listen 127.1; listen 127.0.0.1:80;", [("127.0.0.1", "80")] * 2),
        ("listen [::]:443; listen [0:0::]:443;", [("[::]", "443")] * 2),
        ("listen 127.0.0.1:8080-8082;", [("127.0.0.1", str(8080 + i)) for i in range(3)]),
        ("listen 65535-99999999999;", [("*", "65535")]),
        ("listen unix:/run/x.sock;", [("unix:/run/x.sock", "")]),
    ],
)
def test_one_address_in_many_ways(
    lines: str, expected: list[tuple[str, str]], tmp_path: Path
) -> None:
    """A port alone is every IPv4 address; none is port 80."""
    path = tmp_path / "nginx.conf"
    path.write_text(f"http {{ server {{ {lines} }} }}")
    found = [each.where for each in listeners(next(read_nginx(path).all("server")))]
    assert found == expected


@pytest.mark.parametrize(
    ("host", "expected"),
    [("a.example", 1), ("b.a.example", 2), ("c.example", 3), ("other", 0)],
)
def test_which_server_serves_a_host(host: str, expected: int, tmp_path: Path) -> None:
    """The one with its name, else the default server, else the first."""
    servers = ["", "server_name A.example;", "server_name *.a.example;", "server_name c.*;"]
    path = tmp_path / "nginx.conf"
    path.write_text("http {" + "".join(f"server {{ {each} }}" for each in servers) + "}")
    blocks = list(read_nginx(path).all("server"))
    there = [one for each in blocks for one in listeners(each)]
    assert [each.server for each in chosen(there, [host])] == [blocks[expected]]
    assert chosen(there, None) == there

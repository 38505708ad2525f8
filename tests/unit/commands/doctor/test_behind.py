"""A server behind one that asks is reached by this machine alone."""

from __future__ import annotations

from pathlib import Path

import pytest
from good_nginx import GOOD, found

FILES = "location / { root /srv/inner; }"
INNER = f"listen 80; {FILES}"
STREAM = "stream { server { listen 80; proxy_pass 192.0.2.1:80; } }"


def told(inner: str, directory: Path, app: str = "http://localhost") -> bool:
    text = GOOD.replace("http://app", app).replace(
        "http {", f"http {{ server {{ {inner} }} server {{ listen 8081; {FILES} }} ", 1
    )
    return ("never-asks", 1) in found(text, directory)


@pytest.mark.parametrize(
    "inner",
    [
        INNER,
        INNER.replace("80", "*:80"),
        INNER.replace("80", "[::]:80"),
        INNER.replace("80", "0.0.0.0:80"),
        INNER.replace("80", "80 default_server reuseport"),
        "listen 80; root /srv/inner;",
        "listen 80; location / { proxy_pass http://192.0.2.1; }",
        f"listen 127.0.0.1:80; {INNER}",
        f"{INNER} location /a/ {{ allow 127.0.0.1; deny all; root /srv/a; }}",
        f"allow all; deny all; {INNER}",
        f"server_name inner.example.com; {INNER}",
        INNER.replace("80", "080"),
        FILES,
    ],
)
def test_it_listens_for_everybody(inner: str, tmp_path: Path) -> None:
    """On every address, and shows something."""
    assert told(inner, tmp_path)


@pytest.mark.parametrize(
    "inner",
    [
        INNER.replace("80", "127.0.0.1:80"),
        INNER.replace("80", "[::1]:80"),
        INNER.replace("80", "localhost:80"),
        INNER.replace("80", "unix:/run/x.sock"),
        INNER.replace("80", "8080"),
        INNER.replace("80", "192.0.2.7:80"),
        f"allow 127.0.0.1; deny all; {INNER}",
        f"if ($remote_addr != 127.0.0.1) {{ return 403; }} {INNER}",
        "listen 80; location / { return 301 https://$host$request_uri; }",
        "listen 80; return 404;",
        "listen 80; location / { deny all; root /srv/inner; }",
        "listen 80; location @app { root /srv/inner; } location / { return 204; }",
    ],
)
def test_it_does_not(inner: str, tmp_path: Path) -> None:
    """On this machine's own address, elsewhere, for some addresses, or showing nothing."""
    assert not told(inner, tmp_path)


def test_an_address_of_the_machine(tmp_path: Path) -> None:
    """Another than 127.0.0.1, by which it is led to."""
    inner = INNER.replace("80", "192.0.2.7:80")
    assert told(inner, tmp_path, "http://192.0.2.7")
    assert not told(inner, tmp_path, "http://192.0.2.8")


@pytest.mark.parametrize(
    ("host", "names", "expected"),
    [
        ("$host", "www.example.com", False),
        ("$host", "app.example.com", True),
        ("$host", "*.example.com", True),
        ("inner", "inner", True),
        ("$arg_host", "inner", True),
        ("$proxy_host", "127.0.0.1", True),
        ("other", "inner", False),
    ],
)
def test_a_server_of_another_name(host: str, names: str, expected: bool, tmp_path: Path) -> None:
    """Behind the question is the one that has the name that is sent."""
    text = GOOD.replace("http://app", f"http://127.0.0.1; proxy_set_header Host {host}")
    text = text.replace("listen 443 ssl;", "listen 443 ssl; server_name app.example.com;").replace(
        "http {",
        f"http {{ server {{ listen 80; location / {{ return 301 https://a/; }} }}\n"
        f"server {{ server_name {names}; {INNER} }}",
        1,
    )
    assert (("never-asks", 2) in found(text, tmp_path)) is expected


def test_a_stream(tmp_path: Path) -> None:
    """It asks nobody; `deny` holds there, too."""
    text = GOOD.replace("http://app", "http://127.0.0.1")
    assert ("never-asks", 1) in found(STREAM + text, tmp_path)
    limited = STREAM.replace("listen", "allow 127.0.0.1; deny all; listen")
    assert ("never-asks", 1) not in found(limited + text, tmp_path)

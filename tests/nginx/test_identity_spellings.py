"""A name as nginx writes it, pasted into a policy, keeps that certificate out."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from asking import ask, site
from nginx import Nginx, free_port
from odd_names import ODD, UID, subject
from pki import CA, Leaf
from tools import NginxBinary

from sidecar.core.decision import Reason

staff = CA("Stäff")
server = staff.server()


@pytest.fixture(scope="module")
def directory(nginx_binary: NginxBinary, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where that nginx lives."""
    return tmp_path_factory.mktemp("names")


@pytest.fixture
def names_log(directory: Path) -> Path:
    """nginx's log of the names."""
    return directory / "names.log"


@pytest.fixture(scope="module")
def port(nginx_binary: NginxBinary, directory: Path) -> Iterator[int]:
    """An nginx that answers with the client's names and logs them as well."""
    cert, key = server.write(directory)
    ca = directory / "ca.crt"
    ca.write_bytes(staff.pem)
    port = free_port()
    conf = f"""
http {{
    log_format names "$ssl_client_s_dn|||$ssl_client_s_dn_legacy";
    server {{
        listen 127.0.0.1:{port} ssl;
        ssl_certificate {cert};
        ssl_certificate_key {key};
        ssl_client_certificate {ca};
        ssl_verify_client optional;
        access_log {directory}/names.log names;
        set $names "$ssl_client_s_dn|||$ssl_client_s_dn_legacy|||$ssl_client_i_dn";
        return 200 "$names|||$ssl_client_verify";
    }}
}}
"""
    with Nginx(nginx_binary, conf, directory):
        yield port


def seen_by_nginx(port: int, leaf: Leaf, directory: Path) -> list[str]:
    """`$ssl_client_s_dn`, its legacy form, and `$ssl_client_i_dn`."""
    cert, key = leaf.write(directory)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.load_cert_chain(cert, key)
    with (
        socket.create_connection(("127.0.0.1", port), timeout=20) as plain,
        context.wrap_socket(plain) as stream,
    ):
        stream.sendall(b"GET / HTTP/1.0\r\n\r\n")
        answer = b"".join(iter(lambda: stream.recv(65536), b""))
    *names, verify = answer.partition(b"\r\n\r\n")[2].decode().split("|||")
    assert verify == "SUCCESS"
    return names


def denied(key: str, text: str, leaf: Leaf) -> bool:
    rule = "{" + key + ": '" + text.replace("'", "''") + "'}"
    found = ask(site("verified", f"    deny: [{rule}]\n"), leaf).reason
    return found in (Reason.DENIED_BY_RULE, Reason.MALFORMED_CERTIFICATE)


def as_in_a_log(text: str) -> str:
    """What `access_log` makes of a value."""
    return text.replace("\\", r"\x5C").replace('"', r"\x22")


@pytest.mark.parametrize("name", list(ODD))
def test_what_nginx_calls_a_client_refuses_it(port: int, name: str, tmp_path: Path) -> None:
    """Both of nginx's forms of the subject, as a variable and as logged, and the issuer's."""
    leaf = staff.forge(subject=subject(*ODD[name]))
    modern, legacy, issuer = seen_by_nginx(port, leaf, tmp_path)
    for text in (modern, legacy):
        assert denied("dn", text, leaf), text
        assert denied("dn", as_in_a_log(text), leaf), text
    assert denied("issuer_dn", issuer, leaf)
    rule = "[{dn: '" + modern.replace("'", "''") + "'}]"
    decision = ask(site(rule), leaf)
    if decision.reason is not Reason.MALFORMED_CERTIFICATE and name != UID:
        assert decision.allowed, modern


def test_the_log_is_written_as_these_tests_think(
    port: int, names_log: Path, tmp_path: Path
) -> None:
    """nginx's access log writes a backslash and a quote in hex, and the rest as the variable."""
    leaf = staff.forge(subject=subject(*ODD["specials"]))
    modern, legacy, _ = seen_by_nginx(port, leaf, tmp_path)
    line = as_in_a_log(f"{modern}|||{legacy}\n")
    end = time.monotonic() + 20
    while line not in names_log.read_text() and time.monotonic() < end:
        time.sleep(0.01)
    assert line in names_log.read_text()
    assert r"\x22" in line

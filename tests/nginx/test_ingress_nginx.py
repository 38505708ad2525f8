"""What ingress-nginx writes for `auth-url`, run; and what it leaves to the client."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from asking import Memory
from stack import Stack
from tools import NginxBinary

from sidecar.commands.doctor.checks import examine
from sidecar.commands.doctor.findings import Severity
from sidecar.commands.doctor.nginx_config import read_nginx
from sidecar.core.policy.compile import compile_policy

WRITTEN = (Path(__file__).parent / "known/ingress-nginx.txt").read_text()
POLICY = """\
version: 1
trust: {staff: {ca: pki/staff-ca.crt, denylist: [denylist.txt]}}
locations:
  - {name: site, allow: [{cn: alice}]}
"""
PASSES_CERTIFICATE = "proxy_set_header ssl-client-cert $ssl_client_escaped_cert;"


@pytest.fixture(scope="module")
def stack(nginx_binary: NginxBinary, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """nginx with what the controller writes."""
    place = tmp_path_factory.mktemp("ingress")
    with Stack(nginx_binary, place, conf=WRITTEN, policy=POLICY) as found:
        yield found


def test_it_decides_by_the_certificate(stack: Stack) -> None:
    """Alice is let in and the application learns her name; bob, a revoked one and nobody aren't."""
    people = stack.people
    alice = stack.get("/", cert=people.alice)
    assert (alice.status, alice.saw("x-client-cn")) == (200, ["alice"])
    assert stack.get("/", cert=people.bob).status == 403
    assert stack.get("/").status == 401
    denylist = stack.daemon.directory / "denylist.txt"
    denylist.write_text(f"sha256 {people.alice.sha256}\n")
    stack.daemon.until(lambda: stack.get("/", cert=people.alice).status == 403)
    denylist.write_text("")
    stack.daemon.until(lambda: stack.get("/", cert=people.alice).status == 200)


def test_an_upload_and_a_long_request_are_asked_about(stack: Stack) -> None:
    """A body isn't sent along, and what the client sends besides decides nothing."""
    body = b"x" * 100_000
    headers = {"Cookie": "a=" + "b" * 3000, "Authorization": "Bearer x", "X-Auth-Policy": "y"}
    answer = stack.get("/a?b=c", cert=stack.people.alice, method="POST", body=body, headers=headers)
    assert answer.status == 200
    assert stack.get("/", cert=stack.people.bob, method="POST", body=body).status == 403


@pytest.mark.parametrize("name", ["SSL-Client-Cert", "ssl-client-cert", "SSL_Client_Cert"])
def test_the_clients_own_headers_do_not_count(stack: Stack, name: str) -> None:
    """With the annotations that are documented nginx writes its own in their place."""
    forged = {name: quote(stack.people.alice.pem), "SSL-Client-Verify": "SUCCESS"}
    assert stack.get("/", cert=stack.people.bob, headers=forged).status == 403
    assert stack.get("/", headers=forged).status == 401


def test_without_passing_the_certificate_the_client_would_choose_its_own(
    nginx_binary: NginxBinary, tmp_path: Path
) -> None:
    """Why `auth-tls-pass-certificate-to-upstream: "true"` is a must: without it, the header of the
    client arrives; `doctor` says so."""
    conf = WRITTEN.replace(PASSES_CERTIFICATE, "")
    assert conf != WRITTEN
    with Stack(nginx_binary, tmp_path, conf=conf, policy=POLICY) as stack:
        people = stack.people
        assert stack.get("/", cert=people.bob).status == 401
        forged = {"SSL-Client-Cert": quote(people.alice.pem)}
        assert stack.get("/", cert=people.bob, headers=forged).status == 200
        files = {"pki/staff-ca.crt": people.staff.pem, "denylist.txt": b""}
        policy = compile_policy(POLICY.encode(), "policy.yaml", Memory(files))
        found = examine(read_nginx(stack.nginx.conf), policy)
        assert any(each.severity is Severity.OPEN for each in found)

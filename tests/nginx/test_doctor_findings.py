"""`doctor` is right: what it calls open lets somebody in through nginx, what it calls closed locks
alice out; and the same configuration without that fault does neither."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from stack import Stack, example
from tools import NginxBinary, nginx_binaries

from sidecar.commands.doctor.checks import examine
from sidecar.commands.doctor.findings import KINDS, Severity
from sidecar.commands.doctor.nginx_config import read_nginx
from sidecar.core.policy.compile import compile_policy
from sidecar.runtime.files import DirectSources

CONF = (
    """
http {
    proxy_cache_path /var/cache/nginx/authz keys_zone=authz:1m use_temp_path=off;
    include snippets/mtls-sidecar.conf;
    upstream app { server 127.0.0.1:8080; }
    ssl_certificate pki/server.crt;
    ssl_certificate_key pki/server.key;
    ssl_client_certificate pki/client-cas.crt;
    ssl_verify_client optional;
    server {
        listen 443 ssl default_server;
        include snippets/identity.conf;
        location / { auth_request /authz/site; error_page 403 /public.html; proxy_pass http://app; }
        location /local/ { auth_request /authz/local; proxy_pass http://app; }
        location /public/ { auth_request off; proxy_pass http://app; }
        location = /public.html { auth_request off; return 200 "sorry"; }
        location ^~ /authz/ {
"""
    + example("snippets/authz-request.conf")
    + """
            proxy_cache authz;
            proxy_cache_use_stale off;
            proxy_cache_key "$ssl_client_verify$ssl_client_escaped_cert|$uri|$remote_addr|$host|
                             $mtls_sidecar_sni";
        }
    }
}
"""
)
POLICY = """
version: 1
trust: {staff: {ca: pki/staff-ca.crt, denylist: [denylist.txt]}}
defaults: {trust: [staff]}
locations:
  - {name: site, allow: [{cn: alice}], cache_seconds: 1}
  - {name: local, allow: [{client_ip: 192.0.2.0/24}]}
"""
ASKED = "location / { auth_request /authz/site; "
PUBLIC = "location /public/ { auth_request off; "
PASS = "proxy_pass http://app;"
SERVER = "    server {\n        listen 443 ssl default_server;"
OPEN_SERVER = (
    "server { listen 443 ssl; server_name other.example.com; location / { "
    + "proxy_set_header X-Client-CN ''; "
    + PASS
    + " } }\n"
)
FALLBACK = "location @app { auth_request off; " + PASS + " }"
SORRY = "error_page 502 =200 /public.html;"
HEADERS = "proxy_pass_request_headers off;"
VERIFY = "proxy_set_header SSL-Client-Verify $ssl_client_verify;"
BODY = ('proxy_set_header Content-Length "";', 'proxy_set_body "";')
OPTIONAL = "ssl_client_certificate pki/client-cas.crt;\n    ssl_verify_client optional;"
NO_CA = "ssl_client_certificate pki/server.crt; ssl_verify_client optional_no_ca;"
CERT = "proxy_set_header SSL-Client-Cert $ssl_client_escaped_cert;"
STALE = "proxy_cache_use_stale off;"
LONGER = "proxy_ignore_headers X-Accel-Expires; proxy_cache_valid any 1m; "
CLAIM = "proxy_set_header X-Client-CN $http_x_client_cn; "


def stranger(stack: Stack) -> bool:
    """Somebody without a certificate."""
    return stack.get("/in").status == 200


def stranger_without_sidecar(stack: Stack) -> bool:
    """The same, when the sidecar is gone."""
    stack.daemon.stop()
    return stranger(stack)


def stranger_with_headers(stack: Stack) -> bool:
    """Somebody who has seen alice's certificate, and says what nginx would say of her."""
    cert = stack.people.alice.escaped.decode()
    said = {"SSL-Client-Verify": "SUCCESS", "SSL-Client-Cert": cert}
    return stack.get("/in", headers=said).status == 200


def stranger_elsewhere(stack: Stack) -> bool:
    """Somebody who asks for another name at the same address."""
    return stack.get("/in", host="other.example.com").status == 200


def stranger_asks(stack: Stack) -> bool:
    """Somebody who puts nginx's question himself, and learns which names the policy has."""
    return stack.get("/authz/site").status != 404


def bob_after_alice(stack: Stack) -> bool:
    """Bob, right after alice was let in."""
    assert stack.get("/in", cert=stack.people.alice).app
    return stack.get("/in", cert=stack.people.bob).status == 200


def alice_revoked(stack: Stack) -> bool:
    """Alice, when her certificate is revoked and the sidecar's answers about her have ended."""
    assert stack.get("/in", cert=stack.people.alice).app
    stack.edit_policy(stack.policy.replace("alice", "nobody"))
    time.sleep(2.1)
    return stack.get("/in", cert=stack.people.alice).status == 200


def alice_without_sidecar(stack: Stack) -> bool:
    """Alice, when the sidecar is gone and its answers about her have ended."""
    assert stack.get("/in", cert=stack.people.alice).app
    stack.daemon.stop()
    time.sleep(2.1)
    return stack.get("/in", cert=stack.people.alice).status == 200


def claims_to_be_alice(stack: Stack) -> bool:
    """Somebody who tells the application that he is alice."""
    answer = stack.get("/public/", headers={"X-Client-CN": "alice"})
    return answer.saw("X-Client-CN") == ["alice"]


def says_another_address(stack: Stack) -> bool:
    """Somebody with a certificate, but not at the one address that is let in."""
    said = {"X-Real-IP": "192.0.2.1"}
    return stack.get("/local/", cert=stack.people.bob, headers=said).status == 200


def alice_is_out(stack: Stack) -> bool:
    """Alice is locked out."""
    return stack.get("/in", cert=stack.people.alice).status != 200


def alice_may_not_post(stack: Stack) -> bool:
    """Alice may look, and not write."""
    sent = stack.get("/in", cert=stack.people.alice, method="POST", body=b"x" * 10)
    return sent.status != 200


def no_page_for_bob(stack: Stack) -> bool:
    """Bob is denied, and doesn't see the page that says so."""
    return "sorry" not in stack.get("/in", cert=stack.people.bob).body


class Fault(NamedTuple):
    """What `doctor` calls it, the text that is replaced, by what, and what comes of it.

    `too` is what has to be wrong as well for harm to come of it.
    """

    id: str
    old: str
    new: str
    comes: Callable[[Stack], bool]
    too: tuple[str, ...] = ()


FAULTS = [
    Fault("not-asked", ASKED, "location / { ", stranger),
    Fault(
        "not-asked", "location /public/", f"location /in {{ {PASS} }} location /public/", stranger
    ),
    Fault("never-asks", SERVER, OPEN_SERVER + SERVER, stranger_elsewhere),
    Fault("return-first", ASKED, ASKED + 'return 200 "in"; ', stranger),
    Fault("return-first", ASKED, ASKED + 'if ($uri) { return 200 "in"; } ', stranger),
    Fault("satisfy-any", ASKED, ASKED + "satisfy any; allow 127.0.0.0/8; ", stranger),
    Fault("auth-location-returns", "internal;\n", "internal; return 204;\n", stranger),
    Fault("not-internal", "internal;\n", "", stranger_asks),
    Fault("error-page-open", "error_page 599 /authz/;", SORRY, stranger_without_sidecar),
    Fault("denial-passed-on", ASKED, f"{FALLBACK} {ASKED} error_page 401 403 = @app; ", stranger),
    Fault("proxy-pass-request-headers", HEADERS, "", stranger_with_headers, (VERIFY, CERT)),
    Fault("header-wrong", "Real-IP $remote_addr", "Real-IP $http_x_real_ip", says_another_address),
    Fault("cache-key", "$ssl_client_verify$ssl_client_escaped_cert|", "", bob_after_alice),
    Fault("cache-stale", STALE, "proxy_cache_use_stale error;", alice_without_sidecar),
    Fault("cache-longer", STALE, LONGER + STALE, alice_revoked),
    Fault("identity-lost", PUBLIC, PUBLIC + "proxy_set_header Host $host; ", claims_to_be_alice),
    Fault("identity-from-client", PUBLIC, PUBLIC + CLAIM, claims_to_be_alice),
    Fault("no-auth-location", "/authz/site;", "/elsewhere;", stranger),
    Fault("wrong-uri", "http://mtls_sidecar;", "http://mtls_sidecar/;", alice_is_out),
    Fault("unknown-name", "/authz/site;", "/authz/other;", alice_is_out),
    Fault("proxy-pass-request-body", "proxy_pass_request_body off;", "", alice_may_not_post, BODY),
    Fault("header-missing", VERIFY, "", alice_is_out),
    Fault("header-twice", VERIFY, VERIFY * 2, alice_is_out),
    Fault("no-verify", OPTIONAL, "", alice_is_out),
    Fault("no-ca-no-trust", OPTIONAL, NO_CA, alice_is_out),
    Fault("error-page-asks", "403 /public.html", "403 /no.html", no_page_for_bob),
]
NOT_SHOWN = {
    "session-shared": "test_nginx_variants.py shows it",
    "no-ca": "nginx refuses to start",
    "broken-policy": "it is the policy's fault, not nginx's",
    "socket-closed": "test_doctor.py: it needs another user",
}
"""Kinds that are not shown here, and why."""


def run(fault: Fault | None, directory: Path) -> Stack:
    conf = CONF
    if fault is not None:
        for old, new in ((fault.old, fault.new), *((text, "") for text in fault.too)):
            assert old in conf
            conf = conf.replace(old, new)
    binary = next(b for b in nginx_binaries() if isinstance(b, NginxBinary))
    return Stack(binary, directory, conf=conf, policy=POLICY)


def found(stack: Stack) -> set[str]:
    place = stack.daemon.policy
    rules = compile_policy(
        place.read_bytes(), str(place), DirectSources(place.parent, place.parent)
    )
    return {each.id for each in examine(read_nginx(stack.nginx.conf), rules)}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda each: f"{each.id}-{each.comes.__name__}")
def test_what_doctor_finds_is_so(fault: Fault, tmp_path: Path) -> None:
    """One fault in the configuration: doctor names it, and through nginx its harm is done."""
    with run(fault, tmp_path) as stack:
        assert fault.id in found(stack)
        assert fault.comes(stack)


@pytest.mark.parametrize("comes", {each.comes for each in FAULTS}, ids=lambda each: each.__name__)
def test_without_the_fault_no_harm_is_done(comes: Callable[[Stack], bool], tmp_path: Path) -> None:
    """The same configuration without any fault: doctor is silent, and nothing of it happens."""
    with run(None, tmp_path) as stack:
        assert found(stack) == set()
        assert not comes(stack)


def test_every_kind_that_does_harm_is_shown() -> None:
    """Each kind of finding is shown above, or costs only time, or says why it isn't."""
    harmful = {id for id, kind in KINDS.items() if kind.severity != Severity.COST}
    assert harmful == {each.id for each in FAULTS} | NOT_SHOWN.keys()

"""What docs/security.md warns of: what reaches an application though nobody decided about it."""

from __future__ import annotations

import base64
import itertools
from contextlib import ExitStack
from pathlib import Path

from examined import found
from gateways import Gateway
from stack import Stack
from tools import ROOT, NginxBinary

CONF = """
http {{
    include snippets/mtls-sidecar.conf;
    ssl_certificate pki/server.crt;
    ssl_certificate_key pki/server.key;
    ssl_client_certificate pki/client-cas.crt;
    ssl_verify_client optional;
    ignore_invalid_headers off;
    server {{
        listen 443 ssl;
        include snippets/authz-location.conf;
        include snippets/identity.conf;
        location / {{
            auth_request /authz/admin;
            fastcgi_pass 127.0.0.1:{port};
            fastcgi_param REMOTE_USER $remote_user;
            include snippets/identity.conf;
        }}
        location /right/ {{
            auth_request /authz/admin;
            fastcgi_pass 127.0.0.1:{port};
            fastcgi_param REMOTE_USER $remote_user;
            fastcgi_param REMOTE_USER $client_cn;
            include snippets/identity.conf;
        }}
    }}
}}
"""


def test_names_that_nobody_checked(nginx_binary: NginxBinary, tmp_path: Path) -> None:
    """REMOTE_USER of `$remote_user` is what the client wrote, unless a later line says otherwise;
    with `ignore_invalid_headers off` a header with dots arrives."""
    said = base64.b64encode(b"root:x").decode()
    headers = {"Authorization": f"Basic {said}", "X.Client.CN": "root"}
    with Gateway("fastcgi") as gate:
        conf = CONF.format(port=gate.port)
        with Stack(nginx_binary, tmp_path, conf=conf) as stack:
            answer = stack.get("/", cert=stack.people.alice, headers=headers)
            assert (answer.app or {})["user"] == "root"
            assert answer.saw("X.Client.CN") == ["root"]
            assert answer.saw("X-Client-CN") == ["alice"]
            answer = stack.get("/right/", cert=stack.people.alice, headers=headers)
            assert (answer.app or {})["user"] == "alice"


METHOD_CONF = """
http {{
    include snippets/mtls-sidecar.conf;
    underscores_in_headers on;
    ssl_certificate pki/server.crt;
    ssl_certificate_key pki/server.key;
    ssl_client_certificate pki/client-cas.crt;
    ssl_verify_client optional;
    server {{
        listen 443 ssl;
        include snippets/authz-location.conf;
        include snippets/identity.conf;
        auth_request /authz/admin;
        location /as-is/ {{ proxy_pass http://127.0.0.1:8080; }}
        location / {{
            include snippets/identity.conf;
            include snippets/method.conf;
            location /proxy/ {{ proxy_pass http://127.0.0.1:8080; }}
            location /fastcgi/ {{ fastcgi_pass 127.0.0.1:{fastcgi}; }}
            location /uwsgi/ {{ uwsgi_pass 127.0.0.1:{uwsgi}; }}
            location /scgi/ {{ scgi_pass 127.0.0.1:{scgi}; }}
        }}
    }}
}}
"""


def spellings(name: str) -> list[str]:
    """Every way to write it that applications may take for it."""
    parts = name.split("-")
    return [
        "".join(a + b for a, b in zip(parts, (*joints, ""), strict=True))
        for joints in itertools.product("-_", repeat=len(parts) - 1)
    ]


def test_a_method_that_was_not_decided_about(nginx_binary: NginxBinary, tmp_path: Path) -> None:
    """X-HTTP-Method-Override and its like arrive in any spelling; with snippets/method.conf none
    does, and the identity is still the sidecar's."""
    names = ("X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override")
    headers = [(each, "DELETE") for name in names for each in spellings(name)]
    with ExitStack() as held:
        gates = {name: held.enter_context(Gateway(name)) for name in ("fastcgi", "uwsgi", "scgi")}
        conf = METHOD_CONF.format(**{name: gate.port for name, gate in gates.items()})
        stack = held.enter_context(Stack(nginx_binary, tmp_path, conf=conf))
        for way in ("as-is", "proxy", *gates):
            answer = stack.get(f"/{way}/", cert=stack.people.alice, headers=headers)
            seen = answer.app or {"headers": []}
            assert ("DELETE" in str(seen["headers"])) == (way == "as-is")
            assert answer.saw("X-Client-CN") == ["alice"]


GIVEN_CONF = METHOD_CONF.replace("underscores_", "ignore_invalid_headers off; underscores_")
NEVER_THE_CLIENT_S = (
    *("PATH_INFO", "PATH_TRANSLATED", "SCRIPT_FILENAME", "SCRIPT_NAME", "DOCUMENT_ROOT"),
    *("REQUEST_URI", "REQUEST_METHOD", "REMOTE_ADDR", "REMOTE_USER", "SSL_CLIENT_VERIFY"),
)


def test_what_only_nginx_says_to_an_application(nginx_binary: NginxBinary, tmp_path: Path) -> None:
    """Of a client's headers each arrives as HTTP_…, in any spelling: none is PATH_INFO or its like,
    by FastCGI, uwsgi and SCGI."""
    spelled = [each for name in NEVER_THE_CLIENT_S for each in (name, name.replace("_", "-"))]
    with ExitStack() as held:
        gates = {name: held.enter_context(Gateway(name)) for name in ("fastcgi", "uwsgi", "scgi")}
        conf = GIVEN_CONF.format(**{name: gate.port for name, gate in gates.items()})
        stack = held.enter_context(Stack(nginx_binary, tmp_path, conf=conf))
        for way in gates:
            headers = [(each, "/admin/x") for each in spelled]
            answer = stack.get(f"/{way}/", cert=stack.people.alice, headers=headers)
            seen = answer.app or {}
            assert answer.saw("Path-Info") == ["/admin/x", "/admin/x"]
            assert not {*NEVER_THE_CLIENT_S} & {*seen["others"]}


DAV_CONF = """
http {
    include snippets/mtls-sidecar.conf;
    ssl_certificate pki/server.crt;
    ssl_certificate_key pki/server.key;
    ssl_client_certificate pki/client-cas.crt;
    ssl_verify_client optional;
    server {
        listen 443 ssl;
        include snippets/authz-location.conf;
        include snippets/identity.conf;
        auth_request /authz/site;
        location / { proxy_pass http://127.0.0.1:8080; }
        location /admin/ { auth_request /authz/admin; proxy_pass http://127.0.0.1:8080; }
        location /files/ { root /srv; FILES }
        location /files/admin/ { auth_request /authz/admin; root /srv; FILES }
    }
}
"""
DAV_POLICY = """
version: 1
trust: {staff: {ca: pki/staff-ca.crt}}
defaults: {trust: [staff]}
locations:
  - name: site
    allow: verified
  - {name: admin, allow: [{cn: alice}]}
"""
DENY = "    deny: [{method: [COPY, MOVE]}]\n"


def test_a_second_path_that_nobody_asks_about(nginx_binary: NginxBinary, tmp_path: Path) -> None:
    """WebDAV's COPY and MOVE name in Destination where to: bob's are decided about by the path that
    they come from.  A rule of docs/security.md refuses both there.  `doctor` finds nginx's own."""
    assert DENY.strip().removeprefix("deny: ") in (ROOT / "docs/security.md").read_text()
    has_dav = "http_dav_module" in nginx_binary.run("-V").stderr
    files = "dav_methods PUT DELETE COPY MOVE;" if has_dav else ""
    admin = tmp_path / "srv/files/admin"
    admin.mkdir(parents=True)
    (admin / "page").write_text("alice's")
    conf = DAV_CONF.replace("FILES", files)
    more = {"root /srv": f"root {tmp_path}/srv"}
    with Stack(nginx_binary, tmp_path, conf=conf, policy=DAV_POLICY, more=more) as stack:

        def moved(path: str, to: str) -> int:
            (admin.parent / "mine").write_text("bob's")
            headers = {"Destination": f"https://app.example.com{to}", "Overwrite": "T"}
            return stack.get(path, cert=stack.people.bob, method="MOVE", headers=headers).status

        assert moved("/admin/x", "/x") == 403
        assert moved("/x", "/admin/x") == 501  # the application's own: it has no such method
        assert ("destination-unasked" in found(stack)) == has_dav
        if has_dav:
            assert moved("/files/mine", "/files/admin/page") == 204
            assert (admin / "page").read_text() == "bob's"
        stack.edit_policy(DAV_POLICY.replace("  - {name: admin", DENY + "  - {name: admin"))
        assert moved("/x", "/admin/x") == moved("/files/mine", "/files/admin/page") == 403
        assert "destination-unasked" not in found(stack)

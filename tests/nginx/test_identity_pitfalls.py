"""What docs/security.md warns of: what reaches an application though nobody decided about it."""

from __future__ import annotations

import base64
import itertools
from contextlib import ExitStack
from pathlib import Path

from gateways import Gateway
from stack import Stack
from tools import NginxBinary

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

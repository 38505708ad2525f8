"""What docs/security.md warns of: names that reach an application though nobody checked them."""

from __future__ import annotations

import base64
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

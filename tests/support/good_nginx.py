"""The least nginx.conf that is right, and what `doctor` finds in a change of it."""

from __future__ import annotations

from pathlib import Path

from asking import policy

from sidecar.commands.doctor.checks import examine
from sidecar.commands.doctor.nginx_config import read_nginx

MAP = r'map $ssl_server_name $mtls_sidecar_sni { "~\A[A-Za-z0-9._-]{1,255}\z" $ssl_server_name; }'
PORT = r'map $http_host $mtls_sidecar_origin_port { default 443; "~:(?<p>[0-9]+)\z" $p; }'
ORIGIN = (
    "proxy_set_header Origin $http_origin; proxy_set_header Sec-Fetch-Site $http_sec_fetch_site; "
    "proxy_set_header Sec-Fetch-Mode $http_sec_fetch_mode; "
    "proxy_set_header Sec-Fetch-Dest $http_sec_fetch_dest; "
    "proxy_set_header X-Original-Port $mtls_sidecar_origin_port;"
)
GUARD = (
    r'if ($request_uri ~* "\A[^?]*(%0[ad]|%25[0-9a-f]?%(3[0-9]|[46][1-6])|'
    r'(/|%(25)?2f)(\.|%(25)?2e){1,2}(/|%(25)?2f|\?|\z))") '
    "{ return 400; }"
)
GOOD = (
    """\
http {
    upstream mtls_sidecar { server unix:/run/mtls-sidecar/authz.sock; keepalive 16; } MAP PORT
    server {
        listen 443 ssl;
        ssl_client_certificate ca.crt; auth_request_set $cn $upstream_http_x_client_cn;
        ssl_verify_client optional; proxy_set_header X-Client-CN $cn; GUARD
        location / { auth_request /authz/site; proxy_pass http://app; }
        location /public/ { auth_request off; }
        location /static/ { deny all; }
        location ^~ /authz/ {
            internal;
            proxy_pass http://mtls_sidecar;
            proxy_http_version 1.1;
            proxy_set_header Connection ""; proxy_set_header Content-Length "";
            proxy_pass_request_headers off;
            proxy_pass_request_body off;
            proxy_set_header Host $host;
            proxy_set_header SSL-Client-Verify $ssl_client_verify;
            proxy_set_header SSL-Client-Cert $ssl_client_escaped_cert;
            proxy_set_header X-Original-URI $request_uri;
            proxy_set_header X-Original-Method $request_method;
            proxy_set_header X-Real-IP $remote_addr;
            proxy_set_header X-Request-ID $request_id; ORIGIN
            proxy_set_header SSL-Server-Name $mtls_sidecar_sni;
        }
    }
}
""".replace("MAP", MAP)
    .replace("GUARD", GUARD)
    .replace("ORIGIN", ORIGIN)
    .replace("PORT", PORT, 1)
)
POLICY = policy("version: 1\nlocations:\n  - {name: site, allow: verified}\n")


def found(text: str, directory: Path) -> list[tuple[str, int]]:
    path = directory / "nginx.conf"
    path.write_text(text)
    return [(each.id, each.line) for each in examine(read_nginx(path), POLICY)]

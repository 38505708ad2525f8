"""A configuration without any fault, and what `doctor` finds in one that has some."""

from __future__ import annotations

from stack import Stack, example

from sidecar.commands.doctor.checks import examine
from sidecar.commands.doctor.nginx_config import read_nginx
from sidecar.core.policy.compile import compile_policy
from sidecar.runtime.direct_sources import DirectSources

CONF = (
    """
http {
    proxy_cache_path /var/cache/nginx/authz keys_zone=authz:1m use_temp_path=off;
"""
    + example("snippets/mtls-sidecar.conf")
    + """
    upstream app { server 127.0.0.1:8080; }
    ssl_certificate pki/server.crt;
    ssl_certificate_key pki/server.key;
    ssl_client_certificate pki/client-cas.crt;
    ssl_verify_client optional;
    server {
        listen 443 ssl default_server;
        include snippets/identity.conf;
        if ($mtls_sidecar_refused) { return 400; }
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
                             $http_origin|$http_sec_fetch_site|$http_sec_fetch_mode|
                             $http_sec_fetch_dest|$mtls_sidecar_origin_port|
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
SERVER = "    server {\n        listen 443 ssl default_server;"


def found(stack: Stack) -> set[str]:
    place = stack.daemon.policy
    rules = compile_policy(
        place.read_bytes(), str(place), DirectSources(place.parent, place.parent)
    )
    return {each.id for each in examine(read_nginx(stack.nginx.conf), rules)}

"""What `http { }` or `server { }` hands down to the auth location changes no decision.

Each group of directives is tried at both levels, for `nginx -t` and with real requests: nginx
accepts the configuration with the snippets exactly when it does without.
"""

from __future__ import annotations

import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from https import Connection
from nginx import Nginx, free_port
from stack import EXAMPLES, Stack
from tools import NginxBinary

from sidecar.commands.doctor.checks import examine
from sidecar.commands.doctor.nginx_config import read_nginx

TOGETHER = """
client_body_in_file_only clean; client_body_in_single_buffer on; client_body_buffer_size 1k
client_body_timeout 30s; client_max_body_size 10; send_timeout 30s; lingering_close off
proxy_bind 127.0.0.1
proxy_limit_rate 1
proxy_method POST
proxy_set_body "GET /authz/none HTTP/1.1"
proxy_http_version 1.0
proxy_pass_request_headers on; proxy_pass_request_body on
proxy_next_upstream http_403 http_500 http_404 non_idempotent; proxy_next_upstream_tries 1
proxy_next_upstream_timeout 1ms
proxy_connect_timeout 1ms; proxy_read_timeout 1ms; proxy_send_timeout 1ms
proxy_redirect / /x/
proxy_buffering off; proxy_request_buffering off
proxy_intercept_errors on; error_page 401 403 404 500 502 503 504 =200 /sorry
recursive_error_pages on
proxy_hide_header X-Client-CN; proxy_hide_header X-Auth-Reason; proxy_pass_header X-Accel-Redirect
proxy_ignore_client_abort on; proxy_force_ranges on; proxy_socket_keepalive on
proxy_cookie_path / /x; proxy_cookie_domain a b; proxy_cookie_flags ~ secure
proxy_ssl_server_name on; proxy_ssl_name x; proxy_ssl_session_reuse off; proxy_ssl_verify_depth 9
proxy_set_header X-Original-URI /; proxy_set_header SSL-Client-Verify SUCCESS
proxy_buffer_size 128k; proxy_buffers 4 256k; proxy_busy_buffers_size 256k
proxy_temp_file_write_size 256k; proxy_max_temp_file_size 1m
proxy_headers_hash_max_size 64; proxy_headers_hash_bucket_size 2048
proxy_pass_trailers on
proxy_socket_sndbuf 4k; proxy_socket_rcvbuf 4k
log_subrequest on; absolute_redirect off; server_name_in_redirect on; port_in_redirect off
default_type text/html; etag off; expires 1h; if_modified_since off; max_ranges 0
add_header X-Any y always; add_trailer X-Any y always
gzip on; gzip_types *; gzip_min_length 0; gzip_proxied any
ssi on; ssi_types *; charset utf-8; override_charset on
sub_filter a b; sub_filter_types *; sub_filter_once off
add_before_body /sorry; add_after_body /sorry
slice 1m
gunzip on
dav_methods PUT DELETE
autoindex on
userid on
limit_rate 500m; limit_rate_after 1k
postpone_output 0; output_buffers 1 32k; subrequest_output_buffer_size 1
sendfile on; sendfile_max_chunk 64k; tcp_nopush on; aio threads; directio 1
open_file_cache max=10; open_file_cache_errors on; log_not_found off
chunked_transfer_encoding off; msie_refresh on; reset_timedout_connection on
underscores_in_headers on; ignore_invalid_headers off; merge_slashes off
early_hints $http_x_early
proxy_send_lowat 1; aio_write on; limit_req_dry_run on; limit_conn_dry_run on; post_action /sorry
gzip_static always; gzip_buffers 1 1k; gzip_http_version 1.0; gzip_vary on; server_tokens off
proxy_ssl_verify on; proxy_ssl_protocols TLSv1; proxy_ssl_certificate $http_x_none
add_header_inherit merge; add_trailer_inherit off; max_headers 100; rewrite_log on
keepalive_timeout 0; keepalive_min_timeout 1s; keepalive_disable none; lingering_timeout 1s
sub_filter_last_modified on; ssi_last_modified on; ssi_silent_errors on; ssi_min_file_chunk 1
more_set_headers "Status: 200" "X-Auth-Reason: y"; more_clear_headers X-Client-CN
more_set_input_headers "SSL-Client-Verify: SUCCESS" "X-Original-URI: /"
mirror /mirror; mirror_request_body on
root /nowhere; index x; disable_symlinks on
satisfy any; deny all
uninitialized_variable_warn off
keepalive_requests 1000
resolver 127.0.0.1; resolver_timeout 1s
proxy_cache site; proxy_cache_valid any 10m; proxy_cache_key same; proxy_cache_methods POST
proxy_cache_lock on; proxy_cache_lock_age 1ms; proxy_cache_lock_timeout 30s; proxy_cache_min_uses 1
proxy_cache_use_stale error timeout invalid_header updating http_403 http_500 http_502
proxy_cache_background_update on; proxy_cache_revalidate on; proxy_cache_convert_head off
proxy_cache_bypass $http_x_bypass; proxy_no_cache $http_x_bypass; proxy_cache_max_range_offset 0
proxy_ignore_headers X-Accel-Expires Cache-Control Expires Set-Cookie Vary X-Accel-Limit-Rate
"""
"""Groups of directives that could harm the auth location; what an nginx lacks is left out."""

APART = """
proxy_buffer_size 1k; proxy_buffers 2 1k; proxy_busy_buffers_size 1k; proxy_temp_file_write_size 1k
proxy_max_temp_file_size 0
proxy_buffer_size 512k; proxy_buffers 2 512k; proxy_busy_buffers_size 512k
proxy_busy_buffers_size 16k
proxy_busy_buffers_size 8k
proxy_temp_file_write_size 8k
proxy_temp_file_write_size 1m
proxy_max_temp_file_size 8k
proxy_buffers 32 4k; proxy_busy_buffers_size 120k
proxy_headers_hash_bucket_size 64
proxy_headers_hash_max_size 8
proxy_headers_hash_bucket_size 32
proxy_hide_header X-A-Name-That-Is-Longer-Than-The-Usual-Bucket-Of-The-Hash-Of-Headers-Is-Wide
client_max_body_size 0
proxy_bind $remote_addr
proxy_bind 127.0.0.1 transparent
proxy_bind [::1]
proxy_store_access user:rw
proxy_store /nowhere$uri
proxy_store on
proxy_next_upstream off
proxy_method $http_x_method
proxy_http_version 2
proxy_cache $http_x_zone
proxy_cache off; proxy_store off
error_page 400 401 403 404 405 413 414 500 502 503 504 = /sorry
error_page 500 = @sorry
proxy_set_header Content-Length 5; proxy_set_header Transfer-Encoding chunked
proxy_set_header Connection close; proxy_set_header Upgrade websocket
map_hash_bucket_size 32
variables_hash_bucket_size 64
variables_hash_max_size 64
types_hash_bucket_size 32
proxy_limit_rate $http_x_rate
limit_req zone=one burst=100 nodelay; limit_conn two 100
large_client_header_buffers 8 64k; client_header_buffer_size 64k
try_files /none /sorry
"""
"""Groups that don't go together with the others."""

CONF = """
http {{
    proxy_cache_path /var/cache/nginx/site keys_zone=site:1m;
    proxy_cache_path /var/cache/nginx/authz keys_zone=authz:1m;
    limit_req_zone $remote_addr zone=one:1m rate=1000r/s;
    limit_conn_zone $remote_addr zone=two:1m;
    {http}
    {include_http}
    upstream app {{ server 127.0.0.1:8080; }}
    ssl_certificate pki/server.crt;
    ssl_certificate_key pki/server.key;
    ssl_client_certificate pki/client-cas.crt;
    ssl_verify_client optional;
    server {{
        listen 443 ssl;
        {server}
        {include_server}
        location = /sorry {{ return 200 "sorry"; }}
        location = /mirror {{ return 200 "mirror"; }}
        location @sorry {{ return 200 "sorry"; }}
        location / {{ {ask} {reset} proxy_pass http://app; }}
    }}
}}
"""
RESET = """
client_max_body_size 100m; proxy_bind off; proxy_store off; proxy_limit_rate 0; error_page 599 /x;
proxy_method $request_method; proxy_set_body $request_body; client_body_buffer_size 4m;
client_body_in_file_only off;
proxy_http_version 1.1; proxy_connect_timeout 5s; proxy_read_timeout 5s; proxy_send_timeout 5s;
proxy_cache off; proxy_redirect off; proxy_buffering on; sub_filter zzzz y; add_before_body "";
"""
"""What the location of the application says against the same directives, as it must work, too."""

SNIPPETS = ["authz-location.conf", "authz-location-cached.conf"]


def groups(text: str) -> list[str]:
    return [f"{line};" for line in text.strip().splitlines()]


class Ground:
    """One nginx, and configurations to be asked about."""

    def __init__(self, stack: Stack, binary: NginxBinary) -> None:
        self.stack, self.binary = stack, binary
        self.resets = [line for line in RESET.replace("\n", " ").split(";") if line.strip()]
        self.reset = "; ".join(each for each in self.resets if self.knows(each)) + ";"
        self.known = [each for each in groups(TOGETHER) if self.accepts(http=each, snippet="")]
        self._without: dict[tuple[str, str], bool] = {}

    def conf(
        self, *, http: str = "", server: str = "", snippet: str, reset: str | None = None
    ) -> str:
        text = CONF.format(
            http=http,
            server=server,
            include_http="include snippets/mtls-sidecar.conf;" if snippet else "",
            include_server=f"include snippets/{snippet};" if snippet else "",
            ask="auth_request /authz/site; include snippets/identity.conf;" if snippet else "",
            reset=self.reset if reset is None else reset,
        )
        return self.stack.adapted(text)

    def accepts(self, *, http: str = "", server: str = "", snippet: str, reset: str = "") -> bool:
        """Whether `nginx -t` does."""
        text = self.conf(http=http, server=server, snippet=snippet, reset=reset)
        done = Nginx(self.binary, text, self.stack.nginx.directory).test()
        self.said = done.stderr
        return done.returncode == 0

    def accepts_alone(self, level: str, group: str) -> bool:
        """Whether it does without the snippets; the same question is asked once."""
        if (level, group) not in self._without:
            self._without[level, group] = self.accepts(**{level: group}, snippet="")
        return self._without[level, group]

    def knows(self, line: str) -> bool:
        self.accepts(http="", snippet="", reset=f"{line};")
        return "unknown directive" not in self.said


BARE = "http { server { listen 127.0.0.1:%d; } }"
POLICY = """
version: 1
trust: {staff: {ca: pki/staff-ca.crt}}
locations:
  - {name: site, trust: [staff], allow: [{cn: alice}], cache_seconds: 5}
"""


@pytest.fixture(scope="module")
def ground(nginx_binary: NginxBinary, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    directory = tmp_path_factory.mktemp("ground")
    with Stack(nginx_binary, directory, conf=BARE % free_port(), policy=POLICY) as stack:
        yield Ground(stack, nginx_binary)


@pytest.mark.parametrize("snippet", SNIPPETS)
@pytest.mark.parametrize("level", ["http", "server"])
def test_nginx_accepts_with_the_snippets_what_it_accepts_without(
    ground: Ground, level: str, snippet: str
) -> None:
    """Whatever is inherited, `nginx -t` says of it the same with the snippets as without."""
    accepted = 0
    for group in [*groups(TOGETHER), *groups(APART)]:
        alone = ground.accepts_alone(level, group)
        with_it = ground.accepts(**{level: group}, snippet=snippet)
        assert with_it == alone, f"{group} accepted: {alone}; with the snippets: {ground.said}"
        accepted += alone
    assert accepted > 50


def decides_right(stack: Stack) -> None:
    """Alice in with her name, bob and nobody out, and an upload as large as the location allows."""
    people = stack.people
    large = b"x" * 1_500_000
    for _ in range(2):
        assert stack.get("/a", cert=people.alice).saw("x-client-cn") == ["alice"]
        assert stack.get("/a", cert=people.bob).app is None
        assert stack.get("/a").app is None
    sent = stack.get("/a", cert=people.alice, method="POST", body=large)
    assert sent.app is not None
    assert len(sent.app["body"]) == len(large)
    assert stack.get("/a", cert=people.bob, method="POST", body=large).app is None
    forged = {"X-Method": "HEAD", "X-Bypass": "1", "X-Rate": "1", "X-Zone": "site"}
    assert stack.get("/a", cert=people.alice, headers=forged).app
    assert stack.get("/a", headers=forged).app is None


@pytest.mark.parametrize("snippet", SNIPPETS)
@pytest.mark.parametrize("level", ["http", "server"])
def test_all_of_it_together_changes_no_decision(ground: Ground, level: str, snippet: str) -> None:
    """Everything hostile that this nginx knows is inherited at once: decisions are as without."""
    stack = ground.stack
    assert len(ground.known) > 40
    stack.nginx.write(ground.conf(**{level: "\n".join(ground.known)}, snippet=snippet))
    stack.nginx.reload()
    decides_right(stack)


@pytest.mark.parametrize("group", groups(APART))
def test_each_of_the_others_changes_no_decision(ground: Ground, group: str) -> None:
    """What doesn't go together with the rest, one at a time."""
    stack = ground.stack
    if not ground.accepts(server=group, snippet="", reset=ground.reset):
        return  # this nginx refuses it by itself
    stack.nginx.write(ground.conf(server=group, snippet=SNIPPETS[0]))
    stack.nginx.reload()
    decides_right(stack)


STAND_INS = """
http {{
    upstream mtls_sidecar {{ server 127.0.0.1:{first}; server 127.0.0.1:{second}; }}
    map $ssl_server_name $mtls_sidecar_sni {{ default ""; }}
    map "" $mtls_sidecar_refused {{ default ""; }}
    map "" $mtls_sidecar_question {{ default ""; }}
    map $http_host $mtls_sidecar_origin_port {{ default 443; }}
    proxy_next_upstream error timeout http_403 http_500 non_idempotent;
    server {{ listen 127.0.0.1:{first}; return 403; }}
    server {{ listen 127.0.0.1:{second}; return 204; }}
    server {{
        listen 127.0.0.1:{port};
        include snippets/authz-location.conf;
        location / {{ auth_request /authz/site; root /nowhere; }}
    }}
}}
"""


def test_a_denial_is_asked_of_no_second_sidecar(nginx_binary: NginxBinary, tmp_path: Path) -> None:
    """With `proxy_next_upstream http_403` a denial is final, though another instance would allow.

    Two constant answers stand for a sidecar that knows of a revocation, and one that doesn't yet.
    Without the snippet's own line every request is allowed, and `doctor` says so.
    """
    shutil.copytree(EXAMPLES / "snippets", tmp_path / "snippets")
    port, first, second = free_port(), free_port(), free_port()
    conf = STAND_INS.format(port=port, first=first, second=second)
    with Nginx(nginx_binary, conf, tmp_path) as nginx:

        def seen() -> list[int]:
            found = []
            for _ in range(4):
                with socket.create_connection(("127.0.0.1", port), timeout=10) as plain:
                    request = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
                    found.append(Connection(plain, "").raw(request).status)
            return found

        def told() -> bool:
            findings = examine(read_nginx(nginx.conf), None)
            return "denial-retried" in {each.id for each in findings}

        assert (seen(), told()) == ([403, 404, 403, 404], False)
        snippet = tmp_path / "snippets/authz-request.conf"
        snippet.write_text(snippet.read_text().replace("proxy_next_upstream error timeout;", ""))
        nginx.reload()
        assert (seen(), told()) == ([404] * 4, True)

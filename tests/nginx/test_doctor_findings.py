"""`doctor` is right: what it calls open lets somebody in through nginx, what it calls closed locks
alice out; and the same configuration without that fault does neither."""

from __future__ import annotations

import base64
import socket
import threading
import time
from collections.abc import Callable
from contextlib import nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pytest
from examined import CONF, POLICY, SERVER, found
from gateways import Gateway
from nginx import free_port
from stack import Stack
from tools import NginxBinary, nginx_binaries

from sidecar.commands.doctor.findings import FINDING_KINDS, Severity

ASKED = "location / { auth_request /authz/site; "
PUBLIC = "location /public/ { auth_request off; "
PASS = "proxy_pass http://app;"
OPEN_SERVER = (
    "server { listen 443 ssl; server_name other.example.com; location / { "
    + "proxy_set_header X-Client-CN ''; "
    + PASS
    + " } }\n"
)
FALLBACK = "location @app { auth_request off; " + PASS + " }"
LOCAL = "location /local/ { auth_request /authz/local; "
WEAKER = "location @weak { auth_request /authz/site; " + PASS + " }"
WEAKER_WITHIN = "location /weak/ { internal; auth_request /authz/site; proxy_pass http://app/; }"
RECURSIVE = (
    "recursive_error_pages on; error_page 502 @sorry; } location @sorry { auth_request off; "
    "error_page 404 =200 /public.html; return 404; } location ^~ /authz/z {"
)
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


QUESTION = "proxy_pass http://mtls_sidecar;"
NO_FILE = "if (!-e $request_filename) { rewrite ^/authz /public/ last; }"
NO_ARGUMENT = 'if ($args = "") { return 200; }'
DECODED = "proxy_pass http://app$uri;"
GUARD = "if ($mtls_sidecar_refused) { return 400; }"
PHP = r"location ~ \.php$ { auth_request /authz/site; proxy_pass http://app; } "
FILES = "location /files { auth_request off; alias /etc/nginx/snippets/; } "
TRACED = "error_page 405 = @app;"
SORRY_BY_NAME = "location @sorry { return 200 sorry; } error_page 418 =200 @sorry; "
PAGES = "location /pages { auth_request off; proxy_pass http://app/pages/; } "
BY_SET = "set $said $http_x_client_cn; proxy_set_header X-Client-CN $said; "
BESIDE = 'proxy_set_header X-Client-CN "$client_cn$http_x_client_cn"; '
OPEN_FILES = "server { listen 443 ssl; server_name other.example.com; root /etc/nginx/; }\n"
HOST_LINE = "proxy_set_header Host $host;\nproxy_set_header SSL-Client-Verify"
NAME_LINE = "proxy_set_header SSL-Server-Name $mtls_sidecar_sni;"
ORIGIN = "proxy_set_header Origin $http_origin;"
HACK = "proxy_set_header Origin https://$host;"
SITE = "proxy_set_header Sec-Fetch-Site $http_sec_fetch_site;"
SAME = "proxy_set_header Sec-Fetch-Site same-origin;"
PORT = "proxy_set_header X-Original-Port $mtls_sidecar_origin_port;"
LENGTH = 'proxy_set_header Content-Length "";'
ADDRESS = "proxy_set_header X-Real-IP $remote_addr;"
MAP = r'"~\A[A-Za-z0-9._-]{1,255}\z" $ssl_server_name;'


def reaches_the_application(request: str, stack: Stack) -> bool:
    """Whether it sees a request, within a second: a client isn't told of one."""
    end = time.monotonic() + 1
    while time.monotonic() < end and request not in stack.app.seen:
        time.sleep(0.05)
    return request in stack.app.seen


def stranger(stack: Stack) -> bool:
    """Somebody without a certificate."""
    return stack.get("/in").status == 200


def stranger_traces(stack: Stack) -> bool:
    """Somebody whose method nginx refuses before it has chosen a location."""
    return stack.get("/in", method="TRACE").status == 200


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


def stranger_begins_another_request(stack: Stack) -> bool:
    """Somebody who writes the ends of lines into a path that everybody may ask for."""
    end = "%0d%0a"
    rest = f"x%20HTTP/1.1{end}Host:a{end}{end}GET%20/in%20HTTP/1.1{end}X-Rest:%20x"
    with suppress(ConnectionError):
        stack.get(f"/public/{rest}")
    return reaches_the_application("GET /in", stack)


def claims_to_be_alice_by_a_line_end(stack: Stack) -> bool:
    """Somebody who writes a header into a path that everybody may ask for."""
    answer = stack.get("/public/x%0d%0aX-Client-CN:%20alice")
    return answer.app is not None and answer.saw("X-Client-CN") == ["alice"]


def claims_to_be_alice_by_a_server_name(stack: Stack) -> bool:
    """Somebody who writes a header into the name that the connection is opened for."""
    with stack.connect(sni="a\r\nX-Client-CN: alice") as connection:
        return connection.get("/public/", host="a").saw("X-Client-CN") == ["alice"]


def stranger_begins_another_request_by_a_name(stack: Stack) -> bool:
    """Somebody who writes the ends of lines into a name that nobody checks."""
    name = base64.b64encode(b"a\r\n\r\nGET /in HTTP/1.0\r\n\r\n:x").decode()
    with suppress(ConnectionError):
        stack.get("/public/", headers={"Authorization": f"Basic {name}"})
    return reaches_the_application("GET /in", stack)


def stranger_encodes_twice(stack: Stack) -> bool:
    """Somebody to whom nginx gives /public/, and the application /in."""
    answer = stack.get("/public/%252e%252e/in").app
    return answer is not None and answer["uri"] == "/public/%2e%2e/in"


def says_another_address(stack: Stack) -> bool:
    """Somebody with a certificate, but not at the one address that is let in."""
    said = {"X-Real-IP": "192.0.2.1"}
    return stack.get("/local/", cert=stack.people.bob, headers=said).status == 200


def alice_is_out(stack: Stack) -> bool:
    """Alice is locked out."""
    return stack.get("/in", cert=stack.people.alice).status != 200


def another_site_posts_as_alice(stack: Stack) -> bool:
    """The page of another site that posts a form with alice's certificate."""
    said = {
        "Origin": "https://evil.example",
        "Sec-Fetch-Site": "cross-site",
        "Sec-Fetch-Mode": "navigate",
        "Sec-Fetch-Dest": "document",
    }
    sent = stack.get("/in", cert=stack.people.alice, method="POST", headers=said, body=b"x")
    return sent.status == 200


def another_port_is_the_same_site(stack: Stack) -> bool:
    """The page of another port of the same host that opens a WebSocket as alice."""
    said = {"Origin": "https://app.example.com:8444"}
    return stack.get("/in", cert=stack.people.alice, headers=said).status == 200


def page_of_nginx_s_port(stack: Stack) -> bool:
    """The page of the port on which nginx listens, where the application's is mapped to another."""
    said = {"Origin": f"https://app.example.com:{next(iter(stack.ports.values()))}"}
    return stack.get("/in", cert=stack.people.alice, headers=said).status == 200


def alice_may_not_post_from_a_page(stack: Stack) -> bool:
    """Alice's browser, that names the application's own page."""
    said = {"Origin": "https://app.example.com"}
    return stack.get("/in", cert=stack.people.alice, headers=said).status != 200


def alice_may_not_post(stack: Stack) -> bool:
    """Alice may look, and not write."""
    sent = stack.get("/in", cert=stack.people.alice, method="POST", body=b"x" * 10)
    return sent.status != 200


def bob_says_where_he_is(stack: Stack) -> bool:
    """Somebody whose server name holds a line of the question, which nobody else writes."""
    with stack.connect(cert=stack.people.bob, sni="a\r\nX-Real-IP: 192.0.2.1") as connection:
        return connection.get("/local/", host="a").status == 200


def alice_where_only_others_may_be(stack: Stack) -> bool:
    """Alice, below a prefix whose name in the policy doesn't let her in."""
    assert stack.get("/local/a", cert=stack.people.alice).status == 403
    return stack.get("/local/a.php", cert=stack.people.alice).status == 200


def alice_is_led_on(stack: Stack) -> bool:
    """Alice, where only others may be, by where nginx leads on whom it denies, or everybody."""
    answer = stack.get("/local/", cert=stack.people.alice).app
    return answer is not None and answer["uri"] == "/local/"


def alice_is_refused_early(stack: Stack) -> bool:
    """The same, by a request that nginx refuses before it has chosen a location."""
    answer = stack.get("/local/", cert=stack.people.alice, headers={"Transfer-Encoding": "x"}).app
    return answer is not None and answer["uri"] == "/local/"


def alice_doubles_a_slash(stack: Stack) -> bool:
    """Alice, where only others may be, by a second slash that the application doesn't see."""
    assert stack.get("/local/", cert=stack.people.alice).status == 403
    return stack.get("//local/", cert=stack.people.alice).status == 200


def alice_gets_another_page(stack: Stack) -> bool:
    """Alice, who is led to a page of the application that her location isn't to lead to."""
    answer = stack.get("/in", cert=stack.people.alice).app
    return answer is not None and answer["uri"] == "/secret"


def stranger_reads_a_key(stack: Stack) -> bool:
    """Somebody who leaves the directory of the public files."""
    return "PRIVATE KEY" in stack.get("/files../pki/server.key").body


def stranger_goes_above(stack: Stack) -> bool:
    """Somebody who leaves the application's public pages by `..`."""
    answer = stack.get("/pages../in").app
    return answer is not None and answer["uri"] == "/pages/../in"


def stranger_resolves_nothing(stack: Stack) -> bool:
    """Somebody who names a public page by way of another one."""
    answer = stack.get("/in/../public/x").app
    return answer is not None and answer["uri"] == "/in/../public/x"


def alice_resolves_nothing(stack: Stack) -> bool:
    """Alice, where only others may be, by way of a page for her."""
    answer = stack.get("/local/%2e%2e/in", cert=stack.people.alice).app
    return answer is not None and answer["uri"] == "/local/%2e%2e/in"


def stranger_has_it_fetched(stack: Stack) -> bool:
    """Somebody whose request for a public page makes nginx fetch what is protected."""
    assert stack.get("/public/").status == 200
    return reaches_the_application("GET /in", stack)


def stranger_has_a_page_include_it(stack: Stack) -> bool:
    """Somebody who may write a page of the public ones, and includes another there."""
    stack.app.pages["/public/"] = b'<!--# include virtual="/in" -->'
    return '"uri": "/in"' in stack.get("/public/").body


def stranger_has_it_mirrored(stack: Stack) -> bool:
    """Somebody whose request for a file is sent to the application as well."""
    stack.get("/public/x")
    return reaches_the_application("GET /m", stack)


def stranger_below_a_prefix(stack: Stack) -> bool:
    """Somebody who asks for what is protected below a public prefix."""
    answer = stack.get("/pages/in").app
    return answer is not None and answer["uri"] == "/in"


def claims_to_be_alice_inside(stack: Stack) -> bool:
    """Somebody who is led to an internal location, and says there who he is."""
    answer = stack.get("/public/by/", headers={"X-Client-CN": "alice"})
    return answer.saw("X-Client-CN") == ["alice"]


def claims_by_another_name(stack: Stack) -> bool:
    """Somebody whose header has a name that many applications take for another."""
    answer = stack.get("/public/", headers={"X_Client_CN": "alice"})
    return answer.saw("X_Client_CN") == ["alice"]


def says_it_in_the_path(stack: Stack) -> bool:
    """Somebody whose path holds the name."""
    return stack.get("/public/alice").saw("X-Client-CN") == ["alice"]


def stranger_within(stack: Stack) -> bool:
    """Somebody who asks for what is internal."""
    return stack.get("/inner/x").status == 200


def stranger_chooses(stack: Stack) -> bool:
    """Somebody who says what he is to be shown instead."""
    return stack.get("/in?a=/inner/x").status == 200


def stranger_reads_a_file(stack: Stack) -> bool:
    """Somebody who asks for what no location covers."""
    return "PRIVATE KEY" in stack.get("/pki/server.key").body


def stranger_reads_a_file_elsewhere(stack: Stack) -> bool:
    """The same, of another name at the same address."""
    return "PRIVATE KEY" in stack.get("/pki/server.key", host="other.example.com").body


def stranger_sends_too_much(stack: Stack) -> bool:
    """Somebody whose body is larger than the server takes."""
    return stack.get("/in", method="POST", body=b"x" * 100).status == 200


def stranger_asks_often(stack: Stack) -> bool:
    """Somebody who is over the limit of requests."""
    return 200 in {stack.get("/in").status for _ in range(4)}


def stranger_with_an_argument(stack: Stack) -> bool:
    """Somebody whose request has an argument, as the question has none."""
    return stack.get("/in?a=b").status == 200


def stranger_with_a_header(stack: Stack) -> bool:
    """Somebody whose header leads his request, and the question about it, to the application."""
    return stack.get("/in", headers={"X-A": "b"}).status == 200


def stranger_reaches_the_application(stack: Stack) -> bool:
    """Somebody who is denied, while the application gets his request."""
    reached = threading.Event()

    class Recording(stack.app.RequestHandlerClass):  # type: ignore[name-defined,misc]
        def handle_one_request(self) -> None:
            reached.set()
            super().handle_one_request()

    stack.app.RequestHandlerClass = Recording
    assert stack.get("/in").status == 401
    return reached.wait(2)


def no_page_for_bob(stack: Stack) -> bool:
    """Bob is denied, and doesn't see the page that says so."""
    return "sorry" not in stack.get("/in", cert=stack.people.bob).body


def stranger_chooses_a_directory(stack: Stack) -> bool:
    """Somebody who names the directory of what he is shown, whatever the location is for."""
    (stack.nginx.directory / "pki" / "o").mkdir(exist_ok=True)
    (stack.nginx.directory / "pki" / "o" / "x").write_text("kept")
    return stack.get("/o/x", headers={"Page": "../nginx/pki"}).body == "kept"


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
    Fault("error-page-open", "error_page 599 /authz/;", RECURSIVE, stranger_without_sidecar),
    Fault("denial-passed-on", ASKED, f"{FALLBACK} {ASKED} error_page 401 403 = @app; ", stranger),
    Fault("proxy-pass-request-headers", HEADERS, "", stranger_with_headers, (VERIFY, CERT)),
    Fault("header-wrong", "Real-IP $remote_addr", "Real-IP $http_x_real_ip", says_another_address),
    Fault("cache-key", "$ssl_client_verify$ssl_client_escaped_cert|", "", bob_after_alice),
    Fault("cache-stale", STALE, "proxy_cache_use_stale error;", alice_without_sidecar),
    Fault("cache-longer", STALE, LONGER + STALE, alice_revoked),
    Fault("identity-lost", PUBLIC, PUBLIC + "proxy_set_header Host $host; ", claims_to_be_alice),
    Fault("identity-from-client", PUBLIC, PUBLIC + CLAIM, claims_to_be_alice),
    Fault("no-auth-location", "/authz/site;", "/elsewhere;", stranger),
    Fault("no-auth-location", QUESTION, "proxy_pass http://app;", stranger),
    Fault("no-auth-location", QUESTION, "proxy_pass http://127.0.0.1:8080;", stranger),
    Fault(
        "no-auth-location",
        QUESTION,
        QUESTION + "try_files /no @app; } " + FALLBACK + " location /z {",
        stranger,
    ),
    Fault("no-auth-location", QUESTION, QUESTION + "rewrite ^ /public/ last;", stranger),
    Fault(
        "no-auth-location", QUESTION, QUESTION + "if ($uri) { proxy_pass http://app; }", stranger
    ),
    Fault("question-rewritten", SERVER, SERVER + "rewrite ^/a(.*)/ /public/$1 last;", stranger),
    Fault("question-rewritten", SERVER, SERVER + "rewrite ^/a(.*)/ /public/$1 break;", stranger),
    Fault("question-rewritten", SERVER, SERVER + NO_FILE, stranger),
    Fault("auth-location-returns", SERVER, SERVER + NO_ARGUMENT, stranger_with_an_argument),
    Fault("return-first", SERVER, SERVER + "return 200 in;", stranger),
    Fault(
        "return-first", ASKED, f"{FALLBACK} {ASKED} error_page 418 = @app; return 418; ", stranger
    ),
    Fault(
        "rewrite-first",
        ASKED,
        f"location /inner/ {{ internal; {PASS} }} {ASKED} rewrite ^/in /inner/ last; ",
        stranger,
    ),
    Fault(
        "set-undone",
        SERVER,
        SERVER
        + "set $path /secret; location /in { auth_request /authz/site; "
        + "set $path /in; proxy_pass http://app$path; }",
        alice_gets_another_page,
    ),
    Fault(
        "set-undone",
        "location ^~ /authz/ {",
        "location /in { auth_request /authz/site; set $path /in; proxy_pass http://app$path; }"
        " location ^~ /authz/ { set $path /secret; ",
        alice_gets_another_page,
    ),
    Fault(
        "question-redirected", SERVER, SERVER + "if ($uri !~ ^/in) { return 404; }", alice_is_out
    ),
    Fault(
        "question-redirected",
        SERVER,
        SERVER + "if ($uri = /authz/site) { return 403; }",
        alice_is_out,
    ),
    Fault("dots-passed-on", GUARD, "", stranger_resolves_nothing),
    Fault(
        "dots-passed-on",
        GUARD,
        'if ($request_uri ~ "/\\.\\.") { return 400; }',
        alice_resolves_nothing,
    ),
    Fault("dots-passed-on", GUARD, "if ($uri ~ \\.\\.) { return 400; }", stranger_resolves_nothing),
    Fault("dots-passed-on", PUBLIC + PASS, PUBLIC + DECODED, stranger_encodes_twice, (GUARD,)),
    Fault("line-ends", PUBLIC + PASS, PUBLIC + DECODED, stranger_begins_another_request, (GUARD,)),
    Fault(
        "line-ends",
        PUBLIC,
        PUBLIC + "include snippets/identity.conf; proxy_set_header X-Path $uri; ",
        claims_to_be_alice_by_a_line_end,
        (GUARD,),
    ),
    Fault(
        "line-ends",
        PUBLIC,
        PUBLIC + "include snippets/identity.conf; proxy_set_header X-User $remote_user; ",
        stranger_begins_another_request_by_a_name,
    ),
    Fault(
        "line-ends",
        PUBLIC,
        PUBLIC + "include snippets/identity.conf; proxy_set_header X-Name $ssl_server_name; ",
        claims_to_be_alice_by_a_server_name,
    ),
    Fault("regex-takes", ASKED, PHP + ASKED, alice_where_only_others_may_be),
    Fault("regex-takes", ASKED, PHP.replace("~ ", "~") + ASKED, alice_where_only_others_may_be),
    Fault(
        "regex-takes",
        ASKED,
        PHP.replace("/authz/site", "off") + ASKED,
        alice_where_only_others_may_be,
    ),
    Fault(
        "return-first",
        SERVER,
        f"{SERVER} {FALLBACK} error_page 418 = @app; if ($arg_a) {{ return 418; }} ",
        stranger_with_an_argument,
    ),
    Fault(
        "auth-location-returns",
        SERVER,
        SERVER + SORRY_BY_NAME + 'if ($args = "") { return 418; } ',
        stranger_with_an_argument,
    ),
    Fault(
        "error-page-open",
        "error_page 599 /authz/;",
        "error_page 418 =200 /public.html; if ($uri) { return 418; }",
        stranger,
    ),
    Fault("subrequest", PUBLIC, PUBLIC + "mirror /in; ", stranger_has_it_fetched),
    Fault(
        "return-first",
        ASKED,
        f"{FALLBACK} {ASKED} if ($arg_a) {{ error_page 418 = @app; return 418; }} ",
        stranger_with_an_argument,
    ),
    Fault(
        "denial-passed-on",
        ASKED,
        f"{FALLBACK} {ASKED} if ($arg_a) {{ error_page 401 = @app; }} ",
        stranger_with_an_argument,
    ),
    Fault(
        "denial-passed-on",
        ASKED,
        f"location /inner/ {{ internal; {PASS} }} {ASKED} error_page 401 =200 $arg_a; ",
        stranger_chooses,
    ),
    Fault(
        "denial-passed-on",
        SERVER,
        f"{SERVER} {FALLBACK} error_page 404 = @app; location /inner/ {{ internal; {PASS} }} ",
        stranger_within,
    ),
    Fault(
        "not-asked",
        ASKED,
        f"location /in {{ if ($uri) {{ break; }} return 403; {PASS} }} {ASKED}",
        stranger,
    ),
    Fault(
        "denial-passed-on",
        ASKED,
        f"{FALLBACK} location /in {{ deny all; error_page 403 = @app; }} {ASKED}",
        stranger,
    ),
    Fault(
        "return-first",
        ASKED,
        f"{FALLBACK} location /in {{ error_page 418 = @app; return 418; }} {ASKED}",
        stranger,
    ),
    Fault(
        "denial-passed-on",
        ASKED,
        f"{FALLBACK} location @no {{ auth_request off; try_files /none @app; }} {ASKED} "
        "error_page 401 = @no; ",
        stranger,
    ),
    Fault(
        "denial-passed-on", SERVER, f"{SERVER} {FALLBACK} error_page 405 = @app;", stranger_traces
    ),
    Fault(
        "denial-passed-on",
        ASKED,
        "location /pki/ { auth_request /authz/site; root /etc/nginx/; error_page 401 = @files; } "
        f"location @files {{ auth_request off; root /etc/nginx/; }} {ASKED}",
        stranger_reads_a_file,
    ),
    Fault("subrequest", PUBLIC, PUBLIC + "ssi on; ", stranger_has_a_page_include_it),
    Fault(
        "subrequest",
        PUBLIC,
        f"location = /m {{ internal; {PASS} }} {PUBLIC} root /x; mirror /m; }} location /z {{ ",
        stranger_has_it_mirrored,
    ),
    Fault(
        "prefix-replaced",
        ASKED,
        f"location /pages/ {{ auth_request off; proxy_pass http://app/; }} {ASKED}",
        stranger_below_a_prefix,
    ),
    Fault(
        "never-asks",
        SERVER,
        OPEN_SERVER.replace("http://app", "http://$way").replace(
            "server {", "map $host $way { default 127.0.0.1:8080; } server {", 1
        )
        + SERVER,
        stranger_elsewhere,
    ),
    Fault(
        "identity-lost",
        ASKED,
        f"location = /i {{ internal; proxy_set_header A b; {PASS} }} location /public/by/ {{ "
        f"auth_request off; rewrite ^ /i last; }} {ASKED}",
        claims_to_be_alice_inside,
    ),
    Fault("identity-lost", SERVER, SERVER + "ignore_invalid_headers off;", claims_by_another_name),
    Fault(
        "identity-from-client",
        PUBLIC,
        r"location ~ ^/public/(?<client_cn>\w+)$ { auth_request off; " + PASS + " } " + PUBLIC,
        says_it_in_the_path,
    ),
    Fault(
        "denial-passed-on",
        ASKED,
        f"error_page 404 = @app; {FALLBACK} location /closed/ {{ auth_request /authz/site; ",
        stranger,
    ),
    Fault("denial-passed-on", LOCAL, f"{WEAKER} {LOCAL} error_page 403 = @weak;", alice_is_led_on),
    Fault(
        "denial-passed-on",
        LOCAL,
        f"error_page 501 = @weak; {WEAKER} {LOCAL} error_page 404 /x; ",
        alice_is_refused_early,
    ),
    Fault(
        "return-first",
        LOCAL,
        f"{WEAKER} {LOCAL} error_page 418 = @weak; if ($uri) {{ return 418; }}",
        alice_is_led_on,
    ),
    Fault(
        "auth-location-returns",
        SERVER,
        f"{SERVER} {WEAKER} error_page 418 = @weak; if ($http_x_a) {{ return 418; }}",
        stranger_with_a_header,
    ),
    Fault(
        "denial-passed-on",
        LOCAL,
        f"{WEAKER_WITHIN} {LOCAL} error_page 403 /weak$uri;",
        alice_is_led_on,
    ),
    Fault(
        "target-from-client",
        ASKED,
        f"location /o/ {{ auth_request off; root /etc/nginx/$http_page; }} {ASKED}",
        stranger_chooses_a_directory,
    ),
    Fault("slashes-kept", SERVER, SERVER + "merge_slashes off;", alice_doubles_a_slash),
    Fault("alias-traversal", ASKED, PAGES + ASKED, stranger_goes_above),
    Fault(
        "address-from-client",
        SERVER,
        SERVER + "set_real_ip_from 0.0.0.0/0;",
        says_another_address,
    ),
    Fault("identity-from-client", PUBLIC, PUBLIC + BY_SET, claims_to_be_alice),
    Fault("identity-from-client", PUBLIC, PUBLIC + BESIDE, claims_to_be_alice),
    Fault("alias-traversal", ASKED, FILES + ASKED, stranger_reads_a_key),
    Fault(
        "not-asked",
        ASKED,
        "root /etc/nginx/; location /in { auth_request /authz/site; ",
        stranger_reads_a_file,
    ),
    Fault(
        "never-asks",
        SERVER,
        OPEN_SERVER.replace("http://app", "http://127.0.0.1:8080") + SERVER,
        stranger_elsewhere,
    ),
    Fault(
        "never-asks",
        SERVER,
        OPEN_FILES + SERVER + "location /pki/ { auth_request /authz/site; root /etc/nginx/; } ",
        stranger_reads_a_file_elsewhere,
    ),
    Fault(
        "denial-passed-on",
        ASKED,
        f"{FALLBACK} {ASKED} client_max_body_size 9; error_page 413 = @app; ",
        stranger_sends_too_much,
    ),
    Fault(
        "denial-passed-on",
        SERVER,
        f"limit_req_zone $binary_remote_addr zone=z:1m rate=1r/m; "
        f"{SERVER} limit_req zone=z; {FALLBACK} "
        f"location /in {{ auth_request /authz/site; {PASS} error_page 503 = @app; }} ",
        stranger_asks_often,
    ),
    Fault(
        "denial-passed-on",
        ASKED,
        f"{FALLBACK} {ASKED} post_action @app; ",
        stranger_reaches_the_application,
    ),
    Fault(
        "sni-raw",
        "Name $mtls_sidecar_sni",
        "Name $ssl_server_name",
        bob_says_where_he_is,
        (ADDRESS,),
    ),
    Fault("sni-raw", MAP, MAP.replace("{1,255}\\z", ""), bob_says_where_he_is, (ADDRESS,)),
    Fault(
        "sni-raw",
        MAP,
        MAP.replace("[A-Za-z0-9._-]{1,255}", ".*(?s:.)*"),
        bob_says_where_he_is,
        (ADDRESS,),
    ),
    Fault(
        "question-redirected",
        SERVER,
        SERVER + "rewrite ^/a(.*)/ /public/$1 redirect;",
        alice_is_out,
    ),
    Fault("wrong-uri", "http://mtls_sidecar;", "http://mtls_sidecar/;", alice_is_out),
    Fault("unknown-name", "/authz/site;", "/authz/other;", alice_is_out),
    Fault("proxy-pass-request-body", "proxy_pass_request_body off;", "", alice_may_not_post, BODY),
    Fault("header-missing", VERIFY, "", alice_is_out),
    Fault("question-broken", "proxy_method GET;", "proxy_method POST;", alice_is_out),
    Fault("question-broken", 'proxy_set_body "";', "proxy_set_body x;", alice_is_out),
    Fault("question-broken", "proxy_bind off;", "proxy_bind 127.0.0.1;", alice_is_out),
    Fault("question-broken", QUESTION, QUESTION.replace("http:", "https:"), alice_is_out),
    Fault("question-broken", LENGTH, LENGTH.replace('""', "5"), alice_is_out),
    Fault("question-broken", LENGTH, "", alice_may_not_post, ('proxy_set_body "";',)),
    Fault(
        "question-broken",
        "client_max_body_size 0;",
        "client_max_body_size 9;",
        alice_may_not_post,
    ),
    Fault("origin-missing", PORT, PORT.replace("$mtls", "$server_port; #"), page_of_nginx_s_port),
    Fault("origin-missing", SITE, "", another_site_posts_as_alice, (ORIGIN,)),
    Fault("origin-missing", SITE, SAME, another_site_posts_as_alice),
    Fault("origin-missing", ORIGIN, HACK, another_port_is_the_same_site),
    Fault("origin-missing", PORT, "", another_port_is_the_same_site),
    Fault("header-twice", VERIFY, VERIFY * 2, alice_is_out),
    Fault("header-twice", ORIGIN, ORIGIN * 2, alice_may_not_post_from_a_page),
    Fault("no-verify", OPTIONAL, "", alice_is_out),
    Fault("no-ca-no-trust", OPTIONAL, NO_CA, alice_is_out),
    Fault("error-page-asks", "403 /public.html", "403 /no.html", no_page_for_bob),
]
NOT_SHOWN = {
    "tunnel": "test_doctor_tunnel.py, as it needs nginx 1.31",
    "denial-retried": "test_inherited_directives.py, as it needs another instance",
    "destination-unasked": "test_identity_pitfalls.py, as it needs WebDAV",
    "page-from-client": "test_login.py, as it needs another authorizer",
    "several-cas": "test_one_name_from_several_authorities, as it needs another policy",
    "uri-changed": "test_a_path_that_nginx_changes, as it needs another policy",
    "chosen-otherwise": "test_locations_within_each_other, as it needs another policy",
    "method-changed": "test_a_method_that_nginx_changes, as it needs another policy",
    "script-path": "test_a_script_that_runs_for_other_uris, as it needs FastCGI",
    "early-data": "test_doctor_early_data.py, as it needs a recorded connection",
    "sni-not-last": "test_the_order_of_headers, as the sidecar refuses what comes of it",
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


@pytest.mark.parametrize("fault", FAULTS, ids=lambda each: f"{each.id}-{each.comes.__name__}")
def test_what_doctor_finds_is_so(fault: Fault, tmp_path: Path) -> None:
    """One fault in the configuration: doctor names it, and through nginx its harm is done."""
    with run(fault, tmp_path) as stack:
        assert fault.id in found(stack)
        assert fault.comes(stack)


@pytest.mark.parametrize(
    "comes", dict.fromkeys(each.comes for each in FAULTS), ids=lambda each: each.__name__
)
def test_without_the_fault_no_harm_is_done(comes: Callable[[Stack], bool], tmp_path: Path) -> None:
    """The same configuration without any fault: nothing of it happens."""
    with run(None, tmp_path) as stack:
        assert not comes(stack)


def test_without_any_fault_doctor_is_silent(tmp_path: Path) -> None:
    """It has nothing to say about the configuration in which nothing of it happens."""
    with run(None, tmp_path) as stack:
        assert found(stack) == set()


def test_one_name_from_several_authorities(tmp_path: Path) -> None:
    """Two CAs for clients and a policy without a trust: the partner's alice is let in as alice."""
    binary = next(b for b in nginx_binaries() if isinstance(b, NginxBinary))
    no_trust = "version: 1\nlocations:\n  - {name: site, allow: [{cn: alice}]}\n"
    more = "  - {name: local, allow: []}\n"
    with Stack(binary, tmp_path, conf=CONF, policy=no_trust + more) as stack:
        assert found(stack) == {"several-cas"}
        other_alice = stack.people.partners.issue("alice")
        assert stack.get("/in", cert=other_alice).app
        stack.edit_policy(POLICY)
        assert found(stack) == set()
        assert stack.get("/in", cert=other_alice).status == 403


@pytest.mark.parametrize(
    "change",
    [
        "location /go/ { auth_request /authz; proxy_pass http://app/admin/; }",
        "location /go/ { auth_request /authz; rewrite ^/go/(.*)$ /admin/$1 last; }",
        "rewrite ^/go/(.*)$ /admin/$1 break;",
        "location ~ ^/go/(.*)$ { auth_request /authz; proxy_pass http://app/admin/$1; }",
        "location = /go/x { auth_request /authz; proxy_pass http://app/admin/x; }",
        "rewrite ^/go(/.*)?$ /admin$1 break;",
        "rewrite ^/go/ $http_page last;",
        "location /go/ { auth_request /authz; set $to /admin/; rewrite ^/go/(.*)$ $to$1 last; }",
        "location /go/ { auth_request /authz; error_page 418 = $http_page; return 418; }",
    ],
)
def test_a_path_that_nginx_changes(change: str, tmp_path: Path) -> None:
    """Where the policy chooses by URI the question is about the one that the client wrote: /go/ is
    public, and shows what is kept for alice.  Named, the location is the right one."""
    binary = next(b for b in nginx_binaries() if isinstance(b, NginxBinary))
    by_uri = POLICY + "  - {name: front, location: /, allow: public}\n"
    by_uri += "  - {name: admin, location: /admin/, allow: [{cn: alice}]}\n"
    rest = "location / { auth_request /authz; proxy_pass http://app; }"
    right = "location /admin/ { auth_request /authz; proxy_pass http://app; }"
    conf = CONF.replace("location ^~ /authz/ {", "location ^~ /authz {")
    conf = conf.replace(
        ASKED, f"{right} {change} {rest} location /other/ {{ auth_request /authz/site; "
    )
    with Stack(binary, tmp_path, conf=conf, policy=by_uri) as stack:
        go = partial(stack.get, "/go/x", headers={"Page": "/admin/x"})
        assert "uri-changed" in found(stack)
        assert stack.get("/admin/x").status == 401
        answer = go().app
        assert answer is not None
        assert answer["uri"] == "/admin/x"
        assert go(cert=stack.people.alice).status == 200
        named = conf.replace(right, right.replace("/authz;", "/authz/admin;"))
        named = named.replace(change, change.replace("/authz;", "/authz/admin;"))
        if "break" not in change:
            stack.nginx.write(stack.adapted(named))
            stack.nginx.reload()
            assert "uri-changed" not in found(stack)
            assert go().status == 401


def test_locations_within_each_other(tmp_path: Path) -> None:
    """nginx serves /a/pub.php by the expression within /a/, and the policy's first one is public: a
    stranger gets it.  Asked by its name, or listed in nginx's order, it is kept."""
    binary = next(b for b in nginx_binaries() if isinstance(b, NginxBinary))
    ask = "{ auth_request /authz; proxy_pass http://app; }"
    nested = rf"location /a/ {{ location ~ \.php$ {ask} }} location ~ ^/a/pub {ask} "
    public = "  - {name: pub, location: '~ ^/a/pub', allow: public}\n"
    kept = "  - {name: php, location: '~ \\.php$', allow: [{cn: alice}]}\n"
    conf = CONF.replace("location ^~ /authz/ {", "location ^~ /authz {")
    conf = conf.replace(ASKED, nested + ASKED)
    with Stack(binary, tmp_path, conf=conf, policy=POLICY + public + kept) as stack:
        assert "chosen-otherwise" in found(stack)
        assert stack.get("/a/x.php").status == 401
        assert stack.get("/a/pub.php").status == 200
        stack.edit_policy(POLICY + kept + public)
        assert stack.get("/a/pub.php").status == 401
        assert "chosen-otherwise" not in found(stack)


@pytest.mark.parametrize("binary", nginx_binaries())
@pytest.mark.parametrize(
    ("line", "method", "sent"),
    [
        ("proxy_method $arg_m;", "GET", "DELETE"),
        ("proxy_method DELETE;", "GET", "DELETE"),
        ("proxy_method GET;", "OPTIONS", "GET"),
    ],
)
def test_a_method_that_nginx_changes(
    line: str, method: str, sent: str, binary: NginxBinary, tmp_path: Path
) -> None:
    """Who may only read deletes, and a preflight that nobody has to prove anything for reads."""
    rules = "[{cn: alice, method: GET}], public_methods: [OPTIONS]"
    conf = CONF.replace(ASKED, f"{ASKED} {line} ")
    policy = POLICY.replace("[{cn: alice}], cache_seconds: 1", rules, 1)
    with Stack(binary, tmp_path, conf=conf, policy=policy) as stack:
        assert "method-changed" in found(stack)
        alice = stack.people.alice
        assert stack.get("/in", method=sent).status == 401
        assert stack.get("/in", cert=alice, method="DELETE").status == 403
        cert = alice if method == "GET" else None
        answer = stack.get("/in?m=DELETE", cert=cert, method=method).app
        assert answer is not None
        assert answer["method"] == sent


@pytest.mark.parametrize("way", ["fastcgi", "uwsgi", "scgi", "grpc"])
def test_identity_is_lost_on_every_way(way: str, tmp_path: Path) -> None:
    """A parameter or header of the location's own takes identity.conf's away: doctor names it, and
    a client says that he is root.  With identity.conf in that location it is silent."""
    binary = next(b for b in nginx_binaries() if isinstance(b, NginxBinary))
    with Gateway(way) if way != "grpc" else nullcontext() as gate:
        port = gate.port if gate else free_port()
        own = "grpc_set_header X-Own 1;" if way == "grpc" else f"{way}_param X_OWN 1;"
        target = f"{'grpc://' if way == 'grpc' else ''}127.0.0.1:{port}"
        here = f"location /way/ {{ auth_request /authz/site; {own} {way}_pass {target}; }} "
        if gate is None:  # something that speaks HTTP/2 before the application
            here = f"{SERVER.replace('443 ssl default_server', f'127.0.0.1:{port} http2')} " + (
                "location / { auth_request off; proxy_pass http://app; } }\n" + SERVER + here
            )
            conf = CONF.replace(SERVER, here, 1)
        else:
            conf = CONF.replace(ASKED, here + ASKED)
        with Stack(binary, tmp_path, conf=conf, policy=POLICY) as stack:
            alice, said = stack.people.alice, {"X-Client-DN": "CN=root"}
            assert "identity-lost" in found(stack)
            assert stack.get("/way/", cert=alice, headers=said).saw("X-Client-DN") == ["CN=root"]
            right = conf.replace(own, own + " include snippets/identity.conf;")
            stack.nginx.write(stack.adapted(right))
            stack.nginx.reload()
            assert "identity-lost" not in found(stack)
            assert stack.get("/way/", cert=alice, headers=said).saw("X-Client-DN") == ["CN=alice"]


def test_a_script_that_runs_for_other_uris(tmp_path: Path) -> None:
    """`location = /wp-login.php` isn't asked about /wp-login.php/x, for which PHP runs that script.
    As a prefix with `^~` it is."""
    binary = next(b for b in nginx_binaries() if isinstance(b, NginxBinary))
    with Gateway("fastcgi") as gate:
        php = (
            "include snippets/identity.conf; fastcgi_param HTTP_X_SCRIPT $fastcgi_script_name; "
            f"fastcgi_pass 127.0.0.1:{gate.port}; }} "
        )
        login = f"location = /wp-login.php {{ auth_request /authz/site; {php}"
        split = r"fastcgi_split_path_info ^(.+?\.php)(/.*)$; "
        rest = rf"location ~ [^/]\.php(/|$) {{ auth_request off; {split} {php}"
        conf = CONF.replace(PUBLIC, login + rest + PUBLIC)
        with Stack(binary, tmp_path, conf=conf, policy=POLICY) as stack:
            assert "script-path" in found(stack)
            assert stack.get("/wp-login.php").status == 401
            assert stack.get("/wp-login.php/x").saw("x-script") == ["/wp-login.php"]
            stack.nginx.write(stack.adapted(conf.replace("= /wp-login", "^~ /wp-login")))
            stack.nginx.reload()
            assert "script-path" not in found(stack)
            assert stack.get("/wp-login.php/x").status == 401


def test_the_order_of_headers(tmp_path: Path) -> None:
    """A raw server name before the other headers ends nginx's question early, and writes them
    itself.  The sidecar refuses what stands behind the end, so this shows the question itself."""
    binary = next(b for b in nginx_binaries() if isinstance(b, NginxBinary))
    first = "proxy_set_header SSL-Server-Name $ssl_server_name;\n" + HOST_LINE
    conf = CONF.replace(NAME_LINE, "").replace(HOST_LINE, first, 1)
    sni = "a\r\nX-Original-URI: /\r\n\r\n"
    with Stack(binary, tmp_path, conf=conf, policy=POLICY) as stack:
        assert {"sni-raw", "sni-not-last"} <= found(stack)
        listener = instead_of_the_sidecar(stack)
        with stack.connect(cert=stack.people.bob, sni=sni) as connection:
            asked = threading.Thread(target=connection.get, args=("/in",), kwargs={"host": "a"})
            asked.start()
            with listener, listener.accept()[0] as peer:
                question = peer.recv(65536)
                head = question.partition(b"\r\n\r\n")[0]
            asked.join()
    assert b"X-Original-URI: /\r\n" in head + b"\r\n"
    assert b"X-Request-ID" not in head


def instead_of_the_sidecar(stack: Stack) -> socket.socket:
    """Listen in the place of the sidecar, which is stopped."""
    stack.daemon.stop()
    stack.daemon.socket.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(stack.daemon.socket))
    listener.listen()
    listener.settimeout(20)
    return listener


def test_every_kind_that_does_harm_is_shown() -> None:
    """Each kind of finding is shown above, or costs only time, or says why it isn't."""
    harmful = {id for id, kind in FINDING_KINDS.items() if kind.severity != Severity.COST}
    assert harmful == {each.id for each in FAULTS} | NOT_SHOWN.keys()

"""variants/cert-or-login.conf: a certificate, else a login at a second authorizer.

The second authorizer is a process of its own that speaks oauth2-proxy's paths, cookies and headers
(tests/support/login_service.py): a stand-in, since none is packaged for this system.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest
from examined import found as findings
from nginx import free_port
from stack import Stack
from tools import ROOT, NginxBinary

SITE = "variants/cert-or-login.conf"
PASSED_ON = "denial-passed-on"
PATHS = ("/x", "/admin/x", "/metrics", "/public/x")


@pytest.fixture(scope="module")
def stack(nginx_binary: NginxBinary, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    port = free_port()
    service = ROOT / "tests/support/login_service.py"
    process = subprocess.Popen([sys.executable, service, str(port)])
    try:
        wait_until_listening(port)
        replaced = {"127.0.0.1:4180": f"127.0.0.1:{port}"}
        directory = tmp_path_factory.mktemp("login")
        with Stack(nginx_binary, directory, sites=[SITE], more=replaced) as found:
            yield found
    finally:
        process.kill()
        process.wait()


def wait_until_listening(port: int) -> None:
    ends = time.monotonic() + 60
    while time.monotonic() < ends:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5):
            return
        time.sleep(0.02)
    raise TimeoutError(f"nobody listens on {port}")


def logged_in(stack: Stack, path: str = "/") -> dict[str, str]:
    """Log in as a browser does, led by the answers; the cookie."""
    answer = stack.get(path)
    assert answer.status == 302, answer
    callback = stack.get(answer.headers["location"])
    assert (callback.status, callback.headers["location"]) == (302, path)
    return {"Cookie": callback.headers["set-cookie"].partition(";")[0]}


def test_a_certificate_needs_no_login(stack: Stack) -> None:
    """The application sees the certificate's identity, and no login."""
    answer = stack.get("/a?b=c", cert=stack.people.alice, headers={"X-Login-User": "root"})
    assert (answer.status, answer.saw("x-client-cn")) == (200, ["alice"])
    assert answer.saw("x-login-user") == []


def test_without_a_certificate_one_logs_in_and_comes_back(stack: Stack) -> None:
    """The login page is offered, leads back to the page, and the application sees who it is."""
    cookie = logged_in(stack, "/a?b=c&d=e")
    forged = {**cookie, "X-Client-CN": "alice", "X-Login-User": "root", "X_Login_User": "root"}
    answer = stack.get("/a?b=c&d=e", headers=forged)
    assert answer.app
    assert answer.app["uri"] == "/a?b=c&d=e"
    assert answer.saw("x-login-user") == ["carol"]
    assert answer.saw("x-client-cn") == []
    assert answer.saw("x_login_user") == []


def test_method_and_body_survive_the_login(stack: Stack) -> None:
    """The second question is asked within the same request: a POST stays one."""
    cookie = logged_in(stack)
    answer = stack.get("/form", method="POST", body=b"x=1", headers=cookie)
    assert answer.app
    assert (answer.app["method"], answer.app["body"]) == ("POST", "x=1")
    assert stack.get("/form", method="POST", body=b"x=1").status == 302


def test_a_denied_certificate_gets_no_login(stack: Stack) -> None:
    """403 is final, even with a session of the login."""
    stack.edit_policy(stack.policy.replace("allow: verified", "allow: [{cn: alice}]"))
    answer = stack.get("/", cert=stack.people.bob, headers=logged_in(stack))
    assert (answer.status, answer.app) == (403, None)
    stack.daemon.write("denylist.txt", f"sha256 {stack.people.alice.sha256}\n")
    stack.daemon.until(lambda: stack.get("/", cert=stack.people.alice).status == 403)
    stack.daemon.write("denylist.txt", "")
    stack.daemon.until(lambda: stack.get("/", cert=stack.people.alice).status == 200)


def test_a_certificate_that_nginx_refuses_leads_to_the_login(stack: Stack) -> None:
    """One that has ended, or of a CA that nobody here knows, is as good as none, and no better."""
    cookie = logged_in(stack)
    for cert in (stack.people.expired, stack.people.mallory):
        assert stack.get("/", cert=cert).status == 302
        answer = stack.get("/", cert=cert, headers=cookie)
        assert (answer.saw("x-login-user"), answer.saw("x-client-cn")) == (["carol"], [])


def test_dots_are_400_also_with_a_certificate_that_nginx_refuses(stack: Stack) -> None:
    """nginx is at the login's location before the guards of the snippets."""
    cookie = logged_in(stack)
    for cert in (None, stack.people.expired):
        for path in ("/x/%252e%252e/admin", "/x/..%2fadmin"):
            assert stack.get(path, cert=cert, headers=cookie).status == 400


WITHOUT_LOGIN = """
    location /admin/ { auth_request /authz/admin; proxy_pass http://app; }
    location /metrics { return 403; }
    location /public/ { auth_request off; proxy_pass http://app; }
    location @login {"""


@pytest.mark.parametrize(
    ("leads", "opened", "told"), [("@bad_certificate", False, set()), ("@login", True, {PASSED_ON})]
)
def test_a_certificate_that_nginx_refuses_opens_no_location_without_a_login(
    stack: Stack, leads: str, opened: bool, told: set[str]
) -> None:
    """Who has logged in, and shows any certificate of nobody's, comes to each location as without
    it.  Led to the login from everywhere, he would pass all of them by, which `doctor` tells."""
    before = stack.nginx.conf.read_text()
    cookie, people = logged_in(stack), stack.people
    assert before.count("error_page 495 = @bad_certificate;") == 1
    changed = before.replace("error_page 495 = @bad_certificate", f"error_page 495 = {leads}")
    try:
        stack.nginx.write(changed.replace("location @login {", WITHOUT_LOGIN))
        stack.nginx.reload()
        assert findings(stack) - {"never-asked", "not-asked"} == told
        assert [stack.get(path, headers=cookie).status for path in PATHS] == [200, 401, 403, 200]
        for cert in (people.expired, people.mallory):
            answers = [stack.get(path, cert=cert, headers=cookie) for path in PATHS]
            found = [answer.status for answer in answers]
            assert found == ([200] * 4 if opened else [200, 401, 403, 200])
        assert stack.get("/authz/site", cert=people.mallory, headers=cookie).status != 204
    finally:
        stack.nginx.write(before)
        stack.nginx.reload()


def test_a_forged_session_opens_nothing(stack: Stack) -> None:
    """A cookie that the second authorizer doesn't know, and its question asked from outside."""
    answer = stack.get("/", headers={"Cookie": "_oauth2_proxy=0123456789abcdef"})
    assert (answer.status, answer.app) == (302, None)
    assert stack.get("/oauth2/auth").status == 404
    assert stack.get("/authz/site").app is None


MISLEADING = """
    Forwarded X-Envoy-Original-Path X-Forwarded-Email X-Forwarded-For X-Forwarded-Host
    X-Forwarded-Method X-Forwarded-Port X-Forwarded-Prefix X-Forwarded-Proto X-Forwarded-Server
    X-Forwarded-Uri X-Forwarded-URL X-Forwarded-User X-Host X-HTTP-Method-Override X-Original-Host
    X-Original-Method X-Original-URI X-Original-URL X-Real-IP X-Rewrite-URL Remote-User
""".split()
"""By which an authorizer may take the question for one about another page, client or method."""


def test_the_client_has_no_say_in_the_second_question(stack: Stack) -> None:
    """authentik allows what X-Original-URI says begins with /outpost.goauthentik.io; Authelia goes
    by X-Original-URL and X-Original-Method.  Of the client's headers two arrive, what it logged in
    with, and the host is the server's."""
    forged = dict.fromkeys(MISLEADING, "/outpost.goauthentik.io/forged")
    sent = {**forged, "Cookie": "a=b", "Authorization": "Bearer c"}
    with stack.connect(sni=None) as connection:
        answer = connection.get("/a?b", host="public.example.com", method="POST", headers=sent)
    assert answer.status == 302
    asked = json.loads(stack.get("/oauth2/asked").body)
    assert len(asked) == len(dict(asked))
    assert {name: value for name, value in asked if name != "Connection"} == {
        "Host": "app.example.com",
        "Cookie": "a=b",
        "Authorization": "Bearer c",
        "X-Real-IP": "127.0.0.1",
        "X-Forwarded-For": "127.0.0.1",
        "X-Forwarded-Proto": "https",
        "X-Forwarded-Host": "app.example.com",
        "X-Forwarded-Uri": "/a?b",
        "X-Forwarded-Method": "POST",
        "X-Original-URL": "https://app.example.com/a?b",
        "X-Original-Method": "POST",
    }


QUIET = "proxy_pass_request_headers off;\n        proxy_pass_request_body"
AS_AUTHENTIK = "proxy_pass http://login/outpost.goauthentik.io/auth/nginx;"


def test_doctor_finds_who_lets_the_client_name_the_page(stack: Stack) -> None:
    """With the client's headers passed on, X-Original-URI arrives as the client wrote it.  That is
    told where authentik is asked, which goes by it, and not of oauth2-proxy, which doesn't."""
    before = stack.nginx.conf.read_text()
    assert QUIET in before
    try:
        changed = before.replace(QUIET, "proxy_pass_request_body")
        for pass_on, expected in (
            ("proxy_pass http://login;", set()),
            (AS_AUTHENTIK, {"page-from-client"}),
        ):
            question, _, rest = changed.partition("location = /oauth2/auth {")
            rest = rest.replace("proxy_pass http://login;", pass_on, 1)
            stack.nginx.write(f"{question}location = /oauth2/auth {{{rest}")
            stack.nginx.reload()
            forged = {"X-Original-URI": "/outpost.goauthentik.io/x"}
            assert stack.get("/", headers=forged).status == 302
            asked = dict(json.loads(stack.get("/oauth2/asked").body))
            assert asked["X-Original-URI"] == "/outpost.goauthentik.io/x"
            assert findings(stack) - {"never-asked"} == expected
    finally:
        stack.nginx.write(before)
        stack.nginx.reload()


def findings_after(stack: Stack, old: str, new: str) -> set[str]:
    """What `doctor` finds beside the locations of the main example's policy, which nobody asks."""
    before = stack.nginx.conf.read_text()
    assert old in before
    try:
        stack.nginx.conf.write_text(before.replace(old, new))
        return findings(stack) - {"never-asked"}
    finally:
        stack.nginx.conf.write_text(before)


def test_doctor_finds_nothing_wrong_with_it(stack: Stack) -> None:
    """Two authorizers, one behind the other, and public pages of the second: no finding."""
    assert findings_after(stack, "", "") == set()
    assert findings_after(stack, "auth_request off;\n        proxy_pass", "proxy_pass") == set()


def test_doctor_finds_a_door_without_a_lock(stack: Stack) -> None:
    """Where @login asks nobody, everybody without a certificate is let in."""
    assert "denial-passed-on" in findings_after(stack, "auth_request /oauth2/auth;", "")


def test_doctor_finds_what_leads_to_the_login_before_the_question(stack: Stack) -> None:
    """A page for what nginx refuses itself, in a location whose denials lead to no login, or where
    an internal location comes to light; not where denials lead there as well."""
    asks = "auth_request /authz/admin;"
    inside = {
        f"{asks} error_page 413 = @login;": {PASSED_ON},
        f"{asks} error_page 401 413 = @login;": set(),
        "internal;": {PASSED_ON},
        f"{asks} internal;": set(),
    }
    for each, told in inside.items():
        new = f"location /admin/ {{ proxy_pass http://app; {each} }}\n    location @login {{"
        assert findings_after(stack, "location @login {", new) == told, each


def test_doctor_finds_what_asks_nobody_beside_the_login(stack: Stack) -> None:
    """The login's pages lead to the login alone; a location that leads to the application asks."""
    open_door = "location /x/ { proxy_pass http://app; }\n    location @login {"
    assert findings_after(stack, "location @login {", open_door) == {"not-asked"}

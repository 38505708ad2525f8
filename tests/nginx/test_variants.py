"""Each file of nginx-example/variants/, as it is, on each nginx."""

from __future__ import annotations

import os
import re
import ssl
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path

import http2
import pytest
from https import Answer
from pki import CA, Leaf
from stack import EXAMPLES, HOST, Stack, example
from tools import NginxBinary

HTTP = sorted(
    f"variants/{each.name}"
    for each in (EXAMPLES / "variants").glob("*.conf")
    if not each.name.startswith("dmz-")
)


@pytest.fixture(scope="module")
def stack(nginx_binary: NginxBinary, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """One nginx with all variants, each on a port of its own."""
    with Stack(nginx_binary, tmp_path_factory.mktemp("variants"), sites=HTTP) as found:
        # On a slow machine a second may pass between two requests.
        found.edit_policy(found.policy.replace("cache_seconds: 1\n", "cache_seconds: 600\n"))
        yield found


def at(stack: Stack, name: str) -> partial[Answer]:
    return partial(stack.get, site=f"variants/{name}.conf")


def test_each_variant_says_when_you_want_it() -> None:
    """Every file opens with `# You want:`, and the README's table names it."""
    readme = example("README.md")
    for path in (EXAMPLES / "variants").glob("*.conf"):
        assert path.read_text().startswith("# You want: "), path.name
        assert f"variants/{path.name}" in readme, path.name
    assert set(re.findall(r"variants/[a-z0-9-]+\.conf", readme)) == {
        f"variants/{path.name}" for path in (EXAMPLES / "variants").glob("*.conf")
    }


def test_deny_as_404_looks_like_any_404(stack: Stack) -> None:
    """Denied, without certificate, or not there for the application: the same answer."""
    get = at(stack, "deny-404")
    missing = get("/status/404", cert=stack.people.alice)
    assert missing.status == 404
    for answer in (get("/", cert=stack.people.bob), get("/")):
        assert (answer.status, answer.body) == (404, missing.body)
        assert set(answer.headers) == set(missing.headers)
    assert get("/", cert=stack.people.alice).app


def test_deny_as_403_and_git_asks_for_no_password(stack: Stack, tmp_path: Path) -> None:
    """401, 495 and 496 are 403 to everybody; git says so, where it asks for a name on a 401."""
    people = stack.people
    get = at(stack, "deny-403")
    refused = (None, people.bob, people.expired, people.mallory)
    assert [get("/", cert=cert, method="POST").status for cert in refused] == [403] * 4
    assert get("/", cert=people.alice).app
    (tmp_path / "ca.crt").write_bytes(people.server.pem)
    assert "returned error: 403" in git(stack, "deny-403", tmp_path)
    assert "could not read Username" in git(stack, "http2", tmp_path)


def git(stack: Stack, name: str, home: Path) -> str:
    """What git complains of, without a certificate and without a terminal."""
    url = f"https://localhost:{stack.ports[f'variants/{name}.conf']}/a.git"
    return subprocess.run(
        ["git", "-c", f"http.sslCAInfo={home}/ca.crt", "ls-remote", url],
        env={"PATH": os.environ["PATH"], "HOME": str(home), "GIT_TERMINAL_PROMPT": "0"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    ).stderr


def test_deny_as_444_for_a_stranger(stack: Stack) -> None:
    """Without a certificate, or with a bad one: closed without a word.  Bob gets his 403."""
    get = at(stack, "deny-444")
    assert get("/").status == 0
    assert get("/", cert=stack.people.mallory).status == 0
    assert get("/", cert=stack.people.expired, method="POST").status == 0
    assert get("/", cert=stack.people.bob).status == 403
    assert get("/", cert=stack.people.alice).app
    with pytest.raises(ssl.SSLError):
        get("/", sni="else.example.com", cert=stack.people.alice)


def test_verify_on_wants_a_certificate_everywhere(stack: Stack) -> None:
    """No certificate or a bad one: nginx's own page, and the sidecar isn't asked."""
    get = at(stack, "verify-on")
    for cert in (None, stack.people.mallory):
        answer = get("/", cert=cert)
        assert (answer.status, answer.body) == (403, "A certificate is needed here.\n")
    assert get("/", cert=stack.people.bob).status == 403
    assert get("/", cert=stack.people.alice).app


def test_optional_no_ca_leaves_the_chain_to_the_sidecar(stack: Stack) -> None:
    """A CA that nginx doesn't know, below an intermediate that the client doesn't send."""
    people = stack.people
    get = at(stack, "optional-no-ca")
    dave = people.issuing.issue("dave")
    alone = people.issuing.issue("dave")
    object.__setattr__(alone, "issuer", None)  # its chain is not sent
    for cert in (dave, alone):
        answer = get("/", cert=cert)
        assert (answer.status, answer.saw("x-client-cn")) == (200, ["dave"])
    false = CA("Example Issuing CA", issuer=CA("Example Root"))
    assert get("/", cert=false.issue("dave")).status == 403
    assert get("/", cert=people.mallory).status == 403
    assert get("/", cert=people.alice).status == 403
    assert get("/").status == 401


@pytest.mark.parametrize("cas", ["intermediate", "root", "both", "other"])
def test_optional_no_ca_whatever_ca_nginx_has_elsewhere(
    nginx_binary: NginxBinary, tmp_path: Path, cas: str
) -> None:
    """The CAs that http { } names, an intermediate alone too, refuse nobody in this server."""
    site = "variants/optional-no-ca.conf"
    with ExitStack() as open_:
        stack = Stack(nginx_binary, tmp_path, sites=[site])
        people = stack.people
        issuing, root = people.issuing.pem, people.root.pem
        texts = {"intermediate": issuing, "root": root, "both": issuing + root}
        text = texts.get(cas, people.staff.pem)
        (tmp_path / "nginx/pki/client-cas.crt").write_bytes(text)
        open_.enter_context(stack)
        dave, alone = people.issuing.issue("dave"), people.issuing.issue("dave")
        object.__setattr__(alone, "issuer", None)  # its chain is not sent
        for cert in (dave, alone):
            assert stack.get("/", cert=cert).saw("x-client-cn") == ["dave"]
        assert stack.get("/", cert=people.mallory).status == 403
        assert stack.get("/").status == 401


def test_a_cors_preflight_needs_no_certificate(stack: Stack) -> None:
    """OPTIONS passes without a certificate, nothing else does."""
    get = at(stack, "cors")
    preflight = {"Origin": "https://other.example", "Access-Control-Request-Method": "PUT"}
    answer = get("/api/x", method="OPTIONS", headers=preflight)
    assert answer.app
    assert answer.app["method"] == "OPTIONS"
    for method in ("GET", "POST", "PUT", "HEAD"):
        assert get("/api/x", method=method, headers=preflight).status == 401
    override = {"X-Original-Method": "OPTIONS", "X-HTTP-Method-Override": "OPTIONS"}
    assert get("/api/x", headers=override).status == 401
    assert get("/api/x", cert=stack.people.alice, method="PUT").app


def test_two_names_ask_for_a_certificate_at_one_only(stack: Stack) -> None:
    """www never asks; login does; one's connection doesn't serve the other's pages."""
    people = stack.people
    get = at(stack, "two-names")
    public = get("/", host="www.example.com", cert=people.alice)
    assert (public.status, public.saw("x-client-cn")) == (200, [])
    assert get("/", host="www.example.com", cert=people.mallory).app
    assert get("/", host="login.example.com").status == 401
    assert get("/", host="login.example.com", cert=people.alice).saw("x-client-cn") == ["alice"]
    assert get("/", host="login.example.com", sni="www.example.com").status == 421


def test_a_session_of_the_name_that_does_not_ask_opens_nothing(stack: Stack) -> None:
    """A TLS session from www is refused at login, or is one without a certificate."""
    context = stack.context()
    connect = partial(stack.connect, context=context, site="variants/two-names.conf")
    with connect(sni="www.example.com") as www:
        assert www.get("/").status == 200
        session = www.socket.session  # type: ignore[attr-defined]
    with (
        suppress(ssl.SSLError),
        connect(sni="login.example.com", session=session) as login,
    ):
        assert login.get("/").status == 401


def test_identity_reaches_the_application_and_cannot_be_forged(stack: Stack) -> None:
    """Remote-User and Remote-Groups are the sidecar's, on public pages they are absent."""
    get = at(stack, "app-identity")
    forged = [("Remote-User", "root"), ("Remote-Groups", "wheel"), ("Remote_User", "root")]
    alice = get("/", cert=stack.people.alice, headers=forged)
    bob = get("/", cert=stack.people.bob, headers=forged)
    public = get("/about/", cert=stack.people.bob, headers=forged)
    seen = [(each.saw("remote-user"), each.saw("remote-groups")) for each in (alice, bob, public)]
    assert seen == [(["alice"], ["editor,admin"]), (["bob"], ["reader"]), ([], [])]
    assert not [name for name, _ in (bob.app or {})["headers"] if "_" in name]


def test_websocket_is_asked_for_once_at_its_start(stack: Stack) -> None:
    """The upgrade passes for who may, with the identity; others get 401 and no connection."""
    upgrade = {
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
        "X-Client-CN": "root",
    }
    site = "variants/websocket.conf"
    with stack.connect(cert=stack.people.alice, site=site) as connection:
        assert connection.get("/chat/", headers=upgrade).status == 101
        assert connection.read(7) == b"\x81\x05alice"
    assert stack.get("/chat/", site=site, headers=upgrade).status == 401
    assert stack.get("/chat/", site=site, cert=stack.people.alice).app


@pytest.mark.parametrize("other", ["h2c", "websocket, h2c", "h2c, websocket", "TLS/1.0", "x"])
def test_no_other_upgrade_reaches_the_application(stack: Stack, other: str) -> None:
    """h2c and its like would lead past nginx: the application sees a plain request."""
    said = {"Upgrade": other, "Connection": "Upgrade, HTTP2-Settings", "HTTP2-Settings": "AAMAAABk"}
    answer = at(stack, "websocket")("/chat/", cert=stack.people.alice, headers=said)
    assert answer.status == 200
    assert answer.saw("upgrade") == []
    assert "upgrade" not in str(answer.saw("connection")).lower()


def test_http2_is_decided_as_http1(stack: Stack) -> None:
    """Over h2: 200 for alice, 403 for bob, 401 for nobody."""
    people = stack.people
    seen = [http2_status(stack, cert) for cert in (people.alice, people.bob, None)]
    assert seen == [200, 403, 401]


def http2_status(stack: Stack, cert: Leaf | None) -> int:
    """One GET of /."""
    with stack.connect(cert=cert, site="variants/http2.conf", alpn=["h2"]) as connection:
        assert isinstance(connection.socket, ssl.SSLSocket)
        assert connection.socket.selected_alpn_protocol() == "h2"
        (reply,) = http2.ask(connection.socket, [(http2.get(b"/", b"app.example.com"), None)])
        return reply.status


# -- the cache


def asked(stack: Stack) -> float:
    return stack.decisions("shop", "allowed") + stack.decisions("shop", "no_certificate")


def wait_out_the_minute() -> None:
    """Begin a minute anew where little of it is left: it is in the key of the cache."""
    while time.time() % 60 > 45:
        time.sleep(0.1)


def test_cache_remembers_by_certificate(stack: Stack) -> None:
    """The same question is asked once; another certificate, method, host or SNI isn't."""
    wait_out_the_minute()
    people = stack.people
    get = at(stack, "cache")
    twin = people.staff.issue("alice", dns=["alice.example.com"])
    before = asked(stack)
    for _ in range(3):
        answer = get("/a", cert=people.alice)
        assert answer.saw("x-client-fingerprint") == [people.alice.sha256]
    assert asked(stack) == before + 1
    assert get("/b", cert=twin).saw("x-client-fingerprint") == [twin.sha256]
    assert asked(stack) == before + 2
    assert get("/a", cert=people.alice, method="POST").app
    assert asked(stack) == before + 3
    with stack.connect(cert=people.alice, site="variants/cache.conf", sni=None) as unnamed:
        for host in ("app.example.com", "x.example.com", "x.example.com"):
            assert unnamed.get("/a", host=host).app
    assert asked(stack) == before + 5
    assert [get("/a").status for _ in range(3)] == [401] * 3
    assert asked(stack) == before + 6
    assert get("/a", cert=people.partner).status == 403
    assert get("/a", cert=people.mallory).status == 400


def test_cache_remembers_by_the_port_of_the_page(stack: Stack) -> None:
    """Pages of another port are another site's, whatever was remembered of the port's own."""
    wait_out_the_minute()
    with stack.connect(cert=stack.people.alice, site="variants/cache.conf") as connection:
        for origin, host, status in (
            (f"https://{HOST}:8444", f"{HOST}:8444", 200),
            (f"https://{HOST}:8444", HOST, 403),
            (f"https://{HOST}", HOST, 200),
            (f"https://{HOST}:443", f"{HOST}:443", 200),
            (f"https://{HOST}", f"{HOST}:8444", 403),
            (f"https://{HOST}:8444", f"{HOST}:8444", 200),
        ):
            got = connection.get("/port", host=host, headers={"Origin": origin})
            assert got.status == status, (origin, host)


@pytest.mark.parametrize("seconds", [1, 3])
def test_a_remembered_answer_outlives_a_revocation_by_a_second_at_most(
    stack: Stack, seconds: int
) -> None:
    """The last request that is let in begins at most cache_seconds + 1 after the revocation is in
    force: with `cache_seconds: 1` nobody is let in two seconds later."""
    erin, get = stack.people.staff.issue("erin"), at(stack, "cache")
    before = stack.policy
    stack.edit_policy(before.replace("cache_seconds: 600", f"cache_seconds: {seconds}"))
    assert get("/", cert=erin).app
    denylist = stack.daemon.directory / "denylist.txt"
    denylist.write_text(f"sha256 {erin.sha256}\n")
    elsewhere = at(stack, "websocket")  # a location whose answers aren't remembered
    stack.daemon.until(lambda: elsewhere("/chat/", cert=erin).status == 403)
    in_force = last = time.time()
    while (begun := time.time()) < in_force + 60 and get("/", cert=erin).status == 200:
        last = begun
    assert last <= in_force + seconds + 1
    assert get("/", cert=erin).status == 403
    denylist.write_text("")
    stack.daemon.until(lambda: elsewhere("/chat/", cert=erin).status == 200)
    stack.edit_policy(before)


def test_without_cache_seconds_nothing_is_remembered(stack: Stack) -> None:
    """The same location without that key: every request is asked about."""
    before = stack.policy
    stack.edit_policy(before.replace("cache_seconds: 600", "cache_seconds: 0"))
    frank = stack.people.staff.issue("frank")
    count = asked(stack)
    for _ in range(3):
        assert at(stack, "cache")("/", cert=frank).app
    assert asked(stack) == count + 3
    stack.edit_policy(before)


def test_by_uri_the_sidecar_chooses(stack: Stack) -> None:
    """One auth_request for the server: public, staff and admin by URI, the rest denied."""
    people, host = stack.people, "by-uri.example.com"
    get = partial(at(stack, "by-uri"), host=host)
    assert get("/").app
    assert get("/staff/x", cert=people.bob).app
    assert get("/admin/x", cert=people.bob).status == 403
    assert get("/admin/x", cert=people.alice).app
    assert get("/staff/x").status == 401
    for uri in ("//admin//x", "/%61dmin/x"):
        assert get(uri, cert=people.bob).status == 403
    assert get("/staff/%2e./admin/x", cert=people.bob).status == 400
    assert get("/else", cert=people.alice).status == 403
    assert get("/authz", cert=people.alice).status == 404


def test_nginx_has_nothing_to_say_against_the_examples(stack: Stack) -> None:
    """`nginx -t` warns of nothing but the older form of http2."""
    said = stack.nginx.test().stderr
    warnings = [line for line in said.splitlines() if "[warn]" in line]
    assert [line for line in warnings if '"listen ... http2" directive' not in line] == []


def test_a_large_certificate_is_remembered_as_well(stack: Stack) -> None:
    """The key has its fingerprint, so a thousand names are no more than one."""
    wait_out_the_minute()
    names = [f"host-{number:04}.some-department.example.com" for number in range(1000)]
    large = stack.people.staff.issue("large", dns=names)
    before = asked(stack)
    for _ in range(3):
        assert at(stack, "cache")("/", cert=large).app
    assert asked(stack) == before + 1

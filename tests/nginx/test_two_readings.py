"""Paths and hosts that nginx and an application may read differently don't reach it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from examined import CONF, POLICY, found
from stack import EXAMPLES, Stack, example
from tools import ROOT, NginxBinary

from sidecar.commands.doctor.guards import WRITE

VARIANTS = [f"variants/{name}.conf" for name in ("by-uri", "cache", "two-names")]
CAPTURES = """
PCRE_JIT
http {
    include snippets/mtls-sidecar.conf;
    MAPS
    ssl_certificate pki/server.crt;
    ssl_certificate_key pki/server.key;
    ssl_client_certificate pki/client-cas.crt;
    ssl_verify_client optional;
    upstream app { server 127.0.0.1:8080; }
    server {
        listen 443 ssl;
        server_name app.example.com "";
        include snippets/authz-location.conf;
        location ~ ^/of/([^/]+)/([^/]+)$ {
            auth_request /authz/site;
            include snippets/identity.conf;
            proxy_set_header Upgrade $websocket;
            proxy_set_header Connection $connection_upgrade;
            proxy_set_header X-Tenant "$1 $2";
            proxy_set_header X-Client-CN "$1 $2";   # greeted by the application
            proxy_pass http://app;
        }
    }
    server {
        listen 443 ssl;
        server_name www.example.com;
        location ~ ^/of/([^/]+)/([^/]+)$ {
            proxy_set_header X-Tenant "$1 $2 $1 $2 $1 $2";
            include snippets/identity.conf;
            proxy_pass http://app;
        }
    }
    server {
        listen 443 ssl;
        server_name "~^(www\\.)?(.+)\\.sites\\.example\\.com$";
        include snippets/authz-location.conf;
        include snippets/identity.conf;
        auth_request /authz/site;
        location / { root /srv/sites/$2; }
        location /app/ {
            proxy_set_header X-Tenant $2;
            include snippets/identity.conf;
            proxy_pass http://app;
        }
    }
}
"""


@pytest.fixture(scope="module")
def main(nginx_binary: NginxBinary, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with Stack(nginx_binary, tmp_path_factory.mktemp("main")) as found:
        yield found


@pytest.fixture(scope="module")
def variants(
    nginx_binary: NginxBinary, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stack]:
    with Stack(nginx_binary, tmp_path_factory.mktemp("variants"), sites=VARIANTS) as found:
        yield found


UP = ["..", "%2e%2e", "%2E.", ".%2e", "./.."]


@pytest.mark.parametrize("up", UP)
def test_dots_lead_nowhere(main: Stack, variants: Stack, up: str) -> None:
    """nginx would decide about the path without them, and pass them on to the application."""
    before = len(main.app.seen)
    alice = main.people.alice
    for path in (
        f"/admin/{up}/public/x",
        f"/admin/users/{up}/{up}/public/x?a=b",
        f"/admin/users/{up}%2f{up}%2Fpublic/",
        f"/admin%2f{up}/favicon.ico",
        f"/public/x/{up}",
        f"/public/x/{up}?a",
    ):
        assert main.get(path).status == 400, path
        assert main.get(path, cert=alice).status == 400, path
    assert len(main.app.seen) == before
    host = "by-uri.example.com"
    assert variants.get(f"/admin/{up}/", host=host, site=VARIANTS[0]).status == 400
    assert variants.get(f"/a/{up}/", site=VARIANTS[1], cert=variants.people.alice).status == 400


TWICE = ["%252e%252e", ".%252E", "%25252e.", "%2e%252e"]
TWICE += ["%25%32%65.", ".%252%45", "%25%32e%252e", "%25%32%35%32%65.", "%2525%32e."]


@pytest.mark.parametrize("up", TWICE)
def test_nor_do_dots_that_are_encoded_twice(main: Stack, up: str) -> None:
    """They are dots to whatever decodes twice, and wherever nginx passes on `$uri`."""
    for path in (f"/public/{up}/admin/x", f"/public%252f{up}%2fadmin/", f"/public/a/{up}"):
        assert main.get(path).status == 400, path


@pytest.mark.parametrize("mark", ["%3f", "%23"])
def test_nor_do_dots_before_a_mark_that_is_decoded(main: Stack, mark: str) -> None:
    """Where nginx passes on `$uri`, the path ends there."""
    for path in (f"/public/..{mark}x", f"/public/%2e%2E{mark}/admin/", f"/public/..%25{mark[1:]}"):
        assert main.get(path).status == 400, path


@pytest.mark.parametrize("end", ["%0d%0a", "%0A", "x%0D"])
def test_a_line_end_leads_nowhere(main: Stack, end: str) -> None:
    """`$uri` has it decoded: passed on, it would begin another header, or another request."""
    for path in (f"/public/{end}X-Client-CN:%20alice", f"/public/x{end}", f"/{end}/?a=b"):
        assert main.get(path).status == 400, path


def test_nginx_alone_may_end_a_path_at_a_number_sign(main: Stack) -> None:
    """`/public/#/../admin/` is public to nginx."""
    assert main.get("/public/#/../admin/").status == 400
    assert main.get("/public/#").status == 400


@pytest.mark.parametrize(
    "path",
    [
        "..a",
        "a..",
        ".a/b.",
        "...",
        ".well-known/x",
        "a%2eb",
        "?a=/../b",
        "?/..",
        "a?b#c",
        "%2e%2ea",
        "a%252eb",
        "a%252f%252f",
        "%250d%250a",
        "100%25%C3%A4",
        "100%25%20",
        "100%25a%2fb",
        "a%3fb%23",
        "?a=%0d%0a",
        "%09",
    ],
)
def test_dots_in_names_and_queries_are_passed_on(main: Stack, path: str) -> None:
    """They resolve to nothing."""
    answer = main.get(f"/public/{path}").app
    assert answer is not None
    assert answer["uri"] == f"/public/{path}"


BARE = "if ($mtls_sidecar_refused) { return 400; }"


def test_doctor_knows_the_guard(nginx_binary: NginxBinary, tmp_path: Path) -> None:
    """Without it strangers have a path of the application's that is alice's; the line that doctor
    writes is another."""
    written = WRITE.partition("in the server: ")[2].removesuffix(")")
    assert BARE in CONF
    for guard, status, told in ((BARE, 400, False), ("", 200, True), (written, 400, False)):
        text = CONF.replace(BARE, guard)
        with Stack(nginx_binary, tmp_path / str(len(text)), conf=text, policy=POLICY) as stack:
            for up in UP:
                assert stack.get(f"/in/{up}/public/x").status == status
                assert stack.get(f"/in/a%2f{up}%2F{up}/public/x").status == status
            assert stack.get("/public/x..y?a=/../b").status == 200
            assert ("dots-passed-on" in found(stack)) == told


def test_doctor_knows_a_guard_on_which_pcre_gives_up(
    nginx_binary: NginxBinary, tmp_path: Path
) -> None:
    """A group that repeats without end in a `map`: nginx goes on with the default behind a long
    path, so that the guard is none."""
    assert BARE in CONF
    buffers = "pcre_jit on;\nhttp { large_client_header_buffers 4 64k;"
    made = 'map $request_uri $up { default ""; "~*[^?]*(?:/|%2f)(?:%2e|[.])+(?:/|%2f)" 1; }'
    text = CONF.replace("http {", f"{buffers} {made}", 1).replace(BARE, "if ($up) {return 400;}")
    with Stack(nginx_binary, tmp_path, conf=text, policy=POLICY) as stack:
        assert stack.get("/in/../public/x").status == 400
        answer = stack.get("/in/../public/" + "." * 30_000).app
        assert answer is not None
        assert answer["uri"].startswith("/in/../public/")
        assert "dots-passed-on" in found(stack)


PICTURES = (
    "location ~ [.]png$ { auth_request off; proxy_pass http://app%s; }\n        location /admin/"
)


def test_an_encoded_question_mark_ends_a_path_that_nginx_has_decoded(
    nginx_binary: NginxBinary, tmp_path: Path
) -> None:
    """Behind an expression of its end; not where the path is passed on as it was written."""
    asked = "/admin/x%3f.png"
    for passed, expected in (("$uri", "/admin/x?.png"), ("", asked), ("$request_uri", asked)):
        text = example("nginx.conf").replace("location /admin/", PICTURES % passed, 1)
        with Stack(nginx_binary, tmp_path / f"x{len(passed)}", conf=text) as stack:
            answer = stack.get(asked).app
            assert answer is not None
            assert answer["uri"] == expected


CASE = r"location ~* \A/admin(/|\z)"


def test_another_case_of_a_path(nginx_binary: NginxBinary, tmp_path: Path) -> None:
    """It is another path to nginx: bob is asked about as the staff, unless the location is `~*`."""
    assert CASE in (ROOT / "docs/security.md").read_text()
    paths = ("/ADMIN", "/Admin/x", "/admin", "/aDMIN/")
    conf = example("nginx.conf")
    changed = conf.replace("location /admin/", CASE)
    for text, expected in ((conf, {200, 301}), (changed, {403})):
        with Stack(nginx_binary, tmp_path / str(len(text)), conf=text) as stack:
            bob = stack.people.bob
            assert {stack.get(path, cert=bob).status for path in paths} == expected


SLASH = r"location ~ \A/admin/?\z"


def test_a_slash_behind_a_path(nginx_binary: NginxBinary, tmp_path: Path) -> None:
    """`location = /admin` is for one path: bob is asked about the other as the staff."""
    assert SLASH in (ROOT / "docs/security.md").read_text()
    conf = example("nginx.conf")
    for where, expected in (("location = /admin", 200), (SLASH, 403)):
        text = conf.replace("location /admin/", where)
        with Stack(nginx_binary, tmp_path / str(expected), conf=text) as stack:
            bob = stack.people.bob
            assert stack.get("/admin", cert=bob).status == 403
            assert stack.get("/admin/", cert=bob).status == expected


ODD = ["{}.:80.", "{}.:443.", "x@{}", "{}#", "{}?", "{}\\", "{}%00", "{},x", "{};", ".{}", "[{}]"]


@pytest.mark.parametrize("odd", ODD)
def test_a_host_of_the_default_server_is_no_other_servers(
    main: Stack, variants: Stack, odd: str
) -> None:
    """What matches no server_name is the default server's; the application, which may make a name
    out of it, doesn't get to see it."""
    host, www = odd.format("login.example.com"), "www.example.com"
    assert variants.get("/", host=host, sni=www, site=VARIANTS[2]).status in (400, 421)
    host = odd.format("acme.customers.example.com")
    with main.connect(cert=main.people.bob, sni=None) as connection:
        assert connection.get("/", host=host).status in (400, 403)


@pytest.mark.parametrize(
    "host", ["app.example.com", "app_1.test:8443", "[2001:db8::1]:80", "10.0.0.1"]
)
def test_a_name_or_an_address_is_passed_on(main: Stack, host: str) -> None:
    """With its port."""
    with main.connect(sni=None) as connection:
        assert connection.get("/public/", host=host).saw("host") == [host]


@pytest.fixture(scope="module", params=["", "pcre_jit on;"], ids=["", "jit"])
def captures(
    nginx_binary: NginxBinary,
    tmp_path_factory: pytest.TempPathFactory,
    request: pytest.FixtureRequest,
) -> Iterator[Stack]:
    policy = "version: 1\nlocations:\n  - {name: site, allow: public}\n"
    maps = "\n".join(re.findall(r"(?ms)^map .*?^}", example("variants/websocket.conf")))
    conf = CAPTURES.replace("MAPS", maps).replace("PCRE_JIT", request.param)
    directory = tmp_path_factory.mktemp("captures")
    for tenant in ("a", "b"):
        (directory / "sites" / tenant).mkdir(parents=True)
        (directory / "sites" / tenant / "x").write_text(f"{tenant}'s")
    more = {"/srv/sites": f"{directory}/sites"}
    with Stack(nginx_binary, directory, conf=conf, policy=policy, more=more) as found:
        yield found


def test_the_locations_captures_are_its_own(captures: Stack) -> None:
    """Neither a host with a port nor an upgrade takes the place of `$1` behind identity.conf and
    the maps of websocket.conf."""
    for host in ("app.example.com", "app.example.com:8443", "App.example.com.", "victim:80"):
        with captures.connect(sni=None) as connection:
            assert connection.get("/of/a/b", host=host).saw("x-tenant") == ["a b"]
    with captures.connect() as connection:
        upgrade = {"Upgrade": "WebSocket", "Connection": "Upgrade"}
        assert connection.get("/of/a/b", headers=upgrade).status == 101
        assert connection.read(5) == b"\x81\x03a b"
    with captures.connect(sni=None) as connection:
        answer = connection.raw(b"GET /of/a/b HTTP/1.0\r\n\r\n")
    assert (answer.saw("x-tenant"), answer.saw("host")) == (["a b"], ["app.example.com"])


def test_so_they_are_where_nobody_is_asked(captures: Stack) -> None:
    """In a server that has identity.conf alone, with `$1` before the host (nginx counts the octets
    of all headers first, and then copies them)."""
    for host in ("www.example.com", "www.example.com:8443", "WWW.example.com.:1"):
        with captures.connect(sni=None) as connection:
            answer = connection.get("/of/a/b", host=host)
        assert answer.saw("x-tenant") == ["a b a b a b"]
        assert answer.saw("host") == [host]


def test_the_captures_of_a_server_name_are_its_own(captures: Stack) -> None:
    """`server_name ~^(www\\.)?(.+)$; root /sites/$2;`, as nginx's documentation has it: nobody gets
    another site's files, nor is another site to the application."""
    name = "a.sites.example.com"
    for host in (name, f"{name}:443", f"www.{name}", "A.sites.example.com.:65535"):
        with captures.connect(sni=None) as connection:
            assert connection.get("/x", host=host).body == "a's"
            assert connection.get("/b/x", host=host).status == 404
            assert connection.get("/app/", host=host).saw("x-tenant") == ["a"]


@pytest.mark.parametrize("odd", [*ODD, "{}:", "{}:0", "{}:x"])
def test_nor_are_they_by_an_odd_host(captures: Stack, odd: str) -> None:
    """A host that the map's regular expressions match doesn't reach the application at all."""
    for name in ("www.example.com", "a.sites.example.com"):
        for path in ("/of/a/b", "/app/"):
            with captures.connect(sni=name) as connection:
                absolute = f"GET https://{name}{path} HTTP/1.1"
                request = f"{absolute}\r\nHost: {odd.format('victim')}\r\n\r\n"
                assert connection.raw(request.encode()).status in (400, 404)
            assert captures.get(path, host=odd.format(name), sni=name).app is None


REPEATED = ("a", "a/", "/.a", "%61", "a.", "//", "%25", "%2525252", "%0")


@pytest.mark.parametrize("length", [300, 8_000, 100_000])
def test_a_long_path_or_host_is_read_as_a_short_one(
    nginx_binary: NginxBinary, tmp_path_factory: pytest.TempPathFactory, length: int
) -> None:
    """PCRE reaches no limit on it, where nginx would go on with the map's default."""
    jit = "large_client_header_buffers 4 256k; client_header_buffer_size 256k;"
    conf = "pcre_jit on;\n" + example("nginx.conf").replace("http {", f"http {{ {jit}", 1)
    with Stack(nginx_binary, tmp_path_factory.mktemp("long"), conf=conf) as stack:
        for head, part in (*((p, p) for p in REPEATED), ("%25", "25")):
            long = head + part * (length // len(part))
            assert stack.get(f"/public/{long}/../x").status == 400
            assert stack.get(f"/admin/../public/{long}").status == 400
        for host in ("a." * (length // 2) + "x@b", "a" * length + "@b", "a." * (length // 2) + "b"):
            with stack.connect(sni=None) as connection:
                assert connection.get("/public/x", host=host).status in (400, 431)
        said = stack.nginx.error_log
        assert "pcre" not in said.lower().replace("pcre_jit", "")


@pytest.mark.parametrize("file", sorted(EXAMPLES.rglob("*.conf")), ids=lambda file: file.name)
def test_a_map_keeps_no_place_for_each_turn_of_a_group(file: Path) -> None:
    """A group repeats without end only if it is possessive: else it needs memory for each turn,
    PCRE gives up on a long text, and the client has chosen the default."""
    for line in re.findall(r'(?m)^ +"(~.*)" [^"]*;', file.read_text()):
        assert not re.search(r"\)(?:[*+]|\{\d+,\})(?!\+)", line), line

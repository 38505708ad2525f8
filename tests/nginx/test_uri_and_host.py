"""The same requests to real nginx and to the sidecar: both choose the same location.

nginx answers each request with the location that it chose, its `$host`, `$request_uri` and `$uri`.
`Chooser` is then given just what the sidecar would be given, `$host` and `$request_uri`.  Where
nginx answers 400, the sidecar's answer is None.  The other way round only what `locations.py`
lists may be None.

MTLS_SIDECAR_DIFFERENTIAL=1000000 asks that many; MTLS_SIDECAR_SEED repeats a run.
"""

from __future__ import annotations

import random
import re
import socket
import ssl
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from itertools import product
from pathlib import Path

import pytest
from differential import (
    COUNT,
    FIXED,
    GAVE_UP,
    SEED,
    Answer,
    Block,
    Case,
    Site,
    ask,
    cases,
    conf,
    random_policy,
    read_answers,
    run,
)
from nginx import Nginx, free_port
from pki import CA
from random_regex import expressions
from tools import NginxBinary

from sidecar.core.nginx.locations import (
    MAX_PATH,
    Chooser,
    LocationEntry,
    SelectorError,
    parse_location,
    parse_server_name,
)


def test_host_and_uri_choose_as_nginx(nginx_binary: NginxBinary, tmp_path: Path) -> None:
    """Whatever is asked, nginx and the sidecar choose the same location.

    On a third of the ports the servers differ in `merge_slashes`.
    """
    dice = random.Random(SEED)
    print(f"MTLS_SIDECAR_SEED={SEED} MTLS_SIDECAR_DIFFERENTIAL={COUNT}")
    policies = [FIXED, FIXED, *(random_policy(dice) for _ in range(18))]
    sites = [
        Site(blocks, i % 2 == 0, free_port(), mixed=i % 3 == 0) for i, blocks in enumerate(policies)
    ]
    strict = nginx_binary.version >= (1, 31)
    seen: Counter[str] = Counter()
    with Nginx(nginx_binary, conf(sites), tmp_path):
        for site in sites:
            seen += run(site, strict, cases(site, COUNT // len(sites), dice))
    print(seen)
    assert min(seen[k] for k in ("chosen", "no location", "refused", "unsure")) > COUNT // 200


# -- single requests ------------------------------------------------------------------------------


def one(
    binary: NginxBinary, directory: Path, blocks: list[Block], asked: list[Case]
) -> list[Answer]:
    """nginx's answers, with these servers on one port."""
    site = Site(blocks, True, free_port())
    with Nginx(binary, conf([site]), directory):
        return [answer for _, answer in ask(site.port, asked)]


FIRST_NAMES = ["~www", "~^www(?<a>.)", "*.example.com", "www.*", ".example.com", "Default.Name"]


@pytest.mark.parametrize("first", FIRST_NAMES)
def test_a_request_without_host(nginx_binary: NginxBinary, tmp_path: Path, first: str) -> None:
    """Its `$host` is the server's first `server_name`: the sidecar chooses the default server's
    location, or none, and never another server's that a name of this spelling would match."""
    others = ["www", "~www$", "~[*]", "*.test", "x.example.com"]
    blocks: list[Block] = [(None, ["/"]), *((name, ["/"]) for name in others)]
    site = Site(blocks, True, free_port())
    text = conf([site]).replace('"default.invalid"', first, 1)
    assert first in text
    with Nginx(nginx_binary, text, tmp_path):
        ((_, answer),) = ask(site.port, [Case(None, b"/x")])
    assert (answer.status, answer.name) == (200, "s0-l0")
    assert Chooser(site.entries).choose(answer.host, b"/x") in (None, "s0-l0")


def test_odd_names_are_hosts(nginx_binary: NginxBinary, tmp_path: Path) -> None:
    """`_`, `--` and `a+b` are servers of their own, which a `Host` of this name reaches."""
    names = ["_", "--", "a+b", "a_b", "[::1]"]
    blocks: list[Block] = [(None, ["/"]), *((name, ["/"]) for name in names)]
    asked = [Case(name.encode(), b"/x") for name in names]
    answers = one(nginx_binary, tmp_path, blocks, asked)
    chooser = Chooser(Site(blocks, True, 0).entries)
    for i, (name, answer) in enumerate(zip(names, answers, strict=True), 1):
        assert answer.name == f"s{i}-l0" == chooser.choose(name, b"/x")


def test_long_locations(nginx_binary: NginxBinary, tmp_path: Path) -> None:
    """255 octets are compared whole; of 295, nginx 1.22 compares 39, and they are refused here."""
    right, wrong = "/" + "a" * (MAX_PATH - 1), "/" + "b" * 294
    blocks: list[Block] = [(None, ["/", right, wrong])]
    asked = [Case(b"x", p.encode()) for p in (right, right[:-1], wrong, wrong[:39])]
    names = [each.name for each in one(nginx_binary, tmp_path, blocks, asked)]
    cut = nginx_binary.version < (1, 23)
    assert names == ["s0-l1", "s0-l0", "s0-l2", "s0-l2" if cut else "s0-l0"]
    for form in ("", "= ", "^~ "):
        parse_location(form + right)
        with pytest.raises(SelectorError, match="at most 255 octets"):
            parse_location(form + wrong)


def test_backslashes_of_nginx_conf(nginx_binary: NginxBinary, tmp_path: Path) -> None:
    r"""`location ~ \\.php$` is `\.php$` to nginx, quoted and not: here it is refused, and said."""
    port = free_port()
    text = f"""http {{ server {{ listen 127.0.0.1:{port};
        location ~ \\\\.php$ {{ return 200 "bare\n\n\n"; }}
        location ~ "\\\\.(jpe?g){{1}}$" {{ return 200 "quoted\n\n\n"; }}
        location /a\\\\b {{ return 200 "path\n\n\n"; }} }} }}"""
    with Nginx(nginx_binary, text, tmp_path):
        asked = [Case(b"x", target) for target in (b"/x.php", b"/x.jpg", b"/a%5Cb")]
        names = [answer.name for _, answer in ask(port, asked)]
    assert names == ["bare", "quoted", "path"]
    for source in (r"~ \\.php$", r"/a\\b"):
        with pytest.raises(SelectorError, match=r"nginx\.conf"):
            parse_location(source)


def test_names_that_nginx_drops(nginx_binary: NginxBinary, tmp_path: Path) -> None:
    """A name is the first server's: a later `.x` is dropped as a whole, `~re` is never reached."""
    names = ["x.test", ".x.test", "*.y.test", ".y.test", "~^r", "~^r"]
    blocks: list[Block] = [(None, ["/"]), *((name, ["/"]) for name in names)]
    hosts = [b"x.test", b"a.x.test", b"y.test", b"a.y.test", b"r"]
    asked = [Case(host, b"/") for host in hosts]
    found = [each.name for each in one(nginx_binary, tmp_path, blocks, asked)]
    assert found == ["s1-l0", "s0-l0", "s0-l0", "s3-l0", "s5-l0"]


TWO_SERVERS = """http {{
    ssl_certificate {cert}; ssl_certificate_key {key};
    server {{ listen 127.0.0.1:{port} ssl default_server; server_name one.test; merge_slashes {one};
        location / {{ return 200 "one\n$host\n$request_uri\n$uri"; }}
        location /admin/ {{ return 200 "one-admin\n$host\n$request_uri\n$uri"; }} }}
    server {{ listen 127.0.0.1:{port} ssl; server_name two.test; merge_slashes {two};
        location / {{ return 200 "two\n$host\n$request_uri\n$uri"; }}
        location /admin/ {{ return 200 "two-admin\n$host\n$request_uri\n$uri"; }} }}
}}"""


@pytest.mark.parametrize(("one", "two"), [("on", "off"), ("off", "on")])
def test_merge_slashes_of_another_server(
    nginx_binary: NginxBinary, tmp_path: Path, one: str, two: str
) -> None:
    """nginx takes `merge_slashes` of the server of the SNI, else of the default one, and the
    location of the server of the Host: the sidecar chooses the same location, or none."""
    cert, key = CA("root").server("one.test", "two.test").write(tmp_path)
    port = free_port()
    text = TWO_SERVERS.format(cert=cert, key=key, port=port, one=one, two=two)
    entries: list[LocationEntry] = [
        (f"{server}{name}", parse_server_name(f"{server}.test"), parse_location(location))
        for server in ("one", "two")
        for name, location in (("", "/"), ("-admin", "/admin/"))
    ]
    chooser, seen = Chooser(entries), set()
    with Nginx(nginx_binary, text, tmp_path):
        for host, sni in product((b"one.test", b"two.test"), (None, "one.test", "two.test")):
            for target in (b"//admin/x", b"/admin/x", b"/admin//x", b"/a/..//admin/"):
                answer = over_tls(port, sni, Case(host, target))
                chosen = chooser.choose(answer.host, answer.request_uri)
                assert chosen in (None, answer.name), (host, sni, target, answer)
                assert chosen or b"//admin" in target
                seen.add((host, target, answer.name))
    assert {(b"two.test", b"//admin/x", "two"), (b"two.test", b"//admin/x", "two-admin")} <= seen


def over_tls(port: int, sni: str | None, case: Case) -> Answer:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with (
        socket.create_connection(("127.0.0.1", port), timeout=20) as plain,
        context.wrap_socket(plain, server_hostname=sni) as connection,
    ):
        connection.sendall(case.raw)
        (answer,) = read_answers(connection, 1)
        return answer


# -- regular expressions --------------------------------------------------------------------------


def regex_cases(count: int, servers: int, dice: random.Random) -> Iterator[Case]:
    pieces = b"a b c A Z 0 _ - / . % %20 %2f %25 %c3%a9 %e9 %e0 %fc %85 %a0 %7b } ] ! x \xc3\xa9"
    for _ in range(count):
        path = b"".join(dice.choices(pieces.split(), k=dice.randint(0, 8)))
        path = re.sub(rb"%(?![0-9a-f]{2})", b"%25", path)
        yield Case(b"r%d.test" % dice.randrange(servers), b"/" + path.lstrip(b"/"))


def regex_blocks(count: int, dice: random.Random) -> list[Block]:
    """Servers with one regular expression each, of those that are taken here."""
    blocks: list[Block] = [(None, ["/"])]
    for source in expressions(dice):
        text = f"{dice.choice(['~', '~*'])} {source}"
        if source.count("(?<n>") > 1 or source != source.strip():  # nginx wants each name once
            continue
        with suppress(SelectorError):
            parse_location(text)
            blocks.append((f"r{len(blocks) - 1}.test", ["/", text]))
        if len(blocks) > count:
            return blocks
    raise AssertionError("endless")


def test_regular_expressions_mean_the_same_to_nginx(
    nginx_binary: NginxBinary, tmp_path: Path
) -> None:
    """Whatever is taken here, nginx's PCRE and RE2 find it in the same URIs, with `~` and `~*`.

    The one has PCRE 8 built in, the other is linked with PCRE2.
    """
    dice = random.Random(SEED)
    print(f"MTLS_SIDECAR_SEED={SEED} MTLS_SIDECAR_DIFFERENTIAL={COUNT}")
    site = Site(regex_blocks(250, dice), True, free_port())
    with Nginx(nginx_binary, conf([site]), tmp_path):
        seen = run(site, True, regex_cases(COUNT, 250, dice))
    print(seen)
    assert seen["chosen"] + seen["unsure"] > COUNT * 0.9


RUNS_AWAY = "~ (([^a-c]*?|)*?[-a]*)+[à-ü]{2}"


def test_an_expression_that_runs_away(nginx_binary: NginxBinary, tmp_path: Path) -> None:
    """PCRE gives up at its match limit: nginx answers 500 and serves nobody."""
    blocks: list[Block] = [(None, ["/", RUNS_AWAY])]
    (answer,) = one(nginx_binary, tmp_path, blocks, [Case(b"x", b"/-0].%e0%2f!%fc-----")])
    said = (tmp_path / "stderr").read_bytes() + (tmp_path / "error.log").read_bytes()
    assert answer.status == GAVE_UP
    assert re.search(rb"pcre2?_(exec|match)\(\) failed: -(8|47)", said)


def test_names_of_servers_read_as_nginx_reads_them() -> None:
    """A name in nginx's quotes is refused, with what to write."""
    with pytest.raises(SelectorError, match="quotes"):
        parse_server_name('"~^x{2}$"')

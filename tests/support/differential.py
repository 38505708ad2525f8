"""The same hosts and URIs asked of nginx and of the sidecar, and their answers compared."""

from __future__ import annotations

import os
import random
import re
import socket
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from sidecar.core.nginx.host import normalize_host
from sidecar.core.nginx.locations import Chooser, LocationEntry, parse_location, parse_server_name
from sidecar.core.nginx.uri import normalize_uri, possible_uris

COUNT = int(os.environ.get("MTLS_SIDECAR_DIFFERENTIAL", "40000"))
SEED = int(os.environ.get("MTLS_SIDECAR_SEED", "0")) or random.SystemRandom().getrandbits(32)

GAVE_UP = 500
"""nginx's status where PCRE reaches its match limit: nobody is served."""

# -- policies and their nginx.conf ----------------------------------------------------------------

Block = tuple[str | None, list[str]]
"""server_name (None: the default server) and locations, in nginx's own forms."""

MAIN = ["/", "= /", "/a", "/a/", "= /a/b", "/a/b/c", "^~ /static/", "/static/x/", "^~ /a/b/c/d"]
MAIN += [r"~ \.php$", r"~* \.jpe?g$", "~ ^/a/b/(x|y){2}", r"~ \sz", "/A", "/é", "/a b", "/a;b"]
MAIN += ["= /p%q", "~ é+$", "~ [^/]#", r"~ ^/x.y$", "~ //", "/m//n", "/m/"]
FIXED: list[Block] = [
    (None, MAIN),
    ("a.example.com", ["/a", "= /b", "~ c$"]),
    ("*.example.com", ["/", "~* ^/[a-c]+/$"]),
    ("*.b.example.com", ["/", "/a"]),
    ("*.c.b.example.com d.example.com", ["/"]),
    (".example.org", ["/", "^~ /a"]),
    ("www.example.*", ["/"]),
    ("www.*", ["/", "= /a"]),
    (r"~^r(?<digit>\d+)\.test$", ["/", "/a"]),
    (r"~UP\.test$ ~^r\d", ["/"]),
    (r"~^[^.]+\.test$", ["/"]),
    ('""', ["/", "/a"]),
    ("[::1] 1.2.3.*", ["/"]),
    ("1.2.3.4", ["/"]),
]
SEGMENTS = ["a", "b", "A", "ab", "a.b", "é", "x y", "...", "a;", "..a", ".a", "%", "a+b", "\\"]
REGEXES = [r"\.b$", "^/a", "/b/?$", "^/[a-c]+/", "(a|b){2}", "[^/]+%", r"\ba\b", "é", r"^/\S+$"]
REGEXES += ["[[:alpha:]]/", r"\x41", "a.b", r"[\w-]{3}", r"\W$", "^/$", "[.]{2,}", "a(?:b|/)*$"]
LABELS = ["a", "b", "c", "com", "a-b"]
NAME_REGEXES = ["^a", "b$", r"\.c\.", r"^[ab]\.c", "C", r"\W", "^.{5}$", "."]


def random_policy(dice: random.Random) -> list[Block]:
    """Some servers with names that overlap, and locations out of a few colliding segments."""
    taken: set[object] = set()
    blocks: list[Block] = [(None, random_locations(dice))]
    for _ in range(dice.randint(2, 10)):
        dots = ".".join(dice.choices(LABELS, k=dice.randint(1, 3)))
        name = dice.choice([dots, "*." + dots, "." + dots, dots + ".*"])
        name = dice.choice([name, name, name, "~" + dice.choice(NAME_REGEXES)])
        keys = set(parse_server_name("." + dots if name[0] in "*." else name).names())
        if not keys & taken:
            taken |= keys
            blocks.append((name, random_locations(dice)))
    return blocks


def random_locations(dice: random.Random) -> list[str]:
    found = {(True, "/only"): "= /only"}  # a policy has no server without locations
    for _ in range(dice.randint(1, 12)):
        path = "/" + "/".join(dice.choices(SEGMENTS, k=dice.randint(0, 3)))
        path += dice.choice(["", "/", "//"])
        form = dice.choice(["", "", "= ", "^~ ", "~ ", "~* "])
        value = dice.choice(REGEXES) if form in ("~ ", "~* ") else path
        if form == "~* " and not value.isascii():
            continue
        found.setdefault((form == "= ", value), form + value)
    return list(found.values())


@dataclass(frozen=True)
class Site:
    """One policy on one port of nginx.

    `merge_slashes` is the default server's, which nginx uses for every request without SNI; the
    other servers have the other value where `mixed`.
    """

    blocks: list[Block]
    merge_slashes: bool
    port: int
    mixed: bool = False

    @property
    def entries(self) -> list[LocationEntry]:
        found: list[LocationEntry] = []
        for i, (names, locations) in enumerate(self.blocks):
            parsed = None if names is None else tuple(map(parse_server_name, names.split()))
            for j, text in enumerate(locations):
                found.append((f"s{i}-l{j}", parsed, parse_location(text)))
        return found

    @property
    def has_nameless(self) -> bool:
        return any(names == '""' for names, _ in self.blocks)


def quoted(text: str) -> str:
    """As one word of an nginx.conf."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def nginx_servers(site: Site) -> str:
    return "\n".join(nginx_server(site, i, *block) for i, block in enumerate(site.blocks))


def merges(site: Site, names: str | None) -> str:
    """The server's `merge_slashes`."""
    return "on" if site.merge_slashes is not (site.mixed and names is not None) else "off"


def nginx_server(site: Site, index: int, names: str | None, locations: list[str]) -> str:
    listen = f"listen 127.0.0.1:{site.port}" + (" default_server;" if names is None else ";")
    words = ["default.invalid"] if names is None else names.split()
    server_name = " ".join(word if word == '""' else quoted(word) for word in words)
    lines = [nginx_location(f"s{index}-l{j}", text) for j, text in enumerate(locations)]
    return "\n".join(
        [
            "server {",
            f"{listen} server_name {server_name};",
            f"merge_slashes {merges(site, names)};",
            "root /nonexistent; error_page 403 404 =200 @none;",
            "location @none { " + answer("-") + " }",
            *lines,
            "}",
        ]
    )


def nginx_location(name: str, text: str) -> str:
    modifier, value = text.split(" ", 1) if text[0] in "=~^" else ("", text)
    return f"location {modifier} {quoted(value)} {{ {answer(name)} }}"


def answer(name: str) -> str:
    return rf'return 200 "{name}\n$host\n$request_uri\n$uri";'


# -- requests -------------------------------------------------------------------------------------

PIECES = (
    b"/ / // . .. /. /.. /./ /../ %2e %2E %2f %2F %5c %25 %252e %252f %3f %3F %23 ? # ; + & = %20"
    b" %0a %0D %85 %c3%a9 \xc3\xa9 \xff \x85 \\ | \" ' < * a b c A B x y z ab .php .JPG static"
    b" .jpeg %61 %41 .b b/ 0"
).split(b" ")
BAD_PIECES = b"%00 % %2 %zz %g1 /../../../../.. \x01 \x7f \x1f \x08".split(b" ")
SCHEMES = [b"http://", b"HTTPS://", b"x+y://", b"http:/"]
AUTHORITIES = [b"a.example.com", b"A.EXAMPLE.org:80", b"x", b"x.", b"[::1]:8", b"u@h", b"a_b", b""]


@dataclass(frozen=True)
class Case:
    host: bytes | None
    target: bytes

    @property
    def raw(self) -> bytes:
        if self.host is None:
            return b"GET " + self.target + b" HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"
        return b"GET " + self.target + b" HTTP/1.1\r\nHost: " + self.host + b"\r\n\r\n"


def cases(site: Site, count: int, dice: random.Random) -> Iterator[Case]:
    texts = [text.split(" ", 1)[-1] for _, locations in site.blocks for text in locations]
    paths = [text.encode().replace(b"%", b"%25").replace(b" ", b"%20") for text in texts]
    paths = [path for path in paths if path.startswith(b"/")] or [b"/"]
    hosts = [name.encode() for names, _ in site.blocks if names for name in names.split()]
    for _ in range(count):
        yield Case(random_host(site, hosts, dice), random_target(paths, dice))


def random_target(paths: list[bytes], dice: random.Random) -> bytes:
    path = dice.choice([b"/", dice.choice(paths)])
    path += b"".join(dice.choices(PIECES, k=dice.randint(0, dice.choice([2, 6, 20]))))
    if dice.random() < 0.05:
        at = dice.randrange(len(path) + 1)
        path = path[:at] + dice.choice(BAD_PIECES) + path[at:]
    if dice.random() < 0.1:
        rest = dice.choice([path, path, b"?" + path, b"#" + path, b""])
        return dice.choice(SCHEMES) + dice.choice(AUTHORITIES) + rest
    return dice.choice([path[1:], b"?" + path, b"*", b""]) if dice.random() < 0.01 else path


def random_host(site: Site, hosts: list[bytes], dice: random.Random) -> bytes | None:
    if site.has_nameless and dice.random() < 0.05:
        return None
    known = dice.choice(hosts).strip(b'*.~^$"') or b"x"
    labels = [label.encode() for label in LABELS] + [b"example", b"www", b"r12", b"test", b"[::1]"]
    known = dice.choice([known, b".".join(dice.choices(labels, k=dice.randint(1, 4)))])
    host = dice.choice([b"", b"", b"x.", b".", b"a.b."]) + known
    host += dice.choice([b"", b"", b".", b".com", b".co.uk"])
    host += dice.choice([b"", b"", b"", b":80", b":", b":08", b":65535", b":00000080"])
    if dice.random() < 0.1:
        host += dice.choice([b"..", b".:80.", b":65536", b":a", b":1:2", b":80.", b"]", b":1.."])
    if dice.random() < 0.1:
        at = dice.randrange(len(host) + 1)
        odd = bytes([dice.choice([*range(1, 9), *range(14, 32), *range(33, 256)])])
        host = host[:at] + odd + host[at:]
    return dice.choice([host, host, host.upper()])


# -- asking nginx ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Answer:
    """nginx's answer.  `name` is empty where the server has no location for the URI."""

    status: int
    name: str = ""
    host: str = ""
    request_uri: bytes = b""
    uri: bytes = b""


def ask(port: int, asked: list[Case]) -> Iterator[tuple[Case, Answer]]:
    """All answers in order, pipelined; nginx hangs up after a 400."""
    at = 0
    while at < len(asked):
        batch = asked[at : at + 100]
        refused = next((i for i, case in enumerate(batch) if likely_refused(case)), len(batch))
        batch = batch[: refused + 1]
        with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
            connection.sendall(b"".join(case.raw for case in batch))
            answers = list(read_answers(connection, len(batch)))
        assert answers, f"no answer to {batch[0]}"
        yield from zip(batch, answers, strict=False)
        at += len(answers)


def likely_refused(case: Case) -> bool:
    host = "x" if case.host is None else case.host.decode("latin-1")
    return normalize_host(host) is None or normalize_uri(case.target) is None


def read_answers(connection: socket.socket, count: int) -> Iterator[Answer]:
    with connection.makefile("rb") as stream:
        for _ in range(count):
            status_line = stream.readline()
            if not status_line:
                return
            length = 0
            while (line := stream.readline()) not in (b"\r\n", b""):
                if line.lower().startswith(b"content-length:"):
                    length = int(line.split(b":")[1])
            yield answer_of(int(status_line.split()[1]), stream.read(length))


def answer_of(status: int, body: bytes) -> Answer:
    if status != 200:
        return Answer(status)
    name, host, request_uri, uri = body.split(b"\n", 3)
    known = name.decode().removeprefix("-")
    return Answer(status, known, host.decode("latin-1"), request_uri, uri)


# -- the comparison -------------------------------------------------------------------------------


def compare(site: Site, chooser: Chooser, strict: bool, case: Case, answer: Answer) -> None:
    """`strict`: this nginx refuses the hosts that 1.31 refuses."""
    told = f"{case} → {answer}"
    if answer.status == GAVE_UP:
        return
    sent_host = "" if case.host is None else case.host.decode("latin-1")
    if answer.status != 200:
        assert answer.status == 400, told
        # `?…` as `$request_uri` comes from `GET http://host?…`; sent as it stands it is refused.
        host = normalize_host(sent_host) if sent_host else ""
        if host is not None and not case.target.startswith(b"?"):
            assert chooser.choose(host, case.target) is None, told
        return
    uri = normalize_uri(answer.request_uri, merge_slashes=site.merge_slashes)
    assert uri == answer.uri, told
    if case.target.startswith(b"/") and case.host is not None:
        ours = normalize_host(sent_host)
        assert ours == answer.host.removesuffix(".") or (ours is None and not strict), told
    chosen = chooser.choose(answer.host, answer.request_uri) or ""
    if chosen != answer.name:
        assert chosen == "", told
        assert unsure(answer, strict), told


def unsure(answer: Answer, strict: bool) -> bool:
    """Whether the sidecar may choose nothing where nginx has a location."""
    if answer.host not in ("", normalize_host(answer.host)) and not strict:
        return True
    if set("*$") & set(answer.host) or answer.host.startswith("~"):
        return True
    return len(possible_uris(answer.request_uri)) > 1 or bool(
        re.search(rb"[\x00-\x1f\x7f]", answer.uri)
    )


def run(site: Site, strict: bool, asked: Iterable[Case]) -> Counter[str]:
    """Compare, and count what was seen, so that a run that proves nothing shows."""
    chooser = Chooser(site.entries)
    seen: Counter[str] = Counter()
    for case, answer in ask(site.port, list(asked)):
        compare(site, chooser, strict, case, answer)
        denied = answer.name and not chooser.choose(answer.host, answer.request_uri)
        kind = "unsure" if denied else "chosen" if answer.name else "no location"
        kind = "gave up" if answer.status == GAVE_UP else kind
        seen["refused" if answer.status == 400 else kind] += 1
    return seen


# -- tests ----------------------------------------------------------------------------------------


def conf(sites: list[Site]) -> str:
    servers = "\n".join(map(nginx_servers, sites))
    return (
        "error_log stderr crit;\n"
        "events { worker_connections 256; }\n"
        "http {\n"
        "access_log off; keepalive_requests 1000000; server_names_hash_bucket_size 128;\n"
        f"{servers}\n}}\n"
    )

"""nginx's configuration is read as nginx reads it, in bounds, each directive with its own file."""

from __future__ import annotations

import os
import resource
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from daemon import ROOT
from good_nginx import GOOD
from https import Connection
from nginx import Nginx, free_port
from tools import NginxBinary, Tool, need, nginx_binaries

from sidecar.commands.doctor.nginx_config import Block, read_dump, read_nginx
from sidecar.commands.doctor.routing import serving
from sidecar.commands.doctor.syntax import statements

WORDS = [
    "a b;",
    "a 'b c' \"d;e\" f\\ g h\\;i;",
    'a "\\"x\\"" \'it\\\'s\' \\$b "\\\\d" \\t "\\A";',
    "a ${b}c{d};",
    "a b#c; # d\n",
    "a{b{c d;}}",
    "if ( $a = b ) { return 403; }",
    "if ($a ~ (x|y)) { c; }",
    "content_by_lua_block { if x then y = '}' end -- }\n z = [[ } ]] } a b;",
]


def told(text: str) -> list[object]:
    def plain(found: list[object]) -> list[object]:
        return [(e.name, e.args, plain(e.block)) for e in found]  # type: ignore[attr-defined]

    return plain(list(statements(text, keep_comments="mtls")))


@pytest.mark.parametrize(
    ("text", "expected"),
    list(
        zip(
            WORDS,
            [
                [("a", ["b"], [])],
                [("a", ["b c", "d;e", "f\\ g", "h\\;i"], [])],
                [("a", ['"x"', "it's", "\\$b", "\\d", "\t", "\\A"], [])],
                None,
                [("a", ["b#c"], [])],
                [("a", [], [("b", [], [("c", ["d"], [])])])],
                [("if", ["$a", "=", "b"], [("return", ["403"], [])])],
                [("if", ["$a", "~", "(x|y)"], [("c", [], [])])],
                [("content_by_lua_block", [], []), ("a", ["b"], [])],
            ],
            strict=True,
        )
    ),
)
def test_words_are_nginx_s(text: str, expected: list[object] | None) -> None:
    """Quotes, escapes, variables in braces, comments, conditions and Lua are told apart."""
    if expected is None:
        with pytest.raises(ValueError, match="1: unexpected"):
            told(text)
    else:
        assert told(text) == expected


@pytest.mark.parametrize("value", ['"\\\\d"', "'a\\'b'", '"~\\A[a-z]{1,3}\\z"', "a\\tb", "${b}c"])
def test_a_value_is_what_nginx_makes_of_it(value: str, tmp_path: Path) -> None:
    """A real nginx returns the very text that is read here."""

    binary = next(b for b in nginx_binaries() if isinstance(b, NginxBinary))
    port = free_port()
    text = f"http {{ server {{ listen 127.0.0.1:{port}; set $b x; return 200 {value}; }} }}"
    (server,) = (e.block for e in statements(text, keep_comments="-")[0].block)
    with Nginx(binary, text, tmp_path):
        plain = socket.create_connection(("127.0.0.1", port), timeout=15)
        with Connection(plain, "a") as connection:
            assert connection.get("/").body == server[-1].args[1].replace("${b}", "x")


def test_each_directive_keeps_its_own_file(tmp_path: Path) -> None:
    """What follows an `include` in its block is told in the file where it stands."""
    (tmp_path / "in.conf").write_text("\nb 1;\n")
    conf = tmp_path / "nginx.conf"
    conf.write_text("http {\ninclude in.conf;\nc 2;\ninclude none*.conf;\nd 3;\n}\n")
    (http,) = read_nginx(conf).own("http")
    assert [(Path(e.file).name, e.line) for e in http.inner] == [
        ("in.conf", 2),
        ("nginx.conf", 3),
        ("nginx.conf", 5),
    ]


@pytest.mark.parametrize("binary", nginx_binaries(), ids=lambda each: each.name)
def test_a_location_needs_no_blank(binary: Tool, tmp_path: Path) -> None:
    """`location ~\\.php$` is an expression, `=/x` and `^~/x` are what they are with a blank."""
    need(binary)
    written = {"=/a": "/a", "^~/b": "/b/x.php", r"~\.php$": "/c.php", r"~*\.gif$": "/c.GIF"}
    inner = "".join(f"location {each} {{ return 200 {uri}; }}\n" for each, uri in written.items())
    port = free_port()
    text = f"http {{ server {{ listen 127.0.0.1:{port}; {inner} }} }}"
    with Nginx(binary, text, tmp_path) as nginx:  # type: ignore[arg-type]
        (server,) = read_nginx(nginx.conf).all("server")
        for each, uri in written.items():
            plain = socket.create_connection(("127.0.0.1", port), timeout=15)
            with Connection(plain, "a") as connection:
                assert connection.get(uri).body == uri
            place = serving(server, uri)
            assert place is not None
            assert "".join(place.args) == each


def test_limit_except_may_include(tmp_path: Path) -> None:
    """`limit_except GET { include …; }` is read like any block."""
    (tmp_path / "in.conf").write_text("deny all;")
    conf = tmp_path / "nginx.conf"
    conf.write_text("http { server { location / { limit_except GET { include in.conf; } } } }")
    assert [e.args for e in read_nginx(conf).all("deny")] == [["all"]]


def test_a_wildcard_of_a_dump_matches_no_slash_and_no_dot() -> None:
    """`include conf.d/*.conf` names the files of that directory, as glob(3) does."""
    names = ["/e/c/a.conf", "/e/c/.b.conf", "/e/c/d/c.conf"]
    files = "".join(f"# configuration file {each}:\nx;\n\n" for each in names)
    lines = "include c/*.conf;\ny { include c/.b.conf; include c/d/c.conf; }\n"
    root = read_dump(f"# configuration file /e/nginx.conf:\n{lines}\n{files}")
    assert [each.file for each in root.own("x")] == ["/e/c/a.conf"]


def test_a_class_that_is_turned_over_by_either_sign(tmp_path: Path) -> None:
    """`include c/[^a]*.conf` leaves out what begins with an a, on the disk and in a dump."""
    (tmp_path / "c").mkdir()
    for name in ("a", "b"):
        (tmp_path / "c" / f"{name}.conf").write_text("x;\n")
    for sign in ("^", "!"):
        line = f"include c/[{sign}a]*.conf; y {{ include c/a.conf; }}\n"
        (tmp_path / "nginx.conf").write_text(line)
        files = "".join(f"# configuration file /e/c/{each}.conf:\nx;\n\n" for each in "ab")
        dump = read_dump(f"# configuration file /e/nginx.conf:\n{line}\n{files}")
        for root in (read_nginx(tmp_path / "nginx.conf"), dump):
            assert [each.file.rpartition("/")[2] for each in root.own("x")] == ["b.conf"]


INCLUDES = [
    "c/a.conf",
    "./c/a.conf",
    "c//a.conf",
    "./c/*.conf",
    "c//*.conf",
    "c/./[a-z].conf",
    "c/[[:lower:]_].conf",
    r"c/\a*\.conf",
]


@pytest.mark.parametrize("binary", nginx_binaries(), ids=lambda each: each.name)
def test_what_nginx_prints_is_what_the_files_say(binary: Tool, tmp_path: Path) -> None:
    """`nginx -T` names an included file as it is written, with `./` or `//` in it; the patterns are
    those of glob(3)."""
    nginx = need(binary)
    (tmp_path / "c").mkdir()
    (tmp_path / "c/a.conf").write_text("keepalive_timeout 3s;\n")
    for line in INCLUDES:
        found = Nginx(binary, f"http {{ include {line}; }}", tmp_path)  # type: ignore[arg-type]
        assert found.test().returncode == 0
        for where in (
            ["-p", f"{tmp_path}/", "-c", f"{found.conf}"],
            ["-p", ".", "-c", "nginx.conf"],
        ):
            done = nginx.run("-T", *where, "-e", tmp_path / "error.log", cwd=tmp_path)
            (http,) = read_dump(done.stdout).own("http")
            (on_disk,) = read_nginx(found.conf).own("http")
            for here in (http, on_disk):
                (read,) = here.own("keepalive_timeout")
                assert (Path(read.file).parts[-2:], read.line) == (("c", "a.conf"), 1)


@pytest.mark.parametrize("name", ["/e/z.conf", "/e/nginx.conf", "/e/b.conf"])
def test_a_line_as_nginx_writes_between_files_hides_nothing(name: str) -> None:
    """Where a file holds such a line itself, doctor says so: what is behind would be lost."""
    inner = f"a;\n# configuration file {name}:\nlocation /status/ {{ }}\n"
    dump = (
        "# configuration file /e/nginx.conf:\ninclude a.conf; include b.conf;\n\n"
        f"# configuration file /e/a.conf:\n{inner}\n# configuration file /e/b.conf:\nb;\n\n"
    )
    with pytest.raises(ValueError, match=f"{name}:` that isn't nginx's own"):
        read_dump(dump)


def write_chain(directory: Path) -> None:
    for i in range(40):
        (directory / f"{i}.conf").write_text(f"include {i + 1}.conf; include {i + 1}.conf;")
    (directory / "40.conf").write_text("a;")
    (directory / "nginx.conf").write_text("include 0.conf;")


def write_wide(directory: Path) -> None:
    for i in range(12):
        (directory / f"{i}.conf").write_text(f"include {i + 1}.conf;" * 40)
    (directory / "12.conf").write_text("a;")
    (directory / "nginx.conf").write_text("include 0.conf;")


def write_loop(directory: Path) -> None:
    (directory / "nginx.conf").write_text("include a.conf;")
    (directory / "a.conf").write_text("http { include nginx.conf; }")


def write_linked_loop(directory: Path) -> None:
    (directory / "nginx.conf").write_text("include [a-z].conf;")
    (directory / "a.conf").symlink_to("b.conf")
    (directory / "b.conf").write_text("include ./a.conf; include ././a.conf;")


def write_large(directory: Path) -> None:
    with (directory / "nginx.conf").open("wb") as file:
        file.truncate(98 << 20)


def write_many(directory: Path) -> None:
    (directory / "nginx.conf").write_text("a;\n" * 600_000)


def write_deep(directory: Path) -> None:
    (directory / "nginx.conf").write_text("a{" * 100_000)


def write_quote(directory: Path) -> None:
    (directory / "nginx.conf").write_text("a '" + "\\x" * 4_000_000)


def write_fifo(directory: Path) -> None:
    os.mkfifo(directory / "nginx.conf")


def write_included_fifo(directory: Path) -> None:
    (directory / "nginx.conf").write_text("http {\n include fifo;\n}")
    os.mkfifo(directory / "fifo")


def write_zero(directory: Path) -> None:
    (directory / "nginx.conf").write_text("include /dev/zero;")


def write_nul(directory: Path) -> None:
    (directory / "nginx.conf").write_text("include a\0b;")


@pytest.mark.parametrize(
    ("write", "expected"),
    [
        (write_chain, "includes within each other"),
        (write_wide, "files are included"),
        (write_loop, "nginx.conf includes itself"),
        (write_linked_loop, "includes itself"),
        (write_large, "larger than 32 MiB"),
        (write_many, "more than 500,000 directives"),
        (write_deep, "blocks within each other"),
        (write_quote, "quotation mark"),
        (write_fifo, "not a regular file"),
        (write_included_fifo, "nginx.conf:2: include fifo"),
        (write_zero, "not a regular file"),
        (write_nul, "no such name"),
    ],
    ids=lambda each: getattr(each, "__name__", None),
)
def test_what_is_too_much_is_refused(write: object, expected: str, tmp_path: Path) -> None:
    """A hostile configuration is one clear line and exit 2, within 600 MiB and no wait."""
    assert callable(write)
    write(tmp_path)
    done = run(str(tmp_path / "nginx.conf"))
    assert done.returncode == 2, done.stdout
    assert expected in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr) < 1000


def test_an_endless_dump_is_refused() -> None:
    """`doctor -` reads so much and no more of what it is given."""
    with Path("/dev/zero").open("rb") as zero:
        done = run("-", stdin=zero)
    assert (done.returncode, "larger than" in done.stderr) == (2, True)


def run(*arguments: str, stdin: object = subprocess.DEVNULL) -> subprocess.CompletedProcess[str]:
    limit = 600 << 20

    def bound() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))

    return subprocess.run(  # type: ignore[call-overload,no-any-return]
        [sys.executable, "-m", "sidecar", "doctor", *arguments],
        cwd=ROOT,
        stdin=stdin,
        capture_output=True,
        text=True,
        timeout=120,
        preexec_fn=bound,
        check=False,
    )


def test_a_block_knows_its_end(tmp_path: Path) -> None:
    """A directive's last line is known, for exemptions that hold within it."""
    conf = tmp_path / "nginx.conf"
    conf.write_text("http {\n a\n b;\n}\n")
    (http,) = read_nginx(conf).inner
    assert isinstance(http, Block)
    assert [(e.line, e.end) for e in (http, *http.inner)] == [(1, 4), (2, 3)]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("proxy_pass http://app;", "proxy_pass;"),
        ("proxy_set_header Host $host;", "proxy_set_header Host;"),
        ("auth_request /authz/site;", "auth_request;"),
        ("location / {", "location {"),
        ("server unix:/run/mtls-sidecar/authz.sock;", "server;"),
        ("listen 443 ssl;", "listen;"),
        ("deny all;", "error_page 401;"),
        ("deny all;", "fastcgi_split_path_info;"),
        ("deny all;", "proxy_bind;"),
        ("listen 443 ssl;", "user;"),
        ("deny all;", "rewrite ^;"),
        ("deny all;", "if { break; }"),
    ],
)
def test_a_directive_without_its_arguments_is_told_with_its_line(
    tmp_path: Path, old: str, new: str
) -> None:
    """As nginx says it; a map's own lines are no directives."""
    assert old in GOOD
    path = tmp_path / "nginx.conf"
    path.write_text(GOOD.replace(old, new, 1))
    with pytest.raises(ValueError, match=r"nginx.conf:\d+: invalid number of arguments in"):
        read_nginx(path)
    path.write_text("map $a $b { proxy_set_header; rewrite 1; server 2; }")
    assert read_nginx(path).own("map")


NOBODY = 65534


@contextmanager
def as_nobody() -> Iterator[None]:
    """With the rights of a user who owns nothing, where this one is root."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


@pytest.mark.parametrize("pattern", ["conf.d/*.conf", "*.d/*/x.conf", "conf.d/x/*.conf"])
def test_a_directory_that_cannot_be_listed_is_refused(pattern: str) -> None:
    """It is not taken for empty: nginx, as root, includes what stands there."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        directory.chmod(0o755)
        (directory / "conf.d/x").mkdir(parents=True)
        (directory / "conf.d").chmod(0o000)
        conf = directory / "nginx.conf"
        conf.write_text(GOOD.replace("location / {", f"include {pattern}; location / {{"))
        with as_nobody(), pytest.raises(ValueError, match=r"conf\.d.*: Permission denied"):
            read_nginx(conf)
        (directory / "conf.d").chmod(0o755)


@pytest.mark.parametrize("pattern", ["nowhere/*.conf", "nginx.conf/*", "a*/b*/*.conf"])
def test_a_directory_that_is_not_there_is_empty(pattern: str, tmp_path: Path) -> None:
    """As nginx has it: an `include` with wildcards may name nothing."""
    conf = tmp_path / "nginx.conf"
    conf.write_text(GOOD.replace("location / {", f"include {pattern}; location / {{"))
    assert read_nginx(conf).inner

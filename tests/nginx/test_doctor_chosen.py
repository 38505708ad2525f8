"""Where the client chooses the address, the file or the location that nginx leads to, `doctor`
names the line, and a stranger gets by it what nobody is to reach, or only others are."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from examined import CONF, POLICY
from stack import Stack
from tools import NginxBinary

from sidecar.commands.doctor.checks import examine
from sidecar.commands.doctor.nginx_config import read_nginx
from sidecar.core.policy.compile import compile_policy
from sidecar.runtime.direct_sources import DirectSources

ASKED = "location / { auth_request /authz/site; "
WWW = "/etc/nginx/www"
BASE = f"""
location /kept/ {{ auth_request /authz/local; root {WWW}; }}
location /shown/ {{ auth_request off; root {WWW}; }}
location /inner/ {{ internal; root {WWW}; }}
location @inner {{ root {WWW}; rewrite ^ /kept/f break; }}
location /app/ {{ auth_request /authz/local; proxy_pass http://127.0.0.1:8080; }}
"""
FILES = ("kept/f", "inner/f", "shown/x")
APP, PORT = "127.0.0.1:8080", "8080"


class Way(NamedTuple):
    """What stands in a location, what is asked for there, and by which header or host."""

    line: str
    query: str
    page: str = ""
    host: str = ""


WAYS = [
    Way(f"root {WWW}/$arg_p;", "f?p=kept"),
    Way(f"root {WWW}/shown/$http_page;", "f", "../kept"),
    Way(f"set $p $cookie_page; root {WWW}/shown/$p;", "f", "../kept"),
    Way(f"alias {WWW}/shown/$arg_p/;", "f?p=../kept"),
    Way(f"root {WWW}/$host;", "f", host="kept"),
    Way(f"root {WWW}/shown; try_files /$arg_p =404;", "f?p=../kept/f"),
    Way(f"root {WWW}; try_files /none $arg_p;", "f?p=/inner/f"),
    Way(f"root {WWW}; try_files /none $arg_p;", "f?p=@inner"),
    Way(f"root {WWW}; index $arg_p;", "?p=/inner/f"),
    Way(f"root {WWW}; index $arg_p;", "?p=../kept/f"),
    Way(f"root {WWW}; error_page 404 =200 $arg_p;", "none?p=/inner/f"),
    Way(f"root {WWW}; error_page 404 =200 $arg_p;", "none?p=@inner"),
    Way(f"root {WWW}; error_page 404 =200 /$http_page;", "none", "inner/f"),
    Way(
        f"root {WWW}; if ($arg_p !~ ^[a-z]+$) {{ return 404; }} error_page 404 =200 /shown/$arg_p;",
        "f?p=../kept/f",
    ),
    Way("rewrite ^ /$arg_p last;", "f?p=inner/f"),
    Way("rewrite ^ /$arg_p last;", "f?p=shown/../kept/f"),
    Way("if ($args ~ p=(.*)) { set $p $1; rewrite ^ /$p last; }", "f?p=inner/f"),
    Way(f"root {WWW}; rewrite ^ /$arg_p break;", "f?p=kept/f"),
    Way("proxy_pass http://$arg_p;", f"f?p={APP}"),
    Way("proxy_pass http://$arg_p.example/;", f"f?p={APP}/"),
    Way("proxy_pass http://127.0.0.1:$arg_p;", f"f?p={PORT}"),
    Way("proxy_pass http://a$arg_p;", "f?p=pp"),
    Way("proxy_pass http://$http_page;", "f", "app"),
    Way("proxy_pass http://$by_page;", "f", "app"),
    Way("proxy_pass http://$ssl_server_name;", "f", host="app"),
    Way("proxy_pass http://$host;", "f", host="app"),
    Way("proxy_pass http://$http_host;", "f", host=APP),
]
TABLE = "http { map $http_page $by_page { default 127.0.0.1:9; ~^(?<chosen>[a-z]+)$ $chosen; }"


def test_what_the_client_chooses(nginx_binary: NginxBinary, tmp_path: Path) -> None:
    """Each way is open through nginx, and doctor names the directive by which it is."""
    ways = [f"location /o{at}/ {{ auth_request off; {each.line} }}" for at, each in enumerate(WAYS)]
    lines = "\n".join([BASE, *ways, ASKED])
    conf = CONF.replace(ASKED, lines).replace("http {", TABLE, 1)
    with Stack(nginx_binary, tmp_path, conf=conf, policy=POLICY) as stack:
        numbers = range(len(WAYS))
        for name in (*FILES, *(f"{d}o{at}/f" for at in numbers for d in ("kept/", ""))):
            path = stack.nginx.directory / "www" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("kept" if "kept" in name or "inner" in name else "")
        assert stack.get("/app/").status == stack.get("/kept/f").status == 401
        assert stack.get("/inner/f").status == 404
        port = str(stack.app.server_port)
        shut = []
        for at, each in enumerate(WAYS):
            here, host = each.query.replace(PORT, port), each.host.replace(PORT, port)
            answer = stack.get(
                f"/o{at}/{here}",
                host=host or None,
                sni="app" if host == "app" else "app.example.com",
                headers={"Page": each.page, "Cookie": f"page={each.page}"},
            )
            if not (answer.body == "kept" or answer.app):
                shut.append(each)
        assert shut == []
        told = found(stack)
        text = stack.nginx.conf.read_text().splitlines()
        assert [each for at, each in enumerate(WAYS) if line(text, at) not in told] == []


def line(text: list[str], at: int) -> int:
    return next(n for n, each in enumerate(text, 1) if f"location /o{at}/" in each)


def found(stack: Stack) -> set[int]:
    place = stack.daemon.policy
    sources = DirectSources(place.parent, place.parent)
    rules = compile_policy(place.read_bytes(), str(place), sources)
    told = examine(read_nginx(stack.nginx.conf), rules)
    return {each.line for each in told if each.id == "target-from-client"}

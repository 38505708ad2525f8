"""What nginx has decoded of a client's path."""

from __future__ import annotations

from pathlib import Path

import pytest

from sidecar.commands.doctor.decoded import LINE_END, PERCENT, decoded, unchecked
from sidecar.commands.doctor.nginx_config import Root, read_nginx

CONF = r"""
http {
    map $uri $mapped { ~^/m/(\d+)$ $1; "~^/n/(?<named>[^/]+)$" $named; default -; }
    map $host $other { ~^(.*)$ $1; }
    map $remote_user $user { default x; "~(.*)" $1; }
    map $ssl_server_name $sni { default $ssl_server_name; }
    server {
        set $to $uri;
        location ~ ^/a/(?<any>[^/]+)/(?<word>\w+)$ { return 204; }
        location /b/ { if ($host ~ ^(?<site>[^.]+)) { set $x 1; } }
        location /c/ { auth_basic x; }
        location /d/ { auth_basic x; satisfy any; }
    }
}
"""


@pytest.fixture
def root(tmp_path: Path) -> Root:
    path = tmp_path / "nginx.conf"
    path.write_text(CONF)
    return read_nginx(path)


@pytest.mark.parametrize(
    ("text", "where", "held"),
    [
        ("/x$uri", 1, "$uri"),
        ("${request_filename}", 1, "$request_filename"),
        ("$to", 1, "$uri"),
        ("$any", 0, "$any"),
        ("$1", 0, "$1"),
        ("$named", 1, "$named"),
        ("$mapped", 1, "$named"),
        ("$1$site$other$host$request_uri$arg_a", 1, ""),
        ("", 0, ""),
    ],
)
def test_where_a_line_end_is_held(text: str, where: int, held: str, root: Root) -> None:
    """In nginx's variables, and in those that an expression or a `map` makes of them."""
    place = list(root.all("location"))[where]
    assert decoded(text, place, root, LINE_END) == held
    assert decoded(text, place, root, PERCENT) == held


def test_the_server_name_holds_everything(root: Root) -> None:
    """Itself, and by a map that lets it through."""
    place = next(root.all("location"))
    assert unchecked("a$ssl_server_name", place, root)
    assert unchecked("$sni", place, root)
    assert not unchecked("$host$uri$1", place, root)


def test_a_name_that_nobody_checked(root: Root) -> None:
    """By itself or by a map; under auth_basic it is one of a file's."""
    first, second, basic, either = root.all("location")
    assert unchecked("$remote_user", first.inner[0], root) == "$remote_user"
    assert unchecked("$user", second.inner[0], root) == "$remote_user"
    assert unchecked("$request_body", first.inner[0], root)
    assert not unchecked("$remote_user", basic.inner[0], root)
    assert unchecked("$remote_user", either.inner[0], root)

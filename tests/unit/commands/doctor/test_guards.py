"""What an `if … { return … }` refuses."""

from __future__ import annotations

from pathlib import Path

import pytest
from good_nginx import GUARD

from sidecar.commands.doctor.guards import DOTS, DOTS_TWICE, LINES, WRITE, is_guarded
from sidecar.commands.doctor.nginx_config import Block, Root, read_nginx

OLD = r'if ($request_uri ~* "\A[^?]*(/|%2f)(\.|%2e){1,2}(/|%2f|\?|\z)") { return 400; }'

MAP = 'map $request_uri $yes { default no; "~*%0[ad]" yes; }'
MAP += 'map $request_uri $tired { "~*%25(?:25)*%" 1; "~*%0[ad]" 1; default ""; }'
MAP += 'map $request_uri $allowed { default 0; "~\\A(?:/[\\w-]+)*+\\z" 1; }'
MAP += 'map $request_uri $closed { default 1; "~\\A(?:/[\\w-]+)*\\z" 0; }'


def server(lines: str, directory: Path) -> tuple[Block, Root]:
    path = directory / "nginx.conf"
    path.write_text(f"http {{ {MAP} server {{ {lines} }} }}")
    root = read_nginx(path)
    return next(root.all("server")), root


@pytest.mark.parametrize(
    ("lines", "refused"),
    [
        (GUARD, [DOTS, DOTS_TWICE, LINES]),
        (OLD, [DOTS]),
        ("if ($request_uri ~* %0[ad]) { return 400; }", [LINES]),
        ("if ($request_uri ~ %) { return 400; }", [DOTS_TWICE, LINES]),
        ("if ($request_uri ~* %0[ad]) { return 200; }", []),
        ("if ($request_uri ~ %0a) { return 400; }", []),
        ("if ($uri ~ %0a) { return 400; }", []),
        ("if ($yes) { return 400; }", [DOTS, DOTS_TWICE, LINES]),
        ("if ($yes = yes) { return 400; }", [LINES]),
        ("if ($yes != no) { return 400; }", [LINES]),
        ("if ($yes ~ ^y) { return 400; }", [LINES]),
        ("if ($yes = 1) { return 400; }", []),
        ("if ($yes != yes) { return 400; }", [DOTS, DOTS_TWICE]),
        ("if ($other != yes) { return 400; }", []),
        ("if ($tired) { return 400; }", []),
        ("if ($allowed = 0) { return 400; }", [DOTS, DOTS_TWICE, LINES]),
        ("if ($closed) { return 400; }", [DOTS, DOTS_TWICE, LINES]),
        ("if ($request_uri ~* %0[ad]) { set $r 2; } if ($r = 2) { return 400; }", [LINES]),
        ("if ($request_uri ~* %0[ad]) { set $r 2; } if ($r = 1) { return 400; }", []),
        (f"if ($uri ~ ^/authz) {{ break; }} {OLD}", [DOTS]),
        (f"if ($uri = /authz/site) {{ break; }} {OLD}", [DOTS]),
        (f"if ($uri !~ ^/authz) {{ break; }} {OLD}", []),
        (f"if ($uri != /authz/site) {{ break; }} {OLD}", []),
        (f"if ($uri ~ ^/authz|^/public) {{ break; }} {OLD}", []),
        (f"if ($uri ~ /authz) {{ break; }} {OLD}", []),
        ("", []),
    ],
)
def test_each_kind_is_one_of_its_own(
    lines: str, refused: list[tuple[str, ...]], tmp_path: Path
) -> None:
    """Dots, dots that are encoded twice, and line ends: every spelling must be refused."""
    place, root = server(lines, tmp_path)
    assert [each for each in (DOTS, DOTS_TWICE, LINES) if is_guarded(place, root, each)] == refused


def test_the_line_to_write_is_a_guard(tmp_path: Path) -> None:
    """Against all three."""
    place, root = server(WRITE.partition("in the server: ")[2].removesuffix(")"), tmp_path)
    assert all(is_guarded(place, root, each) for each in (DOTS, DOTS_TWICE, LINES))

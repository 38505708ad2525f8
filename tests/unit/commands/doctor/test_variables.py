"""The variables of a value, and what may be in their place."""

from __future__ import annotations

from pathlib import Path

import pytest

from sidecar.commands.doctor.nginx_config import Root, read_nginx
from sidecar.commands.doctor.variables import (
    MAX_LENGTH,
    constant,
    filled,
    names,
    plain_variables,
    possible,
    resting_on,
)


def place(lines: str, directory: Path, server: str = "") -> Root:
    path = directory / "nginx.conf"
    path.write_text(f"http {{ server {{ {server} location / {{ {lines} proxy_pass x; }} }} }}")
    return read_nginx(path)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("$uri", ["$uri"]),
        ("http://app${uri}x", ["$uri"]),
        ("$1x$2", ["$1", "$2"]),
        ("$12", ["$1"]),
        ("a$URI${Args}", ["$uri", "$args"]),
        ("a$", []),
    ],
)
def test_the_names_in_a_text(text: str, expected: list[str]) -> None:
    """With braces, of one digit, and in any case, as nginx has them."""
    assert names(text) == expected


def test_a_name_is_written_plainly_only_where_it_ends() -> None:
    """`${uri}x` isn't `$urix`."""
    assert plain_variables("${Uri}/${uri}x") == "$uri/${uri}x"
    assert filled("${a}b$1c$d", {"a": "1", "1": "2"}) == "1b2c$d"


@pytest.mark.parametrize(
    ("lines", "server", "expected"),
    [
        ("set $a x;", "set $a y;", {"x"}),
        ("", "set $a y;", {"y"}),
        ("if ($b) { set $a x; }", "set $a y;", {"x", "y"}),
        ("set $a z; if ($b) { set $a x; }", "set $a y;", {"x", "z"}),
        ("set $A $c; set $c x;", "", {"x"}),
        ("set $a $a/;", "", None),
        ("set $a $c$c; set $c $a$a;", "", None),
    ],
)
def test_what_set_may_give(
    lines: str, server: str, expected: set[str] | None, tmp_path: Path
) -> None:
    """The nearest block's that always does, and those of each `if`; circles end."""
    root = place(lines, tmp_path, server)
    at = next(root.all("location"))
    found = possible("$a", at, root)
    assert max(map(len, found), default=0) <= 3 * MAX_LENGTH
    if expected is not None:
        assert found == expected
        assert constant("$a", at) == (expected.pop() if len(expected) == 1 else "$a")


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        ("map $b $a { c x; default y; }", {"x", "y"}),
        ("geo $a { 10.0.0.0/8 x; default y; }", {"x", "y"}),
        ("split_clients $b $a { 50% x; * y; }", {"x", "y"}),
        ("map $b $a { c x; }", {"x", "$a"}),
        ("split_clients $b $a { 50% x; }", {"x", "$a"}),
    ],
)
def test_what_a_table_may_give(table: str, expected: set[str], tmp_path: Path) -> None:
    """Its lines, and something unknown unless one of them is for every request."""
    path = tmp_path / "nginx.conf"
    path.write_text(f"http {{ {table} }}")
    root = read_nginx(path)
    assert possible("$a", None, root) == expected


def test_what_a_variable_rests_on() -> None:
    """Itself first, then what is given to it, each once."""
    given = {"$a": ["$b/$c"], "$b": ["$a"]}
    assert list(resting_on("$a", lambda name: given.get(name, []))) == ["$a", "$b", "$c"]

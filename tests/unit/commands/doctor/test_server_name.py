"""A server name reaches the question through a map that lets no line end through, or is told."""

from __future__ import annotations

from pathlib import Path

import pytest
from good_nginx import GOOD, MAP, found

STRICT = [
    r'"~\A[A-Za-z0-9._-]{1,255}\z"',
    r'"~^[a-z0-9.-]+\z"',
    r"~*\A[a-z0-9\-]+(?:\.[a-z0-9\-]+)*\z",
    r'"~\A(www|app)\.example\.com\z"',
    r'"~(?i)\A[\w.-]+\z"',
    "app.example.com",
]
LAX = [
    r'"~^[A-Za-z0-9._-]{1,255}$"',
    r'"~\A[A-Za-z0-9._-]{1,255}\Z"',
    r'"~\A[A-Za-z0-9._-]{1,255}$"',
    r'"~\A[A-Za-z0-9._-]{1,255}"',
    r'"~[A-Za-z0-9._-]{1,255}\z"',
    r'"~\A.+\z"',
    r'"~\A[^ ]+\z"',
    r'"~\A[\w\s]+\z"',
    r'"~\Aa|b\z"',
    r'"~\A(a)|(b)\z"',
    r'"~(?m)^[a-z]+\z"',
    r'"~(?s)\A[a-z]+.\z"',
    r'"~\A[a-z]+\n?\z"',
    r'"~\A[a-z]+\R?\z"',
    r'"~\A[[:print:][:cntrl:]]+\z"',
    "default",
]


def with_map(key: str, value: str = "$ssl_server_name", more: str = "") -> str:
    return GOOD.replace(MAP, f"map $ssl_server_name $mtls_sidecar_sni {{ {more} {key} {value}; }}")


@pytest.mark.parametrize("key", STRICT)
def test_a_strict_map_is_silent(key: str, tmp_path: Path) -> None:
    """Matched whole by named characters, whatever the names are."""
    assert found(with_map(key, more='default "";'), tmp_path) == []
    text = with_map(key).replace("$mtls_sidecar_sni", "$name")
    assert found(text.replace("SSL-Server-Name $name", "SSL-Server-Name ${name}"), tmp_path) == []


@pytest.mark.parametrize("key", LAX)
def test_a_lax_map_is_open(key: str, tmp_path: Path) -> None:
    """`$` and `\\Z` match before a line end, `.` and negated classes match one."""
    assert [each for each, _ in found(with_map(key), tmp_path)] == ["sni-raw"]


@pytest.mark.parametrize(
    "value",
    ["$ssl_server_name", "${ssl_server_name}", '"x$ssl_server_name"', "$ssl_preread_server_name"],
)
def test_the_raw_name_is_open(value: str, tmp_path: Path) -> None:
    """The variable itself is told, in whichever header and spelling."""
    text = GOOD.replace("$mtls_sidecar_sni;\n", f"{value};\n")
    assert found(text, tmp_path) == [("sni-raw", 24)]
    text = GOOD.replace("internal;", f"internal; proxy_set_header X-Other {value};")
    assert ("sni-raw", 11) in found(text, tmp_path)


def test_a_raw_name_behind_set_is_open(tmp_path: Path) -> None:
    """`set $a $ssl_server_name` changes nothing of it."""
    text = GOOD.replace("$mtls_sidecar_sni;\n", "$a;\n")
    text = text.replace("internal;", "internal; set $a $ssl_server_name;")
    assert ("sni-raw", 24) in found(text, tmp_path)


def test_the_name_is_the_last_header(tmp_path: Path) -> None:
    """A header behind the name is told, as a line end in the name would go before it."""
    text = GOOD.replace("$mtls_sidecar_sni;\n", "$mtls_sidecar_sni; proxy_set_header A b;\n")
    assert found(text, tmp_path) == [("sni-not-last", 24)]


def test_hostnames_and_other_captures_are_lax(tmp_path: Path) -> None:
    """A wildcard of `hostnames` matches what stands before the dot, whatever it is."""
    text = with_map("*.example.com", more="hostnames;")
    assert [each for each, _ in found(text, tmp_path)] == ["sni-raw"]
    text = with_map(r'"~\A[a-z]+\z"', "$http_x")
    assert [each for each, _ in found(text, tmp_path)] == ["sni-raw"]

"""Accept only settings that can work."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from sidecar.core.config.dates import parse_date
from sidecar.core.config.settings import parse_address, read_settings, settings_warnings
from sidecar.core.errors import PolicyError
from sidecar.runtime.listen import open_listener


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("socket_mode: 0660\nlisten: 127.0.0.1:80", "1:1: socket_mode has no effect"),
        ("listen: 127.0.0.1:80\nsocket_group: a", "2:1: socket_group has no effect"),
        ("admin: off\nadmin_hosts: [a.b]", "2:1: admin_hosts has no effect"),
        ("admin: unix:/run/a\nadmin_hosts: [a.b]", "2:1: admin_hosts has no effect"),
        ("decision_log: off\ndecision_log_file: /a", "2:1: decision_log_file gets no decision"),
        ("listen: 127.0.0.1:80\nadmin: unix:/run/a\nsocket_mode: 0660", ""),
        ("socket_mode: 0660\nadmin_hosts: [a.b]\ndecision_log_file: /a", ""),
    ],
)
def test_a_key_without_effect_beside_another_is_told(text: str, told: str) -> None:
    """`check` and the daemon's start name it with its line; what has an effect isn't named."""
    data = text.encode()
    found = settings_warnings(read_settings(data, "a.yaml"), data, "a.yaml")
    assert [str(each).startswith(f"a.yaml:{told}") for each in found] == [True] * bool(told)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("listen: unix:@mtls", "abstract"),
        ("admin: 'unix:@mtls'", "abstract"),
        ("listen: 'unix:'", "names no socket"),
        ("listen: unix:/run/", "names no socket"),
        ("listen: 127.0.0.1:0", "port"),
        ("listen: 127.0.0.1:65536", "port"),
        ("listen: 127.0.0.256:80", "not an address"),
        ("listen: 1.2.3:80", "not an address"),
        ("listen: '[1.2.3.4]:80'", "not an address"),
        ("listen: '[::zz]:80'", "not an address"),
        ("listen: '::1:80'", "not an address"),
        ("listen: '*:80'", "not an address"),
        (f"listen: unix:/{'x' * 107}", "107 bytes"),
        (f"listen: unix:/{'x' * 100}/s", "107 bytes"),
        ("socket_mode: 0440", "nobody can connect"),
        ("socket_mode: 4770", "not a mode"),
        ("socket_group: 4294967295", "not a group"),
        ("socket_group: 99999999999999999999", "not a group"),
        ("socket_group: a:b", "not a group"),
        ("decision_log_file: stdout", "not a file"),
        ("decision_log_file: /var/log/", "directory"),
        ("fetch_socket: unix:/run/x.sock", "not a path"),
        ("fetch_socket: '@x'", "abstract"),
        ("listen: 127.0.0.1:9641", "the address of listen and of admin"),
        ("admin: unix:/run/mtls-sidecar/authz.sock", "the address of listen and of admin"),
        ("fetch_admin: 127.0.0.1:9641", "the address of admin and of fetch_admin"),
    ],
)
def test_what_could_never_work_is_refused(text: str, message: str) -> None:
    """A value that can't work is reported with its line and what to write instead."""
    with pytest.raises(PolicyError) as caught:
        read_settings(text.encode(), "sidecar.yaml")
    [found] = caught.value.diagnostics
    assert found.line == 1
    assert message in found.message
    assert found.hint


@pytest.mark.parametrize(
    "text",
    ["127.0.0.1:9640", "[::1]:9640", "localhost:80", "a-b.example:1", "unix:/run/a.sock"],
)
def test_what_can_work_is_taken(text: str) -> None:
    """A valid address is accepted and shown as written."""
    assert str(parse_address(text)) == text


def test_the_longest_path_can_be_listened_on(tmp_path: Path) -> None:
    """A path of 107 bytes works, independent of its directory's length."""
    directory = tmp_path / "d"
    directory.mkdir()
    for name_length in (6, 20):
        middle = 107 - len(str(directory)) - 2 - name_length
        longer = directory / ("m" * middle)
        longer.mkdir(exist_ok=True)
        path = longer / ("s" * (107 - len(str(longer)) - 1))
        if len(path.name) < len(".ffffff"):
            with pytest.raises(ValueError, match="107 bytes"):
                parse_address(f"unix:{path}")
            continue
        listener = open_listener(parse_address(f"unix:{path}"), 0o600, "")
        try:
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(str(path))
        finally:
            listener.close()
            os.unlink(path)


def test_the_last_day_is_a_day() -> None:
    """`until: 9999-12-31` includes the last possible day."""
    assert parse_date("9999-12-31", end=True) == 253402300800.0
    assert parse_date("9999-12-31") == 253402214400.0
    assert parse_date("2027-01-31", end=True) == parse_date("2027-02-01")
    assert parse_date("9999-12-31T23:59:59-14:00") > 0
    assert parse_date("0001-01-01T00:00:00+14:00") < 0

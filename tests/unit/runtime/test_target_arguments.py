"""`revoke` and `fleet revoke` are told in the same words what to deny."""

from __future__ import annotations

import argparse

import pytest

from sidecar.runtime.target_arguments import add_target, stated_target


def options(*given: str, clients: bool = True) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_target(parser, clients=clients)
    return parser.parse_args(given)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["a.crt"], ("a.crt", "")),
        (["--serial", "0A"], ("0A", "serial")),
        (["0A", "--serial"], ("0A", "serial")),
        (["--name", "alice/phone"], ("alice/phone", "name")),
    ],
)
def test_one_target_is_stated(given: list[str], expected: tuple[str, str]) -> None:
    """Alone, behind an option, or before one."""
    assert stated_target(options(*given), "revoke") == expected


@pytest.mark.parametrize(
    "given", [[], ["a", "--serial", "0A"], ["--file", "a", "--serial", "0A"], ["--serial"]]
)
def test_not_one_target(given: list[str]) -> None:
    """None, two, or an option without one."""
    with pytest.raises(ValueError, match="say one target: fleet revoke CERT"):
        stated_target(options(*given), "fleet revoke")


def test_a_list_has_no_target() -> None:
    """`revoke --list` is about all."""
    assert stated_target(options(), "revoke", listing=True) == ("", "")
    with pytest.raises(ValueError, match="say one target"):
        stated_target(options("0A"), "revoke", listing=True)


def test_the_fleet_knows_no_clients_of_enroll() -> None:
    """Their names are on the host that enrolled them."""
    with pytest.raises(SystemExit):
        options("--name", "alice", clients=False)
    assert stated_target(options("0A", clients=False), "fleet revoke") == ("0A", "")

"""Public keys as they are pinned."""

from __future__ import annotations

import base64

import pytest
from fleet_entries import Author

from sidecar.core.fleet.keys import parse_key, parse_name


def test_a_key_reads_back_as_it_is_written() -> None:
    """Both forms: one that signs everything, and a keeper's."""
    public = Author().public
    assert parse_key(str(public)) == public
    keeper = parse_key(f"{public} head")
    assert keeper.heads_only
    assert str(keeper) == f"{public} head"
    assert keeper.id == public.id


GOOD = "SIvIQYcWlYVT3nJHf57vG5F3hQmFJ1Ub9aqcAhHT+3g="


@pytest.mark.parametrize(
    "text",
    [
        "",
        GOOD,
        f"rsa {GOOD}",
        f"ed25519 {GOOD} tail",
        f"ed25519 {GOOD} head head",
        f"ed25519 {GOOD[:-1]}",
        f"ed25519 {GOOD[:-4]}",
        f"ed25519 {GOOD[:-1]}\n=",
        "ed25519 " + base64.b64encode(b"x" * 31).decode(),
        "ed25519 " + base64.b64encode(b"x" * 33).decode(),
    ],
)
def test_what_is_no_key_is_refused_with_what_to_write(text: str) -> None:
    """The message names the command that prints one."""
    with pytest.raises(ValueError, match=r"no (Ed25519 )?public key") as error:
        parse_key(text)
    assert "fleet keygen" in error.value.args[1]


@pytest.mark.parametrize("raw", ["01" + "00" * 31, "00" * 32, "ec" + "ff" * 30 + "7f"])
def test_a_key_for_which_anybody_can_sign_is_refused(raw: str) -> None:
    """Points of small order: one signature verifies over many messages."""
    with pytest.raises(ValueError, match="anybody can sign"):
        parse_key("ed25519 " + base64.b64encode(bytes.fromhex(raw)).decode())


@pytest.mark.parametrize("text", ["", "a.b", "a>", "*", "a b", "x" * 65, "ä"])
def test_a_name_is_one_token_of_a_subject(text: str) -> None:
    """Nothing that NATS would read as a wildcard or as two tokens."""
    with pytest.raises(ValueError, match="is no name"):
        parse_name(text)

"""The section `fleet:` of sidecar.yaml."""

from __future__ import annotations

import pytest

from sidecar.core.config.fleet_settings import FleetSettings, node_name
from sidecar.core.config.settings import read_settings, settings_warnings
from sidecar.core.errors import PolicyError

KEY = "ed25519 SIvIQYcWlYVT3nJHf57vG5F3hQmFJ1Ub9aqcAhHT+3g="


def fleet(text: str) -> FleetSettings:
    found = read_settings(f"fleet: {{{text}}}\n".encode(), "sidecar.yaml").fleet
    assert found is not None
    return found


def test_what_it_needs_and_what_it_takes_for_granted() -> None:
    """A name, servers and keys; it serves when stale, after a minute."""
    found = fleet(f"name: prod, servers: [tls://nats1.example.com:4222], keys: [{KEY}]")
    assert (found.stale, found.stale_after, found.epoch, found.labels) == ("serve", 60, 1, ())
    assert [str(key) for key in found.keys] == [KEY]
    assert node_name(found, "web1.example.com") == "web1_example_com"
    assert node_name(fleet(f"name: a, node: b, keys: [{KEY}]"), "web1") == "b"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("servers: [tls://a:1]", "'name' is missing"),
        ("name: prod", "'keys' is missing"),
        ("name: prod, keys: []", "believes nobody"),
        (f"name: prod, keys: [{KEY} head]", "no key of the fleet may sign a release"),
        ("name: prod, keys: [abc]", "is no public key"),
        (f"name: a.b, keys: [{KEY}]", "'a.b' is no name"),
        (f"name: a, keys: [{KEY}], node: a.b", "'a.b' is no name"),
        (f"name: a, keys: [{KEY}], labels: [a b]", "'a b' is no name"),
        (f"name: a, keys: [{KEY}], servers: [nats://nats.example.com]", "is not encrypted"),
        (f"name: a, keys: [{KEY}], servers: [http://x]", "is no NATS server"),
        (f"name: a, keys: [{KEY}], servers: ['tls://x:0']", "names no port"),
        (f"name: a, keys: [{KEY}], servers: ['tls://x:99999']", "names no port"),
        (f"name: a, keys: [{KEY}], servers: ['tls://u:p@x']", "is no NATS server"),
        (f"name: a, keys: [{KEY}], stale: maybe", "serve"),
        (f"name: a, keys: [{KEY}], stale_after: 0", "1"),
        (f"name: a, keys: [{KEY}], tls: {{cert: a}}", "one of cert and key"),
        (f"name: a, keys: [{KEY}], colour: red", "unknown key 'colour'"),
    ],
)
def test_mistakes_are_told_with_their_place(text: str, told: str) -> None:
    """File and line, what is wrong, what to write."""
    with pytest.raises(PolicyError) as error:
        fleet(text)
    assert told in str(error.value)
    assert str(error.value).startswith("sidecar.yaml:1:")


@pytest.mark.parametrize("server", ["nats://127.0.0.1:4222", "nats://localhost", "nats://[::1]:1"])
def test_this_machine_may_be_asked_in_the_clear(server: str) -> None:
    """For a server that is reached by the loopback interface only."""
    assert fleet(f"name: a, keys: [{KEY}], servers: ['{server}']").servers == (server,)


def test_a_policy_beside_the_fleet_is_told_of_with_its_line() -> None:
    """It is not read; without a fleet, or without `policy`, there is nothing to tell."""
    section = f"fleet: {{name: prod, keys: [{KEY}]}}\n"
    for text, told in (
        (f"log_format: json\npolicy: /etc/p.yaml\n{section}", ["a.yaml:2:1: policy is not read"]),
        (section, []),
        ("policy: /etc/p.yaml\n", []),
    ):
        data = text.encode()
        found = settings_warnings(read_settings(data, "a.yaml"), data, "a.yaml")
        assert [str(each).partition(": the releases of fleet prod")[0] for each in found] == told

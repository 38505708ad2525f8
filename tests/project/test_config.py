"""The shipped configuration: valid, closed, and complete enough to be the manual."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

from asking import ask, policy
from pki import CA

from sidecar.core.config.schema import keys_of
from sidecar.core.config.settings import Limits, Settings, read_settings
from sidecar.core.decision import Reason
from sidecar.core.policy.spec import BehaviourSpec, LocationSpec, PolicySpec, TrustSpec

CONFIG = Path(__file__).parents[2] / "config"
SETTINGS = (CONFIG / "sidecar.yaml").read_text()
POLICY = (CONFIG / "policy.yaml").read_text()


def uncommented(text: str) -> str:
    """The file with its examples switched on; prose has one blank after its `#`."""
    return re.sub(r"(?m)^#(?=[a-z]|  )", "", text)


def test_the_shipped_policy_lets_nobody_in() -> None:
    """As installed, every location is closed and no file is needed."""
    rules = policy(POLICY)
    alice = CA("x").issue("alice")
    assert [ask(rules, alice, name).reason for name in rules.locations] == [Reason.NOT_ALLOWED]


def test_every_key_is_explained() -> None:
    """Each key of both files stands in the shipped file."""
    for record in (PolicySpec, TrustSpec, BehaviourSpec, LocationSpec):
        for name in keys_of(record):
            assert re.search(rf"\b{name}:", POLICY), name
    for name in (*keys_of(Settings), *keys_of(Limits)):
        assert re.search(rf"(?m)^#? *{name}:", SETTINGS), name


def test_the_defaults_in_the_comments_are_the_defaults() -> None:
    """Switching a commented setting on changes nothing."""
    found = read_settings(uncommented(SETTINGS).encode(), "sidecar.yaml")
    assert dataclasses.replace(found, socket_group="") == Settings()


def test_the_examples_in_the_policy_are_valid() -> None:
    """With the comments' examples switched on, the policy compiles and means what it says."""
    staff = CA("Staff")
    text = uncommented(POLICY).replace("pki/", "")
    rules = policy(text, ca_crt=staff.pem, crl_pem=staff.crl(), denylist_txt=b"")
    assert set(rules.locations) == {"closed", "admin", "health", "site"}
    leaf = staff.issue("alice", dns=["app.example.com"])
    host = {"host": "app.example.com", "server_name": "app.example.com"}
    assert ask(rules, leaf, "admin", **host).allowed
    assert ask(rules, None, None, uri="/healthz", **host).reason is Reason.UNKNOWN_LOCATION
    assert ask(rules, None, None, uri="/healthz", host="x").reason is Reason.PUBLIC

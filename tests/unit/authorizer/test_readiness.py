"""Determine for `/readyz` whether any client can be allowed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest
from asking import NOW, policy
from counted import growth
from pki import CA, now

from sidecar.authorizer.readiness import MAX_NAMED, locked_out, shut_out
from sidecar.core.policy.model import Policy

STAFF = CA("Staff")
FRESH = STAFF.crl()
ENDED = STAFF.crl(this_update=now() - timedelta(days=9), next_update=now() - timedelta(days=1))


def rules(locations: str, crl: bytes = ENDED, more: str = "") -> Policy:
    text = f"""
version: 1
trust:
  staff: {{ca: ca.crt, crl: a.crl{more}}}
locations: [{locations}]
"""
    return policy(text, ca_crt=STAFF.pem, a_crl=crl)


SITE = "{name: site, allow: verified}"


def test_a_fresh_crl_shuts_nobody_out() -> None:
    """With a fresh CRL nothing is reported."""
    found = rules(SITE, FRESH)
    assert shut_out(found, NOW) == ("", "")
    assert locked_out(found, NOW) == {}


def test_an_ended_crl_under_required_shuts_everybody_out() -> None:
    """The reason names the trust, and the effect names the location."""
    found = rules(SITE)
    why, _ = shut_out(found, NOW)
    assert why.startswith("trust staff: no CRL is in force")
    assert locked_out(found, NOW)["staff"].endswith("everyone whom it certified is denied at site")


@pytest.mark.parametrize("more", [", revocation: best_effort", ", revocation: off"])
def test_what_does_not_ask_for_it_is_not_shut(more: str) -> None:
    """Under `best_effort` and `off` an ended CRL denies nobody."""
    assert shut_out(rules(SITE, more=more), NOW) == ("", "")


@pytest.mark.parametrize(
    "other", ["{name: a, allow: public}", "{name: a, mode: monitor, allow: []}"]
)
def test_one_open_location_is_only_a_warning_if_none_asks(other: str) -> None:
    """If no location needs the trust, the daemon stays ready and warns."""
    why, warning = shut_out(rules(other), NOW)
    assert why == ""
    assert warning.startswith("trust staff: ")
    assert locked_out(rules(other), NOW)["staff"].endswith("at no location")


def test_many_locations_are_not_all_named() -> None:
    """A message names a limited number of locations, and says that there are more."""
    many = ", ".join(f"{{name: l{n}, allow: verified}}" for n in range(MAX_NAMED + 1))
    assert locked_out(rules(many), NOW)["staff"].endswith(f"l{MAX_NAMED - 1}, …")


def test_trusts_times_locations() -> None:
    """Twice as many locations and trusts whose CRLs have ended make twice as many calls: the event
    loop looks every few seconds, and decisions wait for it."""

    def prepared(number: int) -> Callable[[], object]:
        found = rules(", ".join(f"{{name: l{at}, allow: verified}}" for at in range(number)))
        (staff,) = found.trusts.values()
        trusts = {f"t{at}": replace(staff, name=f"t{at}") for at in range(number)}
        every = tuple(trusts.values())
        locations = {n: replace(each, trusts=every) for n, each in found.locations.items()}
        many = replace(found, trusts=trusts, locations=locations)
        return lambda: (locked_out(many, NOW), shut_out(many, NOW))

    assert growth(prepared, 20) < 2.4

"""Read the fetcher's plan from the policy, and keep it for the next start."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pki import CA

from sidecar.core.errors import PolicyError
from sidecar.core.x509.bundle import Bundle, read_bundle
from sidecar.fetcher.plan import FetchPlan, PlanReader, fingerprint, kept_plan, plan_path, save_plan

STAFF, GUESTS = CA("Staff"), CA("Guests")

POLICY = """
version: 1
trust:
  staff: {ca: staff.crt, crl: [local.crl, "http://ca.test/a.crl", "http://ca.test/a.crl"]}
  guests: {ca: guests.crt, ocsp: "http://ca.test/ocsp", clock_tolerance: 7}
  local: {ca: staff.crt, crl: local.crl}
locations: [{name: site, allow: verified}]
"""


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    (tmp_path / "staff.crt").write_bytes(STAFF.pem)
    (tmp_path / "guests.crt").write_bytes(GUESTS.pem)
    path = tmp_path / "policy.yaml"
    path.write_text(POLICY)
    return path


def test_only_addresses_of_the_policy_are_planned(policy: Path) -> None:
    """A CRL's address once, and a responder with its trust's issuers; files are not planned."""
    plan = PlanReader(policy).read()
    assert [(s.trust, s.url, s.authorities) for s in plan.crls] == [
        ("staff", "http://ca.test/a.crl", (STAFF.der,))
    ]
    assert set(plan.responders) == {"guests"}
    responder = plan.responders["guests"]
    assert (responder.url, responder.tolerance) == ("http://ca.test/ocsp", 7.0)
    assert set(responder.issuers) == {fingerprint(GUESTS.der)} == {GUESTS.sha256}


def test_a_broken_file_of_authorities_costs_its_trust_alone(policy: Path) -> None:
    """Its trust keeps the last authorities or is left out; the other trusts are not affected."""
    reader = PlanReader(policy)
    last = reader.read()
    (policy.parent / "staff.crt").write_text("-----BEGIN CERTIFICATE-----\n")
    assert reader.changed()
    kept = reader.read(last)
    assert [source.authorities for source in kept.crls] == [(STAFF.der,)]
    assert [Path(mistake.file).name for mistake in reader.mistakes] == ["staff.crt"]
    alone = reader.read()
    assert (alone.crls, set(alone.responders)) == ((), {"guests"})
    (policy.parent / "staff.crt").unlink()
    assert reader.changed()


def test_a_policy_that_can_not_be_read_is_an_error(policy: Path) -> None:
    """An invalid policy is a `PolicyError`, a missing one an OSError."""
    policy.write_text("version: 2\n")
    with pytest.raises(PolicyError):
        PlanReader(policy).read()
    policy.unlink()
    with pytest.raises(FileNotFoundError):
        PlanReader(policy).read()


def test_a_plan_is_read_as_it_was_kept(policy: Path, tmp_path: Path) -> None:
    """A kept plan is complete, and readable only by its user."""
    plan = PlanReader(policy).read()
    path = plan_path(tmp_path / "state")
    save_plan(path, plan)
    assert path.stat().st_mode & 0o077 == 0
    found = kept_plan(path)
    assert found is not None
    assert found.crls == plan.crls
    assert found.authorities == plan.authorities
    assert found.responders["guests"].tolerance == 7.0
    assert set(found.responders["guests"].issuers) == {GUESTS.sha256}


@pytest.mark.parametrize(
    "change",
    [
        lambda held: held.pop("crls"),
        lambda held: held.__setitem__("crls", [["other", "http://ca.test/x"]]),
        lambda held: held.__setitem__("crls", [["staff", "file:///etc/shadow"]]),
        lambda held: held.__setitem__("responders", [["staff", "ftp://ca.test", 1]]),
        lambda held: held.__setitem__("authorities", {"staff": ["*"]}),
    ],
)
def test_a_spoilt_plan_is_as_good_as_none(policy: Path, tmp_path: Path, change: object) -> None:
    """An invalid plan raises nothing, and only http and https addresses are accepted."""
    path = plan_path(tmp_path / "state")
    save_plan(path, PlanReader(policy).read())
    held = json.loads(path.read_bytes())
    change(held)  # type: ignore[operator]  # a lambda of the list above
    path.write_text(json.dumps(held))
    assert kept_plan(path) is None
    path.write_text("{")
    assert kept_plan(path) is None
    path.unlink()
    assert kept_plan(path) is None


def test_a_directory_in_the_plan_s_place_is_renamed(tmp_path: Path) -> None:
    """A directory doesn't prevent the plan from being kept."""
    path = plan_path(tmp_path)
    path.mkdir(parents=True)
    save_plan(path, FetchPlan())
    assert path.is_file()
    assert path.with_name("plan.json.broken").is_dir()


def test_a_file_of_many_trusts_is_read_once(policy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many trusts name it."""
    read: list[bytes] = []

    def counted(data: bytes) -> Bundle:
        read.append(data)
        return read_bundle(data)

    monkeypatch.setattr("sidecar.fetcher.plan.read_bundle", counted)
    trusts = "".join(
        f"  t{at}: {{ca: staff.crt, crl: 'http://ca.test/a.crl'}}\n" for at in range(9)
    )
    policy.write_text(f"version: 1\ntrust:\n{trusts}locations: [{{name: site, allow: verified}}]\n")
    assert len(PlanReader(policy).read().crls) == 9
    assert read == [STAFF.pem]

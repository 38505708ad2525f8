"""Tell of clients' own certificates that may issue others."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from asking import NOW, ask, policy
from pki import CA

from sidecar.core.policy.model import Policy
from sidecar.core.x509.certificate import from_der

alice = CA("alice")
WARNING = "names a CA of trust 'people': whoever has its key can issue certificates of any name"


def pinned(rule: str, ca: bytes = alice.pem) -> Policy:
    """A policy with a client's own certificate among the anchors."""
    text = "version: 1\ntrust: {people: {ca: ca.crt}}\n"
    text += f"groups: {{g: [{{cn: nobody}}]}}\nlocations: [{{name: site, allow: [{rule}]}}]\n"
    return policy(text, ca_crt=ca)


def told(found: Policy) -> list[str]:
    return [each.message for each in found.warnings_at(NOW) if WARNING in each.message]


def test_the_holder_of_a_self_signed_certificate_issues_any_name() -> None:
    """As `openssl req -x509` makes them, and as nginx takes them, too: `check` says so."""
    found = pinned("{cn: [alice, bob]}")
    assert ask(found, alice.issue("bob")).allowed
    assert len(told(found)) == 1
    assert "CA:FALSE" in next(e.hint for e in found.warnings_at(NOW) if WARNING in e.message)


@pytest.mark.parametrize(
    "rule",
    [
        "{cn: alice}",
        "{dn: CN=alice}",
        f"{{sha256: {alice.sha256}}}",
        f"{{spki_sha256: {from_der(alice.der).spki_sha256}}}",
        "{any: [{cn: bob}, {cn: alice, ou: x}]}",
    ],
)
def test_each_way_to_name_it_is_told(rule: str) -> None:
    """By name, by fingerprint, by key; within other rules."""
    assert len(told(pinned(rule))) == 1


@pytest.mark.parametrize("key", ["dns", "email", "uri", "ip", "upn"])
def test_each_name_of_its_san_is_told(key: str, tmp_path: Path) -> None:
    """And its serial number; another's name is not."""
    names = {
        "dns": "a.example.com",
        "email": "a@example.com",
        "uri": "https://a.example.com/x",
        "ip": "192.0.2.1",
        "upn": "a@example.com",
    }
    san = ",".join(
        f"{kind}:{names[each]}"
        for each, kind in (
            ("dns", "DNS"),
            ("email", "email"),
            ("uri", "URI"),
            ("ip", "IP"),
            ("upn", "otherName:1.3.6.1.4.1.311.20.2.3;UTF8"),
        )
    )
    cert = tmp_path / "alice.crt"
    curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-set_serial", "77")
    named = ("-subj", "/CN=alice", "-addext", f"subjectAltName={san}")
    made = ("openssl", "req", "-x509", *curve, "-keyout", tmp_path / "k", "-out", cert, *named)
    subprocess.run(made, check=True, capture_output=True)
    assert len(told(pinned(f"{{{key}: '{names[key]}'}}", cert.read_bytes()))) == 1
    assert len(told(pinned("{serial: 4D}", cert.read_bytes()))) == 1
    others = names | {"ip": "192.0.2.2", "dns": "b.example.com", "uri": "https://b.example.com/x"}
    others |= {"email": "b@example.com", "upn": "b@example.com"}
    assert told(pinned(f"{{{key}: '{others[key]}'}}", cert.read_bytes())) == []


@pytest.mark.parametrize("rule", ["{cn: bob}", '{cn: "*"}', "{issuer_cn: alice}", "g", "verified"])
def test_a_root_that_no_rule_names_is_not_told(rule: str) -> None:
    """Globs name no one in particular."""
    assert told(pinned(rule)) == []


def test_a_certificate_that_may_not_issue_is_not_told(tmp_path: Path) -> None:
    """With CA:FALSE nobody is let in by it."""
    cert, key = tmp_path / "carol.crt", tmp_path / "carol.key"
    curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
    named = ("-subj", "/CN=carol", "-addext", "basicConstraints=critical,CA:FALSE")
    made = ("openssl", "req", "-x509", *curve, "-keyout", key, "-out", cert, *named)
    subprocess.run(made, check=True, capture_output=True)
    found = pinned("{cn: [bob, carol]}", cert.read_bytes())
    assert told(found) == []
    assert not ask(found, alice.issue("bob")).allowed

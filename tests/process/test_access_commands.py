"""`what` and `who`: who has access, as the operator asks for it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pki import CA
from run_command import command

staff, other = CA("Staff"), CA("Other")
alice = staff.issue("alice", dns=["app.example.com"])
bob = staff.issue("bob", dns=["*.b.example.com"])
plain = staff.issue("plain")
mallory = other.issue("mallory")

POLICY = """\
version: 1
trust: {staff: {ca: ca.crt, denylist: denylist.txt}}
groups:
  ops:
    - cn: alice
locations:
  - {name: admin, allow: [ops]}
  - {name: app, server_name: "app.example.com www.example.com", location: /, allow: verified,
     san_matches_host: true}
  - {name: wide, server_name: "*.example.com", location: /, allow: verified,
     san_matches_host: true}
  - {name: any, allow: verified, san_matches_host: true, sni_matches_host: true}
  - {name: sni, allow: verified, sni_matches_host: true}
  - {name: lan, allow: [{client_ip: 10.0.0.0/8}]}
  - {name: open, allow: public}
  - {name: watched, allow: [], mode: monitor}
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "ca.crt").write_bytes(staff.pem)
    (tmp_path / "denylist.txt").touch()
    (tmp_path / "policy.yaml").write_text(POLICY)
    for leaf in (alice, bob, plain, mallory):
        (tmp_path / f"{leaf.name}.crt").write_bytes(leaf.pem)
    (tmp_path / "alice.der").write_bytes(alice.der)
    return tmp_path


def facts(place: Path, *arguments: str, code: int = 0) -> Any:
    done = command(place, *arguments, "--json")
    assert done.returncode == code, done.stdout + done.stderr
    return json.loads(done.stdout)


def reasons(place: Path, *arguments: str) -> dict[str, str]:
    return {each["location"]: each["reason"] for each in facts(place, "what", *arguments)}


# -- what


def test_what_tells_of_every_location(place: Path) -> None:
    """Each location, in the policy's order, has decision, reason, rule and the rule's line."""
    found = facts(place, "what", "alice.crt")
    names = "admin app wide any sni lan open watched".split()
    assert [each["location"] for each in found] == names
    assert all(list(each) == ["location", "decision", "reason", "rule", "line"] for each in found)
    assert found[0] == {
        "location": "admin",
        "decision": "allow",
        "reason": "allowed",
        "rule": "ops[0]",
        "line": 5,
    }
    assert found[7]["decision"] == "allow"  # monitor mode
    assert found[7]["reason"] == "not_allowed"
    assert facts(place, "what", "alice.der") == found


@pytest.mark.parametrize(
    ("arguments", "location", "reason"),
    [
        (["alice.crt"], "app", "allowed"),
        (["alice.crt"], "wide", "allowed"),
        (["alice.crt"], "any", "allowed"),
        (["bob.crt"], "app", "host_mismatch"),
        (["bob.crt"], "wide", "allowed"),
        (["plain.crt"], "any", "host_mismatch"),
        (["plain.crt"], "sni", "allowed"),
        (["alice.crt", "--host", "x.example.com"], "app", "host_mismatch"),
        (["alice.crt", "--host", "app.example.com"], "any", "allowed"),
        (["alice.crt", "--host", "app.example.com", "--sni", "x.org"], "any", "sni_mismatch"),
        (["alice.crt"], "lan", "not_allowed"),
        (["alice.crt", "--client-ip", "10.1.2.3"], "lan", "allowed"),
        (["mallory.crt"], "admin", "untrusted_issuer"),
        (["mallory.crt"], "open", "public"),
        (["alice.crt", "--now", "1999-01-01"], "admin", "not_yet_valid"),
        (["alice.crt", "--verify", "NONE"], "admin", "verify_failed"),
        (["policy.yaml"], "admin", "malformed_certificate"),
        (["--cert-fields", "{cn: alice}"], "admin", "allowed"),
        (["--cert-fields", "{cn: alice, dns: [www.example.com]}"], "app", "allowed"),
    ],
)
def test_what_decides_as_explain(
    place: Path, arguments: list[str], location: str, reason: str
) -> None:
    """A location that looks at the host is asked for one that it serves, if none was given."""
    assert reasons(place, *arguments)[location] == reason


def test_what_asks_the_denylist(place: Path) -> None:
    """A denied certificate is told as revoked wherever one is needed."""
    (place / "denylist.txt").write_text(f"sha256 {alice.sha256}\n")
    found = reasons(place, "alice.crt")
    assert {found[each] for each in ("admin", "app", "watched")} == {"revoked"}
    assert found["open"] == "public"


def test_what_tells_what_it_assumed(place: Path) -> None:
    """The host that was asked for is named, and a client's address that is missing."""
    done = command(place, "what", "bob.crt")
    lines = {line.split()[1]: line for line in done.stdout.splitlines()}
    assert "asked for the host any.b.example.com" in lines["wide"]
    assert "give --client-ip" in lines["lan"]
    assert "policy.yaml:7" in lines["admin"]
    assert "enforcing would deny" in lines["watched"]
    assert "asked for" not in command(place, "what", "bob.crt", "--host", "a.org").stdout
    assert "note: wide: asked for" in command(place, "what", "bob.crt", "--json").stderr


# -- who


def test_who_tells_rules_and_those_who_get_in(place: Path) -> None:
    """The rules in words with their lines, groups expanded; of the certificates those let in."""
    found = facts(place, "who", "admin", "--certs", "alice.crt", "bob.crt", "alice.der")
    assert found["rules"] == ["allows if the CN is alice: ops[0] (line 5)"]
    [client] = found["clients"]
    assert list(client) == ["subject", "sha256", "not_after", "decision", "rule"]
    assert (client["subject"], client["sha256"]) == ("CN=alice", alice.sha256)
    assert client["not_after"] == f"{alice.cert.not_valid_after_utc:%Y-%m-%dT%H:%M:%SZ}"
    assert (client["decision"], client["rule"]) == ("allow", "ops[0]")


def test_who_reads_directories(place: Path) -> None:
    """A directory's certificates are asked about; what is broken among them is told."""
    (place / "sub").mkdir()
    (place / "sub" / "key.pem").write_bytes(alice.key_pem)
    (place / "sub" / "broken.crt").write_bytes(b"\x30\x03abc")
    done = command(place, "who", "lan", "--certs", ".", "--client-ip", "10.1.1.1")
    assert done.returncode == 0
    assert "until" in done.stdout
    assert "CN=mallory" not in done.stdout
    assert "the client's address is in 10.0.0.0/8" in done.stdout
    assert done.stderr.count("warning: left out") == 1
    assert "broken.crt" in done.stderr


@pytest.mark.parametrize(
    ("location", "words"),
    [
        ("wide", "any certificate that verifies: verified"),
        ("open", "everybody: public"),
        ("watched", "mode: monitor"),
        ("watched", "allows nobody"),
    ],
)
def test_who_says_it_in_words(place: Path, location: str, words: str) -> None:
    """Words in place of rules, monitor mode and an empty `allow` are said, too."""
    assert words in "\n".join(facts(place, "who", location)["rules"])


def test_who_asks_the_denylist(place: Path) -> None:
    """A denied certificate is not among those who get in."""
    (place / "denylist.txt").write_text(f"sha256 {alice.sha256}\n")
    assert facts(place, "who", "admin", "--certs", "alice.crt")["clients"] == []


@pytest.mark.parametrize(
    "arguments",
    [
        ["who"],
        ["who", "nowhere"],
        ["who", "admin", "--certs", "nothing"],
        ["who", "admin", "--certs", "policy.yaml"],
        ["what"],
        ["what", "nothing.crt"],
        ["what", "alice.crt", "--cert-fields", "{cn: alice}"],
        ["what", "--cert-fields", "{cm: alice}"],
        ["what", "alice.crt", "--client-ip", "everywhere"],
        ["what", "alice.crt", "--now", "soon"],
        ["what", "denylist.txt"],
    ],
)
def test_a_wrong_call_is_told(place: Path, arguments: list[str]) -> None:
    """Exit 2 and one line that says what to write instead."""
    done = command(place, *arguments)
    assert done.returncode == 2, done.stdout
    assert done.stderr.strip()
    assert "Traceback" not in done.stderr

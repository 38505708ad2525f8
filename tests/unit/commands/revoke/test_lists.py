"""Choose the denylists for a revocation."""

from __future__ import annotations

from pathlib import Path

import pytest
from pki import CA

from sidecar.commands.revoke.lists import ListedTrust, choose, only_file, trusts_of
from sidecar.commands.revoke.target import Target
from sidecar.core.policy.spec import PolicySpec, read_policy
from sidecar.core.x509.certificate import from_der

STAFF, GUESTS = CA("Staff"), CA("Guests")
ALICE = from_der(STAFF.issue("alice").der)
TARGET = Target("sha256", ALICE.sha256, "", ALICE)

SPEC: PolicySpec = read_policy(
    b"""version: 1
trust:
  staff: {ca: staff.crt, denylist: [a.txt, b.txt]}
  guests: {ca: guests.crt}
locations: []
""",
    "policy.yaml",
)


@pytest.fixture
def base(tmp_path: Path) -> Path:
    (tmp_path / "staff.crt").write_bytes(STAFF.pem)
    (tmp_path / "guests.crt").write_bytes(GUESTS.pem)
    return tmp_path


def concerned(base: Path) -> dict[str, bool]:
    return {each.name: each.concerned for each in trusts_of(SPEC, base, TARGET)}


def test_the_issuer_s_trust_is_concerned(base: Path) -> None:
    """By the issuer's name; every trust is, if none has the issuer or no certificate is known."""
    assert concerned(base) == {"staff": True, "guests": False}
    (base / "staff.crt").write_bytes(CA("Other").pem)
    assert concerned(base) == {"staff": True, "guests": True}
    assert all(each.concerned for each in trusts_of(SPEC, base, Target("serial", "1")))


def test_a_file_that_can_not_be_read_may_have_the_issuer(base: Path) -> None:
    """To be safe, its trust is concerned."""
    (base / "guests.crt").write_bytes(b"garbage")
    assert concerned(base)["guests"]


def remains(base: Path, target: CA, *files: CA, kind: str = "sha256") -> str:
    """Who below an authority goes on in a trust of these files."""
    (base / "staff.crt").write_bytes(b"".join(each.pem for each in files))
    cert = from_der(target.der)
    value = cert.sha256 if kind == "sha256" else cert.spki_sha256
    return trusts_of(SPEC, base, Target(kind, value, "", cert))[0].remains


def test_who_goes_on_below_an_authority_that_the_files_lack(base: Path) -> None:
    """Its other certificate, or an anchor that it certified, lets its clients in all the same."""
    issuing = STAFF.intermediate("Issuing")
    renewed = CA("Issuing", issuer=STAFF, key=issuing.key)
    assert remains(base, issuing, STAFF, issuing) == ""
    assert remains(base, issuing, STAFF, issuing, renewed) == ""
    assert remains(base, issuing, STAFF) == ""
    assert "say --key" in remains(base, issuing, STAFF, renewed)
    assert remains(base, issuing, STAFF, renewed, kind="spki_sha256") == ""
    assert "has CN=Issuing below it" in remains(base, STAFF, issuing)
    assert "has CN=Issuing below it" in remains(base, STAFF, issuing, kind="spki_sha256")
    assert remains(base, CA("Staff"), issuing) == ""
    assert remains(base, STAFF, issuing, STAFF) == ""


A = ListedTrust("a", (Path("a.txt"),))
B = ListedTrust("b", ())


def test_a_trust_that_could_go_on_letting_in_is_an_error() -> None:
    """A trust concerned without a denylist is told, with the line to add; another is left out."""
    with pytest.raises(ValueError, match=r"trust 'b' has no denylist.*--trust a"):
        choose([A, B], None)
    assert choose([A, ListedTrust("b", (), concerned=False)], None) == [A]
    assert choose([A, B], "a") == [A]


def test_a_trust_that_is_named_must_be_there_and_have_a_list() -> None:
    """The error lists the existing trusts, or names the missing denylist."""
    with pytest.raises(ValueError, match="no trust 'x'; it has: a, b"):
        choose([A, B], "x")
    with pytest.raises(ValueError, match=r"trust 'b' has no denylist"):
        choose([A, B], "b")
    with pytest.raises(ValueError, match="the policy has no trust"):
        choose([], None)


def test_one_file_of_a_trust(tmp_path: Path) -> None:
    """The trusts that name the file, by any path, are found."""
    file = tmp_path / "a.txt"
    file.touch()
    (tmp_path / "link.txt").symlink_to(file)
    trust = ListedTrust("t", (tmp_path / "link.txt", tmp_path / "b.txt"))
    assert list(only_file([trust, B], file)) == [ListedTrust("t", (file,))]

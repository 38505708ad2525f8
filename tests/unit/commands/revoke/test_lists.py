"""Choose the denylists for a revocation."""

from __future__ import annotations

from pathlib import Path

import pytest
from pki import CA

from sidecar.commands.revoke.lists import ListedTrust, choose, only_file, trusts_of
from sidecar.core.policy.spec import PolicySpec, read_policy
from sidecar.core.x509.certificate import from_der

STAFF, GUESTS = CA("Staff"), CA("Guests")
ALICE = from_der(STAFF.issue("alice").der)

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
    return {each.name: each.concerned for each in trusts_of(SPEC, base, ALICE)}


def test_the_issuer_s_trust_is_concerned(base: Path) -> None:
    """By the issuer's name; every trust is, if none has the issuer or no certificate is known."""
    assert concerned(base) == {"staff": True, "guests": False}
    (base / "staff.crt").write_bytes(CA("Other").pem)
    assert concerned(base) == {"staff": True, "guests": True}
    assert all(each.concerned for each in trusts_of(SPEC, base, None))


def test_a_file_that_can_not_be_read_may_have_the_issuer(base: Path) -> None:
    """To be safe, its trust is concerned."""
    (base / "guests.crt").write_bytes(b"garbage")
    assert concerned(base)["guests"]


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

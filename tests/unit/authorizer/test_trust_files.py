"""Each trust is built of its current files, and of their last good versions otherwise."""

from __future__ import annotations

from pathlib import Path

import pytest
from pki import CA

from sidecar.authorizer.lanes import CrlReaders
from sidecar.authorizer.last_good import LastGood
from sidecar.authorizer.readings import Readings
from sidecar.authorizer.trust_files import Resolved, TrustFiles
from sidecar.authorizer.trust_sources import TrustSources
from sidecar.authorizer.watermarks import Watermarks
from sidecar.core.policy.compile import compile_draft
from sidecar.core.policy.model import Trust
from sidecar.core.revocation import denylist

STAFF, OTHER = CA("Staff"), CA("Other")
POLICY = """\
version: 1
trust:
  staff: {ca: staff.crt, crl: staff.crl, denylist: denied.txt}
  other: {ca: other.crt}
locations:
  - {name: site, trust: staff, allow: verified}
"""


class Trusts:
    """The files of two trusts, and what is built of them."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.readings = Readings()
        self.files = TrustFiles(
            TrustSources(
                directory,
                directory / "state",
                False,
                Watermarks(None),
                self.readings,
                LastGood(directory / "copies"),
                CrlReaders(),
            )
        )
        self.draft = compile_draft(POLICY.encode(), "policy.yaml")
        self.put("staff.crt", STAFF.pem)
        self.put("staff.crl", STAFF.crl(number=1))
        self.put("denied.txt", b"serial 01\n")
        self.put("other.crt", OTHER.pem)

    def put(self, name: str, data: bytes) -> None:
        """Write a file."""
        (self.directory / name).write_bytes(data)

    def resolve(self) -> dict[str, Resolved]:
        """Build the trusts, and put the usable ones into force."""
        self.readings.begin(patient=True)
        found = self.files.resolve(self.draft)
        self.readings.end()
        self.files.commit(found)
        return found


@pytest.fixture
def trusts(tmp_path: Path) -> Trusts:
    """Return valid files of two trusts."""
    return Trusts(tmp_path)


def _trust(found: Resolved) -> Trust:
    assert found.trust is not None
    return found.trust


def _authorities(found: Resolved) -> list[str]:
    return [cert.cn[0] for cert in _trust(found).anchors.certificates]


def _messages(found: Resolved) -> str:
    return "\n".join(map(str, found.problems))


def test_valid_files_build_every_trust_once(trusts: Trusts) -> None:
    """While nothing changes, a trust in force stays the same object."""
    first, second = trusts.resolve(), trusts.resolve()
    assert [each.problems for each in first.values()] == [[], []]
    assert [each.trust for each in first.values()] == [each.trust for each in second.values()]


def test_an_invalid_file_affects_only_its_own_trust(trusts: Trusts) -> None:
    """A CA file that never was valid leaves its trust unbuilt; the other trust is built."""
    trusts.put("other.crt", b"typo\n")
    found = trusts.resolve()
    assert _authorities(found["staff"]) == ["Staff"]
    assert found["other"].trust is None
    assert "other.crt" in _messages(found["other"])


def test_an_invalid_ca_file_keeps_the_last_good_authorities(trusts: Trusts) -> None:
    """The mistake is reported while the older certificates stay in force."""
    trusts.resolve()
    trusts.put("other.crt", b"typo\n")
    found = trusts.resolve()["other"]
    assert _authorities(found) == ["Other"]
    assert "other.crt" in _messages(found)


def test_authorities_without_a_matching_crl_do_not_replace_the_others(trusts: Trusts) -> None:
    """A new CA file comes into force together with its CRL."""
    trusts.resolve()
    trusts.put("staff.crt", OTHER.pem)
    assert _authorities(trusts.resolve()["staff"]) == ["Staff"]
    trusts.put("staff.crl", OTHER.crl(number=1))
    found = trusts.resolve()["staff"]
    assert (_authorities(found), found.problems) == (["Other"], [])


def test_a_removed_authority_is_untrusted_although_no_crl_matches(trusts: Trusts) -> None:
    """Of the last good authorities, only those that the new file still lists stay."""
    trusts.put("staff.crt", STAFF.pem + OTHER.pem)
    trusts.put("staff.crl", OTHER.crl(number=1))
    trusts.resolve()
    trusts.put("staff.crt", STAFF.pem)
    found = trusts.resolve()["staff"]
    assert _authorities(found) == ["Staff"]
    assert "1 authorities that its files no longer list" in _messages(found)


def test_valid_lines_of_a_denylist_are_added_to_the_older_ones(trusts: Trusts) -> None:
    """While a line is invalid, no older entry is lost; a corrected file replaces all of them."""
    trusts.resolve()
    counts = []
    for data in (b"serial 02\ngarbage\n", b"serial 02\n"):
        trusts.put("denied.txt", data)
        counts.append(len(_trust(trusts.resolve()["staff"]).denylists[0].entries))
    assert counts == [2, 1]


def test_an_internal_error_keeps_the_trust_but_updates_its_denylist(
    trusts: Trusts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An unexpected exception is reported; new denylist entries take effect nevertheless."""
    trusts.resolve()

    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError("by accident")

    monkeypatch.setattr("sidecar.authorizer.trust_files.build_trust", fail)
    trusts.put("denied.txt", b"serial 01\nserial 02\n")
    found = trusts.resolve()["staff"]
    assert "trust 'staff' can't be built: ZeroDivisionError: by accident" in _messages(found)
    entries = denylist.as_text(_trust(found).denylists[0])
    assert entries.count(b"\n") == 2

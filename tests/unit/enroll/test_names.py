"""Names of people and devices: what goes into a certificate, a page and a file name."""

from __future__ import annotations

import pytest

from sidecar.enroll.names import file_stem, folded, parse_device, parse_person


@pytest.mark.parametrize(
    "name",
    [
        *("alice", "Alice Smith", "O'Brien", "alice@example.com", "José", "Иван", "李雷", "a" * 64),
        *("alice2", "ジョン スミス", "李雷 Li Lei", "رضا ۲", "אבי", "김철수"),
    ],
)
def test_names_of_people_are_taken(name: str) -> None:
    """Letters of any one alphabet, digits, blanks and a few marks."""
    assert parse_person(name) == name


@pytest.mark.parametrize(
    "name",
    [
        *("", "a" * 65, "é" * 33, " alice", "alice ", "a  b", "-rf", ".hidden"),
        *("alice/phone", "alice,CN=root", "CN=root", "a+b", "a\\b", "a;b", 'a"b', "a#b", "a*"),
        *("<script>", "a&b", "alice\n", "a\0b", "a\rb", "a\tb", "a\x7fb", "a\x85b"),
        *("\u202ealice", "al\u200bice", "ali\u00adce", "a\u2028b", "\ufeffa", "a\u00a0b"),
        *("alice\u1160", "alice\ufe0f", "ali\u034fce", "\u17b4alice", "alice\U000e0100"),
        *("\ua4eelice", "o\u02bcbrien", "\U00010400lice", "b\u09e6b", "al\u0967ce"),
        *("\ufb01ona", "\uff41lice", "e\u0301", "\u0430lice", "ali\u0441e", "\u03b1lice", "\ud800"),
    ],
)
def test_names_that_mean_something_else_are_refused(name: str) -> None:
    """Nothing that a DN, a path, a page, a header, a terminal or an eye could take for another."""
    with pytest.raises(ValueError, match=r".") as error:
        parse_person(name)
    assert len(error.value.args) == 2


@pytest.mark.parametrize("name", ["phone", "Alices-iPhone.2", "x", "a" * 32])
def test_names_of_devices_are_taken(name: str) -> None:
    """ASCII letters, digits, `.`, `_` and `-`."""
    assert parse_device(name) == name


@pytest.mark.parametrize("name", ["", "a" * 33, "-x", "x-", "a b", "é", "a/b", "..", "a\n", "<b>"])
def test_other_names_of_devices_are_refused(name: str) -> None:
    """It is a part of file names and of `revoke NAME/DEVICE`."""
    with pytest.raises(ValueError, match="device"):
        parse_device(name)


def test_two_spellings_of_one_person_are_alike() -> None:
    """Upper and lower case make no other person."""
    assert folded("Alice") == folded("ALICE") == folded("alice")
    assert folded("alice") != folded("alicia")


@pytest.mark.parametrize(
    ("name", "stem"),
    [("alice", "alice-phone"), ("José O'Brien", "Jose-O-Brien-phone"), ("李雷", "phone")],
)
def test_a_file_name_is_harmless(name: str, stem: str) -> None:
    """ASCII letters, digits and `.`, `_`, `-`, whatever the person's name."""
    assert file_stem(name, "phone") == stem

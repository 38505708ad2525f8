"""Parse lines of the decision log, as text and as JSON."""

from __future__ import annotations

import json

import pytest

from sidecar.commands.decision_lines import is_cut, moment, read_line, split

TEXT = (
    b'2026-01-31T12:00:00.125Z decision="allow" reason="allowed" location="site" rule="a \\"b\\""'
    b' sha256="ab" ms=3 id="r1" uri="/"\n'
)
JSON = (
    json.dumps(
        {"time": "2026-01-31T12:00:00.125Z", "decision": "allow", "id": "r1", "uri": "/"},
        separators=(",", ":"),
    ).encode()
    + b"\n"
)


def test_a_text_line_is_read_with_its_escapes() -> None:
    """Quoted values are JSON strings; numbers have no quotes."""
    found = read_line(TEXT)
    assert found is not None
    assert found["time"] == "2026-01-31T12:00:00.125Z"
    assert (found["rule"], found["ms"], found["id"]) == ('a "b"', "3", "r1")


def test_a_line_of_thousands_of_values_is_none() -> None:
    """They would take far more memory than the line."""
    many = {"time": "2026-01-31T12:00:00.125Z", **{f"n{i}": "" for i in range(200)}}
    assert read_line(json.dumps(many, separators=(",", ":")).encode()) is None
    text = (
        b"2026-01-31T12:00:00.125Z "
        + b'decision="allow" '
        + b" ".join(b'n%d=""' % i for i in range(200))
    )
    assert read_line(text) is None


def test_a_line_in_a_journal_is_found_behind_its_prefix() -> None:
    """Prefixes of syslog and docker are skipped."""
    found = read_line(b"Jan 31 12:00:00 host mtls-sidecar[1]: " + TEXT)
    assert found is not None
    assert found["decision"] == "allow"
    assert read_line(b"<6>" + JSON) == read_line(JSON)


@pytest.mark.parametrize("line", [b"", b"policy 12 is in force\n", b'{"time":"x"', b"{}\n"])
def test_another_line_is_none(line: bytes) -> None:
    """Other lines of the daemon, and invalid ones, are not decisions."""
    assert read_line(line) is None


@pytest.mark.parametrize("line", [TEXT, JSON])
def test_equal_questions_have_equal_parts(line: bytes) -> None:
    """Lines of equal questions differ only in the time and from the id on."""
    other = line.replace(b"12:00:00.125", b"13:11:11.999").replace(b"r1", b"r2")
    one, two = split(line), split(other)
    assert one is not None
    assert two is not None
    assert one[0] == b"2026-01-31T12:00:00.125Z"
    assert one[0] != two[0]
    assert one[1] == two[1]
    assert split(b"policy 12 is in force\n") is None


def test_the_moment_of_a_line() -> None:
    """The time of a line is converted to seconds with milliseconds."""
    assert moment(b"1970-01-02T00:00:01.250Z") == 86401.25
    with pytest.raises(ValueError, match="does not match"):
        moment(b"yesterday")


def test_a_value_that_was_cut_is_known() -> None:
    """A shortened value is recognized by its length and its end."""
    assert is_cut("x" * 40 + "...")
    assert not is_cut("...")
    assert not is_cut("x" * 60)

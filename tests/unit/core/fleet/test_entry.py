"""The form of an entry's line."""

from __future__ import annotations

import json
from typing import Any

import pytest
from fleet_entries import Author

from sidecar.core.fleet.canonical import encode
from sidecar.core.fleet.entry import MAX_LINE, Refused, parse_line

LINE = Author().revocation().line()


def test_a_line_reads_back_as_itself() -> None:
    """Reading and writing are each other's reverse."""
    assert parse_line(LINE).line() == LINE


def changed(path: str, value: Any) -> bytes:
    """The line with one value replaced; `path` like `entry.sequence`."""
    found = json.loads(LINE)
    at = found
    *above, last = path.split(".")
    for name in above:
        at = at[name]
    if value is KeyError:
        del at[last]
    else:
        at[last] = value
    return encode(found)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("entry", None),
        ("entry.fleet", ""),
        ("entry.fleet", "a.b"),
        ("entry.fleet", 1),
        ("entry.epoch", 0),
        ("entry.epoch", "1"),
        ("entry.sequence", -1),
        ("entry.sequence", None),
        ("entry.previous", "ab"),
        ("entry.previous", "A" * 64),
        ("entry.kind", ""),
        ("entry.kind", "x" * 33),
        ("entry.body", []),
        ("entry.not_after", -1),
        ("entry.not_after", "never"),
        ("entry.more", 1),
        ("entry.body", KeyError),
        ("key", "xyz"),
        ("key", 7),
        ("signature", "AA=="),
        ("signature", 0),
        ("more", 1),
        ("signature", KeyError),
    ],
)
def test_a_field_that_is_wrong_missing_or_too_much_is_refused(path: str, value: Any) -> None:
    """As `malformed`, before any signature is looked at."""
    with pytest.raises(Refused) as error:
        parse_line(changed(path, value))
    assert error.value.why == "malformed"


@pytest.mark.parametrize(
    "line", [b"", b"x", b"[]", b"null", LINE + b" ", LINE[:-1], LINE[1:], b"x" * (MAX_LINE + 1)]
)
def test_what_is_no_line_is_refused(line: bytes) -> None:
    """Truncated, lengthened, or something else."""
    with pytest.raises(Refused) as error:
        parse_line(line)
    assert error.value.why == "malformed"


def test_the_hash_is_of_what_was_signed_alone() -> None:
    """Two signatures over the same octets are the same entry."""
    author, other = Author(), Author()
    entry = author.entry("undo", {"sequence": 1})
    assert author.sign(entry).entry.hash == author.sign(entry, other.key).entry.hash

"""Parse names from DER and from text to the same name."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from odd_names import subject

from sidecar.core.x509.attribute_types import NAMES, OIDS
from sidecar.core.x509.distinguished_name import (
    canonical_text,
    key_of,
    parse_name,
    read_compared_name,
    spellings,
)

UTF8 = 0x0C
VALUES = st.text(
    st.characters(exclude_categories=["Cs", "Cc"]) | st.sampled_from(list('\\"+,;<>=#/ \u00e9')),
    max_size=12,
)
TYPES = st.sampled_from(
    ["2.5.4.3", "2.5.4.10", "2.5.4.97", "1.2.3.4.5", "0.9.2342.19200300.100.1.25", "2.5.4.9"]
)
RDNS = st.lists(
    st.lists(st.tuples(TYPES, st.just(UTF8), VALUES.map(str.encode)), min_size=1, max_size=3),
    min_size=1,
    max_size=4,
)


@given(RDNS)
def test_each_spelling_of_a_name_is_that_name(rdns: list[list[tuple[str, int, bytes]]]) -> None:
    """The canonical text and the forms of nginx and OpenSSL parse to the name in the DER."""
    name = read_compared_name(subject(*rdns))
    assert key_of(parse_name(canonical_text(name))) == key_of(name)
    rfc2253, oneline, *_ = spellings(name)
    assert key_of(parse_name(rfc2253)) == key_of(name)
    assert key_of(tuple(reversed(parse_name(oneline)))) == key_of(name)


@given(RDNS, RDNS)
def test_two_names_have_two_canonical_texts(
    one: list[list[tuple[str, int, bytes]]], other: list[list[tuple[str, int, bytes]]]
) -> None:
    """Different names never have the same canonical text."""
    first, second = read_compared_name(subject(*one)), read_compared_name(subject(*other))
    same = canonical_text(first) == canonical_text(second)
    assert same <= (key_of(first) == key_of(second))


@given(st.text(max_size=30) | st.text('CN=a,+;"\\#/ 03x5', max_size=30))
def test_no_text_is_more_than_a_mistake(text: str) -> None:
    """Any text is a name, or an error that says what to write instead."""
    found: tuple[object, ...] = ("", "")
    try:
        parse_name(text)
    except ValueError as error:
        found = error.args
    assert [type(part) for part in found] == [str, str]


@pytest.mark.parametrize("oid", ["2.5.4.03", "02.5.4.3", "3.1", "1.40.2", "2"])
def test_what_is_no_oid_is_no_type(oid: str) -> None:
    """A dotted type that is not a valid OID is a mistake."""
    with pytest.raises(ValueError, match=r"attribute type|not a DN"):
        parse_name(f"{oid}=a")


def test_each_types_name_is_read_back() -> None:
    """A pattern can use every type name of the canonical text, except OpenSSL's `uid`."""
    for oid, name in NAMES.items():
        assert OIDS[name.lower()] == oid or name == "uid"

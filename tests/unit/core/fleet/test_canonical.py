"""The one encoding of a value."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.core.fleet.canonical import MAX_DEPTH, MAX_INTEGER, decode, encode

VALUES = st.recursive(
    st.none() | st.integers(-MAX_INTEGER + 1, MAX_INTEGER - 1) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(VALUES)
def test_what_is_encoded_reads_back_as_itself(value: Any) -> None:
    """Every value that has an encoding has exactly one, and it means that value."""
    try:
        data = encode(value)
    except ValueError:  # too deep
        return
    assert decode(data) == value
    assert data.isascii()


@pytest.mark.parametrize(
    "data",
    [
        b'{"b":1,"a":2}',
        b'{"a": 1}',
        b'{"a":1,"a":1}',
        b'{"a":1}\n',
        b' {"a":1}',
        b'{"a":1.0}',
        b'{"a":1e3}',
        b'{"a":-0}',
        b'{"a":NaN}',
        b'{"a":true}',
        b'{"a":"\xc3\xa9"}',
        b'{"a":"\\u00E9"}',
        b'{"a":"\\ud800"}',
        b'{"a":"\\/"}',
        b'{"a":9007199254740992}',
        b"\xef\xbb\xbf{}",
        b"",
        b"{",
        b"[" * 200_000,
        b"[" * 20 + b"]" * 20,
    ],
)
def test_another_spelling_of_a_value_is_refused(data: bytes) -> None:
    """Order, blanks, repetition, floats, escapes: what `encode` does not write is not read."""
    with pytest.raises(ValueError, match=r"it is|nested|no place|surrogates"):
        decode(data)


@pytest.mark.parametrize("value", [1.5, True, b"x", {1: 2}, MAX_INTEGER, {"a": {"b": object()}}])
def test_what_has_no_encoding_is_refused(value: Any) -> None:
    """Floats, booleans, octets, keys that are no text, integers beyond 2**53."""
    with pytest.raises(ValueError, match=r"."):
        encode(value)


def test_nesting_is_bounded() -> None:
    """A hostile value can't exhaust the stack."""
    value: Any = 1
    for _ in range(MAX_DEPTH + 1):
        value = [value]
    with pytest.raises(ValueError, match="nested"):
        encode(value)

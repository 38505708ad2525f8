"""How a mistake in a file is told."""

from __future__ import annotations

from sidecar.core.errors import Diagnostic, PolicyError, brief, printable


def test_a_mistake_says_where_what_and_what_to_write() -> None:
    """With line and column; a mistake of the whole file has neither."""
    assert str(Diagnostic("p.yaml", 3, 5, "wrong", "write x")) == "p.yaml:3:5: wrong; write x"
    assert str(Diagnostic("p.yaml", 0, 0, "empty")) == "p.yaml: empty"


def test_all_mistakes_are_told_once_and_in_order() -> None:
    """By file, line and column."""
    one, two = Diagnostic("p", 1, 1, "a"), Diagnostic("p", 2, 1, "b")
    error = PolicyError([two, one, two])
    assert error.diagnostics == (one, two)
    assert str(error) == "p:1:1: a\np:2:1: b"


def test_no_name_moves_the_cursor_or_turns_the_text() -> None:
    """Line ends, escape sequences and marks of direction are shown as escapes."""
    assert printable("a\x1b[2J\n\u202eb é") == "a\\u001b[2J\\u000a\\u202eb é"
    assert "\n" not in str(Diagnostic("p", 1, 1, "a\nb"))


def test_an_error_of_a_library_is_one_short_line() -> None:
    """Its class stands for an empty text."""
    assert brief(ValueError("two\n  lines")) == "two lines"
    assert brief(KeyError()) == "KeyError"
    assert len(brief(ValueError("x" * 999))) == 200

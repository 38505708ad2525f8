"""What others say can't write a line of the log."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.core.errors import Diagnostic, PolicyError
from sidecar.runtime.log_lines import INDENT, OneMargin

FORGED = '\n2026-01-01T00:00:00.000Z decision="allow" reason="allowed"\r\x1b[2K\u202egnitirw\u2028x'


class Broken:
    def __str__(self) -> str:
        raise RuntimeError(FORGED)


def line(message: str, *args: object, failed: bool = False) -> str:
    """A record as it is written."""
    try:
        if failed:
            raise ValueError(FORGED)
        info = None
    except ValueError:
        info = sys.exc_info()
    record = logging.LogRecord("a", logging.WARNING, "f", 1, message, args, info)
    return OneMargin().format(record)


SAID: dict[str, Callable[[], str]] = {
    "text": lambda: line("no answer: %s", FORGED),
    "an exception's": lambda: line("no answer: %s", ValueError(FORGED)),
    "an object's": lambda: line("no answer: %r", [FORGED]),
    "a mapping's": lambda: line("no answer: %(a)s", {"a": FORGED}),
    "without a text": lambda: line("no answer: %s", Broken()),
    "too many": lambda: line("no answer", FORGED, 1),
    "no number": lambda: line("no answer %d", FORGED),
    "the message itself": lambda: line(FORGED[1:]),
    "a traceback": lambda: line("it failed", failed=True),
    "a mistake's": lambda: line("refused: %s", PolicyError([Diagnostic(FORGED, 1, 1, FORGED)])),
}


@pytest.mark.parametrize("name", SAID)
def test_nothing_that_others_say_begins_a_line(name: str) -> None:
    """One line at the margin; nothing in it moves a cursor or turns the direction of writing."""
    first, *more = SAID[name]().split("\n")
    assert first.startswith("WARNING ")
    assert all(each.startswith(INDENT) for each in more)
    for each in (first, *more):
        assert not set(each) & set("\r\x1b\u202e\u2028\n\x00")


def test_the_program_s_own_lines_stay_readable() -> None:
    """Numbers are formatted, and each mistake of a file has a line of its own."""
    assert line("CRL %s ends in %.1f hours", "a", 2.25) == "WARNING CRL a ends in 2.2 hours"
    mistakes = PolicyError([Diagnostic("f", n, 1, "wrong") for n in (1, 2)])
    assert line("refused:\n%s", mistakes).split("\n") == [
        "WARNING refused:", f"{INDENT}f:1:1: wrong", f"{INDENT}f:2:1: wrong",
    ]  # fmt: skip


def test_a_value_without_end_is_cut() -> None:
    """A megabyte of somebody's error is not a megabyte of log."""
    assert len(line("no answer: %s", "x" * 2**20)) < 5000
    assert len(line("x" * 2**20)) < 20_000


@given(said=st.text(max_size=50), message=st.sampled_from(["a %s", "%s", "a\n%s"]))
def test_any_text_stays_behind_the_margin(said: str, message: str) -> None:
    """Whatever the text, no line but the first begins at the margin."""
    for each in line(message, said).split("\n")[1:]:
        assert each.startswith(INDENT)


@pytest.mark.parametrize("text", ["x", "\xff", "\u202e", "\U0001f600", "\udcff", "\x00", "\n<0>"])
def test_no_line_is_longer_than_8_kib(text: str) -> None:
    """Whatever a message, its values or a traceback hold, with a priority before it."""
    shaped = OneMargin(priorities=True)
    try:
        raise ValueError(text * 20_000)
    except ValueError:
        found = sys.exc_info()
    for message, values in (("%s %s", (text * 20_000,) * 2), (text * 20_000, ())):
        record = logging.LogRecord("x", logging.ERROR, "", 0, message, values, found)
        for line in shaped.format(record).split("\n"):
            assert len(line.encode()) <= 8192
            assert line.startswith(("<3>ERROR ", "<3>    "))

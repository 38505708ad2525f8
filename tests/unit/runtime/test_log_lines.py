"""Prevent foreign values from forging log lines."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.core.errors import Diagnostic, PolicyError
from sidecar.runtime import log_lines
from sidecar.runtime.log_lines import (
    INDENT,
    IndentingFormatter,
    ThreadHandler,
    configure_logging,
    log_in_thread,
)

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
    return IndentingFormatter().format(record)


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


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (FileNotFoundError(2, "No such file or directory", "/x"), "/x: No such file or directory"),
        (OSError(5, "Input/output error", "/.x.tmp", None, "/x"), "/x: Input/output error"),
        (ConnectionRefusedError(111, "Connection refused"), "Connection refused"),
        (OSError("no number"), "no number"),
        (ValueError("'x' is not an address", "write ::1"), "'x' is not an address; write ::1"),
        (UnicodeDecodeError("ascii", b"\xff", 0, 1, "no"), "can't decode byte 0xff in position 0"),
        (ValueError(), ""),
    ],
)
def test_an_error_is_told_in_words(error: Exception, told: str) -> None:
    """No number of an error, no tuple: the file, what is wrong, and what to write instead."""
    written = line("not kept: %s", error)
    assert told in written
    assert not any(each in written for each in ("Errno", "('", '("'))


@pytest.mark.parametrize("name", SAID)
def test_nothing_that_others_say_begins_a_line(name: str) -> None:
    """A message has one unindented line without control or direction characters."""
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
    """A megabyte of text becomes a short line."""
    assert len(line("no answer: %s", "x" * 2**20)) < 5000
    assert len(line("x" * 2**20)) < 20_000


@given(said=st.text(max_size=50), message=st.sampled_from(["a %s", "%s", "a\n%s"]))
def test_any_text_stays_behind_the_margin(said: str, message: str) -> None:
    """For any text, only the first line is not indented."""
    for each in line(message, said).split("\n")[1:]:
        assert each.startswith(INDENT)


@pytest.mark.parametrize("text", ["x", "\xff", "\u202e", "\U0001f600", "\udcff", "\x00", "\n<0>"])
def test_no_line_is_longer_than_8_kib(text: str) -> None:
    """No message, value or traceback makes a longer line."""
    shaped = IndentingFormatter(priorities=True)
    try:
        raise ValueError(text * 20_000)
    except ValueError:
        found = sys.exc_info()
    for message, values in (("%s %s", (text * 20_000,) * 2), (text * 20_000, ())):
        record = logging.LogRecord("x", logging.ERROR, "", 0, message, values, found)
        for line in shaped.format(record).split("\n"):
            assert len(line.encode()) <= 8192
            assert line.startswith(("<3>ERROR ", "<3>    "))


def handler(monkeypatch: pytest.MonkeyPatch, room: int = 4096) -> tuple[ThreadHandler, int]:
    """A handler that writes into a pipe, and the pipe's other end."""
    monkeypatch.setattr(log_lines, "ROOM", room)
    reader, writer = os.pipe()
    found = ThreadHandler(writer)
    found.setFormatter(IndentingFormatter())
    return found, reader


def said(text: str, *args: object) -> logging.LogRecord:
    return logging.LogRecord("a", logging.WARNING, "f", 1, text, args, None)


def read_lines(reader: int, most: int) -> list[bytes]:
    """The first lines of the pipe; the test's own deadline bounds the wait."""
    with open(reader, "rb") as file:
        return [file.readline() for _ in range(most)]


def test_a_reader_that_stops_costs_lines_and_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines beyond the limit are dropped and counted, and the number is logged later."""
    found, reader = handler(monkeypatch, room=200)
    with log_lines.ONE_WRITER:  # nobody reads
        for number in range(9):
            found.emit(said("line %d %s", number, "x" * 80))
    assert found.dropped == 7
    found.flush()
    found.emit(said("the last"))
    lines = read_lines(reader, 4)
    assert [line[:14] for line in lines[:2]] == [b"WARNING line 0", b"WARNING line 1"]
    assert lines[2:] == [
        b"WARNING 7 lines of this log were dropped: nobody read it\n",
        b"WARNING the last\n",
    ]


def test_a_record_or_a_reader_that_fails_stops_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """An invalid record and a closed pipe only count as dropped lines."""
    found, reader = handler(monkeypatch)
    broken = said("x")
    broken.exc_info = (ValueError, None, None)  # type: ignore[assignment]  # what no logger makes
    monkeypatch.setattr(found, "format", Broken().__str__)
    found.emit(broken)
    assert found.dropped == 1
    monkeypatch.undo()
    os.close(reader)
    found.emit(said("into nothing"))
    found.flush()
    assert found.dropped == 2


def test_a_stack_stands_behind_the_margin() -> None:
    """The lines of a stack are indented, as those of a traceback."""
    record = said("it is here")
    record.stack_info = "Stack (most recent call last):\n  File"
    assert IndentingFormatter().format(record).splitlines() == [
        "WARNING it is here",
        f"{INDENT}Stack (most recent call last):",
        f"{INDENT}  File",
    ]


def test_only_the_program_s_own_handler_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread replaces the handler of `configure_logging`; other handlers stay."""
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [])
    monkeypatch.setattr(log_lines, "ThreadHandler", lambda _: logging.NullHandler())
    configure_logging()
    [ours] = root.handlers
    other = logging.NullHandler()
    root.addHandler(other)
    found = log_in_thread()
    assert root.handlers == [other, found]
    assert found.formatter is ours.formatter
    logging.captureWarnings(False)

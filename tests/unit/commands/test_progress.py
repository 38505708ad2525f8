"""A terminal shows how much of a log has been read; a file or a pipe gets no such text."""

from __future__ import annotations

import io
from pathlib import Path

from sidecar.commands.progress import bar


class Terminal(io.StringIO):
    """Text stream that says that it is a terminal."""

    def isatty(self) -> bool:
        """Say that this is a terminal."""
        return True


def test_a_terminal_shows_the_part_that_is_read_and_is_cleared_at_the_end(tmp_path: Path) -> None:
    """The bar shows the name, the percentage and the lines; the last output clears its line."""
    log = tmp_path / "decisions.log"
    log.write_bytes(b"x" * 200)
    terminal = Terminal()
    with bar(str(log), terminal) as watch:
        assert watch is not None
        watch(100, 1234)
    assert "decisions.log [" + "#" * 15 + "." * 15 + "]  50% 1,234 lines" in terminal.getvalue()
    assert terminal.getvalue().endswith("\r\x1b[K")


def test_more_octets_than_the_file_had_at_first_show_100_percent(tmp_path: Path) -> None:
    """A log grows while it is read; an empty log can be shown as well."""
    log = tmp_path / "decisions.log"
    log.touch()
    terminal = Terminal()
    with bar(str(log), terminal) as watch:
        assert watch is not None
        watch(500, 3)
    assert "[" + "#" * 30 + "] 100% 3 lines" in terminal.getvalue()


def test_a_control_character_of_the_name_does_not_reach_the_terminal(tmp_path: Path) -> None:
    """The name of a log can't send commands to the terminal."""
    log = tmp_path / "a\x1b[31m.log"
    log.touch()
    terminal = Terminal()
    with bar(str(log), terminal):
        pass
    assert "\x1b[31m" not in terminal.getvalue()


def test_no_bar_without_a_terminal_or_without_a_regular_file(tmp_path: Path) -> None:
    """A stream that is no terminal, and a log without a known size, get no bar."""
    log = tmp_path / "decisions.log"
    log.touch()
    for path, stream in ((str(log), io.StringIO()), ("-", Terminal())):
        with bar(path, stream) as watch:
            assert watch is None
        assert stream.getvalue() == ""

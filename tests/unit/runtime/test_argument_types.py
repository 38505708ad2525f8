"""Arguments out of range are refused, and the error says what to write."""

from __future__ import annotations

from argparse import ArgumentTypeError
from collections.abc import Callable

import pytest

from sidecar.cli import make_parser
from sidecar.runtime.argument_types import percentage, seconds, sequence_number


@pytest.mark.parametrize(
    ("read", "text"),
    [
        *((percentage, text) for text in ("nan", "-5", "200", "inf", "x", "")),
        *((seconds, text) for text in ("nan", "-1", "inf", "x", "")),
        *((sequence_number, text) for text in ("-1", "abc", "1.5", "", "²", "9" * 5000)),
    ],
)
def test_a_number_out_of_range_is_refused(read: Callable[[str], float], text: str) -> None:
    """`nan` passes every comparison with a limit, so it must not get as far."""
    with pytest.raises(ArgumentTypeError, match=r"is not an? .*(write|prints)"):
        read(text)


def test_numbers_in_range_are_taken() -> None:
    """Ends of the range are in it."""
    assert [percentage(text) for text in ("0", "99.5", "100")] == [0, 99.5, 100]
    assert (seconds("60"), sequence_number("17")) == (60, 17)


@pytest.mark.parametrize(
    "line",
    [
        "test --threshold nan",
        "test --threshold -5",
        "fleet publish D --hold-above nan",
        "fleet publish D --promote-after nan",
        "fleet publish D --wait nan",
        "fleet undo abc",
        "fleet rollback -1",
    ],
)
def test_commands_refuse_it(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Each command that takes a number refuses what is none, with exit code 2."""
    with pytest.raises(SystemExit) as ended:
        make_parser().parse_args(line.split())
    assert ended.value.code == 2
    assert "invalid float" not in (said := capsys.readouterr().err)
    assert "invalid int" not in said

"""Spread the work on requests over turns of the event loop."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from sidecar.authorizer.turns import OCTETS, SIZES, SMALLEST_FIRST, Turns


class Loop:
    """Turns with their event loop, and the names of those whose work was done."""

    def __init__(self) -> None:
        self._soon: list[Callable[[], None]] = []
        self.turns = Turns(self._soon.append)
        self.done: list[str] = []

    def ask(self, name: str, octets: int) -> None:
        if self.turns.admits(octets):
            self.done.append(name)
        else:
            self.turns.wait(name, octets, lambda: self.done.append(name))

    def turn(self) -> list[str]:
        """Return whose work is done in the next turn."""
        soon, self._soon[:] = self._soon[:], []
        before = len(self.done)
        for each in soon:
            each()
        return self.done[before:]


def test_a_turn_has_room_for_so_many_octets() -> None:
    """What comes within a turn's octets is worked off at once, the rest in the next turns; a turn
    without work is the last one."""
    loop = Loop()
    for number in range(12):
        loop.ask(str(number), OCTETS // 4)
    assert loop.done == ["0", "1", "2", "3"]
    assert loop.turn() == ["4", "5", "6", "7"]
    assert loop.turn() == ["8", "9", "10", "11"]
    assert loop.turn() == []
    assert not loop._soon
    loop.ask("later", OCTETS)
    assert loop.done[-1] == "later"


def test_who_comes_while_others_wait_waits_too() -> None:
    """Nobody passes those of his size that wait, also where the turn has room."""
    loop = Loop()
    loop.ask("first", OCTETS)
    loop.ask("second", 1000)
    assert loop.turn() == ["second"]
    loop.ask("third", OCTETS)
    loop.ask("fourth", OCTETS)
    loop.ask("fifth", OCTETS)
    assert loop.turn() == ["fourth"]
    assert loop.turn() == ["fifth"]


def test_small_ones_go_first_and_large_ones_go_on() -> None:
    """A small request passes large ones; of any size one is worked off now and then, however many
    small ones come."""
    loop = Loop()
    loop.ask("", OCTETS)
    for size in range(SIZES):
        loop.ask(f"size {size}", 4096 << size)
    loop.ask("small", 100)
    assert loop.turn()[:2] == ["small", "size 0"]
    for _ in range(SIZES * SMALLEST_FIRST * 8):
        for _ in range(OCTETS // 2000):
            loop.ask("small", 2000)
        loop.turn()
    assert {f"size {size}" for size in range(SIZES)} <= {*loop.done}


def test_whose_work_fails_holds_up_nobody() -> None:
    """The error is the loop's, and the next turn goes on."""
    loop = Loop()
    loop.ask("", OCTETS)
    loop.turns.wait("broken", 10, lambda: [][0])
    loop.ask("next", 20)
    with pytest.raises(IndexError):
        loop.turn()
    assert loop.turn() == ["next"]


def test_who_leaves_is_forgotten() -> None:
    """Nothing is kept of who leaves before his turn."""
    loop = Loop()
    loop.ask("", OCTETS)
    loop.ask("gone", 10)
    loop.turns.leave("gone")
    assert loop.turns.waiting == 0
    assert loop.turn() == []

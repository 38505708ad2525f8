"""The verified log of an agent, a publisher or a keeper."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from fleet_entries import Author

from sidecar.core.config.fleet_settings import FleetSettings
from sidecar.fleet.ledger import Ledger


def settings(author: Author) -> FleetSettings:
    return FleetSettings(name=author.fleet, keys=(author.public,))


def test_only_what_holds_is_written(tmp_path: Path) -> None:
    """And taken again by the next process; what does not follow is a gap."""
    author, stranger = Author(), Author()
    lines = [author.release().line(), author.revocation().line(), author.undo(2).line()]
    with contextlib.closing(Ledger(tmp_path, settings(author))) as ledger:
        assert not ledger.take([lines[0], stranger.revocation().line(), b"junk", lines[1]])
        assert ledger.take([author.undo(2).line()])
        assert ledger.refused == {"unknown_key": 1, "malformed": 1}
        assert not ledger.take([lines[2]])
        with pytest.raises(ValueError, match="in use by another process"):
            Ledger(tmp_path, settings(author))
    with contextlib.closing(Ledger(tmp_path, settings(author))) as ledger:
        assert ledger.chain.sequence == 3
        assert ledger.lines(2) == [(2, lines[1]), (3, lines[2])]


def test_a_log_that_does_not_hold_is_cut_and_fetched_again(tmp_path: Path) -> None:
    """A publisher's is refused instead: it may be the only one left."""
    author = Author()
    good = author.release().line()
    (tmp_path / "log.1").write_bytes(good + b"\n" + Author().revocation().line() + b"\n")
    with pytest.raises(ValueError, match="does not fit the fleet's keys"):
        Ledger(tmp_path, settings(author), only_copy=True)
    with contextlib.closing(Ledger(tmp_path, settings(author))) as ledger:
        assert ledger.chain.sequence == 1
    assert (tmp_path / "log.1").read_bytes() == good + b"\n"

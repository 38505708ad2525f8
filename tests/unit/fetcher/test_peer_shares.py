"""Shares of users; process/test_ocsp_answers.py asks as another user."""

from __future__ import annotations

from contextlib import ExitStack

from sidecar.fetcher.peer_shares import Shares


def test_each_user_has_connections_of_their_own() -> None:
    """One user's limit takes nothing of another's, and ends with the connection."""
    shares = Shares(2)
    with ExitStack() as held:
        first = held.enter_context(shares.connected(1, 2))
        assert held.enter_context(shares.connected(1, 2)) is first is not None
        with shares.connected(1, 2) as refused, shares.connected(2, 2) as other:
            assert refused is None
            assert other is not None
            assert other.connections == 1
    with shares.connected(1, 2) as again:
        assert again is not None
        assert again.connections == 1


def test_users_are_bounded() -> None:
    """A further user has no share until one of the others has left."""
    shares = Shares(1)
    with shares.connected(1, 2), shares.connected(2, 2) as refused:
        assert refused is None
    with shares.connected(2, 2) as found:
        assert found is not None

"""Whose connections are closed where there are too many."""

from __future__ import annotations

from sidecar.authorizer.open_connections import OpenConnections

NGINX, OTHER, THIRD = 33, 1000, 1001


class Peer:
    """A connection, with a request or without."""

    def __init__(self, is_asking: bool = False) -> None:
        self.is_asking = is_asking
        self.is_closed = False

    def give_way(self) -> bool:
        self.is_closed = not self.is_asking
        return self.is_closed


def filled(*users: int) -> tuple[OpenConnections[Peer], list[Peer]]:
    found, peers = OpenConnections[Peer](len(users)), [Peer() for _ in users]
    assert all(map(found.admit, peers, users))
    return found, peers


def test_who_holds_all_gives_half_to_another_user() -> None:
    """The oldest ones without a request are closed, until both have as many; never more are open
    than the limit, and one more of either is refused."""
    found, peers = filled(*[OTHER] * 6)
    peers[1].is_asking = True
    ours = [Peer() for _ in range(4)]
    assert [found.admit(each, NGINX) for each in ours] == [True, True, True, False]
    assert [each.is_closed for each in peers] == [True, False, True, True, False, False]
    assert len(found) == 6
    assert not found.admit(Peer(), OTHER)
    assert not any(each.is_closed for each in ours)


def test_a_user_alone_is_as_before() -> None:
    """None of his connections is closed for another one of his, and none that has a request for
    anybody's."""
    found, peers = filled(NGINX, NGINX)
    assert not found.admit(Peer(), NGINX)
    for each in peers:
        each.is_asking = True
    assert not found.admit(Peer(), OTHER)
    assert not any(each.is_closed for each in peers)


def test_what_is_closed_counts_no_more() -> None:
    """Nor is it counted twice, or kept."""
    found, peers = filled(OTHER, OTHER, THIRD)
    for each in (peers[0], peers[0], peers[1]):
        found.discard(each)
    assert list(found) == [peers[2]]
    assert all(found.admit(Peer(), NGINX) for _ in range(2))
    assert not found.admit(Peer(), THIRD)
    assert found._shares == {NGINX: 2, THIRD: 1}

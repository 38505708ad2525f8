"""Share the connections on the authorization socket among the users that have opened it.

Whoever may open it could hold all of them, and so keep nginx from asking.  At the limit, a user who
has fewer than another one gets one of his: one that has no request, the oldest.  nginx, whose own
idle connections are closed only while it has more than anybody else, asks again on another one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Generic, Protocol, TypeVar


class Yielding(Protocol):
    """A connection."""

    def give_way(self) -> bool:
        """Close if it has no request; return whether that is so."""


C = TypeVar("C", bound=Yielding)


class OpenConnections(Generic[C]):
    """The open connections, at most `most`."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._users: dict[C, int] = {}
        self._shares: Counter[int] = Counter()

    def __len__(self) -> int:
        return len(self._users)

    def __iter__(self) -> Iterator[C]:
        return iter(tuple(self._users))

    def admit(self, connection: C, user: int) -> bool:
        """Take in a new connection of a user; return False if there are too many."""
        if len(self) >= self._most and not self._make_room(user):
            return False
        self._users[connection] = user
        self._shares[user] += 1
        return True

    def _make_room(self, user: int) -> bool:
        """Close a connection of the user who has most, if he has the most still."""
        most, number = self._shares.most_common(1)[0]
        if number <= self._shares[user] + 1:
            return False
        for each, whose in self._users.items():
            if whose == most and each.give_way():
                self.discard(each)
                return True
        return False

    def discard(self, connection: C) -> None:
        """Count a connection no more, if it is here."""
        user = self._users.pop(connection, None)
        if user is not None:
            self._shares[user] -= 1
            self._shares += Counter()  # without those who have none

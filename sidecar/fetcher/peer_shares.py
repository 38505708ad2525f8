"""Give each user who may open a unix socket a share of their own of what it can hold.

A user is known by the credentials that the kernel noted as the peer connected (`SO_PEERCRED`,
unix(7)).  In a user namespace all users that it doesn't map are one, the overflow user: there they
have one share together.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field

TURNS = 16
"""Maximum number of exchanges with one trust's responder at the same time for one user; others
wait."""


@dataclass(slots=True)
class Share:
    """What one user holds; questions and turns by trust, as each has a responder of its own."""

    connections: int = 0
    questions: Counter[str] = field(default_factory=Counter)
    turns: defaultdict[str, asyncio.Semaphore] = field(
        default_factory=lambda: defaultdict(lambda: asyncio.Semaphore(TURNS))
    )


class Shares:
    """The shares of the users that are connected, of at most `users` at the same time."""

    def __init__(self, users: int) -> None:
        self._users = users
        self._held: dict[int, Share] = {}

    @contextlib.contextmanager
    def connected(self, user: int, most: int) -> Iterator[Share | None]:
        """Count a connection while the block runs; yield None for a user who has `most` already.

        None too for a user who has none yet while `users` others have some.
        """
        held = self._held
        share = held.get(user)
        if share is None and len(held) < self._users:
            share = held[user] = Share()
        if share is None or share.connections >= most:
            yield None
            return
        share.connections += 1
        try:
            yield share
        finally:
            share.connections -= 1
            if not share.connections:
                del held[user]

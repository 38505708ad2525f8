"""Run coroutines on an event loop in a thread of its own.

For talking to a process that is not trusted over a unix socket: a message can carry descriptors
(unix(7), SCM_RIGHTS).  The kernel closes one that nobody asked for as the message is read, and the
close of a TCP connection may linger for as long as its owner has set: then the thread that has read
stands still, and no other one.
"""

from __future__ import annotations

import asyncio
import errno
import threading
from collections import deque
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any

MAX_QUEUED = 64
"""Maximum number of coroutines that the thread has not begun: beyond, it stands still."""

Work = Callable[[], Coroutine[Any, Any, Any]]


class LoopThread:
    """A thread with an event loop, which starts with the first coroutine."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._loop: asyncio.AbstractEventLoop | None = None
        self._queued: deque[tuple[Work, Future[Any]]] = deque()

    async def run(self, work: Work) -> Any:
        """Wait for `work()`, which runs in the thread; raise what it raises.

        Cancelled, it returns at once, also where the thread stands still.  Raises OSError if the
        thread has stood still for long, or can't be started.
        """
        if len(self._queued) >= MAX_QUEUED:
            raise OSError(errno.EAGAIN, "the thread that talks to it stands still")
        if self._loop is None:
            self._loop = self._start()
        future: Future[Any] = Future()
        self._queued.append((work, future))
        self._loop.call_soon_threadsafe(self._begin, self._loop)
        return await asyncio.wrap_future(future)

    def _start(self) -> asyncio.AbstractEventLoop:
        loop = asyncio.new_event_loop()
        try:
            threading.Thread(target=loop.run_forever, name=self._name, daemon=True).start()
        except RuntimeError as error:  # no more threads: try again later
            loop.close()
            raise OSError(errno.EAGAIN, str(error)) from None
        return loop

    def _begin(self, loop: asyncio.AbstractEventLoop) -> None:
        work, future = self._queued.popleft()
        if future.cancelled():
            return
        task = loop.create_task(work())

        def cancel(given_up: Future[Any]) -> None:
            if given_up.cancelled():
                loop.call_soon_threadsafe(task.cancel)

        def finish(done: asyncio.Task[Any]) -> None:
            error = None if done.cancelled() else done.exception()
            if not future.set_running_or_notify_cancel():
                return
            if error is None:
                future.set_result(None if done.cancelled() else done.result())
            else:
                future.set_exception(error)

        task.add_done_callback(finish)
        future.add_done_callback(cancel)

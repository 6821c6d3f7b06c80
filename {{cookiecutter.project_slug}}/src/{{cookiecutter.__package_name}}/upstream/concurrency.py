"""Limits the OpenAI calls in flight in one process."""

import asyncio
import threading
import time
from collections import deque
from concurrent.futures import Future
from contextlib import suppress

from ..errors import DeadlineExceeded, Overloaded
from ..observer import Observer
from ..settings import Settings
from .deadline import Deadline


class ConcurrencyLimiter:
    """One slot for each call; calls over `max_concurrency` queue in FIFO order.

    Thread-safe. Usage: `enter()`; if it returns a ticket, `wait(ticket)`; finally `release()`.
    """

    def __init__(self, settings: Settings) -> None:
        self._max_queue = settings.max_queue
        self._queue_timeout = settings.queue_timeout_seconds
        self.max_concurrency = settings.max_concurrency
        self._lock = threading.Lock()
        self._free = settings.max_concurrency
        self._queue: deque[Future[None]] = deque()

    @property
    def in_flight(self) -> int:
        return self.max_concurrency - self._free

    @property
    def queued(self) -> int:
        return len(self._queue)

    def enter(self) -> "Future[None] | None":
        """Take a free slot and return None; if there is none, queue and return a ticket for `wait`.

        Raises:
            Overloaded: the queue is full.
        """
        with self._lock:
            if self._free:
                self._free -= 1
                return None
            if len(self._queue) >= self._max_queue:
                raise Overloaded
            ticket: Future[None] = Future()
            self._queue.append(ticket)
            return ticket

    async def wait(self, ticket: "Future[None]", deadline: Deadline, observer: Observer) -> None:
        """Wait for a slot on the event loop.

        Raises:
            Overloaded: the wait exceeded `queue_timeout_seconds`.
            DeadlineExceeded: the deadline passed first.
        """
        started = time.perf_counter()
        try:
            async with asyncio.timeout(min(self._queue_timeout, deadline.remaining())):
                await asyncio.wrap_future(ticket)
        except BaseException as error:
            with self._lock, suppress(ValueError):  # ValueError: `release` has removed it
                self._queue.remove(ticket)
            if not ticket.cancel():  # `release` was first and has granted the slot: pass it on
                self.release()
            if not isinstance(error, TimeoutError):
                raise
            raise (DeadlineExceeded() if deadline.has_passed() else Overloaded()) from None
        finally:
            observer.queued(time.perf_counter() - started)

    def release(self) -> None:
        """Grant the slot to the first call in the queue, or mark it as free."""
        with self._lock:
            while self._queue:
                ticket = self._queue.popleft()
                if ticket.set_running_or_notify_cancel():  # False: the ticket was cancelled
                    ticket.set_result(None)
                    return
            self._free += 1

"""The one point in time that all attempts and waits of a call share."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import httpx2

from .errors import DeadlineExceeded, UpstreamError

# Timers of event loops and sockets round to milliseconds, so that they may fire a little early.
TIMER_RESOLUTION = 0.01

# A host that does not even accept a connection within this will not do so later.
CONNECT_SECONDS = 5.0

# When the caller began to wait, by time.monotonic(); without it, a deadline begins with its call.
started_at: ContextVar[float] = ContextVar("started_at")


class Deadline:
    def __init__(self, seconds: float) -> None:
        self._ends_at = started_at.get(time.monotonic()) + seconds

    def remaining(self) -> float:
        """Seconds left, negative once it has passed."""
        return self._ends_at - time.monotonic()

    def has_passed(self) -> bool:
        return self.remaining() <= TIMER_RESOLUTION

    def timeout(self, limit: float) -> httpx2.Timeout:
        """The timeout of one attempt: `limit` seconds, or what is left."""
        seconds = max(min(limit, self.remaining()), TIMER_RESOLUTION)
        return httpx2.Timeout(seconds, connect=min(seconds, CONNECT_SECONDS))


@contextmanager
def deadline_in(seconds: float) -> Iterator[Deadline]:
    """The deadline of the call inside.

    Raises:
        DeadlineExceeded: instead of the failure that it caused.
    """
    deadline = Deadline(seconds)
    try:
        yield deadline
    except (TimeoutError, UpstreamError) as error:
        if deadline.has_passed():
            raise DeadlineExceeded from error
        raise

"""The one point in time that the queue, all attempts and all waits of a call share."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from ..errors import DeadlineExceeded, UpstreamError

# Timers of event loops and sockets round to milliseconds and may fire a little early.
TIMER_RESOLUTION = 0.01


class Deadline:
    def __init__(self, seconds: float) -> None:
        self._ends_at = time.monotonic() + seconds

    def remaining(self) -> float:
        """Seconds left, negative once it has passed."""
        return self._ends_at - time.monotonic()

    def has_passed(self) -> bool:
        return self.remaining() <= TIMER_RESOLUTION

    def expire(self) -> None:
        """Expire now: no wait or attempt begins after this. For calls that run in a thread."""
        self._ends_at = time.monotonic()

    @contextmanager
    def enforced(self) -> Iterator[None]:
        """Inside, a failure that the deadline caused becomes `DeadlineExceeded`."""
        if self.has_passed():
            raise DeadlineExceeded
        try:
            yield
        except (TimeoutError, UpstreamError) as error:
            if self.has_passed():
                raise DeadlineExceeded from error
            raise

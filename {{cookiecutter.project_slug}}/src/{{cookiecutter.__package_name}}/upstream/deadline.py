"""One deadline per call: it covers the queue, all attempts and the waits between them."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from ..errors import DeadlineExceeded, UpstreamError

# Seconds. Event loop and socket timers round to milliseconds and may fire slightly early.
TIMER_RESOLUTION = 0.01


class Deadline:
    def __init__(self, seconds: float) -> None:
        self.ends_at = time.monotonic() + seconds

    def remaining(self) -> float:
        """Seconds left, negative once it has passed."""
        return self.ends_at - time.monotonic()

    def has_passed(self) -> bool:
        return self.remaining() <= TIMER_RESOLUTION

    @contextmanager
    def enforced(self) -> Iterator[None]:
        """Convert a timeout or UpstreamError raised after the deadline to `DeadlineExceeded`."""
        if self.has_passed():
            raise DeadlineExceeded
        try:
            yield
        except (TimeoutError, UpstreamError) as error:
            if self.has_passed():
                raise DeadlineExceeded from error
            raise

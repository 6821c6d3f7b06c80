"""The one point in time that all attempts and waits of a call share."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from .errors import DeadlineExceeded, UpstreamError

# Timers of event loops and sockets round to milliseconds, so that they may fire a little early.
TIMER_RESOLUTION = 0.01


@dataclass
class Caller:
    waits_since: float  # by time.monotonic()
    is_answered: bool = False


# Where nobody waits, a deadline begins with its call.
current_caller: ContextVar[Caller] = ContextVar("current_caller")


class Deadline:
    def __init__(self, seconds: float) -> None:
        caller = current_caller.get(None)
        if caller is None or caller.is_answered:
            caller = Caller(waits_since=time.monotonic())
        self._ends_at = caller.waits_since + seconds

    def remaining(self) -> float:
        """Seconds left, negative once it has passed."""
        return self._ends_at - time.monotonic()

    def end(self) -> None:
        """Let it be now: no attempt is begun after it."""
        self._ends_at = time.monotonic()

    def has_passed(self) -> bool:
        return self.remaining() <= TIMER_RESOLUTION


@contextmanager
def deadline_in(seconds: float) -> Iterator[Deadline]:
    """The deadline of the call inside.

    Raises:
        DeadlineExceeded: it has passed; later, instead of the failure that it caused.
    """
    deadline = Deadline(seconds)
    if deadline.has_passed():  # another call of the request's has used it up
        raise DeadlineExceeded
    try:
        yield deadline
    except (TimeoutError, UpstreamError) as error:
        if deadline.has_passed():
            raise DeadlineExceeded from error
        raise

"""The one point in time that all attempts and waits of a call share."""

import math
import time
from collections.abc import Iterator
from contextvars import ContextVar, Token
from types import TracebackType
from typing import Self

import httpx2

from .errors import DeadlineExceeded, UpstreamTimeout

# Timers of event loops and sockets round to milliseconds, so that they may fire a little early.
TIMER_RESOLUTION = 0.01

# A host that does not even accept a connection within this will not do so later.
CONNECT_SECONDS = 5.0

_current: ContextVar["Deadline | None"] = ContextVar("deadline", default=None)


class Deadline:
    """Entered for the time of a call; once that has returned, a stream may take its time.

    Raises:
        DeadlineExceeded: on leaving, if this is why the call timed out.
    """

    def __init__(self, seconds: float) -> None:
        self._ends_at = time.monotonic() + seconds
        self._token: Token[Deadline | None] | None = None

    def remaining(self) -> float:
        """Seconds left, negative once it has passed."""
        return self._ends_at - time.monotonic()

    def has_passed(self) -> bool:
        return self.remaining() <= TIMER_RESOLUTION

    def timeout(self, limit: float) -> httpx2.Timeout:
        """The timeout of one attempt: `limit` seconds, or what is left."""
        seconds = max(min(limit, self.remaining()), TIMER_RESOLUTION)
        return httpx2.Timeout(seconds, connect=min(seconds, CONNECT_SECONDS))

    def __enter__(self) -> Self:
        self._token = _current.set(self)
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._token:
            _current.reset(self._token)
        if isinstance(exc, TimeoutError | UpstreamTimeout) and self.has_passed():
            raise DeadlineExceeded from exc
        if exc is None:
            self._ends_at = math.inf


class _BoundedBody(httpx2.SyncByteStream):
    """A body that the deadline ends: httpx's read timeout starts again with each byte."""

    def __init__(self, body: httpx2.SyncByteStream, deadline: Deadline) -> None:
        self._body = body
        self._deadline = deadline

    def __iter__(self) -> Iterator[bytes]:
        for chunk in self._body:
            if self._deadline.has_passed():
                raise httpx2.ReadTimeout("The deadline has passed.")
            yield chunk

    def close(self) -> None:
        self._body.close()


def bound_body(response: httpx2.Response) -> None:
    """Event hook of the sync client: no one can stop a thread, so it has to stop by itself."""
    deadline = _current.get()
    if deadline is not None and isinstance(response.stream, httpx2.SyncByteStream):
        response.stream = _BoundedBody(response.stream, deadline)

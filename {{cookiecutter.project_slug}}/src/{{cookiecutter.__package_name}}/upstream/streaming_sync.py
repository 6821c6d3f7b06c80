"""Streams of events: a thread reads the response, the event loop iterates over its events."""

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, Generic, Self, TypeVar

from openai import OpenAI

from .attempt import Attempt
from .call import Call
from .error_bodies import raise_failure
from .error_mapping import translate, translated

T = TypeVar("T")

# Backpressure: a thread stops reading from OpenAI when the client is this many events behind.
MAX_EVENTS_AHEAD = 64

# Seconds to drain the body after the last event, so that the connection can be reused.
DRAIN_SECONDS = 0.5


class LoopWaker:
    """Runs callbacks from threads on the event loop, batched into one wake-up.

    One wake-up per event would be a third of the cost of streaming.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._callbacks: deque[Callable[[], None]] = deque()
        self._is_scheduled = False

    def call_soon(self, callback: Callable[[], None]) -> None:
        self._callbacks.append(callback)
        if not self._is_scheduled:
            self._is_scheduled = True
            with suppress(RuntimeError):  # the loop is closed: nothing reads the stream
                self._loop.call_soon_threadsafe(self._run)

    def _run(self) -> None:
        self._is_scheduled = False  # before the loop: a later callback schedules another run
        while self._callbacks:
            self._callbacks.popleft()()


class Stream(Generic[T]):
    """An async iterator over the events of one response. It has a slot until its end or `aclose`.

    Iteration raises UpstreamError if the response fails.
    """

    def __init__(
        self, waker: LoopWaker, call: Call, attempt: Attempt, release: Callable[[], None]
    ) -> None:
        self.first_event: Future[None] = Future()
        """Done at the first event or the end of the stream; has the exception if that fails."""
        self._waker = waker
        self._call = call
        self._attempt = attempt
        self._release = release
        # Written by the thread, without a lock: each write is atomic. `_error` is written before
        # `_has_ended`, and all of them before the wake-up.
        self._events: deque[T] = deque()
        self._error: BaseException | None = None
        self._has_ended = False
        self._waiter: asyncio.Future[None] | None = None
        self._space = threading.Condition()
        self._is_full = False
        self._is_closed = False
        self._is_released = False

    def read(self, send: Callable[[OpenAI], Iterable[T]], client: OpenAI) -> None:
        """Send the request and read all events. Runs in a thread."""
        if not self.first_event.set_running_or_notify_cancel():
            return
        try:
            self._call.check()
            source: Any = send(client)
            try:
                for event in source:
                    raise_failure(event)
                    self._attempt.add(event)
                    self._put(event)
                    if self._is_closed:
                        break
                self._end()
            finally:
                source.close()
        except BaseException as error:  # noqa: BLE001 - whatever it is, the iteration raises it
            self._end(error)

    def _put(self, event: T) -> None:
        if len(self._events) >= MAX_EVENTS_AHEAD:
            with self._space:
                self._is_full = True
                while len(self._events) >= MAX_EVENTS_AHEAD and not self._is_closed:
                    self._space.wait()
                self._is_full = False
        self._events.append(event)
        if not self.first_event.done():
            self.first_event.set_result(None)
        elif self._waiter:
            self._waker.call_soon(self._wake)

    def _end(self, error: BaseException | None = None) -> None:
        if self._has_ended:
            return  # a failure after the last event does not matter
        self._error = error
        self._has_ended = True
        if not self.first_event.done():
            if error:
                self.first_event.set_exception(error)
            else:
                self.first_event.set_result(None)
        elif self._waiter:
            self._waker.call_soon(self._wake)

    def _wake(self) -> None:
        if self._waiter and not self._waiter.done():
            self._waiter.set_result(None)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        if self._events:
            # Yield to the loop: a stream that always has events would block it.
            await asyncio.sleep(0)
        while not self._events:
            if self._has_ended and not self._events:
                self._attempt.end(self._error and (translate(self._error) or self._error))
                await self.aclose()
                if self._error is None:
                    raise StopAsyncIteration
                with translated():
                    raise self._error
            self._waiter = asyncio.get_running_loop().create_future()
            # Check again: the thread wakes only a waiter that it has seen.
            if not (self._events or self._has_ended):
                await self._waiter
            self._waiter = None
        event = self._events.popleft()
        if self._is_full:
            with self._space:
                self._space.notify()
        return event

    def ready(self) -> list[T]:
        """Take all events that have arrived, to send them together."""
        events = [self._events.popleft() for _ in range(len(self._events))]
        if self._is_full:
            with self._space:
                self._space.notify()
        return events

    async def aclose(self) -> None:
        if self._is_released:
            return
        self._is_released = True
        self._release()
        self._attempt.end(asyncio.CancelledError())
        if self._has_ended and self._error is None:
            asyncio.get_running_loop().call_later(DRAIN_SECONDS, self.abort)
        else:
            self.abort()

    def abort(self) -> None:
        """End the thread, whether it waits for space or for OpenAI."""
        with self._space:
            self._is_closed = True
            self._space.notify()
        self._call.abort()

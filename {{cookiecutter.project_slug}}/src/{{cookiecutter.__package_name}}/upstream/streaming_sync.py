"""What `OpenAIService.stream` returns: a thread reads the response, the event loop the events."""

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, Generic, Self, TypeVar

from openai import OpenAI

from .error_bodies import raise_failure
from .error_mapping import translated
from .sockets import Call

T = TypeVar("T")

# How many events a thread reads ahead of the client: then OpenAI has to wait.
MAX_EVENTS_AHEAD = 64

# How long the source of a stream that has ended may take to close: its connection can be reused
# only if the response is read to its end.
DRAIN_SECONDS = 0.5


class LoopWaker:
    """Runs callbacks of threads on the event loop, with one wake-up for all that came meanwhile.

    A wake-up for each event of each stream would be a third of what streaming costs.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._callbacks: deque[Callable[[], None]] = deque()
        self._is_scheduled = False

    def call_soon(self, callback: Callable[[], None]) -> None:
        self._callbacks.append(callback)
        if not self._is_scheduled:
            self._is_scheduled = True
            with suppress(RuntimeError):  # the loop is closed: no stream is read any more
                self._loop.call_soon_threadsafe(self._run)

    def _run(self) -> None:
        self._is_scheduled = False  # before the queue is read: what comes later schedules again
        while self._callbacks:
            self._callbacks.popleft()()


class Stream(Generic[T]):
    """An async iterator over the events of one response, which must be closed.

    Iteration raises UpstreamError if the response fails. The stream keeps its slot until it is
    closed.
    """

    def __init__(self, waker: LoopWaker, call: Call, release: Callable[[], None]) -> None:
        self.first_event: Future[None] = Future()
        """Done once there is a first event; or the failure to get one."""
        self._waker = waker
        self._call = call
        self._release = release
        # Appended to and set by the thread, each by an atomic operation, before it wakes the loop.
        self._events: deque[T] = deque()
        self._error: BaseException | None = None
        self._has_ended = False
        self._waiter: asyncio.Future[None] | None = None
        self._space = threading.Condition()
        self._is_full = False
        self._is_closed = False
        self._is_released = False

    def read(self, send: Callable[[OpenAI], Iterable[T]], client: OpenAI) -> None:
        """Send the request and read its events to the end: runs in a thread."""
        if not self.first_event.set_running_or_notify_cancel():
            return
        try:
            self._call.check()
            source: Any = send(client)
            try:
                for event in source:
                    raise_failure(event)
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
            return  # what fails after the last event does not matter
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
            # A stream without a pause would never let the loop do anything else.
            await asyncio.sleep(0)
        while not self._events:
            if self._has_ended and not self._events:
                if self._error is None:
                    raise StopAsyncIteration
                with translated():
                    raise self._error
            self._waiter = asyncio.get_running_loop().create_future()
            # The thread has seen the waiter only if it acts after this point.
            if not (self._events or self._has_ended):
                await self._waiter
            self._waiter = None
        event = self._events.popleft()
        if self._is_full:
            with self._space:
                self._space.notify()
        return event

    def ready(self) -> list[T]:
        """The events that have arrived meanwhile: they can be sent together."""
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
        if self._has_ended and self._error is None:
            asyncio.get_running_loop().call_later(DRAIN_SECONDS, self.abort)
        else:
            self.abort()

    def abort(self) -> None:
        """End the thread, whatever it waits for."""
        with self._space:
            self._is_closed = True
            self._space.notify()
        self._call.abort()

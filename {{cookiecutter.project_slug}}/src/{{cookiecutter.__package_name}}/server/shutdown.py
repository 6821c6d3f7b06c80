"""Graceful shutdown: in-flight requests finish, then the process ends."""

import asyncio
import os
import signal
import threading
from collections.abc import Set
from concurrent.futures import Future
from contextlib import suppress
from types import FrameType
from typing import Any, Self

SIGNALS = (signal.SIGINT, signal.SIGTERM)

# Passed to the server's signal handler in place of the real signal. After it has stopped, uvicorn
# raises that signal again: SIGTERM would end the process before atexit handlers run, SIGURG is
# ignored. Windows has no SIGURG; there, SIGINT makes uvicorn return.
QUIET_SIGNAL = getattr(signal, "SIGURG", signal.SIGINT)

# Seconds for cancelled requests to answer, and again for the server to close its connections.
CLOSING_SECONDS = 1

# Seconds for the rest: closing clients, joining threads, atexit handlers.
EXIT_SECONDS = 5


class GracefulShutdown:
    """Context manager that delays SIGINT and SIGTERM until in-flight requests have finished.

    For `drain_seconds` after SIGTERM, new requests are served as well: load balancers need that
    long to see that `/readyz` fails. Later ones get 503. Requests still in flight `grace_seconds`
    after the signal are cancelled and answer `shutting-down`.

    Meanwhile the server still listens. A server that handles signals elsewhere (granian) stops
    listening at once and then waits for its requests.
    """

    def __init__(
        self, in_flight: Set[asyncio.Task[Any]], grace_seconds: float, drain_seconds: float
    ) -> None:
        self.has_begun = False
        """If so, connections are closed after their current request."""
        self.is_refusing = False
        """If so, new requests are refused. Those in flight may still call OpenAI."""
        self._in_flight = in_flight
        self._grace_seconds = grace_seconds
        self._drain_seconds = min(drain_seconds, grace_seconds)
        self._loop = asyncio.get_running_loop()
        self._interrupted = asyncio.Event()
        self._handlers: dict[int, Any] = {}
        self._stopping: Future[None] | None = None

    def __enter__(self) -> Self:
        # Only the main thread may set signal handlers; tests run servers in other threads.
        if threading.current_thread() is threading.main_thread():
            self._handlers = {number: signal.signal(number, self._on_signal) for number in SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        self._restore_handlers()

    def _restore_handlers(self) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        if not self.has_begun:
            self.has_begun = True
            # Ends the process even if the event loop is blocked or a thread never ends.
            seconds = self._grace_seconds + CLOSING_SECONDS + EXIT_SECONDS
            watchdog = threading.Timer(seconds, os._exit, [0])
            watchdog.daemon = True
            watchdog.start()
            # Kept: the event loop has only weak references to tasks.
            self._stopping = asyncio.run_coroutine_threadsafe(self._stop(number), self._loop)
        elif number == signal.SIGINT:  # a second Ctrl-C: do not wait
            self._loop.call_soon_threadsafe(self._cancel_now)

    def _cancel_now(self) -> None:
        self._interrupted.set()
        self._cancel_requests()

    async def _stop(self, number: int) -> None:
        cancel_at = self._loop.time() + self._grace_seconds
        if number == signal.SIGTERM:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._interrupted.wait(), self._drain_seconds)
        self.is_refusing = True
        await self._wait_for_requests(cancel_at)
        self._cancel_requests()
        await self._wait_for_requests(self._loop.time() + CLOSING_SECONDS)
        self._restore_handlers()
        handler = self._handlers[number]
        if callable(handler):
            handler(QUIET_SIGNAL, None)
        else:
            signal.raise_signal(number)

    async def _wait_for_requests(self, until: float) -> None:
        """Wait for those that are in flight now."""
        if self._in_flight:
            await asyncio.wait(set(self._in_flight), timeout=max(0, until - self._loop.time()))

    def _cancel_requests(self) -> None:
        for task in self._in_flight:
            task.cancel()

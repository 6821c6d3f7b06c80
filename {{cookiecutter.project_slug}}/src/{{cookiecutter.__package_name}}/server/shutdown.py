"""Stopping: in-flight requests finish, new ones get 503, and then the process ends in any case."""

import asyncio
import os
import signal
import threading
from collections.abc import Set
from types import FrameType, TracebackType
from typing import Any, Self

from starlette.types import ASGIApp, Receive, Scope, Send

SIGNALS = (signal.SIGINT, signal.SIGTERM)

# What the server's handler gets. Once it has stopped, uvicorn raises that signal again: a SIGTERM
# would end the process without its atexit handlers, this one is ignored. On Windows, which lacks
# it, uvicorn returns at a SIGINT as well.
QUIET_SIGNAL = getattr(signal, "SIGURG", signal.SIGINT)

# For cancelled requests to answer, and for the server to close its connections.
CLOSING_SECONDS = 1

# For all that comes after: closing clients, joining threads, atexit handlers.
EXIT_SECONDS = 5


class RunningRequests:
    """Keeps a record of the requests that are being handled."""

    def __init__(self, app: ASGIApp, tasks: set[asyncio.Task[Any]]) -> None:
        self.app = app
        self._tasks = tasks

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        task = asyncio.current_task()
        if scope["type"] != "http" or task is None:
            await self.app(scope, receive, send)
            return
        self._tasks.add(task)
        try:
            await self.app(scope, receive, send)
        finally:
            self._tasks.discard(task)


class GracefulShutdown:
    """Context manager: SIGINT and SIGTERM reach the server only after in-flight requests.

    Those still running after `grace_seconds` are cancelled and answer that the service is shutting
    down. Until then the server listens on: load balancers see `/readyz` fail, and new requests get
    a 503 rather than a refused connection. A server that has its signals from the event loop
    (granian) stops listening at once, and then waits for its requests.
    """

    def __init__(self, running: Set[asyncio.Task[Any]], grace_seconds: float) -> None:
        self.has_begun = False
        """Whether new requests are refused; those in flight may go on to call OpenAI."""
        self._running = running
        self._grace_seconds = grace_seconds
        self._loop = asyncio.get_running_loop()
        self._handlers: dict[int, Any] = {}
        self._signal: int | None = None
        self._stopping: asyncio.Task[None] | None = None

    def __enter__(self) -> Self:
        # Signals are for the main thread alone; tests have servers in others.
        if threading.current_thread() is threading.main_thread():
            self._handlers = {number: signal.signal(number, self._on_signal) for number in SIGNALS}
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._restore_handlers()

    def _restore_handlers(self) -> None:
        for number, handler in self._handlers.items():
            if signal.getsignal(number) == self._on_signal:
                signal.signal(number, handler)

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        if self._signal is None:
            self._signal = number
            _end_process_after(self._grace_seconds + CLOSING_SECONDS + EXIT_SECONDS)
            self._loop.call_soon_threadsafe(self._begin, number)
        elif number == signal.SIGINT:  # Ctrl-C again: do not wait; a third one is the server's
            self._restore_handlers()
            self._loop.call_soon_threadsafe(self._cancel_requests)

    def _begin(self, number: int) -> None:
        self._stopping = self._loop.create_task(self._stop(number))

    async def _stop(self, number: int) -> None:
        self.has_begun = True
        await self._wait_for_requests(self._grace_seconds)
        self._cancel_requests()
        await self._wait_for_requests(CLOSING_SECONDS)
        _end_process_after(EXIT_SECONDS)
        self._restore_handlers()
        handler = self._handlers[number]
        if callable(handler):
            handler(QUIET_SIGNAL, None)
        else:
            signal.raise_signal(number)

    async def _wait_for_requests(self, seconds: float) -> None:
        if self._running:
            await asyncio.wait(set(self._running), timeout=seconds)

    def _cancel_requests(self) -> None:
        for task in self._running:
            task.cancel()


def _end_process_after(seconds: float) -> None:
    """A last resort, for a blocked event loop or a thread that never ends."""
    watchdog = threading.Timer(seconds, os._exit, [0])
    watchdog.daemon = True
    watchdog.start()

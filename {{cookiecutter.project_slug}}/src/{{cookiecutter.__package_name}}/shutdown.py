"""Stopping: what runs may finish, what comes is refused, and then the process ends for sure."""

import asyncio
import os
import signal
import threading
from collections.abc import Set
from types import FrameType, TracebackType
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send

from .concurrency import ConcurrencyLimiter

SIGNALS = (signal.SIGINT, signal.SIGTERM)

# For closing connections and clients, once the requests have ended or their time is over.
CLOSING_SECONDS = 1


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
    """Inside, a signal to stop reaches the server only when the requests then running have ended.

    Until then, at most `grace_seconds`, the server listens on: whoever sends requests here should
    see `/readyz`, and hear from us that they come too late, rather than find nobody.
    """

    def __init__(
        self, limiter: ConcurrencyLimiter, running: Set[asyncio.Task[Any]], grace_seconds: float
    ) -> None:
        self._limiter = limiter
        self._running = running
        self._grace_seconds = grace_seconds
        self._loop = asyncio.get_running_loop()
        self._handlers: dict[int, Any] = {}
        self._stopping: asyncio.Task[None] | None = None
        self._is_told = False
        self._is_passed_on = False
        # Not even an event loop that is blocked keeps the process.
        self._end = threading.Timer(grace_seconds + 2 * CLOSING_SECONDS, os._exit, [0])
        self._end.daemon = True

    def __enter__(self) -> None:
        # Signals are for the main thread alone; tests have servers in others.
        if threading.current_thread() is threading.main_thread():
            self._handlers = {number: signal.signal(number, self._tell) for number in SIGNALS}

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._end.cancel()
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def _tell(self, number: int, _frame: FrameType | None) -> None:
        if not self._is_told:
            self._is_told = True
            self._end.start()
            self._loop.call_soon_threadsafe(self._begin)
        elif number == signal.SIGINT:  # Ctrl-C again: in a hurry
            self._pass_on()

    def _begin(self) -> None:
        self._stopping = self._loop.create_task(self._stop())

    async def _stop(self) -> None:
        self._limiter.is_closed = True
        if self._running:
            await asyncio.wait(set(self._running), timeout=self._grace_seconds)
        if not self._is_passed_on:
            self._pass_on()

    def _pass_on(self) -> None:
        self._is_passed_on = True
        # Not as a SIGINT: once stopped, uvicorn raises again what it got, and at a
        # KeyboardInterrupt a worker waits for its threads.
        if callable(handler := self._handlers[signal.SIGTERM]):
            handler(signal.SIGTERM, None)

"""How much the service takes on: calls at once, callers who wait, bytes of a body."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus

from fastapi import Depends, Request
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .deadline import Caller, current_caller
from .errors import DeadlineExceeded, Overloaded, ShuttingDown
from .settings import Settings

# How much the latest call counts for in the average of how long calls take.
WEIGHT = 0.1


class Admission:
    """Places for calls of OpenAI. Who finds none waits, first come first served, or is refused.

    On the event loop, before a thread is taken. Endpoints without `Admitted` never wait here.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._places = asyncio.Semaphore(settings.max_concurrency)
        self._waiting = 0
        self._seconds_held = 0.0
        self.is_closed = False
        """Whether whoever comes is refused, because the service is being stopped."""

    @asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """Hold a place; the time of waiting counts for the deadline.

        Raises:
            Overloaded: too many wait already, or it took too long.
            DeadlineExceeded: the deadline passed first.
            ShuttingDown: nobody is let in any more.
        """
        if self.is_closed:
            raise ShuttingDown
        current_caller.set(Caller(waits_since=time.monotonic()))
        if self._places.locked() and self._waiting >= self._settings.max_queue:
            raise self._overloaded()
        patience, deadline = self._settings.queue_timeout_seconds, self._settings.deadline_seconds
        self._waiting += 1
        try:
            async with asyncio.timeout(min(patience, deadline)):
                await self._places.acquire()
        except TimeoutError:
            raise (self._overloaded() if patience < deadline else DeadlineExceeded()) from None
        finally:
            self._waiting -= 1
        taken_at = time.monotonic()
        try:
            yield
        finally:
            self._places.release()
            weight = WEIGHT if self._seconds_held else 1
            self._seconds_held += weight * (time.monotonic() - taken_at - self._seconds_held)

    def _overloaded(self) -> Overloaded:
        error = Overloaded()
        # When those who wait will have had their turn, if calls go on to take as long.
        turns = (self._waiting + 1) / self._settings.max_concurrency
        error.retry_after = max(1.0, turns * self._seconds_held)
        return error


async def _admit(request: Request) -> AsyncIterator[None]:
    admission: Admission = request.state.admission
    async with admission.place():
        yield  # until the answer is sent, and what it leaves to the background is done


Admitted = Depends(_admit)


class LimitBody:
    """Refuses bodies of more than `max_bytes`, whether they say how long they are or not.

    FastAPI's own `max_body_size` would answer in plain text.
    """

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self.app = app
        self._max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        declared = int(Headers(scope=scope).get("content-length", 0))
        received = 0

        async def limited_receive() -> Message:
            nonlocal received
            if declared <= self._max_bytes:
                message = await receive()
                received += len(message.get("body", b""))
            if max(declared, received) > self._max_bytes:
                raise HTTPException(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
            return message

        await self.app(scope, limited_receive, send)

"""Stops the work for a caller who has left: nobody would read, but all would pay."""

import asyncio

import anyio
import anyio.lowlevel
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

# As nginx's `send_timeout`: who takes nothing for so long would hold a place for ever.
SEND_TIMEOUT_SECONDS = 60.0


class _Incoming:
    """What a caller sends. Once that is whole, whether the caller leaves."""

    def __init__(self, receive: Receive, handling: anyio.CancelScope) -> None:
        self._receive = receive
        self._handling = handling
        self._unread: list[Message] = []
        self._watcher: asyncio.Task[None] | None = None

    async def read_ahead(self) -> None:
        """To watch from the beginning, where nobody may ever look for a body."""
        self._unread.append(await self._next())

    async def receive(self) -> Message:
        if self._unread:
            return self._unread.pop()
        if self._watcher:
            return await asyncio.Future[Message]()  # the disconnect cancels this as well
        return await self._next()

    async def _next(self) -> Message:
        message = await self._receive()
        if not message.get("more_body"):
            self._watcher = asyncio.create_task(_watch(self._receive, self._handling))
        return message

    def end(self) -> None:
        if self._watcher:
            self._watcher.cancel()


async def _watch(receive: Receive, handling: anyio.CancelScope) -> None:
    """A module-level function: avoids a reference cycle through the cancelled task's traceback."""
    await receive()  # after the whole body, this is the disconnect
    handling.cancel()


class CancelOnDisconnect:
    """Cancels the handling of a request once its caller has closed the connection.

    Or has taken nothing of the answer for `SEND_TIMEOUT_SECONDS`. What is awaited ends at once; a
    `def` handler learns of it from `anyio.from_thread`.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        has_body = "transfer-encoding" in headers or headers.get("content-length", "0") != "0"

        with anyio.CancelScope() as handling:
            # For threads, which cannot be cancelled.
            state = scope.setdefault("state", {})
            state["is_cancelled"] = lambda: handling.cancel_called
            incoming = _Incoming(receive, handling)

            async def send_and_watch(message: Message) -> None:
                if handling.cancel_called:
                    # A send() that never blocks would never observe the cancellation.
                    await anyio.lowlevel.checkpoint_if_cancelled()
                if message["type"] == "http.response.body" and not message.get("more_body"):
                    # What goes on in the background is not for the caller.
                    incoming.end()
                await _send_in_time(send, message, handling)

            try:
                if not has_body:
                    await incoming.read_ahead()
                await self.app(scope, incoming.receive, send_and_watch)
            finally:
                incoming.end()


async def _send_in_time(send: Send, message: Message, handling: anyio.CancelScope) -> None:
    try:
        async with asyncio.timeout(SEND_TIMEOUT_SECONDS):
            await send(message)
    except TimeoutError:
        handling.cancel()
        await anyio.lowlevel.checkpoint_if_cancelled()

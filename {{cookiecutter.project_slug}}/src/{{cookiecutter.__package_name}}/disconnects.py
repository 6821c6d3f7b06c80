"""Stops the work for a caller who has left: nobody would read, but all would pay."""

import asyncio
from contextvars import ContextVar

import anyio
import anyio.lowlevel
from starlette.types import ASGIApp, Message, Receive, Scope, Send

# For threads, which nobody can cancel: whether they should stop.
current_handling: ContextVar[anyio.CancelScope] = ContextVar("current_handling")

# As nginx's `send_timeout`: who takes nothing for so long would hold a place for ever.
SEND_TIMEOUT_SECONDS = 60.0


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
        watcher: asyncio.Task[None] | None = None

        with anyio.CancelScope() as handling:
            current_handling.set(handling)

            async def watch() -> None:
                await receive()  # after the whole body, this is the disconnect
                handling.cancel()

            async def receive_body() -> Message:
                nonlocal watcher
                if watcher:
                    return await asyncio.Future[Message]()  # the disconnect cancels this as well
                message = await receive()
                if not message.get("more_body"):
                    watcher = asyncio.create_task(watch())
                return message

            async def send_and_watch(message: Message) -> None:
                if handling.cancel_called:
                    # A task that always finds something to read would never be cancelled.
                    await anyio.lowlevel.checkpoint_if_cancelled()
                is_last = message["type"] == "http.response.body" and not message.get("more_body")
                if watcher and is_last:
                    watcher.cancel()  # what goes on in the background is not for the caller
                await _send_in_time(send, message, handling)

            try:
                await self.app(scope, receive_body, send_and_watch)
            finally:
                if watcher:
                    watcher.cancel()


async def _send_in_time(send: Send, message: Message, handling: anyio.CancelScope) -> None:
    try:
        async with asyncio.timeout(SEND_TIMEOUT_SECONDS):
            await send(message)
    except TimeoutError:
        handling.cancel()
        await anyio.lowlevel.checkpoint_if_cancelled()

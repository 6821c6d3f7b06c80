"""Cancels the requests of clients that have disconnected, and with them their calls of OpenAI."""

import asyncio
import math
from contextlib import AsyncExitStack

import anyio
import anyio.lowlevel
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

# Like nginx's `send_timeout`: otherwise a client that stops reading would keep its slot forever.
SEND_TIMEOUT_SECONDS = 60.0


class _Incoming:
    """Passes on the request's body; after its end, watches for a client disconnect."""

    def __init__(self, receive: Receive, handling: anyio.CancelScope, *, has_body: bool) -> None:
        self._receive = receive
        self._handling = handling
        self._empty_body: list[Message] = [] if has_body else [{"type": "http.request"}]
        self._watcher = None if has_body else self._watch()

    async def receive(self) -> Message:
        if self._empty_body:
            return self._empty_body.pop()
        if self._watcher:
            return await asyncio.Future[Message]()  # until a disconnect cancels the request
        message = await self._receive()
        if not message.get("more_body"):
            self._watcher = self._watch()
        return message

    def _watch(self) -> asyncio.Task[None]:
        return asyncio.create_task(_cancel_on_disconnect(self._receive, self._handling))

    def stop_watching(self) -> None:
        if self._watcher:
            self._watcher.cancel()


async def _cancel_on_disconnect(receive: Receive, handling: anyio.CancelScope) -> None:
    """A module-level function: avoids a reference cycle through the cancelled task's traceback."""
    while (await receive())["type"] != "http.disconnect":
        pass
    handling.cancel()


class CancelOnDisconnect:
    """Cancels a request whose client disconnects, or reads nothing for `SEND_TIMEOUT_SECONDS`.

    A thread cannot be cancelled: it polls `request.state.is_cancelled()`. What the request leaves
    open is closed by `request.state.exit_stack`, outside of the cancelled scope.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        state = scope.setdefault("state", {})
        async with AsyncExitStack() as state["exit_stack"]:
            with anyio.CancelScope() as handling:
                await self._handle(scope, receive, send, handling)

    async def _handle(
        self, scope: Scope, receive: Receive, send: Send, handling: anyio.CancelScope
    ) -> None:
        headers = Headers(scope=scope)
        has_body = (
            "transfer-encoding" in headers
            or headers.get("content-length", "0") != "0"
            or scope["http_version"] not in {"1.0", "1.1"}  # later ones need no header for a body
        )
        incoming = _Incoming(receive, handling, has_body=has_body)
        now = asyncio.get_running_loop().time
        was_interrupted = False
        scope["state"]["is_cancelled"] = lambda: handling.cancel_called or was_interrupted

        async def send_in_time(message: Message) -> None:
            if handling.cancel_called:
                # A send() that never blocks would never observe the cancellation.
                await anyio.lowlevel.checkpoint_if_cancelled()
            if message["type"] == "http.response.body" and not message.get("more_body"):
                incoming.stop_watching()  # a disconnect does not cancel background tasks
            handling.deadline = now() + SEND_TIMEOUT_SECONDS
            await send(message)
            handling.deadline = math.inf

        try:
            await self.app(scope, incoming.receive, send_in_time)
        except BaseException:
            was_interrupted = True  # say by task.cancel(), of which AnyIO does not know
            raise
        finally:
            incoming.stop_watching()

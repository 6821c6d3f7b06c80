"""Cancels the requests of clients that have disconnected, and with them their calls of OpenAI."""

import asyncio
import math
from contextlib import AsyncExitStack

import anyio
import anyio.lowlevel
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

# Like nginx's `send_timeout`: otherwise a client that stops reading would keep its slot forever.
# Checked once per interval: a request is cancelled after one to two of them.
SEND_TIMEOUT_SECONDS = 60.0


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
                client = _Client(scope, receive, send, handling)
                state["is_cancelled"] = client.is_cancelled
                try:
                    await self.app(scope, client.receive, client.send)
                except BaseException:
                    client.was_interrupted = True
                    raise
                finally:
                    state["has_disconnected"] = handling.cancel_called
                    client.end()


class _Client:
    """Passes messages between the server and the application, and watches for a disconnect."""

    def __init__(
        self, scope: Scope, receive: Receive, send: Send, handling: anyio.CancelScope
    ) -> None:
        self.was_interrupted = False
        """For example by `task.cancel()`, which AnyIO's scope does not see."""
        self._receive = receive
        self._send = send
        self._handling = handling
        headers = Headers(scope=scope)
        has_body = (
            "transfer-encoding" in headers
            or headers.get("content-length", "0") != "0"
            or scope["http_version"] not in {"1.0", "1.1"}  # later ones need no header for a body
        )
        self._empty_body: list[Message] = [] if has_body else [{"type": "http.request"}]
        self._watcher = None if has_body else self._watch()
        # Not a deadline for each send(): setting them takes a twentieth of a stream's CPU time.
        self._loop = asyncio.get_running_loop()
        self._sending_since = math.inf
        self._timer = self._loop.call_later(SEND_TIMEOUT_SECONDS, self._check_send)

    def is_cancelled(self) -> bool:
        return self._handling.cancel_called or self.was_interrupted

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

    async def send(self, message: Message) -> None:
        if self._handling.cancel_called:
            # A send() that never blocks would never observe the cancellation.
            await anyio.lowlevel.checkpoint_if_cancelled()
        if message["type"] == "http.response.body" and not message.get("more_body"):
            self._stop_watching()  # a disconnect does not cancel background tasks
        self._sending_since = self._loop.time()
        await self._send(message)
        self._sending_since = math.inf

    def _check_send(self) -> None:
        if self._loop.time() - self._sending_since >= SEND_TIMEOUT_SECONDS:
            self._handling.cancel()
        self._timer = self._loop.call_later(SEND_TIMEOUT_SECONDS, self._check_send)

    def _stop_watching(self) -> None:
        if self._watcher:
            self._watcher.cancel()

    def end(self) -> None:
        self._stop_watching()
        self._timer.cancel()


async def _cancel_on_disconnect(receive: Receive, handling: anyio.CancelScope) -> None:
    """A module-level function: avoids a reference cycle through the cancelled task's traceback."""
    while (await receive())["type"] != "http.disconnect":
        pass
    handling.cancel()

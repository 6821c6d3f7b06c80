"""Follows each request from its beginning to its end."""

import asyncio
import logging
import re
import time
import uuid
from typing import Any
from urllib.parse import quote

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..errors import InternalError, ShuttingDown
from .problems import to_response
from .request_id import request_id

REQUEST_ID_HEADER = "X-Request-ID"
WELL_FORMED_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")

# nginx's non-standard status for a client that disconnected before the response.
CLIENT_CLOSED_REQUEST = 499

logger = logging.getLogger(__name__)


class RequestMiddleware:
    """Sets the request id, answers if the application failed to, and logs the request.

    Its task is in `in_flight`, for `GracefulShutdown`.

    Not an exception handler: Starlette's ServerErrorMiddleware raises the exception again after its
    response, and uvicorn then closes the connection, on which the client may already send its next
    request.
    """

    def __init__(self, app: ASGIApp, in_flight: set[asyncio.Task[Any]]) -> None:
        self.app = app
        self._in_flight = in_flight

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        if task := asyncio.current_task():  # servers run each request in a task of its own
            self._in_flight.add(task)
            task.add_done_callback(self._in_flight.discard)
        asked = Headers(scope=scope).get(REQUEST_ID_HEADER, "")
        used = asked if WELL_FORMED_ID.fullmatch(asked) else uuid.uuid4().hex
        # Not reset: the task ends soon, and uvicorn logs exceptions after this middleware.
        request_id.set(used)
        path = quote(scope["path"])  # may have line ends
        status = None
        started = time.perf_counter()

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)[REQUEST_ID_HEADER] = used
            await send(message)

        try:
            await self.app(scope, receive, send_with_id)
        except asyncio.CancelledError:
            # By `GracefulShutdown`, or by a server with a shorter grace period.
            if status is None:
                await to_response(ShuttingDown())(scope, receive, send_with_id)
        except Exception:
            if status is not None:
                raise
            logger.exception("Unhandled exception in %s %s", scope["method"], path)
            await to_response(InternalError())(scope, receive, send_with_id)
        finally:
            logger.info(
                "%s %s %d",
                scope["method"],
                path,
                status or CLIENT_CLOSED_REQUEST,
                extra={"duration_ms": round((time.perf_counter() - started) * 1000, 1)},
            )

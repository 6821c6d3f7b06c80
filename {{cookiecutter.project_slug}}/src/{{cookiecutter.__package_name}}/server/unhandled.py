"""Answers requests whose handling raised an unhandled exception or was cancelled."""

import asyncio
import logging
from urllib.parse import quote

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..errors import InternalError, ShuttingDown
from .problems import to_response

logger = logging.getLogger(__name__)


class UnhandledExceptionMiddleware:
    """Answers with a problem, and logs the exception.

    Starlette's ServerErrorMiddleware raises the exception again after its response, and uvicorn
    then closes the connection, on which the client may already send its next request.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        answered = False

        async def send_and_note(message: Message) -> None:
            nonlocal answered
            answered = True
            await send(message)

        try:
            await self.app(scope, receive, send_and_note)
        except asyncio.CancelledError:
            # Cancelled by `GracefulShutdown`, or by a server with a shorter grace period.
            if not answered:
                await to_response(ShuttingDown())(scope, receive, send)
        except Exception:
            if answered:
                raise
            logger.exception("Unhandled exception in %s %s", scope["method"], quote(scope["path"]))
            await to_response(InternalError())(scope, receive, send)

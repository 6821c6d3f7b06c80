"""The outermost exception handler."""

import asyncio
import logging
from urllib.parse import quote

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..errors import InternalError, ShuttingDown
from .problems import to_response

logger = logging.getLogger(__name__)


class UnhandledExceptionMiddleware:
    """Answers unhandled exceptions.

    Starlette's own handler re-raises them, and uvicorn then closes the connection: the client's
    next request would fail as well.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        answered = False

        async def watched_send(message: Message) -> None:
            nonlocal answered
            answered = True
            await send(message)

        try:
            await self.app(scope, receive, watched_send)
        except asyncio.CancelledError:
            # By `GracefulShutdown`, or by a server whose own grace is shorter.
            if not answered:
                await to_response(ShuttingDown())(scope, receive, send)
        except Exception:
            if answered:
                raise
            logger.exception("Unhandled exception in %s %s", scope["method"], quote(scope["path"]))
            await to_response(InternalError())(scope, receive, send)

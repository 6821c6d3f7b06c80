"""Answers requests that the application left without an answer."""

import asyncio
import logging
from urllib.parse import quote

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..errors import InternalError, ServiceError, ShuttingDown
from .problems import log, to_response

logger = logging.getLogger(__name__)


class FailureMiddleware:
    """Answers with the problem of what other middleware raised, or of an unhandled exception.

    Not an exception handler: Starlette's ServerErrorMiddleware raises the exception again after its
    response, and uvicorn then closes the connection, on which the client may already send its next
    request.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        has_started = False

        async def noting_send(message: Message) -> None:
            nonlocal has_started
            has_started = True
            await send(message)

        try:
            await self.app(scope, receive, noting_send)
        except ServiceError as error:
            if has_started:
                raise
            log(error)
            await to_response(error)(scope, receive, send)
        except asyncio.CancelledError:
            # By `GracefulShutdown`, or by a server with a shorter grace period.
            if not has_started:
                await to_response(ShuttingDown())(scope, receive, send)
        except Exception:
            if has_started:
                raise
            logger.exception("Unhandled exception in %s %s", scope["method"], quote(scope["path"]))
            await to_response(InternalError())(scope, receive, send)

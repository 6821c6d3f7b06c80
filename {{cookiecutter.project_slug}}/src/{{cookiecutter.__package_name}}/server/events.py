"""Responses of Server-Sent Events.

https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from typing import Protocol, TypeVar

import anyio
from fastapi.responses import StreamingResponse
from pydantic import BaseModel
from starlette.types import Receive, Scope, Send

from ..errors import InternalError, ServiceError, ShuttingDown
from .problems import log, to_problem

logger = logging.getLogger(__name__)

MEDIA_TYPE = "text/event-stream"

Data = TypeVar("Data", bound=BaseModel)
Data_co = TypeVar("Data_co", bound=BaseModel, covariant=True)


class Source(Protocol[Data_co]):
    """What events come from: a stream of the upstream, or an async generator."""

    def __aiter__(self) -> AsyncIterator[Data_co]: ...

    async def aclose(self) -> None: ...


class EventStream(StreamingResponse):
    """Sends the name and the JSON of each item of `source`, which it closes at the end.

    `name` may return None for an item that is not for the client. If the source fails, a last event
    `error` has the problem.
    """

    # No class attribute `media_type`: FastAPI would document the events as a mere string.

    # FastAPI reads the documented status from the default of `status_code`.
    def __init__(
        self, source: Source[Data], name: Callable[[Data], str | None], status_code: int = 200
    ) -> None:
        # nginx would hold the events back otherwise.
        headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
        super().__init__(_events(source, name), status_code, headers, MEDIA_TYPE)
        self._source = source

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            # Here, and not in the generator, which the garbage collector may close much later.
            with anyio.CancelScope(shield=True):
                await self._source.aclose()


async def _events(source: Source[Data], name: Callable[[Data], str | None]) -> AsyncIterator[bytes]:
    try:
        async for item in source:
            if event := name(item):
                yield _encode(event, item.model_dump_json())
    except ServiceError as error:
        log(error)
        yield _encode("error", to_problem(error).to_json())
    except asyncio.CancelledError:
        # The service is shutting down, as in `UnhandledExceptionMiddleware`; or the client has
        # disconnected, and is sent nothing any more.
        yield _encode("error", to_problem(ShuttingDown()).to_json())
    except Exception:
        logger.exception("Unhandled exception in a stream")
        yield _encode("error", to_problem(InternalError()).to_json())


def _encode(event: str, data: str) -> bytes:
    """One event; `data` is JSON, which has no line ends."""
    return f"event: {event}\ndata: {data}\n\n".encode()

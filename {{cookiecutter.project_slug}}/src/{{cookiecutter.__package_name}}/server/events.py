"""Server-Sent Events as a response.

https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Protocol, TypeVar

import anyio
from fastapi.responses import JSONResponse, StreamingResponse
from pydantic import BaseModel
from starlette.types import Receive, Scope, Send

from ..errors import InternalError, ServiceError, ShuttingDown
from .problems import log, to_problem

logger = logging.getLogger(__name__)

MEDIA_TYPE = "text/event-stream"

Data = TypeVar("Data", bound=BaseModel)
Data_co = TypeVar("Data_co", bound=BaseModel, covariant=True)


class Source(Protocol[Data_co]):
    """`OpenAIService.stream` returns one; an async generator is one too.

    If it has a method `ready`, that returns the further items that have already arrived.
    """

    def __aiter__(self) -> AsyncIterator[Data_co]: ...

    async def aclose(self) -> None: ...


class EventStreamSchema(JSONResponse):
    """The `response_class` of an endpoint whose `response_model` describes the events.

    Only for OpenAPI: FastAPI documents the `response_model` only of subclasses of JSONResponse.
    """

    media_type = MEDIA_TYPE


class EventStream(StreamingResponse):
    """Sends each item of `source` as an event with its JSON as data, and closes `source`.

    `name` returns the name of an item's event, or None to send none. If the source raises, the last
    event is `error`, with a problem as data.
    """

    # No class attribute `media_type`: FastAPI would document the events as a string. `status_code`
    # has a default because FastAPI reads the documented status from it.
    def __init__(
        self, source: Source[Data], name: Callable[[Data], str | None], status_code: int = 200
    ) -> None:
        # Without X-Accel-Buffering, nginx would buffer the events.
        headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
        super().__init__(_events(source, name), status_code, headers, MEDIA_TYPE)
        self._source = source

    # Without Starlette's task that waits for a disconnect: `CancelOnDisconnect` has one.
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI
        try:
            await self.stream_response(send)
        finally:
            # Not in the generator: that may be closed much later, by the garbage collector.
            with anyio.CancelScope(shield=True):
                await self._source.aclose()
        if self.background is not None:
            await self.background()


async def _events(source: Source[Data], name: Callable[[Data], str | None]) -> AsyncIterator[bytes]:
    try:
        ready: Callable[[], Sequence[Data]] = getattr(source, "ready", tuple)
        async for first in source:
            # One message, and so one system call, for all items that have arrived.
            items = [(name(item), item.model_dump_json()) for item in (first, *ready())]
            if message := b"".join(_encode(event, data) for event, data in items if event):
                yield message
    except ServiceError as error:
        log(error)
        yield _encode("error", to_problem(error).to_json())
    except asyncio.CancelledError:
        # Shutdown, or a client disconnect: then nobody reads this.
        yield _encode("error", to_problem(ShuttingDown()).to_json())
    except Exception:
        logger.exception("Unhandled exception in a stream")
        yield _encode("error", to_problem(InternalError()).to_json())


def _encode(event: str, data: str) -> bytes:
    """`data` is JSON, in which line ends are escaped."""
    return f"event: {event}\ndata: {data}\n\n".encode()

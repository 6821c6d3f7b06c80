"""A streamed chat as Server-Sent Events: `delta`s, then one `done` or one `error`."""

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any

import anyio
from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from .errors import InternalError, ServiceError, ShuttingDown, log, to_problem
from .schemas import ChatDelta
from .sse import encode
from .streams import ChatStream
from .upstream import translated

logger = logging.getLogger(__name__)

MEDIA_TYPE = "text/event-stream"

# For OpenAPI 3.1, which has no keyword for the events of a stream (3.2 has `itemSchema`): some
# tools match the schema with the whole text, others with each event.
EVENT_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {
        "content": {
            MEDIA_TYPE: {
                "schema": {
                    "anyOf": [
                        {"type": "string"},
                        {"$ref": "#/components/schemas/DeltaEvent"},
                        {"$ref": "#/components/schemas/DoneEvent"},
                        {"$ref": "#/components/schemas/ErrorEvent"},
                    ]
                }
            }
        }
    }
}


class EventStream(StreamingResponse):
    # Without the class attribute `media_type`: FastAPI would document a mere string.

    # FastAPI reads the documented status from the default of `status_code`.
    def __init__(self, stream: ChatStream, status_code: int = 200) -> None:
        # nginx would hold the events back otherwise.
        headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
        super().__init__(_events(stream), status_code, headers, MEDIA_TYPE)
        self._stream = stream

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            # Here, and not in the generator, whose end is up to the garbage collector.
            with anyio.CancelScope(shield=True):
                await self._stream.aclose()


async def _events(stream: ChatStream) -> AsyncIterator[str]:
    try:
        with translated():
            async for text in stream.reply.texts(stream.read):
                yield encode("delta", ChatDelta(text=text).model_dump_json())
            yield encode("done", stream.reply.to_done().model_dump_json())
    except ServiceError as error:
        log(error)
        yield encode("error", to_problem(error).to_json())
    except asyncio.CancelledError:
        # The service is shutting down, as in `UnhandledExceptionMiddleware`; or the client has
        # disconnected, and is sent nothing any more.
        yield encode("error", to_problem(ShuttingDown()).to_json())
    except Exception:
        logger.exception("Unhandled exception in a stream")
        yield encode("error", to_problem(InternalError()).to_json())

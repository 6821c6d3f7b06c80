"""A streamed chat as Server-Sent Events: `delta`s, then one `done` or one `error`."""

import logging
from collections.abc import AsyncIterator
from typing import Protocol

import anyio
from fastapi.responses import StreamingResponse
from openai.types.chat import ChatCompletionChunk
from starlette.types import Receive, Scope, Send

from .completions import StreamSummary
from .errors import InternalError, ServiceError, log, to_problem
from .schemas import ChatDelta
from .upstream import translated

logger = logging.getLogger(__name__)


class ChunkStream(Protocol):
    """What the stream of each handler style looks like."""

    def __aiter__(self) -> AsyncIterator[ChatCompletionChunk]: ...

    async def aclose(self) -> None: ...


def encode(event: str, data: str) -> str:
    """One event; `data` is JSON, which has no line ends."""
    return f"event: {event}\ndata: {data}\n\n"


class EventStream(StreamingResponse):
    media_type = "text/event-stream"

    def __init__(self, chunks: ChunkStream, status_code: int = 200) -> None:
        # nginx would hold the events back otherwise.
        headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
        super().__init__(_events(chunks), status_code, headers)
        self._chunks = chunks

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            # Here, and not in the generator, whose end is up to the garbage collector.
            with anyio.CancelScope(shield=True):
                await self._chunks.aclose()


async def _events(chunks: ChunkStream) -> AsyncIterator[str]:
    summary = StreamSummary()
    try:
        with translated():
            async for chunk in chunks:
                if text := summary.add(chunk):
                    yield encode("delta", ChatDelta(text=text).model_dump_json())
            yield encode("done", summary.to_done().model_dump_json())
    except ServiceError as error:
        log(error)
        yield encode("error", to_problem(error).to_json())
    except Exception:
        logger.exception("a bug ended the stream")
        yield encode("error", to_problem(InternalError()).to_json())

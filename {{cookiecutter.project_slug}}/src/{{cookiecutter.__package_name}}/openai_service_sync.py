"""Every call of OpenAI goes through `OpenAIService.call`, here in the thread of a `def` handler.

The client is sync: called in an `async def` handler, it would stop the event loop for everyone.
"""

import asyncio
import concurrent.futures
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Annotated, Any, Self, TypeVar

import anyio
import anyio.to_thread
from anyio import NoEventLoopError, from_thread
from fastapi import Depends, Request
from openai import DefaultHttpx2Client, OpenAI, Stream
from openai.types.chat import ChatCompletionChunk
from tenacity import Retrying

from .completions import to_chunk, to_params, to_reply
from .deadline import deadline_in
from .retries import policy
from .schemas import ChatReply, ChatRequest
from .settings import Settings
from .transport import Call, Transport, current_call
from .upstream import translated

T = TypeVar("T")

# For `def` handlers that do not call OpenAI.
SPARE_THREADS = 8


class OpenAIService:
    def __init__(self, client: OpenAI, transport: Transport, settings: Settings) -> None:
        self._client = client
        self._transport = transport
        self._settings = settings

    @classmethod
    @asynccontextmanager
    async def open(cls, settings: Settings) -> AsyncIterator[Self]:
        # Its own size of 40 would be the limit that nobody chose.
        pool = anyio.to_thread.current_default_thread_limiter()
        pool.total_tokens = settings.max_concurrency + SPARE_THREADS
        transport = Transport(settings.openai_base_url)
        reaper = asyncio.create_task(transport.reap())
        with OpenAI(
            api_key=settings.openai_api_key.get_secret_value(),
            base_url=settings.openai_base_url,
            max_retries=0,  # `retries` is the one layer
            http_client=DefaultHttpx2Client(transport=transport),
        ) as client:
            yield cls(client, transport, settings)
        reaper.cancel()

    def call(self, send: Callable[[OpenAI], T]) -> T:
        """Call OpenAI, and again where that helps, until the deadline.

        `send` may use any method of the client, say
        `lambda client: client.embeddings.create(model=..., input=...)`. Call this in a thread,
        as FastAPI does for `def` handlers.

        Raises:
            ServiceError: of OpenAI's failures, the last one; `DeadlineExceeded` if time ran out.
        """

        def attempt() -> T:
            _stop_if_caller_left()
            timeout = deadline.timeout(self._settings.attempt_timeout_seconds)
            return send(self._client.with_options(timeout=timeout))

        with (
            deadline_in(self._settings.deadline_seconds) as deadline,
            translated(),
            self._transport.calling(deadline),
        ):
            return Retrying(sleep=_sleep, **policy(self._settings, deadline))(attempt)

    def chat(self, request: ChatRequest) -> ChatReply:
        params = to_params(request, self._settings)
        return self.call(lambda client: to_reply(client.chat.completions.create(**params)))

    def stream(self, request: ChatRequest) -> "ChatStream":
        """Return once the first chunk is there: until then, a failure is tried again."""
        stream = ChatStream(to_params(request, self._settings))
        self.call(stream.open)
        return stream


def _stop_if_caller_left() -> None:
    with suppress(NoEventLoopError):  # outside of a request nobody can leave
        from_thread.check_cancelled()


def _sleep(seconds: float) -> None:
    """Wait, but not for a caller who has left."""
    try:
        from_thread.run(anyio.sleep, seconds)
    except concurrent.futures.CancelledError:
        from_thread.check_cancelled()
    except NoEventLoopError:  # outside of a request
        time.sleep(seconds)


class ChatStream:
    """The chunks of a streamed reply, each read in a thread. To be closed."""

    def __init__(self, params: dict[str, Any]) -> None:
        self._params = params
        self._call: Call | None = None
        self._stream: Stream[ChatCompletionChunk] | None = None
        self._first: ChatCompletionChunk | None = None
        self._reading = threading.Lock()

    def open(self, client: OpenAI) -> None:
        """Send the request and read the first chunk."""
        self._call = current_call.get()
        stream = client.chat.completions.create(
            stream=True, stream_options={"include_usage": True}, **self._params
        )
        try:
            self._first = to_chunk(next(stream, None))
            self._stream = stream
            self._call.check()
        except BaseException:
            stream.close()
            raise

    def _read(self) -> ChatCompletionChunk | None:
        with self._reading:
            return next(self._stream, None) if self._stream else None

    def _close(self) -> None:
        with self._reading:
            if self._stream:
                self._stream.close()

    async def __aiter__(self) -> AsyncIterator[ChatCompletionChunk]:
        chunk = self._first
        while chunk is not None:
            yield chunk
            chunk = await anyio.to_thread.run_sync(self._read, abandon_on_cancel=True)

    async def aclose(self) -> None:
        if self._call and self._stream and not self._stream.response.is_closed:
            self._call.hang_up()  # a thread may be waiting for the next chunk
            await anyio.to_thread.run_sync(self._close)


async def _from_state(request: Request) -> OpenAIService:
    service: OpenAIService = request.state.openai_service
    return service


Service = Annotated[OpenAIService, Depends(_from_state)]

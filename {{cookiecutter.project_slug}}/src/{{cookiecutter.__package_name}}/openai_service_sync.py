"""Every call of OpenAI goes through `OpenAIService.call`, here in the thread of a `def` handler.

The client is sync: called in an `async def` handler, it would stop the event loop for everyone.
"""

import asyncio
import concurrent.futures
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Annotated, Self, TypeVar

import anyio
import anyio.to_thread
from anyio import NoEventLoopError, from_thread
from fastapi import Depends, Request
from openai import DefaultHttpx2Client, OpenAI
from tenacity import Retrying

from .completions import to_params, to_reply
from .connections import attempt_timeout
from .deadline import deadline_in
from .retries import policy
from .schemas import ChatReply, ChatRequest
from .settings import Settings
from .streams import ChatStream
from .transport import Transport
from .upstream import translated

T = TypeVar("T")

# For `def` handlers that do not call OpenAI.
SPARE_THREADS = 8


class OpenAIService:
    def __init__(self, client: OpenAI, transport: Transport, settings: Settings) -> None:
        self._loop = asyncio.get_running_loop()
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
            timeout=attempt_timeout(settings),
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
            return send(self._client)

        with (
            deadline_in(self._settings.deadline_seconds) as deadline,
            translated(),
            self._transport.calling(deadline),
        ):
            try:
                return Retrying(sleep=_sleep, **policy(self._settings, deadline))(attempt)
            except Exception:
                _stop_if_caller_left()  # of whom no failure need be told
                raise

    def chat(self, request: ChatRequest) -> ChatReply:
        params = to_params(request, self._settings)
        return self.call(lambda client: to_reply(client.post(**params)))

    def stream(self, request: ChatRequest) -> ChatStream:
        """Return once the first chunk is there: until then, a failure is tried again."""
        stream = ChatStream(to_params(request, self._settings, stream=True), self._loop)
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


async def _from_state(request: Request) -> OpenAIService:
    service: OpenAIService = request.state.openai_service
    return service


Service = Annotated[OpenAIService, Depends(_from_state)]

"""Every call of OpenAI goes through `OpenAIService.call`, here in a thread: the client is sync.

Awaited or called on the event loop, it would stop the loop, and with it every other caller.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Self, TypeVar

from openai import DefaultHttpx2Client, OpenAI
from tenacity import AsyncRetrying

from .completions import to_params, to_reply
from .concurrency import ConcurrencyLimiter
from .connections import attempt_timeout
from .deadline import Deadline
from .retries import policy
from .schemas import ChatReply, ChatRequest
from .settings import Settings
from .streams import ChatStream
from .transport import Transport, raise_status
from .upstream import translated

T = TypeVar("T")

# For what else uses `asyncio.to_thread`, name resolution for one.
SPARE_THREADS = 8


class OpenAIService:
    def __init__(self, client: OpenAI, transport: Transport, settings: Settings) -> None:
        self._client = client
        self._transport = transport
        self._limiter = ConcurrencyLimiter(settings)
        self._settings = settings

    @classmethod
    @asynccontextmanager
    async def open(cls, settings: Settings) -> AsyncIterator[Self]:
        # Its own size, 6 threads on 2 cores, would be the limit that nobody chose.
        executor = ThreadPoolExecutor(settings.max_concurrency + SPARE_THREADS)
        asyncio.get_running_loop().set_default_executor(executor)
        transport = Transport(settings.openai_base_url)
        reaper = asyncio.create_task(transport.reap())
        with OpenAI(
            api_key=settings.openai_api_key.get_secret_value(),
            base_url=settings.openai_base_url,
            timeout=attempt_timeout(settings),
            max_retries=0,  # `retries` is the one layer
            http_client=DefaultHttpx2Client(
                transport=transport,
                event_hooks={"response": [raise_status]},
                follow_redirects=False,  # each would be a request more, and a POST become a GET
            ),
        ) as client:
            try:
                yield cls(client, transport, settings)
            finally:
                reaper.cancel()

    async def call(self, send: Callable[[OpenAI], T]) -> T:
        """Wait for a slot, then call OpenAI, and again where that helps, until the deadline.

        `send` runs in a thread and may use any method of the client, say
        `lambda client: client.embeddings.create(model=..., input=...)`. What it returns should be
        complete: further pages that are fetched later have neither slot nor deadline, and would
        block the event loop.

        Waiting, for the slot or between attempts, holds no thread.

        Raises:
            Overloaded: there is no slot for the call.
            DeadlineExceeded: the time for the slot and all attempts ran out.
            UpstreamError: OpenAI's failure at the last attempt.
        """
        result = await self._begin(send)
        self._limiter.release()
        return result

    async def _begin(self, send: Callable[[OpenAI], T]) -> T:
        """Make the call and keep its slot, unless it fails."""

        async def attempt() -> T:
            return await asyncio.to_thread(send, self._client)

        deadline = Deadline(self._settings.deadline_seconds)
        if ticket := self._limiter.enter():
            await self._limiter.wait(ticket, deadline)
        try:
            with deadline.enforced(), translated():
                async with asyncio.timeout(deadline.remaining()):
                    with self._transport.calling(deadline):
                        return await AsyncRetrying(**policy(self._settings, deadline))(attempt)
        except BaseException:
            self._limiter.release()
            raise

    async def chat(self, request: ChatRequest) -> ChatReply:
        params = to_params(request, self._settings)
        return await self.call(lambda client: to_reply(client.post(**params)))

    async def stream(self, request: ChatRequest) -> ChatStream:
        """Return once the first chunk is there: until then, a failure is tried again.

        The stream keeps its slot until it is closed. Raises as `call` does.
        """
        params = to_params(request, self._settings, stream=True)
        stream = ChatStream(params, asyncio.get_running_loop(), self._limiter.release)
        try:
            await self._begin(stream.open)
        except BaseException:
            stream.abort()
            raise
        return stream

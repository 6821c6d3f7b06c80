"""Every call of OpenAI goes through `OpenAIService.call`, here with the SDK's async client."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Self, TypeVar

from openai import AsyncOpenAI, DefaultAsyncHttpx2Client
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


class OpenAIService:
    def __init__(self, client: AsyncOpenAI, settings: Settings) -> None:
        self._client = client
        self._limiter = ConcurrencyLimiter(settings)
        self._settings = settings

    @classmethod
    @asynccontextmanager
    async def open(cls, settings: Settings) -> AsyncIterator[Self]:
        async with AsyncOpenAI(
            api_key=settings.openai_api_key.get_secret_value(),
            base_url=settings.openai_base_url,
            timeout=attempt_timeout(settings),
            max_retries=0,  # `retries` is the one layer
            http_client=DefaultAsyncHttpx2Client(
                transport=Transport(settings.openai_base_url),
                event_hooks={"response": [raise_status]},
                follow_redirects=False,  # each would be a request more, and a POST become a GET
            ),
        ) as client:
            yield cls(client, settings)

    async def call(self, send: Callable[[AsyncOpenAI], Awaitable[T]]) -> T:
        """Wait for a slot, then call OpenAI, and again where that helps, until the deadline.

        `send` may use any method of the client, say
        `lambda client: client.embeddings.create(model=..., input=...)`. What it returns should be
        complete: further pages that are fetched later have neither slot nor deadline.

        Raises:
            Overloaded: there is no slot for the call.
            DeadlineExceeded: the time for the slot and all attempts ran out.
            UpstreamError: OpenAI's failure at the last attempt.
        """
        result = await self._begin(send)
        self._limiter.release()
        return result

    async def _begin(self, send: Callable[[AsyncOpenAI], Awaitable[T]]) -> T:
        """Make the call and keep its slot, unless it fails."""

        async def attempt() -> T:
            return await send(self._client)

        deadline = Deadline(self._settings.deadline_seconds)
        if ticket := self._limiter.enter():
            await self._limiter.wait(ticket, deadline)
        try:
            with deadline.enforced(), translated():
                async with asyncio.timeout(deadline.remaining()):
                    return await AsyncRetrying(**policy(self._settings, deadline))(attempt)
        except BaseException:
            self._limiter.release()
            raise

    async def chat(self, request: ChatRequest) -> ChatReply:
        params = to_params(request, self._settings)

        async def send(client: AsyncOpenAI) -> ChatReply:
            return to_reply(await client.post(**params))

        return await self.call(send)

    async def stream(self, request: ChatRequest) -> ChatStream:
        """Return once the first chunk is there: until then, a failure is tried again.

        The stream keeps its slot until it is closed. Raises as `call` does.
        """
        params = to_params(request, self._settings, stream=True)
        return await self._begin(
            lambda client: ChatStream.open(client, params, self._limiter.release)
        )

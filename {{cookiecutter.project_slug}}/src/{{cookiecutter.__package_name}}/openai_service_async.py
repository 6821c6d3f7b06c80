"""Every call of OpenAI goes through `OpenAIService.call`, here with the SDK's async client."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Annotated, Self, TypeVar

from fastapi import Depends, Request
from openai import AsyncOpenAI, DefaultAsyncHttpx2Client
from tenacity import AsyncRetrying

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


class OpenAIService:
    def __init__(self, client: AsyncOpenAI, settings: Settings) -> None:
        self._client = client
        self._settings = settings

    @classmethod
    @asynccontextmanager
    async def open(cls, settings: Settings) -> AsyncIterator[Self]:
        async with AsyncOpenAI(
            api_key=settings.openai_api_key.get_secret_value(),
            base_url=settings.openai_base_url,
            timeout=attempt_timeout(settings),
            max_retries=0,  # `retries` is the one layer
            http_client=DefaultAsyncHttpx2Client(transport=Transport(settings.openai_base_url)),
        ) as client:
            yield cls(client, settings)

    async def call(self, send: Callable[[AsyncOpenAI], Awaitable[T]]) -> T:
        """Call OpenAI, and again where that helps, until the deadline.

        `send` may use any method of the client, say
        `lambda client: client.embeddings.create(model=..., input=...)`.

        Raises:
            ServiceError: of OpenAI's failures, the last one; `DeadlineExceeded` if time ran out.
        """

        async def attempt() -> T:
            return await send(self._client)

        with deadline_in(self._settings.deadline_seconds) as deadline, translated():
            async with asyncio.timeout(deadline.remaining()):
                return await AsyncRetrying(**policy(self._settings, deadline))(attempt)

    async def chat(self, request: ChatRequest) -> ChatReply:
        params = to_params(request, self._settings)

        async def send(client: AsyncOpenAI) -> ChatReply:
            return to_reply(await client.post(**params))

        return await self.call(send)

    async def stream(self, request: ChatRequest) -> ChatStream:
        """Return once the first chunk is there: until then, a failure is tried again."""
        params = to_params(request, self._settings, stream=True)
        return await self.call(lambda client: ChatStream.open(client, params))


async def _from_state(request: Request) -> OpenAIService:
    service: OpenAIService = request.state.openai_service
    return service


Service = Annotated[OpenAIService, Depends(_from_state)]

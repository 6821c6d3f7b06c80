"""Every call of OpenAI goes through `OpenAIService.call`, here with the SDK's async client."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Annotated, Any, Self, TypeVar

from fastapi import Depends, Request
from openai import AsyncOpenAI, AsyncStream
from openai.types.chat import ChatCompletionChunk
from tenacity import AsyncRetrying

from .completions import to_chunk, to_params, to_reply
from .deadline import deadline_in
from .retries import policy
from .schemas import ChatReply, ChatRequest
from .settings import Settings
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
            max_retries=0,  # `retries` is the one layer
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
            timeout = deadline.timeout(self._settings.attempt_timeout_seconds)
            return await send(self._client.with_options(timeout=timeout))

        with deadline_in(self._settings.deadline_seconds) as deadline, translated():
            async with asyncio.timeout(deadline.remaining()):
                return await AsyncRetrying(**policy(self._settings, deadline))(attempt)

    async def chat(self, request: ChatRequest) -> ChatReply:
        params = to_params(request, self._settings)

        async def send(client: AsyncOpenAI) -> ChatReply:
            return to_reply(await client.chat.completions.create(**params))

        return await self.call(send)

    async def stream(self, request: ChatRequest) -> "ChatStream":
        """Return once the first chunk is there: until then, a failure is tried again."""
        params = to_params(request, self._settings)
        return await self.call(lambda client: ChatStream.open(client, params))


class ChatStream:
    """The chunks of a streamed reply, as the SDK's errors and all. To be closed."""

    def __init__(
        self, stream: AsyncStream[ChatCompletionChunk], first: ChatCompletionChunk
    ) -> None:
        self._stream = stream
        self._first = first

    @classmethod
    async def open(cls, client: AsyncOpenAI, params: dict[str, Any]) -> Self:
        stream: AsyncStream[ChatCompletionChunk] = await client.chat.completions.create(
            stream=True, stream_options={"include_usage": True}, **params
        )
        try:
            return cls(stream, to_chunk(await anext(stream, None)))
        except BaseException:
            await stream.close()
            raise

    async def __aiter__(self) -> AsyncIterator[ChatCompletionChunk]:
        yield self._first
        async for chunk in self._stream:
            yield chunk

    async def aclose(self) -> None:
        await self._stream.close()


async def _from_state(request: Request) -> OpenAIService:
    service: OpenAIService = request.state.openai_service
    return service


Service = Annotated[OpenAIService, Depends(_from_state)]

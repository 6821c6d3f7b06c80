"""The one way to call OpenAI: `call` and `stream`."""

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Self, TypeVar

from openai import AsyncOpenAI
from tenacity import AsyncRetrying

from ..settings import Settings
from .client import open_client
from .concurrency import ConcurrencyLimiter
from .deadline import Deadline
from .error_mapping import translated
from .lifetime import Lifetime
from .retries import policy
from .streaming import Stream
from .transport import Transport

T = TypeVar("T")


@dataclass(frozen=True)
class OpenAIService:
    settings: Settings
    _client: AsyncOpenAI
    _limiter: ConcurrencyLimiter
    _lifetime: Lifetime | None = None

    @classmethod
    @asynccontextmanager
    async def open(cls, settings: Settings) -> AsyncIterator[Self]:
        async with open_client(settings, Transport(settings.openai_base_url)) as client:
            yield cls(settings, client, ConcurrencyLimiter(settings))

    def within(self, lifetime: Lifetime) -> Self:
        """The same service, for streams that end with `lifetime` at the latest."""
        return replace(self, _lifetime=lifetime)

    async def call(self, send: Callable[[AsyncOpenAI], Awaitable[T]]) -> T:
        """Wait for a slot, then call OpenAI, with retries, until the deadline.

        `send` may use any method of the client, such as
        `lambda client: client.embeddings.create(model=..., input=...)`. It should return
        a complete result: pages fetched later have neither slot nor deadline.

        Raises:
            Overloaded: the queue is full, or the wait for a slot was too long.
            DeadlineExceeded: the deadline passed, in the queue or in an attempt.
            UpstreamError: the last attempt failed.
        """
        result = await self._begin(send)
        self._limiter.release()
        return result

    async def stream(
        self, send: Callable[[AsyncOpenAI], AsyncIterable[T] | Awaitable[AsyncIterable[T]]]
    ) -> Stream[T]:
        """As `call`, for a `send` that returns one of the SDK's streams or an async generator.

        Returns at the first event. Retries and the deadline apply only until then. The stream keeps
        its slot until it ends or is closed, at the latest when the request ends.
        """

        async def open_stream(client: AsyncOpenAI) -> Stream[T]:
            source = send(client)
            if isinstance(source, Awaitable):
                source = await source
            return await Stream.open(source, self._limiter.release)

        stream = await self._begin(open_stream)
        if self._lifetime:
            self._lifetime.exit_stack.push_async_callback(stream.aclose)
        return stream

    async def _begin(self, send: Callable[[AsyncOpenAI], Awaitable[T]]) -> T:
        """Wait for a slot and call `send` with retries. Only a failure releases the slot."""

        async def attempt() -> T:
            with translated():
                return await send(self._client)

        deadline = Deadline(self.settings.deadline_seconds)
        if ticket := self._limiter.enter():
            await self._limiter.wait(ticket, deadline)
        try:
            with deadline.enforced():
                async with asyncio.timeout(deadline.remaining()):
                    return await AsyncRetrying(**policy(self.settings, deadline))(attempt)
        except BaseException:
            self._limiter.release()
            raise

"""The one way to call OpenAI: `call` and `stream`."""

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Self, TypeVar

from openai import AsyncOpenAI
from tenacity import AsyncRetrying

from ..observer import OTHER, Operation
from ..settings import Settings
from .attempt import Attempt
from .client import open_client
from .concurrency import ConcurrencyLimiter
from .deadline import Deadline
from .error_mapping import translated
from .lifetime import OUTSIDE_REQUESTS, Lifetime
from .retries import policy
from .streaming import Stream
from .transport import Transport

T = TypeVar("T")


@dataclass(frozen=True)
class OpenAIService:
    settings: Settings
    _client: AsyncOpenAI
    limiter: ConcurrencyLimiter
    _lifetime: Lifetime = OUTSIDE_REQUESTS

    @classmethod
    @asynccontextmanager
    async def open(cls, settings: Settings) -> AsyncIterator[Self]:
        async with open_client(settings, Transport(settings.openai_base_url)) as client:
            yield cls(settings, client, ConcurrencyLimiter(settings))

    def within(self, lifetime: Lifetime) -> Self:
        """The same service, for streams that end with `lifetime` at the latest."""
        return replace(self, _lifetime=lifetime)

    async def call(
        self, send: Callable[[AsyncOpenAI], Awaitable[T]], operation: Operation = OTHER
    ) -> T:
        """Wait for a slot, then call OpenAI, with retries, until the deadline.

        `send` may use any method of the client, such as
        `lambda client: client.embeddings.create(model=..., input=...)`. It should return
        a complete result: pages fetched later have neither slot nor deadline.

        `operation` names the call in metrics and traces, and says what it may cost.

        Raises:
            RateLimited: the client is over its limit of tokens.
            Overloaded: the queue is full, or the wait for a slot was too long.
            DeadlineExceeded: the deadline passed, in the queue or in an attempt.
            UpstreamError: the last attempt failed.
        """

        async def send_whole(attempt: Attempt) -> T:
            result = await send(self._client)
            attempt.add(result)
            attempt.end()
            return result

        result = await self._begin(send_whole, operation)
        self.limiter.release()
        return result

    async def stream(
        self,
        send: Callable[[AsyncOpenAI], AsyncIterable[T] | Awaitable[AsyncIterable[T]]],
        operation: Operation = OTHER,
    ) -> Stream[T]:
        """As `call`, for a `send` that returns one of the SDK's streams or an async generator.

        Returns at the first event. Retries and the deadline apply only until then. The stream keeps
        its slot until it ends or is closed, at the latest when the request ends.
        """

        async def open_stream(attempt: Attempt) -> Stream[T]:
            source = send(self._client)
            if isinstance(source, Awaitable):
                source = await source
            stream = await Stream.open(source, attempt, self.limiter.release)
            attempt.begin()
            return stream

        stream = await self._begin(open_stream, operation)
        if self._lifetime.exit_stack:
            self._lifetime.exit_stack.push_async_callback(stream.aclose)
        return stream

    async def _begin(self, send: Callable[[Attempt], Awaitable[T]], operation: Operation) -> T:
        """Wait for a slot and call `send` with retries. Only a failure releases the slot."""

        async def try_once() -> T:
            with (
                Attempt(operation, self.settings, deadline, self._lifetime) as attempt,
                translated(),
            ):
                return await send(attempt)

        deadline = Deadline(self.settings.deadline_seconds)
        observer = self._lifetime.observer
        if observer.reserve:
            await observer.reserve(operation)
        if ticket := self.limiter.enter():
            await self.limiter.wait(ticket, deadline, observer)
        try:
            with deadline.enforced():
                async with asyncio.timeout(deadline.remaining()):
                    retrying = AsyncRetrying(**policy(self.settings, deadline, observer))
                    return await retrying(try_once)
        except BaseException:
            self.limiter.release()
            raise

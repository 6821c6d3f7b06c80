"""The one way to call OpenAI: `call` and `stream`. The client is sync: attempts run in threads.

On the event loop, the sync client would block the loop and with it every other request.
"""

import asyncio
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from contextvars import copy_context
from dataclasses import dataclass, replace
from typing import Self, TypeVar

from openai import OpenAI
from tenacity import AsyncRetrying

from ..observer import OTHER, Operation
from ..settings import Settings
from .attempt import Attempt
from .call import Call
from .client import open_client
from .concurrency import ConcurrencyLimiter
from .deadline import Deadline
from .error_mapping import translated
from .lifetime import OUTSIDE_REQUESTS, Lifetime
from .retries import policy
from .streaming import LoopWaker, Stream
from .transport import Transport

T = TypeVar("T")

# For other users of the default executor, such as asyncio's name resolution.
SPARE_THREADS = 8


@dataclass(frozen=True)
class OpenAIService:
    settings: Settings
    _client: OpenAI
    _transport: Transport
    _executor: ThreadPoolExecutor
    limiter: ConcurrencyLimiter
    _waker: LoopWaker
    _lifetime: Lifetime = OUTSIDE_REQUESTS

    @classmethod
    @asynccontextmanager
    async def open(cls, settings: Settings) -> AsyncIterator[Self]:
        # The default executor's 6 threads on 2 cores would be a second concurrency limit.
        executor = ThreadPoolExecutor(settings.max_concurrency + SPARE_THREADS)
        asyncio.get_running_loop().set_default_executor(executor)
        transport = Transport(settings.openai_base_url)
        watchdog = asyncio.create_task(transport.watch())
        with open_client(settings, transport) as client:
            try:
                limiter, waker = ConcurrencyLimiter(settings), LoopWaker()
                yield cls(settings, client, transport, executor, limiter, waker)
            finally:
                watchdog.cancel()

    def within(self, lifetime: Lifetime) -> Self:
        """The same service, for streams that end with `lifetime` at the latest."""
        return replace(self, _lifetime=lifetime)

    async def call(self, send: Callable[[OpenAI], T], operation: Operation = OTHER) -> T:
        """Wait for a slot, then call OpenAI, with retries, until the deadline.

        `send` runs in a thread and may use any method of the client, such as
        `lambda client: client.embeddings.create(model=..., input=...)`. It should return
        a complete result: pages fetched later have neither slot nor deadline, and would block the
        event loop. Waits, for the slot or between attempts, hold no thread.

        `operation` names the call in metrics and traces, and says what it may cost.

        Raises:
            RateLimited: the client is over its limit of tokens.
            Overloaded: the queue is full, or the wait for a slot was too long.
            DeadlineExceeded: the deadline passed, in the queue or in an attempt.
            UpstreamError: the last attempt failed.
        """

        async def send_in_thread(_call: Call, attempt: Attempt) -> T:
            result = await asyncio.to_thread(send, self._client)
            attempt.add(result)
            attempt.end()
            return result

        result = await self._begin(send_in_thread, operation)
        self.limiter.release()
        return result

    async def stream(
        self, send: Callable[[OpenAI], Iterable[T]], operation: Operation = OTHER
    ) -> Stream[T]:
        """As `call`, for a `send` that returns one of the SDK's streams or a generator.

        Returns at the first event. Retries and the deadline apply only until then. The stream keeps
        its slot until it ends or is closed, at the latest when the request ends.
        """

        async def open_stream(call: Call, attempt: Attempt) -> Stream[T]:
            stream: Stream[T] = Stream(self._waker, call, attempt, self.limiter.release)
            self._executor.submit(copy_context().run, stream.read, send, self._client)
            try:
                await asyncio.wrap_future(stream.first_event)
            except asyncio.CancelledError:
                stream.abort()
                raise
            attempt.begin()
            call.deadline = Deadline(math.inf)  # from now on, only `abort` ends the call
            return stream

        stream = await self._begin(open_stream, operation)
        if self._lifetime.exit_stack:
            self._lifetime.exit_stack.push_async_callback(stream.aclose)
        return stream

    async def _begin(
        self, send: Callable[[Call, Attempt], Awaitable[T]], operation: Operation
    ) -> T:
        """Wait for a slot and call `send` with retries. Only a failure releases the slot."""

        async def try_once(call: Call) -> T:
            with (
                Attempt(operation, self.settings, deadline, self._lifetime) as attempt,
                translated(),
            ):
                return await send(call, attempt)

        deadline = Deadline(self.settings.deadline_seconds)
        observer = self._lifetime.observer
        if observer.reserve:
            await observer.reserve(operation)
        if ticket := self.limiter.enter():
            await self.limiter.wait(ticket, deadline, observer)
        try:
            with deadline.enforced():
                async with asyncio.timeout(deadline.remaining()):
                    with self._transport.calling(deadline) as call:
                        retrying = AsyncRetrying(**policy(self.settings, deadline, observer))
                        return await retrying(try_once, call)
        except BaseException:
            self.limiter.release()
            raise

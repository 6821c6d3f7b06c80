"""The one way to call OpenAI: `call` and `stream`, for `def` handlers.

In an `async def` handler, the sync client would block the event loop and every other request.
"""

import asyncio
import concurrent.futures
import math
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from contextvars import copy_context
from dataclasses import dataclass, replace
from typing import Any, NoReturn, Self, TypeVar

import anyio
import anyio.to_thread
from anyio import NoEventLoopError, from_thread
from openai import OpenAI
from tenacity import Retrying

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

# Besides the threads of calls in flight and in the queue: for handlers that do not call OpenAI,
# and for calls that are refused because the queue is full.
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
        # AnyIO's default of 40 threads would be a second concurrency limit. Queued calls hold one.
        pool = anyio.to_thread.current_default_thread_limiter()
        pool.total_tokens = settings.max_concurrency + settings.max_queue + SPARE_THREADS
        executor = ThreadPoolExecutor(settings.max_concurrency + SPARE_THREADS)
        transport = Transport(settings.openai_base_url)
        watchdog = asyncio.create_task(transport.watch())
        with open_client(settings, transport) as client:
            try:
                limiter, waker = ConcurrencyLimiter(settings), LoopWaker()
                yield cls(settings, client, transport, executor, limiter, waker)
            finally:
                watchdog.cancel()
                executor.shutdown(wait=False)

    def within(self, lifetime: Lifetime) -> Self:
        """The same service, for calls and streams that end with `lifetime` at the latest."""
        return replace(self, _lifetime=lifetime)

    def call(self, send: Callable[[OpenAI], T], operation: Operation = OTHER) -> T:
        """Wait for a slot, then call OpenAI, with retries, until the deadline.

        `send` may use any method of the client, such as
        `lambda client: client.embeddings.create(model=..., input=...)`. It should return
        a complete result: pages fetched later have neither slot nor deadline.

        Blocks: call it in a thread, as FastAPI does with `def` handlers.

        `operation` names the call in metrics and traces, and says what it may cost.

        Raises:
            RateLimited: the client is over its limit of tokens.
            Overloaded: the queue is full, or the wait for a slot was too long.
            DeadlineExceeded: the deadline passed, in the queue or in an attempt.
            UpstreamError: the last attempt failed.
        """

        def send_whole(_call: Call, attempt: Attempt) -> T:
            result = send(self._client)
            attempt.add(result)
            attempt.end()
            return result

        result = self._begin(send_whole, operation)
        self.limiter.release()
        return result

    def stream(
        self, send: Callable[[OpenAI], Iterable[T]], operation: Operation = OTHER
    ) -> Stream[T]:
        """As `call`, for a `send` that returns one of the SDK's streams or a generator.

        Returns at the first event. Retries and the deadline apply only until then. The stream keeps
        its slot until it ends or is closed, at the latest when the request ends.
        """

        def open_stream(call: Call, attempt: Attempt) -> Stream[T]:
            stream: Stream[T] = Stream(self._waker, call, attempt, self.limiter.release)
            self._executor.submit(copy_context().run, stream.read, send, self._client)
            concurrent.futures.wait([stream.first_event], call.deadline.remaining())
            if self._is_cancelled() or not stream.first_event.done():
                stream.first_event.cancel()
                stream.abort()
                raise TimeoutError  # of the deadline, unless the client has disconnected
            stream.first_event.result()
            attempt.begin()
            call.deadline = Deadline(math.inf)  # from now on, only `abort` ends the call
            return stream

        stream = self._begin(open_stream, operation)
        if self._lifetime.exit_stack:
            self._lifetime.exit_stack.push_async_callback(stream.aclose)
        return stream

    def _begin(self, send: Callable[[Call, Attempt], T], operation: Operation) -> T:
        """Wait for a slot and call `send` with retries. Only a failure releases the slot."""

        def try_once(call: Call) -> T:
            self._stop_if_cancelled()
            try:
                with (
                    Attempt(operation, self.settings, deadline, self._lifetime) as attempt,
                    translated(),
                ):
                    return send(call, attempt)
            except Exception:
                self._stop_if_cancelled()  # then the abort caused the failure
                raise

        deadline = Deadline(self.settings.deadline_seconds)
        observer = self._lifetime.observer
        if reserve := observer.reserve:
            _wait(lambda: reserve(operation))
        if ticket := self.limiter.enter():
            _wait(lambda: self.limiter.wait(ticket, deadline, observer))
        try:
            with deadline.enforced(), self._transport.calling(deadline, self._is_cancelled) as call:
                return Retrying(
                    sleep=lambda seconds: _wait(lambda: anyio.sleep(seconds)),
                    **policy(self.settings, deadline, observer),
                )(try_once, call)
        except BaseException:
            self.limiter.release()
            raise

    def _is_cancelled(self) -> bool:
        return self._lifetime.is_cancelled()

    def _stop_if_cancelled(self) -> None:
        if self._is_cancelled():
            _raise_cancelled()


def _raise_cancelled() -> NoReturn:
    """Raise AnyIO's own cancellation, the only one that the request's cancel scope accepts."""
    with suppress(NoEventLoopError):  # not in one of AnyIO's threads
        from_thread.check_cancelled()
    raise asyncio.CancelledError


def _wait(wait: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Wait on the event loop, where a client disconnect cancels the wait."""
    try:
        from_thread.run(wait)
    except concurrent.futures.CancelledError:
        _raise_cancelled()
    except NoEventLoopError:  # not in one of AnyIO's threads
        asyncio.run(wait())

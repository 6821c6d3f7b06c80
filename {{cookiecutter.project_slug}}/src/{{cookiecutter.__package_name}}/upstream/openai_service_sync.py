"""The one way to OpenAI: `call` and `stream`, for the threads of `def` handlers.

Called in an `async def` handler, the sync client would stop the event loop, and with it every other
request.
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

from ..settings import Settings
from .client import open_client
from .concurrency import ConcurrencyLimiter
from .deadline import Deadline
from .error_mapping import translated
from .retries import policy
from .sockets import Call
from .streaming import LoopWaker, Stream
from .transport import Transport

T = TypeVar("T")

# For `def` handlers that do not call OpenAI, and for calls that are refused at once: a call that
# waits for a slot holds its thread.
SPARE_THREADS = 8


@dataclass(frozen=True)
class OpenAIService:
    settings: Settings
    _client: OpenAI
    _transport: Transport
    _executor: ThreadPoolExecutor
    _limiter: ConcurrencyLimiter
    _waker: LoopWaker
    _is_cancelled: Callable[[], bool] = lambda: False

    @classmethod
    @asynccontextmanager
    async def open(cls, settings: Settings) -> AsyncIterator[Self]:
        # Its default size of 40 would be a second concurrency limit.
        pool = anyio.to_thread.current_default_thread_limiter()
        pool.total_tokens = settings.max_concurrency + settings.max_queue + SPARE_THREADS
        transport = Transport(settings.openai_base_url)
        watchdog = asyncio.create_task(transport.watch())
        with open_client(settings, transport) as client:
            try:
                yield cls(
                    settings,
                    client,
                    transport,
                    ThreadPoolExecutor(settings.max_concurrency + SPARE_THREADS),
                    ConcurrencyLimiter(settings),
                    LoopWaker(),
                )
            finally:
                watchdog.cancel()

    def until(self, is_cancelled: Callable[[], bool]) -> Self:
        """The same service, for calls that are aborted when `is_cancelled` returns true."""
        return replace(self, _is_cancelled=is_cancelled)

    def call(self, send: Callable[[OpenAI], T]) -> T:
        """Wait for a slot, then call OpenAI, and again where that helps, until the deadline.

        `send` may use any method of the client, say
        `lambda client: client.embeddings.create(model=..., input=...)`. What it returns should be
        complete: further pages that are fetched later have neither slot nor deadline.

        Call this in a thread, as FastAPI does for `def` handlers.

        Raises:
            Overloaded: there is no slot for the call.
            DeadlineExceeded: the time for the slot and all attempts ran out.
            UpstreamError: OpenAI's failure at the last attempt.
        """
        result = self._begin(lambda _call: send(self._client))
        self._limiter.release()
        return result

    def stream(self, send: Callable[[OpenAI], Iterable[T]]) -> Stream[T]:
        """As `call`, for what yields events: one of the SDK's streams, or a generator.

        Returns once the first event is there: until then a failure is retried, and the deadline
        counts. The stream keeps its slot until it is closed.
        """

        def open_stream(call: Call) -> Stream[T]:
            stream: Stream[T] = Stream(self._waker, call, self._limiter.release)
            self._executor.submit(copy_context().run, stream.read, send, self._client)
            concurrent.futures.wait([stream.first_event], call.at_most(math.inf))
            if self._is_cancelled() or not stream.first_event.done():
                stream.first_event.cancel()
                stream.abort()
                raise TimeoutError  # of the deadline, unless the client has disconnected
            stream.first_event.result()
            call.outlive_deadline()
            return stream

        return self._begin(open_stream)

    def _begin(self, send: Callable[[Call], T]) -> T:
        """Make the call and keep its slot, unless it fails."""

        def attempt(call: Call) -> T:
            self._stop_if_cancelled()
            try:
                with translated():
                    return send(call)
            except Exception:
                self._stop_if_cancelled()  # which is then why it failed
                raise

        deadline = Deadline(self.settings.deadline_seconds)
        if ticket := self._limiter.enter():
            _wait(lambda: self._limiter.wait(ticket, deadline))
        try:
            with deadline.enforced(), self._transport.calling(deadline, self._is_cancelled) as call:
                return Retrying(
                    sleep=lambda seconds: _wait(lambda: anyio.sleep(seconds)),
                    **policy(self.settings, deadline),
                )(attempt, call)
        except BaseException:
            self._limiter.release()
            raise

    def _stop_if_cancelled(self) -> None:
        if self._is_cancelled():
            _raise_cancelled()


def _raise_cancelled() -> NoReturn:
    """As AnyIO does: the request's cancel scope takes no other exception for its own."""
    with suppress(NoEventLoopError):  # outside of a request
        from_thread.check_cancelled()
    raise asyncio.CancelledError


def _wait(wait: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Wait on the event loop, where a client disconnect or the end of the loop ends the wait."""
    try:
        from_thread.run(wait)
    except concurrent.futures.CancelledError:
        _raise_cancelled()
    except NoEventLoopError:  # outside of a request
        asyncio.run(wait())

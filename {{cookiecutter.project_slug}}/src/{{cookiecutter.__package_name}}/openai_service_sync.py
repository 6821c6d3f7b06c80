"""Every call of OpenAI goes through `OpenAIService.call`, here in the thread of a `def` handler.

The client is sync: called in an `async def` handler, it would stop the event loop for everyone.
"""

import asyncio
import concurrent.futures
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Any, Self, TypeVar

import anyio
import anyio.to_thread
from anyio import NoEventLoopError, from_thread
from openai import DefaultHttpx2Client, OpenAI
from tenacity import Retrying

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

# For `def` handlers that do not call OpenAI, and for calls that are refused at once: a call that
# waits for a slot holds its thread.
SPARE_THREADS = 8


class OpenAIService:
    def __init__(self, client: OpenAI, transport: Transport, settings: Settings) -> None:
        self._loop = asyncio.get_running_loop()
        self._client = client
        self._transport = transport
        self._limiter = ConcurrencyLimiter(settings)
        self._settings = settings

    @classmethod
    @asynccontextmanager
    async def open(cls, settings: Settings) -> AsyncIterator[Self]:
        # Its own size of 40 would be the limit that nobody chose.
        pool = anyio.to_thread.current_default_thread_limiter()
        pool.total_tokens = settings.max_concurrency + settings.max_queue + SPARE_THREADS
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
        result = self._begin(send)
        self._limiter.release()
        return result

    def _begin(self, send: Callable[[OpenAI], T]) -> T:
        """Make the call and keep its slot, unless it fails."""

        def attempt() -> T:
            _stop_if_cancelled()
            return send(self._client)

        deadline = Deadline(self._settings.deadline_seconds)
        if ticket := self._limiter.enter():
            _wait(lambda: self._limiter.wait(ticket, deadline))
        try:
            with deadline.enforced(), translated(), self._transport.calling(deadline):
                try:
                    return Retrying(
                        sleep=lambda seconds: _wait(lambda: anyio.sleep(seconds)),
                        **policy(self._settings, deadline),
                    )(attempt)
                except Exception:
                    _stop_if_cancelled()  # the failure is then no matter of the log
                    raise
        except BaseException:
            self._limiter.release()
            raise

    def chat(self, request: ChatRequest) -> ChatReply:
        params = to_params(request, self._settings)
        return self.call(lambda client: to_reply(client.post(**params)))

    def stream(self, request: ChatRequest) -> ChatStream:
        """Return once the first chunk is there: until then, a failure is tried again.

        The stream keeps its slot until it is closed. Raises as `call` does.
        """
        params = to_params(request, self._settings, stream=True)
        stream = ChatStream(params, self._loop, self._limiter.release)
        self._begin(stream.open)
        return stream


def _stop_if_cancelled() -> None:
    with suppress(NoEventLoopError):  # outside of a request
        from_thread.check_cancelled()


def _wait(wait: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Wait on the event loop, where a client disconnect or the end of the loop ends the wait."""

    async def is_over() -> bool:
        try:
            await wait()
        except asyncio.CancelledError:
            return False  # raised here, it would be logged as an unhandled exception
        return True

    try:
        if not from_thread.run(is_over):
            from_thread.check_cancelled()
            raise concurrent.futures.CancelledError
    except NoEventLoopError:  # outside of a request
        asyncio.run(wait())

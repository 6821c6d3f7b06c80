"""Streams of events."""

import asyncio
from collections.abc import AsyncIterable, Callable
from contextlib import suppress
from typing import Any, Generic, Self, TypeVar

from ..errors import BrokenReply
from .attempt import Attempt
from .error_bodies import raise_failure
from .error_mapping import translated

T = TypeVar("T")

# Seconds to drain the body after the last event, so that the connection can be reused.
DRAIN_SECONDS = 0.5


class Stream(Generic[T]):
    """An async iterator over the events of one response. It has a slot until its end or `aclose`.

    Iteration raises UpstreamError if the response fails.
    """

    def __init__(
        self, source: AsyncIterable[T], attempt: Attempt, release: Callable[[], None]
    ) -> None:
        self._source = source
        self._events = aiter(source)
        self._attempt = attempt
        self._release = release
        self._first: list[T] = []
        self._was_cancelled = False
        self._is_released = False

    @classmethod
    async def open(
        cls, source: AsyncIterable[T], attempt: Attempt, release: Callable[[], None]
    ) -> Self:
        """Wait for the first event. On failure, close the source without calling `release`."""
        stream = cls(source, attempt, release)
        try:
            async for event in stream._events:
                raise_failure(event)
                attempt.add(event)
                stream._first.append(event)
                break
        except BaseException:
            await stream._close()
            raise
        return stream

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        if self._first:
            return self._first.pop()
        if self._was_cancelled:  # which ended the source: the rest of its events is lost
            raise BrokenReply("the stream was cancelled while it waited for an event")
        try:
            with translated():
                event = await anext(self._events)
                raise_failure(event)
        except asyncio.CancelledError:
            self._was_cancelled = True
            raise
        except StopAsyncIteration:
            self._attempt.end()
            await self.aclose()
            raise
        except Exception as error:
            self._attempt.end(error)
            await self.aclose()
            raise
        self._attempt.add(event)
        return event

    async def aclose(self) -> None:
        if self._is_released:
            return
        self._is_released = True
        self._release()
        self._attempt.end(asyncio.CancelledError())
        with suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_SECONDS):
                await self._close()

    async def _close(self) -> None:
        source: Any = self._source
        await (source.aclose if hasattr(source, "aclose") else source.close)()

"""What `OpenAIService.stream` returns."""

import asyncio
from collections.abc import AsyncIterable, Callable
from contextlib import suppress
from typing import Any, Generic, Self, TypeVar

from ..errors import BrokenReply
from .error_bodies import raise_failure
from .error_mapping import translated

T = TypeVar("T")

# How long the source of a stream that has ended may take to close: its connection can be reused
# only if the response is read to its end.
DRAIN_SECONDS = 0.5


class Stream(Generic[T]):
    """An async iterator over the events of one response, which must be closed.

    Iteration raises UpstreamError if the response fails. The stream keeps its slot until it is
    closed.
    """

    def __init__(self, source: AsyncIterable[T], release: Callable[[], None]) -> None:
        self._source = source
        self._events = aiter(source)
        self._release = release
        self._first: list[T] = []
        self._was_cancelled = False
        self._is_released = False

    @classmethod
    async def open(cls, source: AsyncIterable[T], release: Callable[[], None]) -> Self:
        """Wait for the first event. If it fails, close the source, but do not call `release`."""
        stream = cls(source, release)
        try:
            async for event in stream._events:
                raise_failure(event)
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
        return event

    async def aclose(self) -> None:
        if self._is_released:
            return
        self._is_released = True
        self._release()
        with suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_SECONDS):
                await self._close()

    async def _close(self) -> None:
        source: Any = self._source
        await (source.aclose if hasattr(source, "aclose") else source.close)()

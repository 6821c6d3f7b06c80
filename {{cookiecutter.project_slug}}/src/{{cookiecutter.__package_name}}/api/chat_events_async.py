"""Converts a streamed response of OpenAI to the events of `/v1/chat/stream`."""

from collections.abc import AsyncIterator
from contextlib import suppress

import httpx2

from .schemas import ChatDelta, ChatDone
from .streamed_reply import StreamedReply


class ChatEvents:
    """Async iterable: deltas, then one ChatDone. Must be closed."""

    def __init__(self, response: httpx2.Response) -> None:
        self._response = response
        self._reads = response.aiter_bytes()
        self._reply = StreamedReply(response)

    async def __aiter__(self) -> AsyncIterator[ChatDelta | ChatDone]:
        try:
            async for read in self._reads:
                for delta in self._reply.feed(read):
                    yield delta
                if self._reply.is_over:
                    break
        except httpx2.RequestError:
            if not self._reply.is_whole():
                raise
        yield self._reply.to_done()

    async def close(self) -> None:
        try:
            if self._reply.is_over:  # drain the body, so that the connection can be reused
                with suppress(httpx2.RequestError):
                    async for _ in self._reads:
                        pass
        finally:
            await self._response.aclose()

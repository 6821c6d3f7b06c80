"""Converts a streamed response of OpenAI to the events of `/v1/chat/stream`."""

from collections.abc import Iterator
from contextlib import suppress

import httpx2

from .schemas import ChatDelta, ChatDone
from .streamed_reply import StreamedReply


class ChatEvents:
    """Iterable: deltas, then one ChatDone. Must be closed."""

    def __init__(self, response: httpx2.Response) -> None:
        self._response = response
        self._reads = response.iter_bytes()
        self._reply = StreamedReply(response)

    def __iter__(self) -> Iterator[ChatDelta | ChatDone]:
        try:
            for read in self._reads:
                yield from self._reply.feed(read)
                if self._reply.is_over:
                    break
        except httpx2.RequestError:
            if not self._reply.is_whole():
                raise
        yield self._reply.to_done()

    def close(self) -> None:
        if self._reply.is_over:  # drain the body, so that the connection can be reused
            with suppress(httpx2.RequestError):
                for _ in self._reads:
                    pass
        self._response.close()

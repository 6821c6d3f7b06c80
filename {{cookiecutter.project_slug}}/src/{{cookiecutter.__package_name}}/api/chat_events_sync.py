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
        while not self._reply.is_over:
            yield from self._reply.feed(self._read())
        yield self._reply.to_done()

    def _read(self) -> bytes:
        try:
            return next(self._reads, b"")
        except httpx2.RequestError:
            if self._reply.is_whole():
                return b""
            raise

    def close(self) -> None:
        if self._reply.is_over:  # drain the body, so that the connection can be reused
            with suppress(httpx2.RequestError):
                for _ in self._reads:
                    pass
        self._response.close()

"""Streamed replies of the sync client: a thread each reads, and the event loop takes what has come.

Taken chunk by chunk, each would cost a trip to a thread and back.
"""

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import httpx2
from openai import OpenAI

from .completions import DRAIN_SECONDS, StreamedReply
from .transport import Call, current_call

# How far ahead of its caller a stream may be read: then the upstream has to wait.
BUFFER_BYTES = 65_536


class ChatStream:
    """To be closed."""

    reply: StreamedReply

    def __init__(self, params: dict[str, Any]) -> None:
        self._params = params
        self._call: Call | None = None
        self._response: httpx2.Response | None = None
        self._reads: Iterator[bytes] = iter(())
        self._thread: threading.Thread | None = None
        self._arrived = asyncio.Event()
        self._changed = threading.Condition()
        # What follows is shared with the thread, under that lock.
        self._buffer = bytearray()
        self._has_ended = False
        self._is_closed = False
        self._error: Exception | None = None

    def open(self, client: OpenAI) -> None:
        """Send the request, and read until the first chunk has come."""
        self._call = current_call.get()
        response: httpx2.Response = client.post(**self._params)
        try:
            self.reply = StreamedReply(response.request)
            self._reads = response.iter_bytes()
            while not self.reply.has_begun:
                self.reply.feed(next(self._reads, b""))
            self._call.check()
        except BaseException:
            response.close()
            raise
        self._response = response

    async def read(self) -> bytes:
        """All that has come, or what comes next; nothing at the end."""
        self._start()
        while True:
            with self._changed:
                read = bytes(self._buffer)
                self._buffer.clear()
                self._changed.notify()
                if read or self._has_ended:
                    break
                self._arrived.clear()
            await self._arrived.wait()
        if self._error and not read:
            raise self._error
        return read

    async def aclose(self) -> None:
        if self._call is None or self._response is None:
            return
        self._start()  # it closes the response
        with self._changed:
            self._is_closed = True
            self._changed.notify()
        # It may be waiting for the next chunk, or for the end of the body, and this ends it.
        seconds = DRAIN_SECONDS if self.reply.is_over else 0
        asyncio.get_running_loop().call_later(seconds, self._call.hang_up)

    def _start(self) -> None:
        if self._thread is None:
            loop = asyncio.get_running_loop()
            # Not of a pool: it may outlive the request for a moment.
            self._thread = threading.Thread(target=self._pump, args=(loop,), daemon=True)
            self._thread.start()

    def _pump(self, loop: asyncio.AbstractEventLoop) -> None:
        """Read to the end."""
        assert self._response is not None  # noqa: S101 - it is open
        try:
            for data in self._reads:
                self._put(data, loop)
        except Exception as error:  # noqa: BLE001 - whatever it is, `read` raises it
            self._error = error
        self._response.close()
        self._has_ended = True
        self._put(b"", loop)

    def _put(self, data: bytes, loop: asyncio.AbstractEventLoop) -> None:
        with self._changed:
            while len(self._buffer) > BUFFER_BYTES and not self._is_closed:
                self._changed.wait()
            if self._is_closed:
                return
            if not self._buffer:
                loop.call_soon_threadsafe(self._arrived.set)
            self._buffer += data

"""Streamed replies of the sync client: a thread each reads, and the event loop takes what has come.

Taken chunk by chunk, each would cost a trip to a thread and back.
"""

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
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

    def __init__(
        self, params: dict[str, Any], loop: asyncio.AbstractEventLoop, release: Callable[[], None]
    ) -> None:
        self._params = params
        self._loop = loop
        self._release = release
        self._call: Call | None = None
        self._arrived = asyncio.Event()
        self._changed = threading.Condition()
        # Shared by threads and loop, under that lock.
        self._buffer = bytearray()
        self._is_open = False
        self._is_closed = False
        # Set by the thread before the last time that it takes the lock.
        self._has_ended = False
        self._error: Exception | None = None

    def open(self, client: OpenAI) -> None:
        """Send the request, and read until the first chunk has come.

        Once it is open, closing it calls `release`.
        """
        self._call = current_call.get()
        response: httpx2.Response = client.post(**self._params)
        try:
            self.reply = StreamedReply(response)
            reads = response.iter_bytes()
            while not self.reply.has_begun:
                self.reply.feed(next(reads, b""))
            # A thread of its own, not of a pool: it may outlive the request for a moment.
            pump = threading.Thread(target=self._pump, args=(response, reads), daemon=True)
            with self._changed:
                self._call.check()
                pump.start()
                self._is_open = True
        except BaseException:
            response.close()
            raise

    def _pump(self, response: httpx2.Response, reads: Iterator[bytes]) -> None:
        """Read to the end."""
        try:
            for read in reads:
                self._put(read)
        except Exception as error:  # noqa: BLE001 - whatever it is, `read` raises it
            self._error = error
        finally:
            self._has_ended = True
            self._put(b"")
            response.close()

    def _put(self, read: bytes) -> None:
        with self._changed:
            while len(self._buffer) > BUFFER_BYTES and not (self._is_closed or self._has_ended):
                self._changed.wait()
            if self._is_closed:
                return
            if not self._buffer:
                with suppress(RuntimeError):  # the loop is closed: nobody reads any more
                    self._loop.call_soon_threadsafe(self._arrived.set)
            self._buffer += read

    async def read(self) -> bytes:
        """All that has come, or what comes next; nothing at the end."""
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
        # A stream without a pause would never let the loop do anything else.
        await asyncio.sleep(0)
        return read

    async def aclose(self) -> None:
        self._release()
        self.abort()

    def abort(self) -> None:
        """End the thread that reads, whether the stream is open or about to be."""
        with self._changed:
            self._is_closed = True
            self._changed.notify()
            if not self._is_open or self._call is None:
                return
        # The thread may be waiting for the next chunk, or for the end of the body: this ends it.
        seconds = DRAIN_SECONDS if self.reply.is_over else 0
        self._loop.call_later(seconds, self._call.hang_up)

"""Streamed replies of the async client."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Self

import httpx2
from openai import AsyncOpenAI

from .completions import DRAIN_SECONDS, StreamedReply


class ChatStream:
    """To be closed."""

    def __init__(self, response: httpx2.Response, release: Callable[[], None]) -> None:
        self.reply = StreamedReply(response)
        self._response = response
        self._release = release
        self._reads = response.aiter_bytes()

    @classmethod
    async def open(
        cls, client: AsyncOpenAI, params: dict[str, Any], release: Callable[[], None]
    ) -> Self:
        """Send the request, and read until the first chunk has come.

        Once it is open, closing it calls `release`.
        """
        response = await client.post(**params)
        stream = cls(response, release)
        try:
            while not stream.reply.has_begun:
                stream.reply.feed(await stream.read())
        except BaseException:
            await response.aclose()
            raise
        return stream

    async def read(self) -> bytes:
        """What has come, or comes next; nothing at the end."""
        return await anext(self._reads, b"")

    async def aclose(self) -> None:
        self._release()
        try:
            if self.reply.is_over:
                with suppress(TimeoutError, httpx2.RequestError):
                    async with asyncio.timeout(DRAIN_SECONDS):
                        while await self.read():
                            pass
        finally:
            await self._response.aclose()

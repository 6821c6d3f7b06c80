"""Counts in a Redis that processes share."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Self

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from .windows import Span, Used

CONNECTIONS = 10

# One round trip and one atomic step for all windows of a client.
ADD = """
local used = {}
for i = 1, #KEYS, 2 do
  used[i] = redis.call('INCRBY', KEYS[i], ARGV[1])
  redis.call('EXPIRE', KEYS[i], ARGV[2 + (i - 1) / 2])
  used[i + 1] = tonumber(redis.call('GET', KEYS[i + 1])) or 0
end
return used
"""


class RedisCounts:
    """A storage of counts: see `LocalCounts`. Raises redis' `RedisError`."""

    def __init__(self, client: Redis) -> None:
        self._add = client.register_script(ADD)

    @classmethod
    @asynccontextmanager
    async def open(cls, uri: str) -> AsyncIterator[Self]:
        pool = BlockingConnectionPool.from_url(
            uri,
            max_connections=CONNECTIONS,
            timeout=None,  # the rate limiter has one for all that a request waits for
            socket_connect_timeout=None,
            socket_timeout=None,
            retry=Retry(NoBackoff(), 1),  # for idle connections that Redis has closed
        )
        try:
            yield cls(Redis(connection_pool=pool))
        finally:
            await pool.aclose()

    async def add(self, spans: Sequence[Span], amount: int) -> list[Used]:
        keys = [key for span in spans for key in (span.key, span.previous_key)]
        used = await self._add(keys, [amount, *(span.lifetime for span in spans)])
        return [Used(*pair) for pair in zip(used[::2], used[1::2], strict=True)]

"""Counts what clients use, in memory or in a Redis that processes share."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, Self, TypeVar

from redis.exceptions import RedisError

from ..errors import LimitsUnavailable, describe
from ..settings import IN_MEMORY, Settings
from .local_counts import LocalCounts
from .redis_counts import RedisCounts
from .windows import Count, Policy, Span

T = TypeVar("T")

# Seconds for one request's counts, and for a connection. A Redis nearby takes 1 ms.
TIMEOUT = 0.5
# The timeout counts turns of the event loop: with hundreds of requests at once, a turn may take
# longer than the whole timeout, and an answer that is already there is read only in the next one.
TURNS = 20
# Seconds after a failure until one request tries the shared storage again.
RETRY_AFTER = 2.0

Storage = RedisCounts | LocalCounts

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Reservation:
    counts: Sequence[Count]
    cost: int
    storage: Storage

    def violated(self) -> list[Count]:
        return [count for count in self.counts if count.remaining() < 0]

    async def add(self, amount: int) -> None:
        """Change the counts in the windows where they were made, even if these are over."""
        if amount:
            await self.storage.add([count.span for count in self.counts], amount)


class RateLimiter:
    def __init__(self, shared: Storage | None, *, fail_closed: bool) -> None:
        self._shared = shared
        self._local = LocalCounts()
        self._fail_closed = fail_closed
        self.is_up = True
        """False while the shared storage is away, and requests are counted locally or refused."""
        self._next_try = 0.0

    @classmethod
    @asynccontextmanager
    async def open(cls, settings: Settings) -> AsyncIterator[Self]:
        uri = settings.rate_limit_storage_uri.get_secret_value()
        if uri == IN_MEMORY:
            yield cls(None, fail_closed=False)
            return
        async with RedisCounts.open(uri) as counts:
            limiter = cls(counts, fail_closed=settings.rate_limit_fail_closed)
            await limiter.try_storage()
            yield limiter

    async def try_storage(self) -> None:
        """Have the log say at the start, not at the first request, that the storage is away."""
        with suppress(LimitsUnavailable):
            await self._run(lambda storage: storage.add([], 0))

    async def reserve(self, client: str, policies: Sequence[Policy], cost: int) -> Reservation:
        """Add the cost to the client's count in each policy, or to none if it does not fit.

        The addition is one atomic step, in Redis too: many at once cannot exceed the quota.

        Raises:
            LimitsUnavailable: the shared storage is away, and RATE_LIMIT_FAIL_CLOSED is set.
        """

        async def add(storage: Storage) -> Reservation:
            counts = await _count(storage, client, policies, cost)
            reservation = Reservation(counts, cost, storage)
            if reservation.violated():
                await reservation.add(-cost)
                counts = [count._replace(is_refunded=True) for count in counts]
            return Reservation(counts, cost, storage)

        return await self._run(add)

    async def settle(self, reservation: Reservation, spent: int) -> None:
        """Count what was spent instead of what was reserved."""
        addition = reservation.add(spent - reservation.cost)
        if reservation.storage is self._local:
            await addition
            return
        with suppress(RedisError, TimeoutError):  # the reservation then counts
            await _in_time(addition)

    async def _run(self, action: Callable[[Storage], Coroutine[Any, Any, T]]) -> T:
        """Run with the shared storage; while that fails, with the local one."""
        if self._shared is None:
            return await action(self._local)
        if time.monotonic() >= self._next_try:
            if not self.is_up:
                self._next_try = time.monotonic() + RETRY_AFTER  # others do not wait for this one
            try:
                result = await _in_time(action(self._shared))
            except (RedisError, TimeoutError) as error:
                self._fail(error)
            else:
                self._recover()
                return result
        if self._fail_closed:
            raise LimitsUnavailable
        return await action(self._local)

    def _fail(self, error: BaseException) -> None:
        self._next_try = time.monotonic() + RETRY_AFTER
        if self.is_up:
            instead = "refused" if self._fail_closed else "counted by each process for itself"
            logger.error(
                "RATE_LIMIT_STORAGE_URI fails with %s: requests are %s", describe(error), instead
            )
        self.is_up = False

    def _recover(self) -> None:
        if not self.is_up:
            logger.warning("RATE_LIMIT_STORAGE_URI answers again")
        self.is_up = True
        self._next_try = 0.0


async def _in_time(action: Coroutine[Any, Any, T]) -> T:
    task = asyncio.create_task(action)
    try:
        for _ in range(TURNS):
            await asyncio.wait([task], timeout=TIMEOUT / TURNS)
            if task.done():
                return task.result()
        raise TimeoutError(f"no answer within {TIMEOUT} s")
    finally:
        task.cancel()


async def _count(
    storage: Storage, client: str, policies: Sequence[Policy], cost: int
) -> list[Count]:
    now = time.time()
    spans = [_span(client, policy, now) for policy in policies]
    used = await storage.add(spans, cost)
    return [
        Count(policy, span, cost, *use, now % policy.seconds)
        for policy, span, use in zip(policies, spans, used, strict=True)
    ]


def _span(client: str, policy: Policy, now: float) -> Span:
    index = int(now // policy.seconds)
    # Braces: for clusters behind a proxy, which keep keys with the same braces in one slot.
    key, previous_key = (f"{policy.name}:{{{client}}}:{i}" for i in (index, index - 1))
    return Span(key, previous_key, lifetime=2 * policy.seconds)

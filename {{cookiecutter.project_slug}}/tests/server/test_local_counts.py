import asyncio

import pytest

from ..conftest import local_counts, windows


async def add(
    counts: local_counts.LocalCounts, key: str, lifetime: int, amount: int = 1
) -> windows.Used:
    (used,) = await counts.add([windows.Span(key, f"before {key}", lifetime)], amount)
    return used


def test_expired_counts_are_forgotten_once_there_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of clients that come no more would otherwise fill the memory."""
    now = 0.0
    monkeypatch.setattr(local_counts, "now", lambda: now)

    async def count() -> None:
        nonlocal now
        counts = local_counts.LocalCounts()
        assert await add(counts, "long", 100) == (1, 0)
        for client in range(local_counts.FEW - 1):
            await add(counts, f"client {client}", 10)
        assert len(counts) == local_counts.FEW
        now = 11
        assert await add(counts, "late", 10, 5) == (5, 0)
        assert len(counts) == 2
        assert await add(counts, "long", 100) == (2, 0)
        assert await add(counts, "client 1", 10) == (1, 0)

    asyncio.run(count())


def test_what_is_left_is_not_looked_through_each_time() -> None:
    async def count() -> int:
        counts = local_counts.LocalCounts()
        for client in range(3 * local_counts.FEW):
            await add(counts, f"client {client}", 10)
        return len(counts)

    assert asyncio.run(count()) == 3 * local_counts.FEW

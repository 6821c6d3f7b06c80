"""Counts in this process."""

from time import monotonic as now

# Expired counts are looked for when there are so many, and then at twice as many as were left.
FEW = 1_000


class LocalCounts:
    """Like a storage of `limits`.

    Not its MemoryStorage: that starts a task for each count, which looks through all of them. With
    10,000 clients, it takes as long as the rest of a request.
    """

    def __init__(self) -> None:
        self._counts: dict[str, tuple[int, float]] = {}
        self._many = FEW

    def __len__(self) -> int:
        return len(self._counts)

    async def get(self, key: str) -> int:
        return self._counts.get(key, (0, 0.0))[0]

    async def incr(self, key: str, expiry: float, amount: int = 1) -> int:
        count = await self.get(key) + amount
        self._counts[key] = count, now() + expiry
        if len(self._counts) > self._many:
            self._counts = {k: kept for k, kept in self._counts.items() if kept[1] > now()}
            self._many = max(FEW, 2 * len(self._counts))
        return count

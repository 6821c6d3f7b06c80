"""Counts in this process."""

from collections.abc import Sequence
from time import monotonic as now

from .windows import Span, Used

# Expired counts are looked for when there are so many, and then at twice as many as were left.
FEW = 1_000


class LocalCounts:
    """A storage of counts."""

    def __init__(self) -> None:
        self._counts: dict[str, tuple[int, float]] = {}
        self._many = FEW

    def __len__(self) -> int:
        return len(self._counts)

    async def add(self, spans: Sequence[Span], amount: int) -> list[Used]:
        """Add the amount to the count of each span, in one step, and get what is then used."""
        expiries = {span.key: now() + span.lifetime for span in spans}
        self._counts |= {key: (self._of(key) + amount, at) for key, at in expiries.items()}
        if len(self._counts) > self._many:
            self._counts = {k: kept for k, kept in self._counts.items() if kept[1] > now()}
            self._many = max(FEW, 2 * len(self._counts))
        return [Used(self._of(span.key), self._of(span.previous_key)) for span in spans]

    def _of(self, key: str) -> int:
        return self._counts.get(key, (0, 0.0))[0]

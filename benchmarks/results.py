"""What a measurement says, as the load generator prints it and the report reads it."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Self


@dataclass(frozen=True, kw_only=True)
class Result:
    """Times are seconds, memory is MB."""

    clients: int
    seconds: float  # how long was measured
    answers: int  # complete ones, within that time
    failures: dict[str, int]  # by status, or by what went wrong
    waiting: int  # clients without an answer at the end
    p50: float  # latencies of complete answers; those in flight count with their time so far
    p99: float
    refused_p99: float  # latency of the answers with status 503
    chunks: float  # words of streams
    first_p50: float  # from the request to the first chunk
    first_p99: float
    late: float  # the latest chunk of any stream, against when the upstream sends it
    lag: float  # p99 of the event loop's, as a probe saw it
    cpu: float  # of the service and its children
    rss_before: float  # of the same
    rss: float
    peak: float
    generator_cpu: float

    @classmethod
    def from_json(cls, text: str) -> Self:
        return cls(**json.loads(text))

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @property
    def rate(self) -> float:
        return self.answers / self.seconds

    @property
    def chunk_rate(self) -> float:
        return self.chunks / self.seconds

    @property
    def cpu_per_answer(self) -> float:
        return self.cpu / self.answers if self.answers else float("nan")

    @property
    def cpu_per_chunk(self) -> float:
        return self.cpu / self.chunks if self.chunks else float("nan")

    @property
    def failed(self) -> int:
        return sum(self.failures.values())

    def is_bound(self, share: float) -> bool:
        """Whether that percentile is of requests still in flight: it is at least so much."""
        return self.waiting > (1 - share) * (self.answers + self.waiting)


def percentile(values: Sequence[float], share: float) -> float:
    """The nearest rank; not a number if there is none."""
    if not values:
        return float("nan")
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]

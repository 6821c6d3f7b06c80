"""Arithmetic of sliding windows.

A client's count is that of the current window, plus that of the previous one, weighted by how much
of it the last `seconds` still cover.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple


class Policy(NamedTuple):
    unit: str
    """`requests` or `tokens`."""
    quota: int
    seconds: int

    @property
    def name(self) -> str:
        return f"{self.unit}-{self.seconds}s"


class Span(NamedTuple):
    """The current window of a client, in a storage."""

    key: str
    previous_key: str
    """Of the window before."""
    lifetime: int
    """Seconds for which the storage keeps the count after its last change."""


class Used(NamedTuple):
    current: int
    previous: int


class Count(NamedTuple):
    """What a client has used of a policy, the cost of its new request included."""

    policy: Policy
    span: Span
    cost: int
    current: int
    previous: int
    elapsed: float
    """Seconds since the current window began."""
    is_refunded: bool = False
    """Whether the cost was taken back, because it did not fit into this or another window."""

    def remaining(self) -> int:
        """Negative if the cost does not fit."""
        weight = 1 - self.elapsed / self.policy.seconds
        return self.policy.quota - self.current - math.floor(self.previous * weight)

    def reset(self) -> float:
        """Seconds until the current window ends."""
        return self.policy.seconds - self.elapsed

    def wait(self) -> float:
        """Seconds until a cost that does not fit will fit; infinite if it exceeds the quota."""
        quota, seconds = self.policy.quota, self.policy.seconds
        if self.cost > quota:
            return math.inf
        if self.current <= quota:  # then the previous window is too much
            return self.reset() - seconds * (quota - self.current + 1) / self.previous
        # In the next window, the current one is the previous, without this cost.
        others = self.current - self.cost
        return self.reset() + seconds * max(0, 1 - (quota - self.cost + 1) / others)


# The header fields of https://datatracker.ietf.org/doc/draft-ietf-httpapi-ratelimit-headers/11/


def policy_field(policies: Sequence[Policy]) -> str:
    units = {"requests": "", "tokens": ';qu="tokens"'}  # requests are the default unit
    return ", ".join(f'"{p.name}";q={p.quota};w={p.seconds}{units[p.unit]}' for p in policies)


def limit_field(counts: Sequence[Count]) -> str:
    return ", ".join(_limit(count) for count in counts)


def _limit(count: Count) -> str:
    remaining = count.remaining()
    until = count.reset() if remaining >= 0 else count.wait()
    if count.is_refunded:
        remaining += count.cost
    reset = "" if until == math.inf else f";t={math.ceil(until)}"
    return f'"{count.policy.name}";r={max(0, remaining)}{reset}'

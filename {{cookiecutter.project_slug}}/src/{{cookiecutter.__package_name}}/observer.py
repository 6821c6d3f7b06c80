"""How `upstream` reports to `server`, without importing it, what the calls of a request do."""

from collections.abc import Callable, Coroutine
from typing import Any, NamedTuple


class Operation(NamedTuple):
    """What a call is."""

    name: str = "call"
    """`gen_ai.operation.name` of OpenTelemetry's conventions, such as `chat`."""
    model: str = "other"
    """Becomes a label of metrics: one of a few."""
    max_tokens: int | None = None
    """The most that an attempt may cost, input and output. Default: MAX_OUTPUT_TOKENS."""


OTHER = Operation()


class Outcome(NamedTuple):
    """How an attempt ended."""

    operation: Operation
    error_type: str
    """The type of the problem, `cancelled`, or empty."""
    seconds: float
    input_tokens: int
    output_tokens: int
    may_cost_more: bool
    """Whether OpenAI may charge for more than these tokens."""
    upstream_request_id: str | None


class Observer:
    """Its methods may be called in any thread. This one, of calls outside requests, ignores all."""

    reserve: Callable[[Operation], Coroutine[Any, Any, None]] | None = None
    """If tokens are limited: reserves the most that a call may cost, or raises RateLimited."""

    def queued(self, seconds: float) -> None:
        """A call has waited for a slot."""

    def retrying(self, error_type: str, seconds: float) -> None:
        """Another attempt follows after a wait."""

    def begun(self, operation: Operation, seconds: float) -> None:
        """The first event of a stream has arrived."""

    def ended(self, outcome: Outcome) -> None:
        """An attempt has ended, a stream with it."""

"""What is known of the current request, for its log line, metrics and limits."""

from collections.abc import Callable, Coroutine
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from ..observer import Observer, Operation, Outcome
from .metrics import Metrics

ANONYMOUS = "anonymous"


@dataclass
class RequestRecord(Observer):
    """The observer of the request's calls of OpenAI."""

    id: str
    route: str
    """The template of its path, such as `/items/{id}`."""
    is_public: bool
    """Whether the route needs no key and has no limits."""
    metrics: Metrics
    headers: dict[str, str] = field(default_factory=dict)
    """Of its response, whichever part of the application sends it."""
    client_id: str = ANONYMOUS
    """The id of the client's key."""
    problem: str | None = None
    """The type of its failure."""
    attempts: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    upstream_request_id: str | None = None
    reserve: Callable[[Operation], Coroutine[Any, Any, None]] | None = None
    max_output_tokens: int = 0
    spent_tokens: int = 0
    """Input and output; an attempt whose usage is not known counts as the most that it may cost."""

    def most_tokens(self, operation: Operation) -> int:
        tokens = operation.max_tokens
        return self.max_output_tokens if tokens is None else tokens

    def queued(self, seconds: float) -> None:
        self.metrics.queue_wait.observe(seconds)

    def retrying(self, error_type: str, seconds: float) -> None:
        self.metrics.retry_wait.labels(error_type).observe(seconds)

    def begun(self, operation: Operation, seconds: float) -> None:
        name, model, _ = operation
        self.metrics.time_to_first_chunk.labels(name, model).observe(seconds)

    def ended(self, outcome: Outcome) -> None:
        tokens = outcome.input_tokens + outcome.output_tokens
        if outcome.may_cost_more:
            tokens = max(tokens, self.most_tokens(outcome.operation))
        self.spent_tokens += tokens
        self.attempts += 1
        self.input_tokens += outcome.input_tokens
        self.output_tokens += outcome.output_tokens
        self.upstream_request_id = outcome.upstream_request_id
        name, model, _ = outcome.operation
        duration = self.metrics.attempt_duration.labels(name, model, outcome.error_type)
        duration.observe(outcome.seconds)
        self.metrics.tokens.labels("input", model, self.client_id).inc(outcome.input_tokens)
        self.metrics.tokens.labels("output", model, self.client_id).inc(outcome.output_tokens)


# A context variable: log records of libraries get the request's id too.
current: ContextVar[RequestRecord] = ContextVar("current_request")

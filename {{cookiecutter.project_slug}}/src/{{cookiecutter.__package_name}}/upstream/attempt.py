"""One attempt to call OpenAI, as traces, metrics, logs and token limits see it."""

import logging
import time
from contextvars import ContextVar
from functools import cache
from typing import Self

import httpx2
import openai
from opentelemetry import propagate, trace

from ..errors import DeadlineExceeded, InternalError, ServiceError
from ..observer import Operation, Outcome
from ..settings import Settings
from .deadline import Deadline
from .error_mapping import REQUEST_ID
from .lifetime import Lifetime

CANCELLED = "cancelled"  # by a client disconnect, a shutdown or the endpoint
NOT_SENT = (httpx2.ConnectError, httpx2.ConnectTimeout)

logger = logging.getLogger(__name__)
tracer = trace.get_tracer(__name__)  # of the provider that is configured later, if any


class Attempt:
    """Context manager for sending a request. A stream's attempt lasts until `end`."""

    def __init__(
        self,
        operation: Operation,
        settings: Settings,
        deadline: Deadline,
        lifetime: Lifetime,
    ) -> None:
        self._operation = operation
        self._log_prompts = settings.log_prompts
        self._deadline = deadline
        self._is_cancelled = lifetime.is_cancelled
        self._observer = lifetime.observer
        self._started = time.perf_counter()
        self._has_begun = False
        self._has_ended = False
        # By the id of the reply; None where a reply has none.
        self._usage: dict[str | None, tuple[int, int] | None] = {}
        self._request_id: str | None = None
        self._results: list[object] = []
        self._span = tracer.start_span(
            f"{operation.name} {operation.model}",
            kind=trace.SpanKind.CLIENT,
            attributes={
                "gen_ai.operation.name": operation.name,
                "gen_ai.provider.name": "openai",
                "gen_ai.request.model": operation.model,
            },
        )
        self._current_span = trace.use_span(
            self._span, record_exception=False, set_status_on_exception=False
        )

    def __enter__(self) -> Self:
        current_attempt.set(self)
        self._current_span.__enter__()
        return self

    def __exit__(self, _type: object, error: BaseException | None, _traceback: object) -> None:
        self._current_span.__exit__(None, None, None)
        if error:
            self.end(error)

    def sending(self, request: httpx2.Request) -> None:
        propagate.inject(request.headers)
        if self._log_prompts:
            logger.info("Prompt", extra={"prompt": request.read().decode()})

    def received(self, response: httpx2.Response) -> None:
        request_id = response.headers.get("x-request-id", "")
        self._request_id = request_id if REQUEST_ID.fullmatch(request_id) else None

    def begin(self) -> None:
        """The first event of a stream has arrived."""
        self._has_begun = True
        self._observer.begun(self._operation, time.perf_counter() - self._started)

    def add(self, result: object) -> None:
        """A whole result, or an event of a stream."""
        if self._log_prompts:
            self._results.append(result)
        if path := _path_to_reply(type(result)):  # type: ignore[arg-type] # classes have a hash
            reply = result if path == "." else getattr(result, path)
            # By its id: some servers send the usage so far with each chunk.
            self._usage[getattr(reply, "id", None)] = _tokens(getattr(reply, "usage", None))

    def end(self, error: BaseException | None = None) -> None:
        """Only the first call counts. `error`: of the attempt, or why a stream was closed."""
        if self._has_ended:
            return
        self._has_ended = True
        # A copy: the thread of a stream that is closed may still add to it.
        usage = [tokens for tokens in list(self._usage.values()) if tokens]
        outcome = Outcome(
            self._operation,
            self._error_type(error),
            time.perf_counter() - self._started,
            input_tokens=sum(tokens[0] for tokens in usage),
            output_tokens=sum(tokens[1] for tokens in usage),
            may_cost_more=self._may_cost_more(error),
            upstream_request_id=self._request_id,
        )
        self._observer.ended(outcome)
        if self._results:
            logger.info("Reply", extra={"reply": " ".join(map(str, self._results))})
        self._span.set_attribute("gen_ai.usage.input_tokens", outcome.input_tokens)
        self._span.set_attribute("gen_ai.usage.output_tokens", outcome.output_tokens)
        if outcome.error_type:
            self._span.set_attribute("error.type", outcome.error_type)
            self._span.set_status(trace.StatusCode.ERROR)
        self._span.end()

    def _may_cost_more(self, error: BaseException | None) -> bool:
        if error is None:  # results without a field for usage, such as lists of files, are free
            return bool(self._usage) and not all(self._usage.values())
        cause = error.__cause__
        was_refused = isinstance(cause, openai.APIStatusError)
        was_sent = not isinstance(cause and cause.__cause__, NOT_SENT)
        return self._has_begun or (was_sent and not was_refused)

    def _error_type(self, error: BaseException | None) -> str:
        if error is None:
            return ""
        # First what aborted the attempt: the error may be only its consequence.
        if self._is_cancelled():
            return CANCELLED
        if self._deadline.has_passed() and not self._has_begun:
            return DeadlineExceeded.type
        if isinstance(error, Exception):
            return error.type if isinstance(error, ServiceError) else InternalError.type
        return CANCELLED


# A context variable: the SDK, between `OpenAIService` and the HTTP client, passes on no arguments.
current_attempt: ContextVar[Attempt | None] = ContextVar("current_attempt", default=None)


@cache
def _path_to_reply(cls: type) -> str | None:
    """Where results of this class have the object with `usage`; None if nowhere."""
    fields = getattr(cls, "model_fields", {})
    if "usage" in fields:
        return "."
    return next((name for name in ("response", "chunk") if name in fields), None)


def _tokens(usage: object) -> tuple[int, int] | None:
    """Input and output tokens. Chat completions and embeddings name them in another way."""
    if usage is None:
        return None
    return (
        _count(usage, "input_tokens", "prompt_tokens"),
        _count(usage, "output_tokens", "completion_tokens"),
    )


def _count(usage: object, *names: str) -> int:
    counts = (getattr(usage, name, None) for name in names)  # lazily: what pydantic lacks is slow
    return next((count for count in counts if isinstance(count, int) and count > 0), 0)

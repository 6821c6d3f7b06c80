"""One attempt to call OpenAI, as traces, metrics, logs and token limits see it."""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from typing import Self

import httpx2
import openai
from opentelemetry import propagate, trace

from ..errors import ServiceError
from ..observer import Observer, Operation, Outcome, Spending
from ..settings import Settings
from .deadline import Deadline
from .error_mapping import REQUEST_ID

logger = logging.getLogger(__name__)
tracer = trace.get_tracer(__name__)  # of the provider that is configured later, if any


class Attempt:
    """Context manager for sending a request. A stream's attempt lasts until `end`."""

    def __init__(
        self,
        operation: Operation,
        settings: Settings,
        deadline: Deadline,
        observer: Observer | None,
        spending: Spending | None,
    ) -> None:
        self._operation = operation
        self._log_prompts = settings.log_prompts
        self._deadline = deadline
        self._observer = observer
        self._spending = spending
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
        if self._observer:
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
        usage = [tokens for tokens in self._usage.values() if tokens]
        input_tokens, output_tokens = (sum(tokens) for tokens in zip((0, 0), *usage, strict=True))
        if self._spending:
            spent = input_tokens + output_tokens
            if self._may_cost_more(error):
                spent = max(spent, self._spending.reserved)
            self._spending.spent += spent
        if self._log_prompts and self._results:
            logger.info("Reply", extra={"reply": " ".join(map(str, self._results))})
        error_type = self._error_type(error) if error else ""
        self._span.set_attributes(
            {
                "gen_ai.usage.input_tokens": input_tokens,
                "gen_ai.usage.output_tokens": output_tokens,
            }
        )
        if error_type:
            self._span.set_attribute("error.type", error_type)
            self._span.set_status(trace.StatusCode.ERROR)
        self._span.end()
        if self._observer:
            seconds = time.perf_counter() - self._started
            self._observer.ended(
                Outcome(
                    self._operation,
                    error_type,
                    seconds,
                    input_tokens,
                    output_tokens,
                    self._request_id,
                )
            )

    def _may_cost_more(self, error: BaseException | None) -> bool:
        """Whether OpenAI may charge for more than the usage that it reported."""
        if error is None:  # results without a field for usage, such as lists of files, are free
            return bool(self._usage) and not all(self._usage.values())
        cause = error.__cause__
        was_refused = isinstance(cause, openai.APIStatusError)
        was_sent = not isinstance(cause and cause.__cause__, httpx2.ConnectError)
        return self._has_begun or (was_sent and not was_refused)

    def _error_type(self, error: BaseException) -> str:
        if isinstance(error, ServiceError):
            return error.type
        if isinstance(error, Exception):
            return "internal-error"
        is_late = self._deadline.has_passed() and not self._has_begun
        return "deadline-exceeded" if is_late else "cancelled"


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
        _count(usage, "input_tokens") or _count(usage, "prompt_tokens"),
        _count(usage, "output_tokens") or _count(usage, "completion_tokens"),
    )


def _count(usage: object, name: str) -> int:
    count = getattr(usage, name, None)
    return count if isinstance(count, int) and count > 0 else 0


@contextmanager
def queueing(observer: Observer | None) -> Iterator[None]:
    """Report how long the block waits for a slot."""
    started = time.perf_counter()
    try:
        yield
    finally:
        if observer:
            observer.queued(time.perf_counter() - started)


async def reserve(
    operation: Operation, settings: Settings, observer: Observer | None
) -> Spending | None:
    """Reserve tokens for a call, if they are limited."""
    if observer is None or observer.reserve is None:
        return None
    tokens = operation.max_tokens
    return await observer.reserve(settings.max_output_tokens or 0 if tokens is None else tokens)

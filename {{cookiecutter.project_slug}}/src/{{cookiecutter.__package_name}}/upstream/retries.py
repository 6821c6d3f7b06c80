"""The one retry layer: what is retried, after how long, and when to give up.

The SDK's own retries are off: two layers would multiply, to 4 x 3 attempts by default.
"""

import logging
from typing import Any

from tenacity import RetryCallState, retry_if_exception, wait_random_exponential

from ..errors import UpstreamError, describe
from ..observer import Observer
from ..settings import Settings
from .deadline import Deadline

logger = logging.getLogger(__name__)

# Full jitter, in seconds: up to 0.5, 1, 2, 4, 8, 8 ...; the SDK's base and ceiling.
# https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
backoff = wait_random_exponential(multiplier=0.5, max=8)


def _is_retryable(error: BaseException) -> bool:
    return isinstance(error, UpstreamError) and error.is_retryable


def policy(settings: Settings, deadline: Deadline, observer: Observer) -> dict[str, Any]:
    """Arguments of tenacity's `Retrying` and `AsyncRetrying` for one call."""

    def stop(state: RetryCallState) -> bool:
        # A wait that would outlast the deadline is not begun.
        is_last = state.attempt_number >= settings.max_attempts
        return is_last or state.upcoming_sleep >= deadline.remaining()

    def before_sleep(state: RetryCallState) -> None:
        _log(state)
        observer.retrying(_error(state).type, state.upcoming_sleep)

    return {
        "retry": retry_if_exception(_is_retryable),
        "wait": _wait,
        "stop": stop,
        "before_sleep": before_sleep,
        "reraise": True,
    }


def _error(state: RetryCallState) -> UpstreamError:
    error = state.outcome.exception() if state.outcome else None
    assert isinstance(error, UpstreamError)  # noqa: S101 - no other failure is retried
    return error


def _wait(state: RetryCallState) -> float:
    """What OpenAI asks for; else backoff."""
    return _error(state).retry_after or backoff(state)


def _log(state: RetryCallState) -> None:
    error = _error(state)
    logger.info(
        "attempt %d failed with %s, the next in %.1f s",
        state.attempt_number,
        describe(error),
        state.upcoming_sleep,
        extra={
            "upstream_status": getattr(error.__cause__, "status_code", None),
            "upstream_request_id": error.upstream_request_id,
        },
    )

"""The one retry layer: what is tried again, after how long, and when to give up.

The SDK's own retries are off: two layers would multiply, to 4 x 3 attempts by default.
"""

import logging
from http import HTTPStatus
from typing import Any

import openai
from tenacity import RetryCallState, retry_if_exception, stop_after_attempt, wait_random_exponential
from tenacity.stop import stop_base

from .. import errors
from ..errors import describe
from ..settings import Settings
from .deadline import Deadline
from .error_mapping import retry_after, translate

logger = logging.getLogger(__name__)

RETRIED_ERRORS = (
    errors.UpstreamUnreachable,
    errors.UpstreamTimeout,
    errors.UpstreamRateLimited,
    errors.BrokenReply,
)

# Full jitter, in seconds: up to 0.5, 1, 2, 4, 8, 8 ...; the SDK's base and ceiling.
# https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
backoff = wait_random_exponential(multiplier=0.5, max=8)


def is_retried(error: BaseException) -> bool:
    """The SDK's rules (https://github.com/openai/openai-python#retries), but never for a quota."""
    ours = translate(error)
    if isinstance(ours, errors.UpstreamQuotaExhausted):
        return False
    if isinstance(error, openai.APIStatusError):
        asked = error.response.headers.get("x-should-retry")
        if asked in ("true", "false"):
            return asked == "true"
    if isinstance(error, openai.APIError) and type(ours) is errors.UpstreamError:
        # An error inside a stream of the SDK has no status: it is treated as a 5xx.
        status = getattr(error, "status_code", HTTPStatus.INTERNAL_SERVER_ERROR)
        return status == HTTPStatus.CONFLICT or status >= HTTPStatus.INTERNAL_SERVER_ERROR
    return isinstance(ours, RETRIED_ERRORS)


class stop_before_deadline(stop_base):  # noqa: N801 - named as tenacity names its own
    """Give up rather than begin a wait that would outlast the deadline."""

    def __init__(self, deadline: Deadline) -> None:
        self.deadline = deadline

    def __call__(self, retry_state: RetryCallState) -> bool:
        return retry_state.upcoming_sleep >= self.deadline.remaining()


def policy(settings: Settings, deadline: Deadline) -> dict[str, Any]:
    """Arguments of tenacity's `Retrying` and `AsyncRetrying` for one call."""

    def wait(state: RetryCallState) -> float:
        asked = retry_after(_error(state))
        return backoff(state) if asked is None else asked

    return {
        "retry": retry_if_exception(is_retried),
        "wait": wait,
        "stop": stop_after_attempt(settings.max_attempts) | stop_before_deadline(deadline),
        "before_sleep": _log,
        "reraise": True,
    }


def _error(state: RetryCallState) -> BaseException:
    error = state.outcome.exception() if state.outcome else None
    assert error is not None  # noqa: S101 - tenacity asks for a wait only after a failure
    return error


def _log(state: RetryCallState) -> None:
    error = _error(state)
    logger.info(
        "attempt %d failed with %s, the next in %.1f s",
        state.attempt_number,
        describe(error),
        state.upcoming_sleep,
        extra={
            "upstream_status": getattr(error, "status_code", None),
            "upstream_request_id": getattr(error, "request_id", None),
        },
    )

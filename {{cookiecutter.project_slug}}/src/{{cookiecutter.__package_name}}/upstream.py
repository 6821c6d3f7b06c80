"""OpenAI's failures told apart, by what they are rather than by what they say.

https://platform.openai.com/docs/guides/error-codes has the codes.
"""

import math
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from json import JSONDecodeError

import httpx2
import openai
from pydantic import ValidationError

from . import errors

# A code or a type says more than the status, and inside a stream there is no status.
BY_CODE: dict[str, type[errors.UpstreamError]] = {
    "insufficient_quota": errors.UpstreamQuotaExhausted,
    "credit_balance_exhausted": errors.UpstreamQuotaExhausted,
    "organization_spend_limit_exceeded": errors.UpstreamQuotaExhausted,
    "organization_usage_limit_exceeded": errors.UpstreamQuotaExhausted,
    "project_spend_limit_exceeded": errors.UpstreamQuotaExhausted,
    "rate_limit_exceeded": errors.UpstreamRateLimited,
    "context_length_exceeded": errors.ContextLengthExceeded,
    "content_filter": errors.ContentFiltered,
    "content_policy_violation": errors.ContentFiltered,
    "model_not_found": errors.UpstreamModelUnavailable,
    "invalid_api_key": errors.UpstreamCredentials,
}

BY_STATUS: dict[int, type[errors.UpstreamError]] = {
    400: errors.UpstreamRejectedInput,
    401: errors.UpstreamCredentials,
    403: errors.UpstreamCredentials,
    404: errors.UpstreamModelUnavailable,
    408: errors.UpstreamTimeout,
    413: errors.UpstreamRejectedInput,
    422: errors.UpstreamRejectedInput,
    429: errors.UpstreamRateLimited,
}

BY_CLASS: dict[type[BaseException], type[errors.UpstreamError]] = {
    openai.APITimeoutError: errors.UpstreamTimeout,
    openai.APIConnectionError: errors.UpstreamUnreachable,
    openai.LengthFinishReasonError: errors.ContextLengthExceeded,
    openai.ContentFilterFinishReasonError: errors.ContentFiltered,
    openai.OpenAIError: errors.UpstreamError,
    # The SDK lets these through: of httpx2 where it reads the body of an error, the others
    # where a body is no JSON, no UTF-8, or not of the schema that was asked for.
    httpx2.TimeoutException: errors.UpstreamTimeout,
    httpx2.RequestError: errors.UpstreamUnreachable,
    JSONDecodeError: errors.BrokenReply,
    UnicodeError: errors.BrokenReply,
    RecursionError: errors.BrokenReply,
    ValidationError: errors.BrokenReply,
}

# OpenAI's and Azure's; anything else in that header stays here.
_REQUEST_ID = re.compile(r"req_\w{1,64}|[0-9a-f-]{32,36}")

# RPD limits ask for hours. What asks for more than a day is a mistake.
LONGEST_RETRY_AFTER = 86_400.0


def translate(error: BaseException) -> errors.ServiceError | None:
    """Our error for one of the SDK's; None for what has nothing to do with OpenAI."""
    if isinstance(error, errors.ServiceError):
        return error
    by_class = next((BY_CLASS[c] for c in type(error).__mro__ if c in BY_CLASS), None)
    if by_class is None:
        return None
    # As text, for an error body may have anything there.
    cls = (
        BY_CODE.get(str(getattr(error, "code", None)))
        or BY_CODE.get(str(getattr(error, "type", None)))
        or BY_STATUS.get(getattr(error, "status_code", 0))
        or by_class
    )
    ours = cls()
    if isinstance(error, openai.APIStatusError):
        if _REQUEST_ID.fullmatch(error.request_id or ""):
            ours.upstream_request_id = error.request_id
        if cls is errors.UpstreamRateLimited:
            ours.retry_after = retry_after(error)
    return ours


@contextmanager
def translated() -> Iterator[None]:
    """Inside, the SDK's exceptions become ours."""
    try:
        yield
    except Exception as error:
        ours = translate(error)
        if ours is None or ours is error:
            raise
        raise ours from error


def retry_after(error: BaseException) -> float | None:
    """Seconds that OpenAI asks us to wait; None if it does not, or not in earnest.

    The first of `retry-after-ms` and `retry-after` (seconds, or a date) that makes sense counts.
    """
    if not isinstance(error, openai.APIStatusError):
        return None
    headers = error.response.headers
    for seconds in (
        _number(headers.get("retry-after-ms")) / 1000,
        _number(headers.get("retry-after")),
        _seconds_until(headers.get("retry-after")),
    ):
        if math.isfinite(seconds) and seconds > 0:
            return min(seconds, LONGEST_RETRY_AFTER)
    return None


def _number(text: str | None) -> float:
    try:
        return float(text or "")
    except ValueError:
        return math.nan


def _seconds_until(date: str | None) -> float:
    try:
        return parsedate_to_datetime(date or "").timestamp() - time.time()
    except (ValueError, OverflowError):
        return math.nan

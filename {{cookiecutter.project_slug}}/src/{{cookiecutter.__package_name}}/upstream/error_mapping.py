"""Maps the SDK's exceptions to ours: by code, else status, else class; some 400s and 422s by text.

Codes: https://platform.openai.com/docs/guides/error-codes
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from json import JSONDecodeError

import httpx2
import openai
from pydantic import ValidationError

from .. import errors
from .error_bodies import named_codes, named_status
from .retry_after import retry_after

# Regular expressions for error codes and types, which are more specific than the status. They cover
# OpenAI, Azure and compatible servers. The first match wins.
BY_CODE: dict[str, type[errors.UpstreamError]] = {
    r"402|arrearage|payment_required|\w*(balance|billing|credits|funds|quota)\w*"
    r"|(budget|\w*(spend|usage)_limit)_(exceeded|reached)": errors.UpstreamQuotaExhausted,
    r"rate_limit_exceeded": errors.UpstreamRateLimited,
    r"context_length_exceeded": errors.ContextLengthExceeded,
    r"content_filter|content_policy_violation": errors.ContentFiltered,
    r"model_not_found|deploymentnotfound|invalid_model": errors.UpstreamModelUnavailable,
    r"invalid_api_key": errors.UpstreamCredentials,
}

BY_STATUS: dict[int, type[errors.UpstreamError]] = {
    400: errors.UpstreamRejectedInput,
    401: errors.UpstreamCredentials,
    402: errors.UpstreamQuotaExhausted,
    403: errors.UpstreamCredentials,
    404: errors.UpstreamModelUnavailable,
    408: errors.UpstreamTimeout,
    413: errors.UpstreamRejectedInput,
    422: errors.UpstreamRejectedInput,
    429: errors.UpstreamRateLimited,
}

# Key, model and parameter names are the operator's choice, not the client's. Some servers reject
# them with a 400 or 422 without a code: only the error text tells it from a bad request.
_WRONG = r"(incorrect|invalid|missing|expired|revoked|wrong|not (valid|found))"
_KEY = r"api[ _]?key"
OPERATORS_CHOICE: dict[str, type[errors.UpstreamError]] = {
    r"credit balance|insufficient (balance|credit)": errors.UpstreamQuotaExhausted,
    _WRONG + ".{0,20}" + _KEY + "|" + _KEY + ".{0,20}" + _WRONG: errors.UpstreamCredentials,
    r"'param': 'model'"
    r"|(valid|unknown|unavailable|no)[ _]models?\b"
    r"|model\b.{0,100}\b(not exist|not found|decommissioned)": errors.UpstreamModelUnavailable,
    r"stream_options"
    r"|(unsupported|unknown|unrecognized).{0,100}\bmax_(completion_)?tokens\b"
    r"|\bmax_(completion_)?tokens\b.{0,100}not (supported|permitted|allowed)": errors.UpstreamError,
}
LONGEST_REFUSAL = 2000  # characters of the error text that are searched

BY_CLASS: dict[type[BaseException], type[errors.UpstreamError]] = {
    openai.APITimeoutError: errors.UpstreamTimeout,
    openai.APIConnectionError: errors.UpstreamUnreachable,
    openai.LengthFinishReasonError: errors.ContextLengthExceeded,
    openai.ContentFilterFinishReasonError: errors.ContentFiltered,
    openai.APIResponseValidationError: errors.BrokenReply,
    openai.OpenAIError: errors.UpstreamError,
    # The SDK does not wrap these. httpx2's: raised while it reads the body of an error. The others:
    # the body is not JSON, not UTF-8, or does not match the requested schema.
    httpx2.TimeoutException: errors.UpstreamTimeout,
    httpx2.RequestError: errors.UpstreamUnreachable,
    JSONDecodeError: errors.BrokenReply,
    UnicodeError: errors.BrokenReply,
    RecursionError: errors.BrokenReply,
    ValidationError: errors.BrokenReply,
}

# Request ids of OpenAI and Azure. Clients are shown the header only if it has one of these forms.
_REQUEST_ID = re.compile(r"req_\w{1,64}|[0-9a-f-]{32,36}")


def translate(error: BaseException) -> errors.ServiceError | None:
    """Our exception for one of the SDK's; None if `error` does not come from a call of OpenAI."""
    if isinstance(error, errors.ServiceError):
        return error
    by_class = next((BY_CLASS[c] for c in type(error).__mro__ if c in BY_CLASS), None)
    if by_class is None:
        return None
    status = _status(error)
    cls = by_code(error) or BY_STATUS.get(status) or by_class
    if cls is errors.UpstreamRejectedInput and status != HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
        cls = _rejection_class(error)
    ours = cls()
    if cls is errors.UpstreamError:
        ours.is_retryable = (
            status == HTTPStatus.CONFLICT or status >= HTTPStatus.INTERNAL_SERVER_ERROR
        )
    if isinstance(error, openai.APIStatusError):
        should_retry = error.response.headers.get("x-should-retry")
        if should_retry in ("true", "false") and cls is not errors.UpstreamQuotaExhausted:
            ours.is_retryable = should_retry == "true"
        if _REQUEST_ID.fullmatch(error.request_id or ""):
            ours.upstream_request_id = error.request_id
        if cls is errors.UpstreamRateLimited:
            ours.retry_after = retry_after(error)
    return ours


def _status(error: BaseException) -> int:
    """The HTTP status; 0 if there was no response."""
    if type(error) is openai.APIError:  # an error event in one of the SDK's streams
        return named_status(error.body)
    return getattr(error, "status_code", 0)


def by_code(error: BaseException) -> type[errors.UpstreamError] | None:
    """The class for its code or type, whatever its status; None if neither is known."""
    codes = named_codes(getattr(error, "body", None))
    matches = (
        cls
        for pattern, cls in BY_CODE.items()
        for code in codes
        if re.fullmatch(pattern, code, re.IGNORECASE)
    )
    return next(matches, None)


def _rejection_class(error: BaseException) -> type[errors.UpstreamError]:
    """Tell a rejection of the client's input from one of what the operator configured."""
    if isinstance(error, openai.APIStatusError):
        try:
            error.response.json()
        except (ValueError, RecursionError):
            return errors.UpstreamError  # not JSON: OPENAI_BASE_URL does not lead to an API
    refusal = str(getattr(error, "body", ""))[:LONGEST_REFUSAL]
    for pattern, cls in OPERATORS_CHOICE.items():
        if re.search(pattern, refusal, re.IGNORECASE | re.DOTALL):
            return cls
    return errors.UpstreamRejectedInput


@contextmanager
def translated() -> Iterator[None]:
    """Convert the SDK's exceptions to ours."""
    try:
        yield
    except Exception as error:
        ours = translate(error)
        if ours is None or ours is error:
            raise
        raise ours from error

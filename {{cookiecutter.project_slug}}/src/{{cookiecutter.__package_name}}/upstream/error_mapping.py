"""Maps the SDK's exceptions to ours: by code, else status, else class; some 400s and 422s by text.

Codes: https://platform.openai.com/docs/guides/error-codes
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from json import JSONDecodeError

import httpx2
import openai
from pydantic import ValidationError

from .. import errors
from .error_bodies import named_status
from .retry_after import retry_after

# Regular expressions for error codes and types, which are more specific than the status. They cover
# OpenAI, Azure and compatible servers. The first match wins.
BY_CODE: dict[str, type[errors.UpstreamError]] = {
    r"402|arrearage|payment_required|\w*(balance|billing|credits|funds|quota)\w*"
    r"|(budget|\w*(spend|usage)_limit)_(exceeded|reached)": errors.UpstreamQuotaExhausted,
    r"rate_limit_(exceeded|error)": errors.UpstreamRateLimited,
    r"context_length_exceeded": errors.ContextLengthExceeded,
    r"content_filter|content_policy_violation": errors.ContentFiltered,
    r"model_not_found|deploymentnotfound|invalid_model": errors.UpstreamModelUnavailable,
    r"invalid_api_key|authentication_error|permission_error": errors.UpstreamCredentials,
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
    ValidationError: errors.BrokenReply,
}


# Request ids of OpenAI and Azure. Clients see the id: a value of another form might be a secret.
REQUEST_ID = re.compile(r"req_\w{1,64}|[0-9a-f-]{32,36}")


def translate(error: BaseException) -> errors.UpstreamError | None:
    """Our exception for one of the SDK's; None if `error` is none of those."""
    by_class = next((BY_CLASS[c] for c in type(error).__mro__ if c in BY_CLASS), None)
    if by_class is None:
        return None
    status = getattr(error, "status_code", 0)
    if type(error) is openai.APIError:  # an error event in one of the SDK's streams
        status = named_status(error.code, error.type)
    cls = by_code(error) or BY_STATUS.get(status) or by_class
    if cls is errors.UpstreamRejectedInput and status != 413:
        cls = _rejection_class(error)
    ours = cls()
    if cls is errors.UpstreamError:
        ours.is_retryable = status == 409 or status >= 500
    if isinstance(error, openai.APIStatusError):
        headers = error.response.headers
        if "x-should-retry" in headers and cls is not errors.UpstreamQuotaExhausted:
            ours.is_retryable = headers["x-should-retry"] == "true"
        if ours.is_retryable:
            ours.retry_after = retry_after(headers)
        if REQUEST_ID.fullmatch(error.request_id or ""):
            ours.upstream_request_id = error.request_id
    return ours


def by_code(error: BaseException | None) -> type[errors.UpstreamError] | None:
    """The class for its code or type, whatever its status; None if neither is known."""
    codes = [str(getattr(error, name, None)) for name in ("code", "type")]
    for pattern, cls in BY_CODE.items():
        if any(re.fullmatch(pattern, code, re.IGNORECASE) for code in codes):
            return cls
    return None


def _rejection_class(error: BaseException) -> type[errors.UpstreamError]:
    """Tell a rejection of the client's input from one of what the operator configured."""
    if isinstance(error, openai.APIStatusError) and is_page(error.response):
        return errors.UpstreamError  # OPENAI_BASE_URL does not lead to an API
    refusal = str(getattr(error, "body", ""))[:LONGEST_REFUSAL]
    for pattern, cls in OPERATORS_CHOICE.items():
        if re.search(pattern, refusal, re.IGNORECASE | re.DOTALL):
            return cls
    return errors.UpstreamRejectedInput


def is_page(response: httpx2.Response) -> bool:
    """Whether the body is not JSON."""
    return not response.text.lstrip().startswith(("{", "["))


@contextmanager
def translated() -> Iterator[None]:
    """Convert the SDK's exceptions to ours."""
    try:
        yield
    except Exception as error:
        if ours := translate(error):
            raise ours from error
        raise

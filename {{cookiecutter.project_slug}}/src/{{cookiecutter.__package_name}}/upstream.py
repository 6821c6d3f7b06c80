"""OpenAI's failures told apart, by what they are rather than by what they say.

https://platform.openai.com/docs/guides/error-codes has the codes.
"""

import json
import math
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from json import JSONDecodeError
from typing import Any

import httpx2
import openai
from pydantic import ValidationError
from pydantic_core import from_json

from . import errors

# Codes and types that say that money is missing, whatever the status: of OpenAI, and of the
# servers that speak its protocol.
QUOTA_CODES = frozenset(
    {
        "402",
        "arrearage",
        "billing_error",
        "billing_hard_limit_reached",
        "billing_not_active",
        "budget_exceeded",
        "credit_balance_exhausted",
        "exceeded_current_quota_error",
        "insufficient_balance",
        "insufficient_credits",
        "insufficient_funds",
        "insufficient_quota",
        "organization_spend_limit_exceeded",
        "organization_usage_limit_exceeded",
        "payment_required",
        "project_spend_limit_exceeded",
    }
)

# A code or a type says more than the status.
BY_CODE: dict[str, type[errors.UpstreamError]] = {
    "rate_limit_exceeded": errors.UpstreamRateLimited,
    "context_length_exceeded": errors.ContextLengthExceeded,
    "content_filter": errors.ContentFiltered,
    "content_policy_violation": errors.ContentFiltered,
    "model_not_found": errors.UpstreamModelUnavailable,
    "deploymentnotfound": errors.UpstreamModelUnavailable,  # Azure's
    "invalid_model": errors.UpstreamModelUnavailable,  # Mistral's
    "invalid_api_key": errors.UpstreamCredentials,
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

# The operator chooses the key, the model and the names of parameters. Some servers refuse them with
# a bare 400 or 422: only the words tell that from a refusal of what the client sent.
WRONG = r"(incorrect|invalid|missing|expired|revoked|wrong|not (valid|found))"
OPERATORS_CHOICE: dict[str, type[errors.UpstreamError]] = {
    r"credit balance|insufficient (balance|credit)": errors.UpstreamQuotaExhausted,
    rf"{WRONG}.{{0,20}}api[ _]?key|api[ _]?key.{{0,20}}{WRONG}": errors.UpstreamCredentials,
    r"'param': 'model'"
    r"|(valid|unknown|unavailable|no)[ _]models?\b"
    r"|model\b.{0,100}\b(not exist|not found|decommissioned)": errors.UpstreamModelUnavailable,
    r"stream_options"
    r"|(unsupported|unknown|unrecognized).{0,100}\bmax_(completion_)?tokens\b"
    r"|\bmax_(completion_)?tokens\b.{0,100}not (supported|permitted|allowed)": errors.UpstreamError,
}
LONGEST_REFUSAL = 2000  # characters that are searched for these words

# For an error that came under status 200 and says no more than its type: OpenAI's and Anthropic's.
# https://docs.anthropic.com/en/api/errors
STATUS_BY_TYPE = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
}

# Of an `error` that says that there is none.
NO_ERROR_CODES = ("0", "200")

BY_CLASS: dict[type[BaseException], type[errors.UpstreamError]] = {
    openai.APITimeoutError: errors.UpstreamTimeout,
    openai.APIConnectionError: errors.UpstreamUnreachable,
    openai.LengthFinishReasonError: errors.ContextLengthExceeded,
    openai.ContentFilterFinishReasonError: errors.ContentFiltered,
    openai.APIResponseValidationError: errors.BrokenReply,
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

# OpenAI's form of a duration: 6m0s, 1h2m3.5s, 20ms.
UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
_DURATION = r"([0-9]+(?:\.[0-9]+)?)(h|ms|m|s)"

# RPD limits ask for hours. What asks for more than a day is a mistake.
LONGEST_RETRY_AFTER = 86_400.0


def translate(error: BaseException) -> errors.ServiceError | None:
    """Our error for one of the SDK's; None for what has nothing to do with OpenAI."""
    if isinstance(error, errors.ServiceError):
        return error
    by_class = next((BY_CLASS[c] for c in type(error).__mro__ if c in BY_CLASS), None)
    if by_class is None:
        return None
    cls = by_code(error) or BY_STATUS.get(getattr(error, "status_code", 0)) or by_class
    if cls is errors.UpstreamRejectedInput:
        cls = _whose_fault(error)
    ours = cls()
    if isinstance(error, openai.APIStatusError):
        if _REQUEST_ID.fullmatch(error.request_id or ""):
            ours.upstream_request_id = error.request_id
        if cls is errors.UpstreamRateLimited:
            ours.retry_after = retry_after(error)
    return ours


def by_code(error: BaseException) -> type[errors.UpstreamError] | None:
    """What its code or type says, whatever its status; None if they say nothing."""
    found = {name: getattr(error, name, None) for name in ("code", "type")}
    body = getattr(error, "body", None)
    if isinstance(body, list):  # which the SDK does not look into
        found = _find_error(body) or {}
    elif isinstance(body, str):
        found = {"code": body}
    # As text, for an error body may have anything there.
    codes = [str(found.get(name)).lower() for name in ("code", "type")]
    if QUOTA_CODES.intersection(codes):
        return errors.UpstreamQuotaExhausted
    return next((BY_CODE[code] for code in codes if code in BY_CODE), None)


def _whose_fault(error: BaseException) -> type[errors.UpstreamError]:
    """Whether a refusal is about the client's input, or about what the operator configured."""
    if not isinstance(error, openai.APIStatusError) or error.status_code not in (400, 422):
        return errors.UpstreamRejectedInput
    try:
        error.response.json()
    except (ValueError, RecursionError):
        return errors.UpstreamError  # not an API's answer: OPENAI_BASE_URL is wrong
    refusal = str(error.body)[:LONGEST_REFUSAL]
    for words, cls in OPERATORS_CHOICE.items():
        if re.search(words, refusal, re.IGNORECASE | re.DOTALL):
            return cls
    return errors.UpstreamRejectedInput


def read_json(data: bytes) -> Any:  # noqa: ANN401 - any JSON
    """JSON as it is, or repaired.

    Repaired are control characters, bytes that are not UTF-8, and halves of surrogate pairs, which
    JSON can hold and UTF-8 cannot.

    Raises:
        ValueError, RecursionError: it is no JSON.
    """
    try:
        return from_json(data)
    except ValueError:
        body = json.loads(data.decode("utf-8-sig", errors="replace"), strict=False)
        return json.loads(json.dumps(body, ensure_ascii=False).encode(errors="replace"))


def error_in(
    data: bytes, response: httpx2.Response, read: Callable[[bytes], Any] = read_json
) -> openai.APIStatusError | None:
    """The error that a body or an event holds although the status is 200; None if it holds none.

    It is what the SDK would have raised under the status that the error names.
    """
    if b'"error"' not in data:  # every form of an error has it, and hardly any reply does
        return None
    try:
        error = _find_error(read(data))
    except (ValueError, RecursionError):  # a broken reply: the caller, who parses it, says so
        return None
    if error is None:
        return None
    names = [str(error.get(name)) for name in ("code", "status", "status_code", "type")]
    status = next(
        (int(name) for name in names if re.fullmatch("[45][0-9]{2}", name)),
        next((STATUS_BY_TYPE[name] for name in names if name in STATUS_BY_TYPE), 500),
    )
    headers = response.headers.copy()
    headers.pop("content-encoding", None)  # `data` is decoded already
    return openai.APIStatusError(
        f"status {response.status_code}, but {error.get('message') or error.get('error')}",
        response=httpx2.Response(status, headers=headers, content=data, request=response.request),
        body={"code": error.get("error")} | error,  # a mere text may be a code
    )


def may_hold_error(response: httpx2.Response) -> bool:
    """Whether a whole body should be searched for an error.

    Not that of a GET: a resource, such as a failed job, may describe its own failure.
    """
    media_type = response.headers.get("content-type", "").partition(";")[0].strip()
    return (
        response.is_success
        and response.request.method == "POST"
        and media_type == "application/json"
    )


def _find_error(body: Any) -> dict[str, Any] | None:  # noqa: ANN401 - any JSON
    """`{"error": {...}}` or `{"error": "text"}`, `{"object": "error"}`, or in the first choice."""
    if isinstance(body, list) and body:  # as Gemini wraps them
        body = body[0]
    if not isinstance(body, dict):
        return None
    error, choices = body.get("error"), body.get("choices")
    if isinstance(error, dict) and str(error.get("code")) in NO_ERROR_CODES:
        return None
    if isinstance(error, dict) and any(error.values()):
        return _find_error(error) or error  # an event called `error` may hold one again
    if error and not isinstance(error, dict):
        return _find_error(error) or body
    if body.get("object") == "error" or body.get("finish_reason") == "error":
        return body
    return _find_error(choices) if isinstance(choices, list) else None


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

    The first of `retry-after-ms` and `retry-after` that makes sense counts. The latter is in
    seconds, or a duration, or a date.
    """
    if not isinstance(error, openai.APIStatusError):
        return None
    headers = error.response.headers
    for seconds in (
        _number(headers.get("retry-after-ms")) / 1000,
        _number(headers.get("retry-after")),
        _duration(headers.get("retry-after")),
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


def _duration(text: str | None) -> float:
    if not re.fullmatch(f"({_DURATION})+", text or ""):
        return math.nan
    return sum(float(number) * UNITS[unit] for number, unit in re.findall(_DURATION, text or ""))


def _seconds_until(date: str | None) -> float:
    try:
        return parsedate_to_datetime(date or "").timestamp() - time.time()
    except (ValueError, OverflowError):
        return math.nan

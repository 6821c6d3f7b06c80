"""Maps the SDK's exceptions to ours: by code, status, class; some 400s and 422s by text.

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

from .. import errors
from .error_bodies import find_error

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
LONGEST_REFUSAL = 2000  # characters that are searched for these words

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
        cls = _rejection_class(error)
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
        found = find_error(body) or {}
    elif isinstance(body, str):
        found = {"code": body}
    # As text, for an error body may have anything there.
    codes = [str(found.get(name)).lower() for name in ("code", "type")]
    if QUOTA_CODES.intersection(codes):
        return errors.UpstreamQuotaExhausted
    return next((BY_CODE[code] for code in codes if code in BY_CODE), None)


def _rejection_class(error: BaseException) -> type[errors.UpstreamError]:
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
    """Seconds that OpenAI asks us to wait, a day at most; None if absent, invalid or not positive.

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

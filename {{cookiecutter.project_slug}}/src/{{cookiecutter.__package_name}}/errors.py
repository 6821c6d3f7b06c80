"""The exceptions that become responses, by `server.problems`.

ServiceError
├── InvalidRequest                 422
├── BodyTooLarge                   413
├── ModelNotAllowed                400
├── Unauthenticated                401
├── RateLimited                    429
├── LimitsUnavailable              503
├── Overloaded                     503
├── ShuttingDown                   503
├── DeadlineExceeded               504
├── InternalError                  500
└── UpstreamError                  502  a call of OpenAI failed
    ├── BrokenReply                502  the reply could not be read
    ├── UpstreamRejectedInput      400
    │   ├── ContextLengthExceeded  400
    │   └── ContentFiltered        400
    ├── UpstreamCredentials        502
    ├── UpstreamModelUnavailable   502
    ├── UpstreamRateLimited        503
    ├── UpstreamQuotaExhausted     503
    ├── UpstreamUnreachable        502
    └── UpstreamTimeout            504
"""

import math
import re
from collections.abc import Mapping
from typing import ClassVar

from pydantic import ValidationError

LONGEST_DESCRIPTION = 500  # characters

# User and password in a URL, such as a proxy's.
_USERINFO = re.compile(r"(?<=//)[^/\s]*@")


class ServiceError(Exception):
    """The attributes go into the response; the exception's text goes only to the log."""

    status: ClassVar[int]
    type: ClassVar[str]
    title: ClassVar[str]
    headers: Mapping[str, str] = {}
    """Further headers of the response."""
    detail: str | None = None
    """What the client can do about it."""
    retry_after: float | None = None
    """Seconds after which the client may try again."""
    violated_policies: list[str] | None = None
    """The limits that the client is over."""
    upstream_request_id: str | None = None
    """OpenAI's id of the failed request, for OpenAI's support."""


class InvalidRequest(ServiceError):
    status, type, title = 422, "invalid-request", "The request does not validate"


class BodyTooLarge(ServiceError):
    status, type, title = 413, "body-too-large", "The body is larger than this service takes"


class ModelNotAllowed(ServiceError):
    status, type, title = 400, "model-not-allowed", "This service does not offer the model"
    detail = "Leave `model` out for the default."


class Unauthenticated(ServiceError):
    status, type, title = 401, "unauthenticated", "This service needs one of its keys"
    headers: Mapping[str, str] = {"WWW-Authenticate": "Bearer"}


class RateLimited(ServiceError):
    status, type, title = 429, "rate-limited", "The client is over its limit"

    def __init__(self, violated_policies: list[str], wait: float) -> None:
        super().__init__(", ".join(violated_policies))
        self.violated_policies = violated_policies
        if wait == math.inf:
            self.detail = (
                "It may cost more tokens than the whole limit: send less, or ask for less."
            )
        else:
            self.retry_after = wait


class LimitsUnavailable(ServiceError):
    status, type, title = 503, "limits-unavailable", "This service cannot count requests now"
    retry_after = 1.0


class Overloaded(ServiceError):
    status, type, title = 503, "overloaded", "This service is at its concurrency limit"
    retry_after = 1.0


class ShuttingDown(ServiceError):
    status, type, title = 503, "shutting-down", "This service is being stopped"
    retry_after = 1.0  # by then, a load balancer sends the request to another process


class DeadlineExceeded(ServiceError):
    status, type, title = 504, "deadline-exceeded", "The answer took too long"


class InternalError(ServiceError):
    status, type, title = 500, "internal-error", "This service failed"


class UpstreamError(ServiceError):
    status, type, title = 502, "upstream-error", "OpenAI failed to answer"
    is_retryable: bool = False
    """Whether another attempt may succeed."""


class BrokenReply(UpstreamError):
    is_retryable = True


class UpstreamRejectedInput(UpstreamError):
    status, type = 400, "upstream-rejected-input"
    title = "OpenAI refused the messages or parameters"


class ContextLengthExceeded(UpstreamRejectedInput):
    type, title = "context-length-exceeded", "Messages and reply exceed what the model can hold"


class ContentFiltered(UpstreamRejectedInput):
    type, title = "content-filtered", "OpenAI's content filter refused the conversation"


class UpstreamCredentials(UpstreamError):
    type, title = "upstream-credentials", "OpenAI refused this service's key"


class UpstreamModelUnavailable(UpstreamError):
    type, title = "upstream-model-unavailable", "OpenAI does not offer the model to this service"


class UpstreamRateLimited(UpstreamError):
    status, type, title = 503, "upstream-rate-limited", "OpenAI's rate limit is reached"
    is_retryable = True


class UpstreamQuotaExhausted(UpstreamError):
    status, type, title = 503, "upstream-quota-exhausted", "This service's OpenAI quota is used up"


class UpstreamUnreachable(UpstreamError):
    type, title = "upstream-unreachable", "The connection to OpenAI failed"
    is_retryable = True


class UpstreamTimeout(UpstreamError):
    status, type, title = 504, "upstream-timeout", "OpenAI took too long"
    is_retryable = True


def describe(error: BaseException, default: str = "") -> str:
    """One line for the log: type and text of the innermost cause. Strips credentials from URLs.

    `default` replaces an empty text.
    """
    cause = _innermost(error)
    text = str(cause) or default
    if isinstance(cause, ValidationError):  # its own text would quote the conversation
        fields = [f"{'.'.join(map(str, e['loc']))} ({e['type']})" for e in cause.errors()]
        text = f"{cause.title}: {', '.join(fields)}"
    text = " ".join(_USERINFO.sub("", text).split())
    if len(text) > LONGEST_DESCRIPTION:  # at a space: half of a key would not be redacted
        text = text[:LONGEST_DESCRIPTION].rpartition(" ")[0]
    return f"{type(cause).__name__}: {text}" if text else type(cause).__name__


def _innermost(error: BaseException) -> BaseException:
    """Follow the exception chain to the most specific error.

    Explicit causes count, and so do OSErrors (sockets, name resolution, TLS) that are only the
    context. A bare TimeoutError does not: the ConnectTimeout or ReadTimeout raised from it says
    more. Neither does a CancelledError, with which timeouts are implemented.
    """
    deeper = error.__cause__ or error.__context__
    if isinstance(deeper, BaseExceptionGroup):
        deeper = deeper.exceptions[0]  # there is one per address of the host
    counts = isinstance(deeper, Exception if error.__cause__ else OSError)
    if deeper is None or type(deeper) is TimeoutError or not counts:
        return error
    return _innermost(deeper)

"""What can go wrong, and its one mapping to problems (RFC 9457).

ServiceError
├── InvalidRequest                 422
├── BodyTooLarge                   413
├── ModelNotAllowed                400
├── Overloaded                     503
├── ShuttingDown                   503
├── DeadlineExceeded               504
├── InternalError                  500
└── UpstreamError                  502  OpenAI failed
    ├── BrokenReply                502  it sent something that is no answer
    ├── UpstreamRejectedInput      400
    │   ├── ContextLengthExceeded  400
    │   └── ContentFiltered        400
    ├── UpstreamCredentials        502
    ├── UpstreamModelUnavailable   502
    ├── UpstreamRateLimited        503
    ├── UpstreamQuotaExhausted     503
    ├── UpstreamUnreachable        502
    └── UpstreamTimeout            504

Clients never get OpenAI's error text, which may echo the key: it goes to the log only.
"""

import asyncio
import http.client
import json
import logging
import math
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, ClassVar
from urllib.parse import quote

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .body_limit import BodyLimitExceeded
from .causes import describe
from .schemas import InvalidField, Problem
from .telemetry import current_request_id

logger = logging.getLogger(__name__)

# At most so many validation errors are listed in one response.
MOST_ERRORS = 20

# The detail of FastAPI's 400 for a body that fails to parse without a JSONDecodeError.
NO_JSON = "There was an error parsing the body"

# Statuses whose responses have no body.
BODILESS = (HTTPStatus.NO_CONTENT, HTTPStatus.RESET_CONTENT, HTTPStatus.NOT_MODIFIED)


class ServiceError(Exception):
    """A failure that has a problem of its own. The exception's text is for the log alone."""

    status: ClassVar[int]
    type: ClassVar[str]
    title: ClassVar[str]
    detail: str | None = None
    """What the client can do."""
    retry_after: float | None = None
    """Seconds after which the client may try again."""
    upstream_request_id: str | None = None
    """What OpenAI's support asks for."""


class InvalidRequest(ServiceError):
    status, type, title = 422, "invalid-request", "The request does not validate"


class BodyTooLarge(ServiceError):
    status, type, title = 413, "body-too-large", "The body is larger than this service takes"


class ModelNotAllowed(ServiceError):
    status, type, title = 400, "model-not-allowed", "This service does not offer the model"
    detail = "Leave `model` out for the default."


class Overloaded(ServiceError):
    status, type, title = 503, "overloaded", "This service is at its concurrency limit"
    retry_after = 1.0


class ShuttingDown(ServiceError):
    status, type, title = 503, "shutting-down", "This service is being stopped"
    retry_after = 1.0  # by then, another process answers


class DeadlineExceeded(ServiceError):
    status, type, title = 504, "deadline-exceeded", "The answer took too long"


class InternalError(ServiceError):
    status, type, title = 500, "internal-error", "This service failed"


class UpstreamError(ServiceError):
    status, type, title = 502, "upstream-error", "OpenAI failed to answer"


class BrokenReply(UpstreamError):
    pass


class UpstreamRejectedInput(UpstreamError):
    status, type, title = (
        400,
        "upstream-rejected-input",
        "OpenAI refused the messages or parameters",
    )


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


class UpstreamQuotaExhausted(UpstreamError):
    status, type, title = 503, "upstream-quota-exhausted", "This service's OpenAI quota is used up"


class UpstreamUnreachable(UpstreamError):
    type, title = "upstream-unreachable", "The connection to OpenAI failed"


class UpstreamTimeout(UpstreamError):
    status, type, title = 504, "upstream-timeout", "OpenAI took too long"


def log(error: ServiceError) -> None:
    """Tell the operator what the client is not told."""
    cause = error.__cause__ or error
    logger.log(
        logging.WARNING if error.status >= HTTPStatus.INTERNAL_SERVER_ERROR else logging.INFO,
        "%s: %s",
        error.type,
        describe(error, error.title),
        extra={
            "upstream_status": getattr(cause, "status_code", None),
            "upstream_code": getattr(cause, "code", None),
            "upstream_request_id": error.upstream_request_id,
        },
    )


def to_problem(error: ServiceError, errors: list[InvalidField] | None = None) -> Problem:
    return Problem(
        type=f"urn:problem-type:{error.type}",
        title=error.title,
        status=error.status,
        detail=error.detail,
        request_id=current_request_id(),
        upstream_request_id=error.upstream_request_id,
        errors=errors,
    )


def _respond(problem: Problem, headers: Mapping[str, str] | None = None) -> Response:
    return Response(problem.to_json(), problem.status, headers, "application/problem+json")


def _answer(error: ServiceError, errors: list[InvalidField] | None = None) -> Response:
    after = error.retry_after
    headers = None if after is None else {"Retry-After": str(math.ceil(after))}
    return _respond(to_problem(error, errors), headers)


def add_exception_handlers(app: FastAPI) -> None:
    """Each handler is `async`: sync ones would wait for a free thread."""

    @app.exception_handler(ServiceError)
    async def on_service_error(request: Request, error: ServiceError) -> Response:
        log(error)
        return _answer(error)

    @app.exception_handler(RequestValidationError)
    async def on_invalid_request(request: Request, error: RequestValidationError) -> Response:
        errors = [_invalid_field(found) for found in error.errors()[:MOST_ERRORS]]
        invalid = InvalidRequest()
        if isinstance(error.body, bytes):  # otherwise FastAPI has parsed it
            invalid.detail = "A JSON body needs the header `Content-Type: application/json`."
        return _answer(invalid, errors)

    @app.exception_handler(BodyLimitExceeded)
    async def on_body_limit(request: Request, error: BodyLimitExceeded) -> Response:
        return _answer(BodyTooLarge())

    @app.exception_handler(HTTPException)
    async def on_http_exception(request: Request, error: HTTPException) -> Response:
        if error.detail == NO_JSON:
            return _answer(InvalidRequest())
        if error.status_code in BODILESS:
            return Response(status_code=error.status_code, headers=error.headers)
        title = http.client.responses.get(error.status_code, "Error")
        problem = Problem(
            type="about:blank",
            title=title,
            status=error.status_code,
            detail=None if error.detail in (title, "") else _as_text(error.detail),
            request_id=current_request_id(),
        )
        return _respond(problem, error.headers)


def _invalid_field(error: Any) -> InvalidField:  # noqa: ANN401 - an endpoint may raise anything
    """Where and what, but not the value: it may be long, or secret."""
    if not isinstance(error, Mapping):
        return InvalidField(loc=[], msg=str(error))
    loc = [part if isinstance(part, int) else str(part) for part in error.get("loc", ())]
    return InvalidField(loc=loc, msg=str(error.get("msg", "")))


def _as_text(detail: object) -> str:
    """FastAPI permits any JSON as an HTTPException's detail; RFC 9457 wants a string."""
    return detail if isinstance(detail, str) else json.dumps(detail, default=str)


class UnhandledExceptionMiddleware:
    """Answers unhandled exceptions.

    Starlette's own handler re-raises them, and uvicorn then closes the connection: the client's
    next request would fail as well.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        answered = False

        async def watched_send(message: Message) -> None:
            nonlocal answered
            answered = True
            await send(message)

        try:
            await self.app(scope, receive, watched_send)
        except asyncio.CancelledError:
            # By `GracefulShutdown`, or by a server whose own grace is shorter.
            if not answered:
                await _answer(ShuttingDown())(scope, receive, send)
        except Exception:
            if answered:
                raise
            logger.exception("Unhandled exception in %s %s", scope["method"], quote(scope["path"]))
            await _answer(InternalError())(scope, receive, send)


PROBLEM_CONTENT = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}

# For OpenAPI: the `responses` of all endpoints. It also keeps FastAPI from adding a 422 of its own.
OTHER_PROBLEMS: dict[int | str, dict[str, Any]] = {
    "default": {"description": "Any other failure", "content": PROBLEM_CONTENT}
}

# For OpenAPI: the further `responses` of an endpoint that calls OpenAI.
PROBLEM_RESPONSES: dict[int | str, dict[str, Any]] = {
    status: {"description": HTTPStatus(status).phrase, "content": PROBLEM_CONTENT}
    for status in (400, 413, 422, 500, 502, 503, 504)
}
PROBLEM_RESPONSES[503]["headers"] = {
    "Retry-After": {
        "description": "Seconds after which to try again, where they are known.",
        "schema": {"type": "integer"},
    }
}

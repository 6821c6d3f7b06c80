"""Failures as `application/problem+json` (RFC 9457).

OpenAI's error text may echo the key: it goes to the log, never to clients.
"""

import http.client
import json
import logging
import math
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.utils import is_body_allowed_for_status_code
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException

from ..errors import BodyTooLarge, InvalidRequest, ServiceError, describe
from .request_record import current

logger = logging.getLogger(__name__)

RETRY_LATER = (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE)

# How many validation errors one response lists.
MAX_ERRORS = 20


class InvalidField(BaseModel):
    """One error of a request that does not validate."""

    loc: list[str | int]
    """`body`, `query`, `path`, `header` or `cookie`, then field names and list indexes."""
    msg: str


class Problem(BaseModel):
    """The body of a failure's response (RFC 9457)."""

    model_config = ConfigDict(validate_by_name=True, validate_by_alias=True)

    type: str
    title: str
    status: int
    detail: str | None = None
    request_id: str
    violated_policies: list[str] | None = Field(
        default=None, validation_alias="violated-policies", serialization_alias="violated-policies"
    )
    """The limits that the client is over, as in the header RateLimit-Policy."""
    upstream_request_id: str | None = None
    errors: list[InvalidField] | None = None

    def to_json(self) -> str:
        # Not `model_dump_json`, which raises for the unpaired surrogates that `errors` may quote.
        return json.dumps(self.model_dump(exclude_none=True, by_alias=True))


def log(error: ServiceError) -> None:
    """Log the error with its cause, which is not in the response."""
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
    record = current.get()
    record.problem = error.type
    return Problem(
        type=f"urn:problem-type:{error.type}",
        title=error.title,
        status=error.status,
        detail=error.detail,
        request_id=record.id,
        violated_policies=error.violated_policies,
        upstream_request_id=error.upstream_request_id,
        errors=errors,
    )


def to_response(error: ServiceError, errors: list[InvalidField] | None = None) -> Response:
    headers = dict(error.headers)
    # Not with others: the wait that OpenAI asks for after those is for our retries.
    if error.retry_after is not None and error.status in RETRY_LATER:
        headers["Retry-After"] = str(math.ceil(error.retry_after))
    return _response(to_problem(error, errors), headers)


def _response(problem: Problem, headers: Mapping[str, str] | None) -> Response:
    return Response(problem.to_json(), problem.status, headers, "application/problem+json")


def add_exception_handlers(app: FastAPI, redact: Callable[[str], str]) -> None:
    """The handlers are `async`: FastAPI would run `def` handlers in its thread pool."""

    @app.exception_handler(ServiceError)
    async def on_service_error(request: Request, error: ServiceError) -> Response:
        log(error)
        return to_response(error)

    @app.exception_handler(RequestValidationError)
    async def on_invalid_request(request: Request, error: RequestValidationError) -> Response:
        errors = [
            # Redacted: the names of unknown fields are the client's.
            InvalidField(
                loc=[redact(n) if isinstance(n, str) else n for n in e["loc"]], msg=e["msg"]
            )
            for e in error.errors()[:MAX_ERRORS]
        ]
        invalid = InvalidRequest()
        if isinstance(error.body, bytes):  # FastAPI parses JSON only with a JSON content type
            invalid.detail = "A JSON body needs the header `Content-Type: application/json`."
        return to_response(invalid, errors)

    @app.exception_handler(HTTPException)
    async def on_http_exception(request: Request, error: HTTPException) -> Response:
        if isinstance(error.__cause__, BodyTooLarge):  # FastAPI wraps what `BodyLimit` raises
            return to_response(error.__cause__)
        if not is_body_allowed_for_status_code(error.status_code):
            return Response(status_code=error.status_code, headers=error.headers)
        detail: object = error.detail  # FastAPI's may be any JSON; RFC 9457 requires a string
        problem = Problem(
            type="about:blank",
            title=http.client.responses.get(error.status_code, "Error"),
            status=error.status_code,
            detail=detail if isinstance(detail, str) else json.dumps(detail, default=str),
            request_id=current.get().id,
        )
        return _response(problem, error.headers)


PROBLEM_CONTENT = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}

# For OpenAPI: `responses` of every endpoint. With a `default`, FastAPI adds no 422 of its own.
OTHER_PROBLEMS: dict[int | str, dict[str, Any]] = {
    "default": {"description": "Any other failure", "content": PROBLEM_CONTENT}
}

# For OpenAPI: further `responses` of endpoints that call OpenAI.
PROBLEM_RESPONSES: dict[int | str, dict[str, Any]] = {
    status: {"content": PROBLEM_CONTENT} for status in (400, 401, 413, 422, 429, 500, 502, 503, 504)
}

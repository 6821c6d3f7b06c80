"""Finds errors in response bodies and events, in the forms that various servers use.

Many servers send an error with status 200, and in a stream the status is always 200.
"""

import json
import re
from collections.abc import Callable
from typing import Any

import httpx2
import openai
from openai.types.chat import ChatCompletionChunk
from openai.types.responses import ResponseErrorEvent, ResponseFailedEvent
from pydantic_core import from_json

# For errors with status 200 that name only a type: those of OpenAI and Anthropic.
# https://docs.anthropic.com/en/api/errors
STATUS_BY_TYPE = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
}

# Values of `error.code` that mean success.
NO_ERROR_CODES = ("0", "200")


def read_json(data: bytes) -> Any:  # noqa: ANN401 - any JSON
    """Parse JSON leniently.

    Accepts control characters in strings, and replaces invalid UTF-8 and unpaired surrogates.

    Raises:
        ValueError, RecursionError: `data` is not JSON.
    """
    try:
        return from_json(data)
    except ValueError:
        body = json.loads(data.decode("utf-8-sig", errors="replace"), strict=False)
        return json.loads(json.dumps(body, ensure_ascii=False).encode(errors="replace"))


def error_in(
    data: bytes, response: httpx2.Response, read: Callable[[bytes], Any] = read_json
) -> openai.APIStatusError | None:
    """The error in a body or an event with status 200; None if there is none.

    It equals what the SDK would have raised for the status that the error names. `read` parses the
    data, and raises ValueError or RecursionError if it is not JSON.
    """
    if b'"error"' not in data:  # fast path: all forms of an error have it, few replies do
        return None
    try:
        error = find_error(read(data))
    except (ValueError, RecursionError):  # not JSON: the code that parses the reply will raise
        return None
    if error is None:
        return None
    headers = response.headers.copy()
    headers.pop("content-encoding", None)  # `data` is already decoded
    return openai.APIStatusError(
        f"status {response.status_code}, but {error.get('message') or error.get('error')}",
        response=httpx2.Response(
            named_status(error), headers=headers, content=data, request=response.request
        ),
        body=error,
    )


def may_hold_error(response: httpx2.Response) -> bool:
    """Whether the body of a response that is not streamed should be searched for an error.

    The body of a GET is not: a resource, such as a failed job, may have an `error` field.
    """
    media_type = response.headers.get("content-type", "").partition(";")[0].strip()
    return (
        response.is_success
        and response.request.method == "POST"
        and media_type == "application/json"
    )


def set_status(response: httpx2.Response) -> None:
    """Replace a 200 by the status that the error in the body names. The body has been read."""
    # Strict JSON: the SDK parses the body again, for its exception.
    if error := error_in(response.content, response, json.loads):
        response.extensions["http_status"] = response.status_code
        response.status_code = error.status_code


def named_status(body: object) -> int:
    """The HTTP status that an error names by any of its fields; 500 if it names none."""
    error = _fields(body)
    names = [str(error.get(name)) for name in ("code", "status", "status_code", "type")]
    return next(
        (int(name) for name in names if re.fullmatch("[45][0-9]{2}", name)),
        next((STATUS_BY_TYPE[name] for name in names if name in STATUS_BY_TYPE), 500),
    )


def named_codes(body: object) -> list[str]:
    """The code and the type of an error, and `error` itself if that is a string."""
    error = _fields(body)
    return [str(error.get(name)) for name in ("code", "type", "error")]


def _fields(body: object) -> dict[str, Any]:
    error = find_error(body) or body
    return error if isinstance(error, dict) else {"code": error}


def find_error(body: Any) -> dict[str, Any] | None:  # noqa: ANN401 - any JSON
    """The error object in a parsed body or event; None if there is none.

    Forms: `{"error": {...}}`, `{"error": "text"}`, `{"object": "error"}`, each of these in a list,
    and `finish_reason: "error"` or an `error` in the first choice.
    """
    if isinstance(body, list) and body:  # Gemini wraps errors in a list
        body = body[0]
    if not isinstance(body, dict):
        return None
    error, choices = body.get("error"), body.get("choices")
    if isinstance(error, dict) and str(error.get("code")) in NO_ERROR_CODES:
        return None
    if isinstance(error, dict) and any(error.values()):
        return find_error(error) or error  # an event named `error` may have an `error` field too
    if error and not isinstance(error, dict):
        return find_error(error) or body
    if body.get("object") == "error" or body.get("finish_reason") == "error":
        return body
    return find_error(choices) if isinstance(choices, list) else None


def raise_failure(event: object) -> None:
    """Raise what the SDK only yields: a failure in a stream of responses or of a chat.

    Raises:
        openai.APIError: the event says that the response failed.
    """
    chunk = getattr(event, "chunk", event)  # the events of the SDK's stream managers have one
    if isinstance(chunk, ChatCompletionChunk):
        choice = chunk.choices[0] if chunk.choices else None
        # What the SDK's model does not know, as OpenRouter sends it.
        if hasattr(choice, "error") or str(getattr(choice, "finish_reason", "")) == "error":
            raise _failure("a chunk holds an error", find_error(chunk.model_dump(warnings=False)))
    elif isinstance(event, (ResponseErrorEvent, ResponseFailedEvent)):
        error = event.response.error if isinstance(event, ResponseFailedEvent) else event
        body = error and error.model_dump(include={"code", "message"}, warnings=False)
        raise _failure(error.message if error else event.type, body)


def _failure(message: str, body: object) -> openai.APIError:
    request = httpx2.Request("POST", "/")  # the SDK's error must have one
    return openai.APIError(message, request, body=body)

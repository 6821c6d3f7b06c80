"""Finds errors in response bodies and events with status 200, in the forms that servers use."""

import json
import re
from contextlib import suppress
from typing import Any

import httpx2
import openai
from openai.types.responses import ResponseErrorEvent, ResponseFailedEvent
from pydantic_core import from_json


def read_json(data: bytes) -> Any:  # noqa: ANN401 - any JSON
    """Parse JSON leniently.

    Accepts control characters in strings, and replaces invalid UTF-8 and unpaired surrogates.

    Raises:
        ValueError, RecursionError: `data` is not JSON, or nested too deep.
    """
    try:
        return from_json(data)
    except ValueError:
        body = json.loads(data.decode("utf-8-sig", errors="replace"), strict=False)
        return json.loads(json.dumps(body, ensure_ascii=False).encode(errors="replace"))


def error_in(data: bytes, response: httpx2.Response) -> openai.APIStatusError | None:
    """The error in a body or an event with status 200; None if there is none.

    It equals what the SDK would have raised for the status that the error names.

    Raises:
        ValueError, RecursionError: as `read_json`.
    """
    if b'"error"' not in data:  # fast path: all forms of an error have it, few replies do
        return None
    error = _find_error(read_json(data))
    if error is None:
        return None
    headers = response.headers.copy()
    headers.pop("content-encoding", None)  # `data` is already decoded
    status = named_status(error.get("code"), error.get("type"))
    return openai.APIStatusError(
        f"status {response.status_code}, but {error.get('message') or error.get('error')}",
        response=httpx2.Response(status, headers=headers, content=data, request=response.request),
        body=error,
    )


def may_hold_error(response: httpx2.Response) -> bool:
    """Whether the body of a response that is not streamed should be searched for an error.

    The body of a GET is not: a resource, such as a failed job, may have an `error` field.
    """
    return response.is_success and response.request.method == "POST" and is_json(response)


def is_json(response: httpx2.Response) -> bool:
    return response.headers.get("content-type", "").startswith("application/json")


def set_status(response: httpx2.Response) -> None:
    """If a 200 has an error in its body, set the status that the error names.

    The body has been read.
    """
    if may_hold_error(response):
        with suppress(ValueError, RecursionError):  # the code that parses the reply will raise
            if error := error_in(response.content, response):
                response.status_code = error.status_code


def named_status(code: object, kind: object) -> int:
    """The HTTP status that an error names by its code or type; 500 if it names none."""
    if re.fullmatch("[45][0-9]{2}", str(code)):
        return int(str(code))
    return 400 if kind == "invalid_request_error" else 500


def _find_error(body: Any) -> dict[str, Any] | None:  # noqa: ANN401 - any JSON
    """The error object in a parsed body or event; None if there is none.

    Forms: `{"error": {...}}`, `{"error": "text"}`, `{"object": "error"}`; and OpenRouter's
    `finish_reason: "error"` or an `error` in the first choice.
    """
    if not isinstance(body, dict):
        return None
    error, choices = body.get("error"), body.get("choices")
    if isinstance(error, dict) and any(error.values()):  # some servers send one full of nulls
        return error
    if error and not isinstance(error, dict):
        return body
    if body.get("object") == "error" or body.get("finish_reason") == "error":
        return body
    return _find_error(choices[0]) if isinstance(choices, list) and choices else None


def raise_failure(event: object) -> None:
    """Raise what the SDK only yields: a failure in a stream of the Responses API.

    Raises:
        openai.APIError: the event says that the response failed.
    """
    if isinstance(event, (ResponseErrorEvent, ResponseFailedEvent)):
        error = event.response.error if isinstance(event, ResponseFailedEvent) else event
        body = error and {"code": error.code, "message": error.message}
        message = error.message if error else event.type
        raise openai.APIError(message, httpx2.Request("POST", "/"), body=body)

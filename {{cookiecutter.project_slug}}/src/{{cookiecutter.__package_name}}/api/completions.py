"""Builds requests for OpenAI's chat completions and parses the replies.

Parsed by hand, for two reasons. A reply that was paid for is kept even if its metadata is
malformed; only unreadable text makes it broken. And it is faster: the SDK's own methods validate
all parameters and build a model of every chunk, half of the SDK's time in a call, most in a stream.
"""

import json
from typing import Any

import httpx2

from ..errors import BrokenReply, ModelNotAllowed
from ..settings import Settings
from ..upstream.error_bodies import error_in, read_json
from .schemas import ChatReply, ChatRequest

JsonObject = dict[str, Any]

# Types of `content` parts that belong to the reply; others hold, for example, reasoning.
TEXT_TYPES = ("text", "output_text")


def to_params(request: ChatRequest, settings: Settings, *, stream: bool = False) -> JsonObject:
    """Arguments for `post` of the SDK's client, which then returns the raw HTTP response.

    Raises:
        ModelNotAllowed: the request names a model that this service does not offer.
    """
    # None is left out rather than sent as null: some models reject the name itself.
    body = {"model": settings.openai_model} | request.model_dump(exclude_none=True)
    if body["model"] not in {settings.openai_model, *settings.allowed_models}:
        raise ModelNotAllowed
    if request.max_output_tokens is not None:
        body[settings.max_tokens_parameter] = body.pop("max_output_tokens")
    if stream:
        body["stream"] = True
        if settings.stream_usage:
            body["stream_options"] = {"include_usage": True}
    return {
        "path": "/chat/completions",
        "cast_to": httpx2.Response,
        "body": body,
        "stream": stream,
    }


def to_reply(response: httpx2.Response) -> ChatReply:
    """The reply in a response that is not streamed.

    Raises:
        openai.APIStatusError: the response is an error despite its status 200.
        BrokenReply: the message is missing or unreadable.
    """
    return read_reply(response.content, response)


def read_reply(data: bytes, response: httpx2.Response) -> ChatReply:
    body = parse(data, response)
    choice = first_choice(body) or {}
    text = text_of(choice.get("message"), "choices.0.message")
    return ChatReply(reply=text, **with_model(metadata_of(body, choice), response))


def parse(data: bytes, response: httpx2.Response) -> Any:  # noqa: ANN401 - any JSON
    """Parse a body, or the data of an event, of a response with status 200.

    Raises:
        openai.APIStatusError: it is an error despite the status.
        BrokenReply: it is not JSON.
    """
    # Needed for events and for bodies of other media types; `correct_status` handles JSON bodies.
    if found := error_in(data, response):
        raise found
    try:
        return read_json(data)
    except (ValueError, RecursionError) as error:
        raise BrokenReply from error


def first_choice(body: object) -> JsonObject | None:
    """None if there is none: a chunk may have only metadata."""
    choices = body.get("choices") if isinstance(body, dict) else None
    first = choices[0] if isinstance(choices, list) and choices else None
    return first if isinstance(first, dict) else None


def text_of(message: object, field: str) -> str:
    """The text of a message or of a delta.

    Raises:
        BrokenReply: the text is unreadable. The exception's text names `field`.
    """
    if not isinstance(message, dict):
        raise BrokenReply(f"{field} ({'not an object' if message else 'missing'})")
    content = message.get("content") or ""
    if isinstance(content, dict) and "text" in content:
        content = [content]
    parts = [_part_text(part) for part in content] if isinstance(content, list) else [content]
    texts = [part for part in parts if isinstance(part, str)]
    if len(texts) < len(parts):
        raise BrokenReply(f"{field}.content (no string)")
    return "".join(texts) or _string(message.get("refusal")) or ""


def _part_text(part: object) -> object:
    """The text of a part; empty for a part without text."""
    if not isinstance(part, dict):
        return part or ""
    return part.get("text") or "" if part.get("type", "text") in TEXT_TYPES else ""


def metadata_of(body: JsonObject, choice: JsonObject) -> JsonObject:
    """The fields of ChatMetadata in a body or a chunk; None if missing or malformed."""
    return {
        "model": _string(body.get("model")),
        "finish_reason": _string(choice.get("finish_reason")),
        "usage": _usage(body.get("usage")),
    }


def with_model(metadata: JsonObject, response: httpx2.Response) -> JsonObject:
    """Add the model of the request if the reply names none."""
    if metadata["model"]:
        return metadata
    return metadata | {"model": json.loads(response.request.read())["model"]}


def _string(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _usage(usage: object) -> dict[str, int | None] | None:
    """None if a count is missing."""
    if not isinstance(usage, dict):
        return None
    counts = {
        "input_tokens": _count(usage, "prompt_tokens"),
        "output_tokens": _count(usage, "completion_tokens"),
        "total_tokens": _count(usage, "total_tokens"),
    }
    if None in counts.values():
        return None
    return counts | {
        "cached_tokens": _count(usage.get("prompt_tokens_details"), "cached_tokens"),
        "reasoning_tokens": _count(usage.get("completion_tokens_details"), "reasoning_tokens"),
    }


def _count(counts: object, name: str) -> int | None:
    count = counts.get(name) if isinstance(counts, dict) else None
    return count if type(count) is int and count >= 0 else None  # `type`: a bool is an int, too

"""Builds requests for OpenAI's chat completions, and parses the replies and streams.

Only what an answer needs is read, and by hand: no reply that was paid for is thrown away for its
metadata, and only text that cannot be read makes a reply broken. The SDK's own methods check the
types of all parameters and build models of all that comes back, chunk by chunk: half of the SDK's
part of a call, and most of its part of a stream.
"""

import json
from typing import Any

import httpx2

from ..errors import BrokenReply, ModelNotAllowed
from ..settings import Settings
from ..upstream.error_bodies import error_in, read_json
from .schemas import ChatReply, ChatRequest, Usage

# Parts of a `content` that are the reply; others hold what a model thought, say.
TEXT_TYPES = ("text", "output_text")


def to_string(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _part_text(part: object) -> object:
    """The text of a part; empty for one that holds none."""
    if not isinstance(part, dict):
        return part or ""
    return part.get("text") or "" if part.get("type", "text") in TEXT_TYPES else ""


def text_of(message: object, field: str) -> str:
    """The text of a message, or of the delta of one.

    Raises:
        BrokenReply: what should be text cannot be read; names the field.
    """
    if not isinstance(message, dict):
        raise BrokenReply(f"{field} ({'no object' if message else 'missing'})")
    content = message.get("content") or ""
    if isinstance(content, dict) and "text" in content:
        content = [content]
    parts = [_part_text(part) for part in content] if isinstance(content, list) else [content]
    texts = [part for part in parts if isinstance(part, str)]
    if len(texts) < len(parts):
        raise BrokenReply(f"{field}.content (no string)")
    return "".join(texts) or to_string(message.get("refusal")) or ""


def first_choice(body: object) -> dict[str, Any] | None:
    """None if there is none: a chunk with other things than text is no fault."""
    choices = body.get("choices") if isinstance(body, dict) else None
    first = choices[0] if isinstance(choices, list) and choices else None
    return first if isinstance(first, dict) else None


def parse(data: bytes, response: httpx2.Response) -> Any:  # noqa: ANN401 - any JSON
    """Read a body, or the data of an event, of a response with status 200.

    Raises:
        openai.APIStatusError: it is an error despite the status.
        BrokenReply: it is no JSON.
    """
    # For stream events, and bodies not sent as JSON: `raise_status` has checked all others.
    if found := error_in(data, response):
        raise found
    try:
        return read_json(data)
    except (ValueError, RecursionError) as error:
        raise BrokenReply from error


def asked_model(response: httpx2.Response) -> str:
    """The model of the request, for a reply that names none."""
    model: str = json.loads(response.request.read())["model"]
    return model


def to_usage(usage: object) -> Usage | None:
    """None for one that is missing, empty or partial."""
    if not isinstance(usage, dict):
        return None
    names = ("prompt_tokens", "completion_tokens", "total_tokens")
    counts = [count for name in names if type(count := usage.get(name)) is int and count >= 0]
    if len(counts) < len(names):
        return None
    return Usage(input_tokens=counts[0], output_tokens=counts[1], total_tokens=counts[2])


def to_params(request: ChatRequest, settings: Settings, *, stream: bool = False) -> dict[str, Any]:
    """Arguments of the `post` of the SDK's clients, which then gives the bare response.

    Raises:
        ModelNotAllowed: the request names a model that this service does not offer.
    """
    model = request.model or settings.openai_model
    if model != settings.openai_model and model not in settings.allowed_models:
        raise ModelNotAllowed
    body: dict[str, Any] = {
        "model": model,
        "messages": [message.model_dump() for message in request.messages],
    }
    # Left out rather than sent as null: some models refuse the very name.
    if request.temperature is not None:
        body["temperature"] = request.temperature
    if request.max_output_tokens is not None:
        body[settings.max_tokens_parameter] = request.max_output_tokens
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
    """Raises what `parse` does, and BrokenReply if there is no message."""
    return parse_reply(response.content, response)


def parse_reply(data: bytes, response: httpx2.Response) -> ChatReply:
    body = parse(data, response)
    choice = first_choice(body) or {}
    text = text_of(choice.get("message"), "choices.0.message")
    return ChatReply(
        reply=text,
        model=to_string(body.get("model")) or asked_model(response),
        finish_reason=to_string(choice.get("finish_reason")),
        usage=to_usage(body.get("usage")),
    )

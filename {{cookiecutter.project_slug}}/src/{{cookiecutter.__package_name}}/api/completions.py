"""Builds requests for OpenAI's chat completions and parses the replies.

Parsed by hand, for two reasons. A reply that was paid for is kept even if its metadata is
malformed; only unreadable text makes it broken. And it is faster: the SDK's own methods validate
all parameters and build a model of every chunk, half of the SDK's time in a call, most in a stream.
"""

import json
from typing import Any

import httpx2

from ..errors import BrokenReply, InvalidRequest, ModelNotAllowed
from ..observer import Operation
from ..settings import Settings
from ..upstream.error_bodies import read_json
from .schemas import ChatReply, ChatRequest, Usage

JsonObject = dict[str, Any]

# Types of `content` parts that belong to the reply; others hold, for example, reasoning.
TEXT_TYPES = ("text", "output_text")

# The most that a message adds to its text (OpenAI's chat format adds 4), and that an image costs:
# gpt-4o-mini's 2,833 + 5,667 for each of 8 tiles. https://platform.openai.com/docs/guides/images
TOKENS_PER_MESSAGE = 16
TOKENS_PER_IMAGE = 50_000

# What reading a malformed reply raises; pydantic's ValidationError is a ValueError.
UNREADABLE = (AttributeError, LookupError, RecursionError, TypeError, ValueError)


def to_params(request: ChatRequest, settings: Settings, *, stream: bool = False) -> JsonObject:
    """Arguments for `post` of the SDK's client, which then returns the raw HTTP response.

    Raises:
        ModelNotAllowed: the request names a model that this service does not offer.
        InvalidRequest: it exceeds MAX_MESSAGES, MAX_MESSAGE_CHARACTERS or MAX_OUTPUT_TOKENS.
    """
    _check_size(request, settings)
    # None is left out rather than sent as null: some models reject the name itself.
    body = {"model": settings.openai_model} | request.model_dump(exclude_none=True)
    if body["model"] not in {settings.openai_model, *settings.allowed_models}:
        raise ModelNotAllowed
    if output_tokens := body.pop("max_output_tokens", settings.max_output_tokens):
        body[settings.max_tokens_parameter] = output_tokens
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


def _check_size(request: ChatRequest, settings: Settings) -> None:
    longest = max(sum(map(len, message.texts())) for message in request.messages)
    for size, limit, what in (
        (len(request.messages), settings.max_messages, "messages"),
        (longest, settings.max_message_characters, "characters in a message"),
        (request.max_output_tokens or 0, settings.max_output_tokens, "max_output_tokens"),
    ):
        if limit is not None and size > limit:
            error = InvalidRequest()
            error.detail = f"At most {limit} {what}; the request has {size}."
            raise error


def to_operation(request: ChatRequest, settings: Settings) -> Operation:
    """The call, for metrics, traces and TOKEN_LIMIT."""
    tokens = request.max_output_tokens or settings.max_output_tokens or 0
    for message in request.messages:
        tokens += TOKENS_PER_MESSAGE + message.images() * TOKENS_PER_IMAGE
        # A token has at least one byte.
        tokens += sum(len(text.encode()) for text in message.texts())
    return Operation("chat", request.model or settings.openai_model, tokens)


def to_reply(response: httpx2.Response) -> ChatReply:
    """The reply in a response that is not streamed.

    Raises:
        BrokenReply: the message is missing or unreadable.
    """
    try:
        body = read_json(response.content)
        choice = body["choices"][0]
        metadata = with_model(metadata_of(body, choice), response)
        return ChatReply(reply=text_of(choice["message"]), **metadata)
    except UNREADABLE as error:
        raise BrokenReply from error


def text_of(message: JsonObject) -> str:
    """The text of a message or of a delta.

    Raises:
        UNREADABLE: it is not text.
    """
    content = message.get("content")
    if isinstance(content, list):
        content = "".join(part["text"] for part in content if part.get("type") in TEXT_TYPES)
    text = content or message.get("refusal") or ""
    if not isinstance(text, str):
        raise TypeError("the content is not text")
    return text


def metadata_of(body: JsonObject, choice: JsonObject) -> JsonObject:
    """The fields of ChatMetadata in a body or a chunk; None if missing or malformed."""
    usage = body.get("usage")
    return {
        "model": _string(body.get("model")),
        "finish_reason": _string(choice.get("finish_reason")),
        "usage": _usage(usage) if usage else None,
    }


def with_model(metadata: JsonObject, response: httpx2.Response) -> JsonObject:
    """Add the model of the request if the reply names none."""
    if metadata["model"]:
        return metadata
    return metadata | {"model": json.loads(response.request.read())["model"]}


def _string(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _usage(usage: JsonObject) -> Usage | None:
    try:
        return Usage(
            input_tokens=usage["prompt_tokens"],
            output_tokens=usage["completion_tokens"],
            total_tokens=usage["total_tokens"],
            cached_tokens=(usage.get("prompt_tokens_details") or {}).get("cached_tokens"),
            reasoning_tokens=(usage.get("completion_tokens_details") or {}).get("reasoning_tokens"),
        )
    except UNREADABLE:
        return None

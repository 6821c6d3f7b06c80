"""Builds requests for OpenAI's chat completions, and parses the replies and streams.

Only what an answer needs is read, and by hand: no reply that was paid for is thrown away for its
metadata, and only text that cannot be read makes a reply broken. The SDK's own methods check the
types of all parameters and build models of all that comes back, chunk by chunk: half of the SDK's
part of a call, and most of its part of a stream.
"""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httpx2
import openai

from .error_bodies import error_in, read_json
from .errors import BrokenReply, ModelNotAllowed
from .schemas import ChatDone, ChatReply, ChatRequest, Usage
from .settings import Settings
from .sse import Decoder

# How long reading the end of the body may take after the last event, in seconds: only a connection
# that is read to its end can be used again.
DRAIN_SECONDS = 0.5

# Parts of a `content` that are the reply; others hold what a model thought, say.
TEXT_TYPES = ("text", "output_text")


def _string(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _part_text(part: object) -> object:
    """The text of a part; empty for one that holds none."""
    if not isinstance(part, dict):
        return part or ""
    return part.get("text") or "" if part.get("type", "text") in TEXT_TYPES else ""


def _text(message: object, field: str) -> str:
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
    return "".join(texts) or _string(message.get("refusal")) or ""


def _first_choice(body: object) -> dict[str, Any] | None:
    """None if there is none: a chunk with other things than text is no fault."""
    choices = body.get("choices") if isinstance(body, dict) else None
    first = choices[0] if isinstance(choices, list) and choices else None
    return first if isinstance(first, dict) else None


def _parse(data: bytes, response: httpx2.Response) -> Any:  # noqa: ANN401 - any JSON
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


def _asked_model(response: httpx2.Response) -> str:
    """The model of the request, for a reply that names none."""
    model: str = json.loads(response.request.read())["model"]
    return model


def _to_usage(usage: object) -> Usage | None:
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
    """Raises what `_parse` does, and BrokenReply if there is no message."""
    return _to_reply(response.content, response)


def _to_reply(data: bytes, response: httpx2.Response) -> ChatReply:
    body = _parse(data, response)
    choice = _first_choice(body) or {}
    text = _text(choice.get("message"), "choices.0.message")
    return ChatReply(
        reply=text,
        model=_string(body.get("model")) or _asked_model(response),
        finish_reason=_string(choice.get("finish_reason")),
        usage=_to_usage(body.get("usage")),
    )


class StreamedReply:
    """What the bytes of a streamed reply say."""

    def __init__(self, response: httpx2.Response) -> None:
        self.has_begun = False
        """Whether the model is at work: from then on, a failure is not tried again."""
        self.is_over = False
        """Whether the last event has come."""
        self._response = response
        self._decoder = Decoder()
        self._before_events: bytes | None = b""  # None from the first event on
        self._texts: list[str] = []
        self._error: Exception | None = None
        self._has_choice = False
        self._model: str | None = None
        self._finish_reason: str | None = None
        self._usage: Usage | None = None

    def feed(self, read: bytes) -> None:
        """Take note of what was read; `b""` is the end.

        Raises:
            BrokenReply, openai.APIError: the reply has not begun; after that, `texts` raises it.
        """
        try:
            self._feed(read)
        except (BrokenReply, openai.APIError) as error:
            if not self.has_begun:
                raise
            if self._finish_reason and isinstance(error, BrokenReply):
                self.is_over = True  # only metadata comes after a finish_reason
            else:
                self._error = error

    def _feed(self, read: bytes) -> None:
        for event in self._decoder.feed(read):
            self._before_events = None
            data = event.strip()
            if data == b"[DONE]":
                if not self._has_choice:
                    raise BrokenReply("the stream ended without a reply")
                self.has_begun = self.is_over = True  # an empty reply is a reply
                return
            if data:
                self._add(_parse(data, self._response))
        if self._before_events is not None:
            self._before_events += read
        if not read:
            if self._before_events:
                self._add_whole(_to_reply(self._before_events, self._response))
            elif self._finish_reason is None:
                raise BrokenReply("the stream ended before its reply did")
            self.is_over = True

    def _add(self, chunk: object) -> None:
        if not isinstance(chunk, dict):
            return
        self._model = _string(chunk.get("model")) or self._model
        self._usage = _to_usage(chunk.get("usage")) or self._usage
        if (choice := _first_choice(chunk)) is not None:
            # A gateway may send a whole message as one event.
            message = choice.get("delta") or choice.get("message")
            text = _text(message, "choices.0.delta") if message else ""
            self._texts.append(text)
            self._finish_reason = _string(choice.get("finish_reason")) or self._finish_reason
            # The first chunk often carries only a role: to retry after it costs little. A second,
            # even if empty, means that the model is generating, which is billed; a reasoning
            # model may send empty chunks for longer than the deadline.
            self.has_begun = self._has_choice or bool(text or self._finish_reason)
            self._has_choice = True

    def _add_whole(self, reply: ChatReply) -> None:
        """Of a server that does not stream."""
        self._texts.append(reply.reply)
        self._model, self._usage = reply.model, reply.usage
        self._finish_reason = reply.finish_reason
        self.has_begun = True

    async def texts(self, read: Callable[[], Awaitable[bytes]]) -> AsyncIterator[str]:
        """The text as it comes: of all the chunks of one read together."""
        while True:
            text = "".join(self._texts)
            self._texts.clear()
            if text:
                yield text
            elif self._error:
                raise self._error
            elif self.is_over:
                return
            else:
                self.feed(await self._read_on(read))

    async def _read_on(self, read: Callable[[], Awaitable[bytes]]) -> bytes:
        try:
            return await read()
        except httpx2.RequestError:
            if self._finish_reason is None:
                raise
            return b""  # the reply is whole: only its usage may be missing

    def to_done(self) -> ChatDone:
        return ChatDone(
            model=self._model or _asked_model(self._response),
            finish_reason=self._finish_reason,
            usage=self._usage,
        )

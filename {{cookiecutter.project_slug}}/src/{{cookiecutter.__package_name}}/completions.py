"""How a chat becomes a call of OpenAI, and what comes back an answer.

Only what an answer needs is read. The SDK's own methods check the types of all parameters and
build models of all that comes back, chunk by chunk: half of the SDK's part of a call, and most of
its part of a stream.
"""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httpx2
import openai
from pydantic import BaseModel, NonNegativeInt, ValidationError

from .errors import BrokenReply, ModelNotAllowed
from .schemas import ChatDone, ChatReply, ChatRequest, Usage
from .settings import Settings
from .sse import Decoder
from .upstream import error_in

# How long reading the end of the body may take after the last event, in seconds: only a connection
# that is read to its end can be used again.
DRAIN_SECONDS = 0.5

# Parts of a `content` that are the reply; others hold what a model thought, say.
TEXT_TYPES = ("text", "output_text")


class _Part(BaseModel):
    type: Any = "text"
    text: str | None = None


class _Message(BaseModel):
    content: str | list[str | _Part] | None = None
    refusal: Any = None

    def text(self) -> str:
        if isinstance(self.content, list):
            parts = [_Part(text=part) if isinstance(part, str) else part for part in self.content]
            text = "".join(part.text or "" for part in parts if part.type in TEXT_TYPES)
        else:
            text = self.content or ""
        return text or _string(self.refusal) or ""


class _Choice(BaseModel):
    message: _Message | None = None  # of a whole reply
    delta: _Message | None = None  # of a chunk
    finish_reason: Any = None


class _Reply(BaseModel):
    """A whole reply, or a chunk of one.

    Metadata is `Any`: no reply that was paid for is thrown away for it. Text has to be readable.
    """

    choices: list[_Choice] | None = None  # none in the chunk with the usage
    model: Any = None
    usage: Any = None


class _Usage(BaseModel):
    prompt_tokens: NonNegativeInt
    completion_tokens: NonNegativeInt
    total_tokens: NonNegativeInt


def _parse(data: bytes, response: httpx2.Response) -> _Reply:
    """Read a body, or the data of an event, of a response with status 200.

    Raises:
        openai.APIStatusError: it is an error despite the status.
        BrokenReply: it cannot be read.
    """
    # Of a stream, or of a body that was not sent as JSON: `raise_status` has seen the others.
    if found := error_in(data, response):
        raise found
    try:
        return _Reply.model_validate_json(data)
    except ValidationError:
        pass
    try:
        # Perhaps it has control characters, bytes that are not UTF-8, or halves of surrogate pairs,
        # which JSON can hold and UTF-8 cannot.
        body = json.loads(data.decode("utf-8-sig", errors="replace"), strict=False)
        clean = json.dumps(body, ensure_ascii=False).encode(errors="replace")
        return _Reply.model_validate_json(clean)
    except (ValueError, RecursionError) as error:
        raise BrokenReply from error


def _string(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _asked_model(response: httpx2.Response) -> str:
    """The model of the request, for a reply that names none."""
    model: str = json.loads(response.request.read())["model"]
    return model


def _to_usage(usage: Any) -> Usage | None:  # noqa: ANN401 - any JSON
    """None for one that is missing, empty or partial."""
    if not usage:  # as in nearly all chunks: an exception would cost more than the rest of them
        return None
    try:
        counts = _Usage.model_validate(usage)
    except ValidationError:
        return None
    return Usage(
        input_tokens=counts.prompt_tokens,
        output_tokens=counts.completion_tokens,
        total_tokens=counts.total_tokens,
    )


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


def _to_reply(body: bytes, response: httpx2.Response) -> ChatReply:
    reply = _parse(body, response)
    choice = reply.choices[0] if reply.choices else _Choice()
    if choice.message is None:
        raise BrokenReply("choices.0.message (missing)")
    return ChatReply(
        reply=choice.message.text(),
        model=_string(reply.model) or _asked_model(response),
        finish_reason=_string(choice.finish_reason),
        usage=_to_usage(reply.usage),
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
            self._error = error

    def _feed(self, read: bytes) -> None:
        for event in self._decoder.feed(read):
            self._before_events = None
            data = event.strip()
            if data == b"[DONE]":
                self.is_over = True
                self.has_begun |= self._has_choice  # an empty reply is a reply
                return
            if data and data != b"null":
                self._add(_parse(data, self._response))
        if self._before_events is not None:
            self._before_events += read
        if not read:
            if self._before_events:
                self._add_whole(_to_reply(self._before_events, self._response))
            elif self._finish_reason is None:
                raise BrokenReply("the stream ended before its reply did")
            self.is_over = True

    def _add(self, chunk: _Reply) -> None:
        self._model = _string(chunk.model) or self._model
        self._usage = _to_usage(chunk.usage) or self._usage
        if chunk.choices:
            choice = chunk.choices[0]
            text = choice.delta.text() if choice.delta else ""
            self._texts.append(text)
            self._finish_reason = _string(choice.finish_reason) or self._finish_reason
            # The first choice often announces no more than a role: a failure after it costs little
            # to try again. With a second one, however empty, the model is at work and paid; one
            # that reasons may go on like that for longer than the deadline.
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

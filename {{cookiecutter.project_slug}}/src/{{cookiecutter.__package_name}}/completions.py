"""How a chat becomes a call of OpenAI, and what comes back an answer.

Only what an answer needs is read. The SDK's own methods check the types of all parameters and
build models of all that comes back, chunk by chunk: half of the SDK's part of a call, and most of
its part of a stream.
"""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeVar

import httpx2
import openai
from pydantic import BaseModel, Field, ValidationError

from .errors import BrokenReply, ModelNotAllowed
from .schemas import ChatDone, ChatReply, ChatRequest, Usage
from .settings import Settings
from .sse import Decoder

# What remains to be read after the last chunk is the end of the body. How long it may take, in
# seconds: only then can the connection be used again.
DRAIN_SECONDS = 0.5


class _Text(BaseModel):
    content: str | None = None
    refusal: str | None = None

    def text(self) -> str:
        return self.content or self.refusal or ""


class _Usage(BaseModel):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class _Choice(BaseModel):
    message: _Text
    finish_reason: str


class _Completion(BaseModel):
    model: str
    choices: list[_Choice] = Field(min_length=1)
    usage: _Usage | None = None


class _ChunkChoice(BaseModel):
    delta: _Text | None = None
    finish_reason: str | None = None


class _Chunk(BaseModel):
    model: str | None = None
    choices: list[_ChunkChoice] = []  # none in the last one, with the usage
    usage: _Usage | None = None
    error: Any = None


T = TypeVar("T", bound=BaseModel)


def _parse(kind: type[T], data: bytes) -> T:
    """Raises BrokenReply: the SDK hands on whatever came with status 200."""
    try:
        return kind.model_validate_json(data)
    except ValidationError:
        pass
    try:
        # Halves of surrogate pairs, perhaps, which JSON can hold and UTF-8 cannot.
        clean = json.dumps(json.loads(data), ensure_ascii=False).encode(errors="replace")
        return kind.model_validate_json(clean)
    except (ValueError, RecursionError) as error:
        raise BrokenReply from error


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
        body["max_completion_tokens"] = request.max_output_tokens
    if stream:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    return {
        "path": "/chat/completions",
        "cast_to": httpx2.Response,
        "body": body,
        "stream": stream,
    }


def to_reply(response: httpx2.Response) -> ChatReply:
    """Raises BrokenReply if it is none."""
    completion = _parse(_Completion, response.content)
    choice = completion.choices[0]
    return ChatReply(
        reply=choice.message.text(),
        model=completion.model,
        finish_reason=choice.finish_reason,
        usage=_to_usage(completion.usage),
    )


def _to_usage(usage: _Usage | None) -> Usage | None:
    if usage is None:
        return None
    return Usage(
        input_tokens=usage.prompt_tokens,
        output_tokens=usage.completion_tokens,
        total_tokens=usage.total_tokens,
    )


class StreamedReply:
    """What the bytes of a streamed reply say."""

    def __init__(self, request: httpx2.Request) -> None:
        self.has_begun = False
        """Whether a chunk has come."""
        self.is_over = False
        """Whether the last one has."""
        self._request = request
        self._decoder = Decoder()
        self._texts: list[str] = []
        self._error: Exception | None = None
        self._model = ""
        self._finish_reason: str | None = None
        self._usage: _Usage | None = None

    def feed(self, read: bytes) -> None:
        """Take note of what was read; `b""` is the end.

        Raises:
            BrokenReply, openai.APIError: instead of a first chunk; later ones wait their turn.
        """
        try:
            for data in self._decoder.feed(read):
                if data == b"[DONE]":
                    self._end()
                    return
                self._add(_parse(_Chunk, data))
            if not read:
                self._end()
        except (BrokenReply, openai.APIError) as error:
            if not self.has_begun:
                raise
            self._error = error

    def _add(self, chunk: _Chunk) -> None:
        if chunk.error:
            message = chunk.error.get("message") if isinstance(chunk.error, dict) else None
            raise openai.APIError(str(message), self._request, body=chunk.error)
        self.has_begun = True
        self._model = chunk.model or self._model
        self._usage = chunk.usage or self._usage
        if chunk.choices:
            choice = chunk.choices[0]
            self._finish_reason = choice.finish_reason or self._finish_reason
            if choice.delta:
                self._texts.append(choice.delta.text())

    def _end(self) -> None:
        if self._finish_reason is None:
            raise BrokenReply("the stream ended without a finish_reason")
        self.is_over = True

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
                self.feed(await read())

    def to_done(self) -> ChatDone:
        return ChatDone(
            model=self._model,
            finish_reason=self._finish_reason or "",
            usage=_to_usage(self._usage),
        )

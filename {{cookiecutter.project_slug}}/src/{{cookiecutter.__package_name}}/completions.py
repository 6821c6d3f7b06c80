"""How a chat becomes a call of OpenAI, and what comes back an answer."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from openai.types import CompletionUsage
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from .errors import BrokenReply, ModelNotAllowed
from .schemas import ChatDone, ChatReply, ChatRequest, Usage
from .settings import Settings


def to_params(request: ChatRequest, settings: Settings) -> dict[str, Any]:
    """Arguments of the SDK's `chat.completions.create`.

    Raises:
        ModelNotAllowed: the request names a model that this service does not offer.
    """
    model = request.model or settings.openai_model
    if model not in {settings.openai_model, *settings.allowed_models}:
        raise ModelNotAllowed
    params: dict[str, Any] = {
        "model": model,
        "messages": [message.model_dump() for message in request.messages],
    }
    # Left out rather than sent as null: some models refuse the very name.
    if request.temperature is not None:
        params["temperature"] = request.temperature
    if request.max_output_tokens is not None:
        params["max_completion_tokens"] = request.max_output_tokens
    return params


@contextmanager
def _reading() -> Iterator[None]:
    """The SDK hands on whatever came with status 200: what cannot be read there is broken."""
    try:
        yield
    except (AttributeError, IndexError, TypeError) as error:
        raise BrokenReply from error


def to_reply(completion: ChatCompletion) -> ChatReply:
    """Raises BrokenReply if it is none."""
    with _reading():
        choice = completion.choices[0]
        return ChatReply(
            reply=_clean(choice.message.content or choice.message.refusal or ""),
            model=completion.model,
            finish_reason=choice.finish_reason,
            usage=_to_usage(completion.usage),
        )


def to_chunk(chunk: object) -> ChatCompletionChunk:
    """Raises BrokenReply if it is none."""
    if not isinstance(chunk, ChatCompletionChunk):
        raise BrokenReply("no chunk in the stream")
    return chunk


class StreamSummary:
    """What the chunks of a stream say beside their text."""

    def __init__(self) -> None:
        self._model = ""
        self._finish_reason: str | None = None
        self._usage: CompletionUsage | None = None

    def add(self, chunk: object) -> str:
        """Take note of a chunk and return its text."""
        chunk = to_chunk(chunk)
        with _reading():
            self._model = chunk.model or self._model
            self._usage = chunk.usage or self._usage
            if not chunk.choices:  # the last one, with the usage
                return ""
            choice = chunk.choices[0]
            self._finish_reason = choice.finish_reason or self._finish_reason
            return _clean((choice.delta and (choice.delta.content or choice.delta.refusal)) or "")

    def to_done(self) -> ChatDone:
        """Raises BrokenReply if the stream ended before the reply did."""
        if self._finish_reason is None:
            raise BrokenReply("the stream ended without a finish_reason")
        with _reading():
            return ChatDone(
                model=self._model, finish_reason=self._finish_reason, usage=_to_usage(self._usage)
            )


def _clean(text: str) -> str:
    """Without the halves of surrogate pairs, which JSON can hold and UTF-8 cannot."""
    return text.encode(errors="replace").decode()


def _to_usage(usage: CompletionUsage | None) -> Usage | None:
    if usage is None:
        return None
    return Usage(
        input_tokens=usage.prompt_tokens,
        output_tokens=usage.completion_tokens,
        total_tokens=usage.total_tokens,
    )

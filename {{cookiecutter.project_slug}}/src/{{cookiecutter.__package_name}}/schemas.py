"""What clients send and get."""

import json
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, FailFast, Field, Json


def _encodable(text: str) -> str:
    """Refuse unpaired surrogates: JSON can hold them, UTF-8 and so a request to OpenAI cannot."""
    text.encode()  # a UnicodeEncodeError is a ValueError, which pydantic reports
    return text


Text = Annotated[str, AfterValidator(_encodable)]


class Message(BaseModel):
    model_config = ConfigDict(extra="forbid")

    role: Literal["system", "user", "assistant"]
    content: Text


class ChatRequest(BaseModel):
    # A misspelt parameter that is silently ignored costs its sender an afternoon.
    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"messages": [{"role": "user", "content": "Say hello."}]}]},
    )

    messages: Annotated[list[Message], Field(min_length=1), FailFast()]
    model: Annotated[Text, Field(min_length=1)] | None = None
    # Strict: otherwise `true` and `"1"` would be accepted as numbers.
    temperature: float | None = Field(default=None, ge=0, le=2, strict=True)
    max_output_tokens: int | None = Field(default=None, ge=1, strict=True)


class Usage(BaseModel):
    input_tokens: int
    output_tokens: int
    total_tokens: int


class ChatReply(BaseModel):
    reply: str
    model: str
    finish_reason: str | None
    usage: Usage | None


class ChatDelta(BaseModel):
    """The data of the event `delta`."""

    text: str


class ChatDone(BaseModel):
    """The data of the event `done`."""

    model: str
    finish_reason: str | None
    usage: Usage | None


class InvalidField(BaseModel):
    """One error of a request that does not validate."""

    loc: list[str | int]
    """The path to it: `body`, `query`, `path`, `header` or `cookie`, then names and indexes."""
    msg: str


class Problem(BaseModel):
    """A failure, as RFC 9457 describes it."""

    type: str
    title: str
    status: int
    detail: str | None = None
    request_id: str
    upstream_request_id: str | None = None
    errors: list[InvalidField] | None = None

    def to_json(self) -> str:
        # Not `model_dump_json`: it cannot write the broken Unicode that `errors` may quote.
        return json.dumps(self.model_dump(exclude_none=True))


class DeltaEvent(BaseModel):
    """An event of a stream: more of the text."""

    event: Literal["delta"]
    data: Json[ChatDelta]


class DoneEvent(BaseModel):
    """The last event of a stream that is whole."""

    event: Literal["done"]
    data: Json[ChatDone]


class ErrorEvent(BaseModel):
    """The last event of a stream that failed after its first event."""

    event: Literal["error"]
    data: Json[Problem]
